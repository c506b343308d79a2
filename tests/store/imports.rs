use std::sync::Arc;

use conversation_memory::{
    domain::{
        Conversation, ConversationId, ConversationRef, DeptId, IdSource as _, NewMessage,
        NumberedMessage, Role, SearchText, UserId, UuidV7,
    },
    store::{Import, SearchQuery, StoreError},
};
use serde_json::json;

use test_support::world::{
    World, at, context, message, metadata, new_conversation, title, truncation, user,
};

fn imported(user_id: UserId) -> Conversation {
    Conversation {
        id: ConversationId::from_uuid(UuidV7.uuid()),
        user_id,
        dept_id: DeptId::parse("hr").ok(),
        title: Some(title("Vacation")),
        last_seq: 0,
        created_at: at(-2_000_000),
        updated_at: at(-1_000_000),
        metadata: Some(metadata(json!({"from": "elsewhere", "n": 0.1}))),
        parent_id: None,
        branched_at_seq: None,
    }
}

fn owned_ref(conversation: &Conversation) -> ConversationRef {
    ConversationRef {
        id: conversation.id,
        user_id: Some(conversation.user_id.clone()),
    }
}

fn numbered(seq: i64, text: &str) -> NumberedMessage {
    let message = message(text);
    NumberedMessage { seq, message }
}

async fn begin(world: &World, conversation: &Conversation) -> Box<dyn Import> {
    world.store.import(conversation).await.unwrap()
}

pub(crate) async fn import_stores_all_fields(world: &World) {
    let wanted = imported(user());
    let full = NewMessage {
        role: Role::Assistant,
        tokens_used: Some(3),
        latency_ms: Some(0),
        created_at: Some(at(-5)),
        metadata: Some(metadata(json!({"tool": ["a", 1e300]}))),
        contexts: vec![context("b", "second"), context("a", "first")],
        ..message("25 days")
    };
    let messages = [
        numbered(3, "How many?"),
        NumberedMessage {
            seq: 4,
            message: full.clone(),
        },
    ];
    let mut import = begin(world, &wanted).await;
    import.add(&messages).await.unwrap();
    import.add(&[numbered(7, "Thanks")]).await.unwrap();
    let found = import.finish(9).await.unwrap();
    let wanted = Conversation {
        last_seq: 9,
        ..wanted
    };
    assert_eq!(found, wanted);
    let conversation = owned_ref(&found);
    assert_eq!(world.store.get(&conversation).await.unwrap(), wanted);
    assert_eq!(world.seqs(&conversation).await, [3, 4, 7]);
    let all = world.all_messages(&conversation).await;
    assert!(full.is_saved_as(&all[1]));
    // A message without a time has the time of the conversation's last change.
    assert_eq!(all[0].created_at, wanted.updated_at);
    assert_eq!(world.append_texts(&conversation, &["More"]).await, 10);
    let removed = world.store.truncate(&truncation(&conversation, 3)).await;
    assert_eq!(removed.unwrap().removed, 3);
    world.store.delete(&conversation).await.unwrap();
    assert_eq!(world.count_stored(&[conversation.id]).await, 0);
}

pub(crate) async fn import_without_messages_creates_a_conversation(world: &World) {
    let wanted = imported(user());
    let found = begin(world, &wanted).await.finish(0).await.unwrap();
    assert_eq!(found, wanted);
    assert_eq!(world.append_texts(&owned_ref(&found), &["First"]).await, 1);
}

pub(crate) async fn unfinished_import_is_invisible(world: &World) {
    let user = user();
    let conversation = imported(user.clone());
    let mut import = begin(world, &conversation).await;
    import.add(&[numbered(1, "secret")]).await.unwrap();
    let reference = owned_ref(&conversation);
    let early = world.store.get(&reference).await;
    assert!(matches!(early, Err(StoreError::NotFound)));
    assert_eq!(found(world, &user).await, 0);
    // Other writes do not wait for the import.
    let other = world.create_conversation().await;
    world.append_texts(&other, &["1"]).await;
    import.finish(1).await.unwrap();
    assert_eq!(world.texts(&reference).await, ["secret"]);
    assert_eq!(found(world, &user).await, 1);
}

/// Counts the messages of a user that a search finds.
async fn found(world: &World, user: &UserId) -> usize {
    let query = SearchQuery {
        user_id: user.clone(),
        text: SearchText::parse("secret").unwrap(),
        conversation_id: None,
        dept_id: DeptId::parse("hr").ok(),
        role: Some(Role::User),
        after: None,
        limit: 10,
    };
    world.store.search(&query).await.unwrap().hits.len()
}

pub(crate) async fn dropped_import_stores_nothing(world: &World) {
    // More imports than the limit: each dropped import ends its permit.
    for _ in 0..12 {
        let conversation = imported(user());
        let mut import = begin(world, &conversation).await;
        import.add(&[numbered(1, "gone")]).await.unwrap();
        drop(import);
        let reference = owned_ref(&conversation);
        let gone = world.store.get(&reference).await;
        assert!(matches!(gone, Err(StoreError::NotFound)));
        assert_eq!(world.count_stored(&[conversation.id]).await, 0);
    }
    world.create_conversation().await;
}

pub(crate) async fn failed_import_stores_nothing(world: &World) {
    let conversation = imported(user());
    let mut import = begin(world, &conversation).await;
    import.add(&[numbered(1, "once")]).await.unwrap();
    // A duplicate number is a defect of the caller, and an error like any other.
    let failed = match import.add(&[numbered(1, "twice")]).await {
        Ok(()) => import.finish(1).await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(failed.is_err());
    assert_eq!(world.count_stored(&[conversation.id]).await, 0);
    let reference = owned_ref(&conversation);
    let gone = world.store.get(&reference).await;
    assert!(matches!(gone, Err(StoreError::NotFound)));
    world.create_conversation().await;
}

pub(crate) async fn import_is_the_latest_activity(world: &World) {
    let user = user();
    let first = imported(user.clone());
    let import = begin(world, &first).await;
    let second = new_conversation(&user);
    world.store.create(&second, at(0)).await.unwrap();
    import.finish(0).await.unwrap();
    let query = conversation_memory::store::ConversationQuery {
        user_id: user,
        dept_id: None,
        after: None,
        limit: 10,
    };
    let page = world.store.list(&query).await.unwrap();
    let ids: Vec<_> = page.conversations.iter().map(|c| c.id).collect();
    assert_eq!(ids, [first.id, second.id]);
}

pub(crate) async fn number_of_imports_is_limited(world: &World) {
    let mut running = Vec::new();
    let refused = loop {
        match world.store.import(&imported(user())).await {
            Ok(import) => running.push(import),
            Err(error) => break error,
        }
        assert!(running.len() < 100);
    };
    assert!(matches!(refused, StoreError::Unavailable(_)));
    // Other calls continue.
    let store = Arc::clone(&world.store);
    let other = world.create_conversation().await;
    assert_eq!(world.append_texts(&other, &["1"]).await, 1);
    running.pop();
    while matches!(
        store.import(&imported(user())).await,
        Err(StoreError::Unavailable(_))
    ) {}
}
