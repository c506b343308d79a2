use std::sync::Arc;

use conversation_memory::{
    domain::{ConversationRef, Message, NewMessage},
    store::{Append, Appended, ReusedKey, StoreError},
};
use serde_json::json;
use tokio::task::JoinSet;

use test_support::store_fixture::{
    StoreFixture, append_of, at, content, context, message, message_id, metadata, retry_of,
    truncation, truncation_with_request_id, turn, with_chosen_id, with_request_id,
};

/// Turn whose messages use all fields.
fn rich(conversation: &ConversationRef) -> Append {
    let mut answer = message("answer");
    answer.tokens_used = Some(7);
    answer.metadata = Some(metadata(json!({"model": "m", "t": 0.25})));
    answer.contexts = vec![context("doc", "found")];
    append_of(conversation, vec![message("question"), answer])
}

async fn expect_replay(fixture: &StoreFixture, append: &Append) -> (i64, Vec<Message>) {
    match fixture.save(append).await.unwrap() {
        Appended::Replayed { last_seq, messages } => (last_seq, messages),
        Appended::Saved { .. } => panic!("the turn was saved a second time"),
    }
}

async fn is_reused(fixture: &StoreFixture, append: &Append, reused: ReusedKey) -> bool {
    matches!(fixture.save(append).await, Err(StoreError::AlreadyExists(what)) if what == reused)
}

pub(crate) async fn retry_returns_first_outcome(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    fixture.append_texts(&conversation, &["before"]).await;
    let append = with_request_id(rich(&conversation), "key");
    assert!(matches!(
        fixture.save(&append).await.unwrap(),
        Appended::Saved { first_seq: 2, .. }
    ));
    fixture.append_texts(&conversation, &["after"]).await;
    let before = fixture.store.get(&conversation).await.unwrap();
    let mut saved = fixture.all_messages(&conversation).await[1..3].to_vec();
    for message in &mut saved {
        message.contexts.clear();
    }
    for _ in 0..2 {
        let mut retry = retry_of(&append);
        retry.at = at(1_000);
        assert_eq!(expect_replay(fixture, &retry).await, (3, saved.clone()));
    }
    assert_eq!(fixture.store.get(&conversation).await.unwrap(), before);
    assert_eq!(fixture.seqs(&conversation).await, [1, 2, 3, 4]);
}

pub(crate) async fn request_id_rejects_other_content(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    let append = with_request_id(rich(&conversation), "key");
    fixture.save(&append).await.unwrap();
    let other = with_request_id(turn(&conversation, &["other"]), "key");
    assert!(is_reused(fixture, &other, ReusedKey::RequestId).await);
    // The request id is checked before the expected last number.
    let mut expecting = other;
    expecting.expected_last_seq = Some(77);
    assert!(is_reused(fixture, &expecting, ReusedKey::RequestId).await);
    let removal = truncation_with_request_id(&conversation, 0, "key");
    assert!(matches!(
        fixture.store.truncate(&removal).await,
        Err(StoreError::AlreadyExists(ReusedKey::RequestId))
    ));
    assert_eq!(fixture.seqs(&conversation).await, [1, 2]);
    let removal = truncation_with_request_id(&conversation, 1, "other key");
    fixture.store.truncate(&removal).await.unwrap();
    let save = with_request_id(turn(&conversation, &["other"]), "other key");
    assert!(is_reused(fixture, &save, ReusedKey::RequestId).await);
    assert_eq!(fixture.seqs(&conversation).await, [1]);
}

async fn retry_concurrently(fixture: &StoreFixture, retries: Vec<Append>) {
    let tries = retries.len();
    let mut savers = JoinSet::new();
    for retry in retries {
        let store = Arc::clone(&fixture.store);
        savers.spawn(async move { store.append(&retry).await.unwrap() });
    }
    let outcomes = savers.join_all().await;
    let mut saved = outcomes.iter().filter_map(|outcome| match outcome {
        Appended::Saved { first_seq, .. } => Some(*first_seq),
        Appended::Replayed { .. } => None,
    });
    let (first, more) = (saved.next().unwrap(), saved.next());
    assert_eq!(more, None, "one of {tries} saves");
    for outcome in &outcomes {
        if let Appended::Replayed { last_seq, messages } = outcome {
            assert_eq!(*last_seq, first + 1);
            let seqs: Vec<_> = messages.iter().map(|message| message.seq).collect();
            assert_eq!(seqs, [first, first + 1]);
        }
    }
}

