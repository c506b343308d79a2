use std::sync::Arc;

use conversation_memory::{
    domain::{
        Conversation, ConversationId, ConversationRef, DeptId, IdSource as _, NewMessage,
        NumberedMessage, Role, SearchText, UserId, UuidV7,
    },
    store::{Branch, Import, Invalidation, MinState, ReusedKey, SearchQuery, StoreError},
};
use serde_json::json;

use crate::branches::branch_of;
use test_support::store_fixture::{
    StoreFixture, at, context, message, metadata, new_conversation, title, truncation, user,
};

pub(crate) fn imported(user_id: UserId) -> Conversation {
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
        compacted_upto_seq: 0,
        uncompacted_tokens: 0,
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

async fn begin(fixture: &StoreFixture, conversation: &Conversation) -> Box<dyn Import> {
    fixture.store.import(conversation).await.unwrap()
}

pub(crate) async fn import_stores_all_fields(fixture: &StoreFixture) {
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
    let mut import = begin(fixture, &wanted).await;
    import.add(&messages).await.unwrap();
    import.add(&[numbered(7, "Thanks")]).await.unwrap();
    let found = import.finish(9).await.unwrap();
    let wanted = Conversation {
        last_seq: 9,
        ..wanted
    };
    assert_eq!(found, wanted);
    let conversation = owned_ref(&found);
    assert_eq!(fixture.store.get(&conversation).await.unwrap(), wanted);
    assert_eq!(fixture.seqs(&conversation).await, [3, 4, 7]);
    let all = fixture.all_messages(&conversation).await;
    assert!(full.is_saved_as(&all[1]));
    // A message without a time has the time of the conversation's last change.
    assert_eq!(all[0].created_at, wanted.updated_at);
    assert_eq!(fixture.append_texts(&conversation, &["More"]).await, 10);
    let removed = fixture.store.truncate(&truncation(&conversation, 3)).await;
    assert_eq!(removed.unwrap().removed, 3);
    fixture
        .store
        .delete(&conversation, Invalidation::Never)
        .await
        .unwrap();
    assert_eq!(fixture.count_stored(&[conversation.id]).await, 0);
}

pub(crate) async fn import_without_messages_creates_a_conversation(fixture: &StoreFixture) {
    let wanted = imported(user());
    let found = begin(fixture, &wanted).await.finish(0).await.unwrap();
    assert_eq!(found, wanted);
    assert_eq!(
        fixture.append_texts(&owned_ref(&found), &["First"]).await,
        1
    );
}

pub(crate) async fn unfinished_import_is_invisible(fixture: &StoreFixture) {
    let user = user();
    let conversation = imported(user.clone());
    let mut import = begin(fixture, &conversation).await;
    import.add(&[numbered(1, "secret")]).await.unwrap();
    let reference = owned_ref(&conversation);
    let early = fixture.store.get(&reference).await;
    assert!(matches!(early, Err(StoreError::NotFound)));
    assert_eq!(found(fixture, &user).await, 0);
    // Other writes do not wait for the import.
    let other = fixture.create_conversation().await;
    fixture.append_texts(&other, &["1"]).await;
    import.finish(1).await.unwrap();
    assert_eq!(fixture.texts(&reference).await, ["secret"]);
    assert_eq!(found(fixture, &user).await, 1);
}

/// Counts the messages of a user that a search finds.
async fn found(fixture: &StoreFixture, user: &UserId) -> usize {
    let query = SearchQuery {
        user_id: user.clone(),
        text: SearchText::parse("secret").unwrap(),
        conversation_id: None,
        dept_id: DeptId::parse("hr").ok(),
        role: Some(Role::User),
        created_from: None,
        created_until: None,
        metadata: None,
        after: None,
        state: MinState::ANY,
        limit: 10,
    };
    fixture.store.search(&query).await.unwrap().hits.len()
}

pub(crate) async fn dropped_import_stores_nothing(fixture: &StoreFixture) {
    // More imports than the limit: each dropped import ends its permit.
    for _ in 0..12 {
        let conversation = imported(user());
        let mut import = begin(fixture, &conversation).await;
        import.add(&[numbered(1, "gone")]).await.unwrap();
        drop(import);
        let reference = owned_ref(&conversation);
        let gone = fixture.store.get(&reference).await;
        assert!(matches!(gone, Err(StoreError::NotFound)));
        assert_eq!(fixture.count_stored(&[conversation.id]).await, 0);
    }
    fixture.create_conversation().await;
}

pub(crate) async fn failed_import_stores_nothing(fixture: &StoreFixture) {
    let conversation = imported(user());
    let mut import = begin(fixture, &conversation).await;
    import.add(&[numbered(1, "once")]).await.unwrap();
    // A duplicate number is a defect of the caller, and an error like any other.
    let failed = match import.add(&[numbered(1, "twice")]).await {
        Ok(()) => import.finish(1).await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(failed.is_err());
    assert_eq!(fixture.count_stored(&[conversation.id]).await, 0);
    let reference = owned_ref(&conversation);
    let gone = fixture.store.get(&reference).await;
    assert!(matches!(gone, Err(StoreError::NotFound)));
    fixture.create_conversation().await;
}

pub(crate) async fn import_is_the_latest_activity(fixture: &StoreFixture) {
    let user = user();
    let first = imported(user.clone());
    let import = begin(fixture, &first).await;
    let second = new_conversation(&user);
    fixture.store.create(&second, at(0)).await.unwrap();
    import.finish(0).await.unwrap();
    let query = conversation_memory::store::ConversationQuery {
        user_id: user,
        dept_id: None,
        after: None,
        state: MinState::ANY,
        limit: 10,
    };
    let page = fixture.store.list(&query).await.unwrap();
    let ids: Vec<_> = page.conversations.iter().map(|c| c.id).collect();
    assert_eq!(ids, [first.id, second.id]);
}

pub(crate) async fn number_of_imports_is_limited(fixture: &StoreFixture) {
    let mut running = Vec::new();
    let refused = loop {
        match fixture.store.import(&imported(user())).await {
            Ok(import) => running.push(import),
            Err(error) => break error,
        }
        assert!(running.len() < 100);
    };
    assert!(matches!(refused, StoreError::TooManyTransfers));
    // Other calls continue.
    let store = Arc::clone(&fixture.store);
    let other = fixture.create_conversation().await;
    assert_eq!(fixture.append_texts(&other, &["1"]).await, 1);
    running.pop();
    while matches!(
        store.import(&imported(user())).await,
        Err(StoreError::TooManyTransfers)
    ) {}
}

fn is_reused<T>(result: &Result<T, StoreError>, key: ReusedKey) -> bool {
    matches!(result, Err(StoreError::AlreadyExists(found)) if *found == key)
}

pub(crate) async fn import_with_an_id_in_use_changes_nothing(fixture: &StoreFixture) {
    let existing = fixture.create_conversation().await;
    fixture.append_texts(&existing, &["1", "2", "3"]).await;
    let truncation = truncation(&existing, 2);
    fixture.store.truncate(&truncation).await.unwrap();
    let owner = fixture.store.get(&existing).await.unwrap().user_id;
    for user_id in [owner, user()] {
        let copy = Conversation {
            id: existing.id,
            ..imported(user_id)
        };
        let begun = fixture.store.import(&copy).await;
        assert!(is_reused(&begun.map(drop), ReusedKey::ConversationId));
    }
    assert_eq!(fixture.texts(&existing).await, ["1", "2"]);

    // Two imports with the same id: one is stored.
    let conversation = imported(user());
    let mut first = begin(fixture, &conversation).await;
    first.add(&[numbered(1, "first")]).await.unwrap();
    first.finish(1).await.unwrap();
    let second = fixture.store.import(&conversation).await;
    assert!(is_reused(&second.map(drop), ReusedKey::ConversationId));
    assert_eq!(fixture.texts(&owned_ref(&conversation)).await, ["first"]);

    // A message id that occurs twice, beside another conversation with it.
    let taken = fixture.all_messages(&existing).await.remove(0).id;
    let with_id = |seq, text| {
        let mut message = numbered(seq, text);
        (message.message.id, message.message.id_chosen) = (taken, true);
        message
    };
    let other = imported(user());
    let mut import = begin(fixture, &other).await;
    let stored = match import.add(&[with_id(1, "one"), with_id(2, "two")]).await {
        Ok(()) => import.finish(2).await.map(drop),
        Err(error) => Err(error),
    };
    assert!(is_reused(&stored, ReusedKey::MessageId), "{stored:?}");
    let missing = fixture.store.get(&owned_ref(&other)).await;
    assert!(matches!(missing, Err(StoreError::NotFound)));
    assert_eq!(fixture.texts(&existing).await, ["1", "2"]);

    let mut import = begin(fixture, &other).await;
    import.add(&[with_id(1, "one")]).await.unwrap();
    import.finish(1).await.unwrap();
    let stored = fixture.all_messages(&owned_ref(&other)).await;
    assert_eq!(stored[0].id, taken);

    // A deleted conversation whose messages a branch still shares.
    let branch = fixture
        .store
        .branch(&branch_of(&existing, 1))
        .await
        .unwrap();
    fixture
        .store
        .delete(&existing, Invalidation::Never)
        .await
        .unwrap();
    let copy = Conversation {
        id: existing.id,
        ..imported(user())
    };
    let begun = fixture.store.import(&copy).await;
    assert!(is_reused(&begun.map(drop), ReusedKey::ConversationId));
    assert_eq!(fixture.texts(&owned_ref(&branch)).await, ["1"]);
}

pub(crate) async fn branch_with_an_id_in_use_changes_nothing(fixture: &StoreFixture) {
    let parent = fixture.create_conversation().await;
    fixture.append_texts(&parent, &["1", "2"]).await;
    let other = fixture.create_conversation().await;
    fixture.append_texts(&other, &["a"]).await;
    for id in [parent.id, other.id] {
        let branch = Branch {
            id,
            ..branch_of(&parent, 1)
        };
        let branched = fixture.store.branch(&branch).await;
        assert!(is_reused(&branched, ReusedKey::ConversationId));
    }
    assert_eq!(fixture.texts(&parent).await, ["1", "2"]);
    assert_eq!(fixture.texts(&other).await, ["a"]);
    // The pool of the store is intact.
    assert_eq!(fixture.append_texts(&parent, &["3"]).await, 3);
}