pub(crate) async fn concurrent_retries_save_once(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    for round in 0..40 {
        let append = with_request_id(rich(&conversation), &format!("key {round}"));
        retry_concurrently(fixture, vec![retry_of(&append), append]).await;
    }
    assert_eq!(
        fixture.seqs(&conversation).await,
        (1..=80).collect::<Vec<_>>()
    );
}

pub(crate) async fn concurrent_retries_with_chosen_ids_save_once(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    for round in 0..20 {
        let messages = vec![with_chosen_id("question"), with_chosen_id("answer")];
        let mut append = append_of(&conversation, messages);
        if round % 2 == 0 {
            append = with_request_id(append, &format!("key {round}"));
        }
        append.expected_last_seq = Some(round * 2);
        retry_concurrently(fixture, vec![append.clone(), append.clone(), append]).await;
    }
    assert_eq!(
        fixture.seqs(&conversation).await,
        (1..=40).collect::<Vec<_>>()
    );
}

pub(crate) async fn retry_does_not_restore_truncated_messages(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    let append = with_request_id(turn(&conversation, &["one", "two", "three"]), "key");
    fixture.save(&append).await.unwrap();
    fixture
        .store
        .truncate(&truncation(&conversation, 1))
        .await
        .unwrap();
    fixture.append_texts(&conversation, &["four"]).await;
    let (last_seq, messages) = expect_replay(fixture, &retry_of(&append)).await;
    let seqs: Vec<_> = messages.iter().map(|message| message.seq).collect();
    assert_eq!((last_seq, seqs), (3, vec![1]));
    fixture
        .store
        .truncate(&truncation(&conversation, 0))
        .await
        .unwrap();
    assert_eq!(
        expect_replay(fixture, &retry_of(&append)).await,
        (3, vec![])
    );
    assert_eq!(fixture.texts(&conversation).await, [""; 0]);
    assert_eq!(fixture.append_texts(&conversation, &["five"]).await, 5);
}

pub(crate) async fn chosen_ids_identify_a_retry(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    let mut append = rich(&conversation);
    for message in &mut append.messages {
        message.id_chosen = true;
    }
    fixture.append_texts(&conversation, &["before"]).await;
    fixture.save(&append).await.unwrap();
    fixture.append_texts(&conversation, &["after"]).await;
    let (last_seq, messages) = expect_replay(fixture, &append).await;
    let ids: Vec<_> = messages.iter().map(|message| message.id).collect();
    assert_eq!(last_seq, 3);
    assert_eq!(ids, [append.messages[0].id, append.messages[1].id]);
    assert!(messages.iter().all(|message| message.contexts.is_empty()));
    // A new request id does not save the messages a second time.
    expect_replay(fixture, &with_request_id(append, "new key")).await;
    assert_eq!(fixture.seqs(&conversation).await, [1, 2, 3, 4]);
}

pub(crate) async fn message_id_rejects_other_content(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    let [a, b] = [with_chosen_id("a"), with_chosen_id("b")];
    fixture
        .save(&append_of(&conversation, vec![a.clone(), b.clone()]))
        .await
        .unwrap();
    let changed = |change: fn(&mut NewMessage)| {
        let mut changed = b.clone();
        change(&mut changed);
        vec![a.clone(), changed]
    };
    let twice = with_chosen_id("twice");
    let batches = [
        changed(|m| m.content = content("other")),
        changed(|m| m.tokens_used = Some(1)),
        changed(|m| m.metadata = Some(metadata(json!({})))),
        changed(|m| m.contexts = vec![context("d", "c")]),
        changed(|m| m.id = message_id()),
        changed(|m| m.id_chosen = false),
        vec![b.clone(), a.clone()],
        vec![a.clone(), b.clone(), with_chosen_id("more")],
        vec![message("new"), a.clone()],
        vec![twice.clone(), twice],
    ];
    for (place, batch) in batches.into_iter().enumerate() {
        let append = append_of(&conversation, batch);
        assert!(
            is_reused(fixture, &append, ReusedKey::MessageId).await,
            "batch {place}"
        );
        let append = with_request_id(append, &format!("key {place}"));
        assert!(
            is_reused(fixture, &append, ReusedKey::MessageId).await,
            "batch {place}, with_request_id"
        );
    }
    assert_eq!(fixture.texts(&conversation).await, ["a", "b"]);
    // A consecutive part of the batch counts as an earlier save.
    expect_replay(fixture, &append_of(&conversation, vec![b])).await;
    // The rejected saves did not store their request ids.
    fixture
        .save(&with_request_id(turn(&conversation, &["c"]), "key 0"))
        .await
        .unwrap();
}

pub(crate) async fn message_ids_are_scoped_to_a_conversation(fixture: &StoreFixture) {
    let [a, b] = [with_chosen_id("a"), with_chosen_id("b")];
    let mut conversations = Vec::new();
    for _ in 0..3 {
        conversations.push(fixture.create_conversation().await);
    }
    for conversation in &conversations {
        let append = append_of(conversation, vec![a.clone(), b.clone()]);
        let saved = fixture.save(&append).await.unwrap();
        assert!(matches!(saved, Appended::Saved { first_seq: 1, .. }));
    }
    for conversation in &conversations {
        let append = append_of(conversation, vec![a.clone(), b.clone()]);
        let (last_seq, messages) = expect_replay(fixture, &append).await;
        assert_eq!(last_seq, 2);
        let id = conversation.id;
        assert!(messages.iter().all(|message| message.conversation_id == id));
        let other = NewMessage {
            content: content("other"),
            ..a.clone()
        };
        let append = append_of(conversation, vec![message("new"), other]);
        assert!(is_reused(fixture, &append, ReusedKey::MessageId).await);
    }
    // The id of a removed message can be used again in its conversation, and only there.
    let truncation = truncation(&conversations[0], 1);
    fixture.store.truncate(&truncation).await.unwrap();
    for (conversation, is_free) in [(&conversations[0], true), (&conversations[1], false)] {
        let append = append_of(conversation, vec![message("new"), b.clone()]);
        let saved = fixture.save(&append).await;
        assert_eq!(saved.is_ok(), is_free);
    }
    assert_eq!(fixture.texts(&conversations[0]).await, ["a", "new", "b"]);
    assert_eq!(fixture.texts(&conversations[1]).await, ["a", "b"]);
}

pub(crate) async fn retry_is_recognized_before_expected_last_seq_is_checked(
    fixture: &StoreFixture,
) {
    let conversation = fixture.create_conversation().await;
    let mut by_key = with_request_id(turn(&conversation, &["one"]), "key");
    by_key.expected_last_seq = Some(0);
    fixture.save(&by_key).await.unwrap();
    assert_eq!(expect_replay(fixture, &retry_of(&by_key)).await.0, 1);
    let mut by_id = append_of(&conversation, vec![with_chosen_id("two")]);
    by_id.expected_last_seq = Some(1);
    fixture.save(&by_id).await.unwrap();
    fixture.append_texts(&conversation, &["three"]).await;
    assert_eq!(expect_replay(fixture, &by_id).await.0, 2);
    by_id.messages[0].content = content("other");
    let refused = fixture.save(&by_id).await;
    assert!(matches!(
        refused,
        Err(StoreError::Conflict { current_seq: 3 })
    ));
}

pub(crate) async fn request_ids_are_scoped_to_a_conversation(fixture: &StoreFixture) {
    for _ in 0..2 {
        let conversation = fixture.create_conversation().await;
        let append = with_request_id(turn(&conversation, &["one"]), "the same key");
        assert!(matches!(
            fixture.save(&append).await,
            Ok(Appended::Saved { .. })
        ));
    }
}
