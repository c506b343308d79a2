//! Calls that are cancelled at any of their awaits.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use conversation_memory::{
    domain::{ConversationRef, IdSource, UuidV7},
    store::{Appended, Bound, Newest, Store, postgres::PostgresStore},
};
use sqlx::{ConnectOptions, query_scalar};
use tokio::task::JoinSet;

use test_support::store_fixture::{
    StoreFixture, at, new_conversation, owned_ref, retry_of, server_options,
    truncation_with_request_id, turn, user, with_request_id,
};

/// Polls a future at most `times` times and then drops it. None if it did not complete.
pub(crate) async fn poll_limited<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = times;
    std::future::poll_fn(move |context: &mut Context<'_>| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Reads the messages on another connection, after all transactions on the conversation have
/// ended.
async fn committed_texts(conversation: &ConversationRef) -> Vec<String> {
    let mut other = server_options().connect().await.unwrap();
    // Waits for a transaction that still holds the lock of the row.
    query_scalar::<_, i64>("SELECT last_seq FROM conversations WHERE id = $1 FOR UPDATE")
        .bind(conversation.id.as_uuid())
        .fetch_one(&mut other)
        .await
        .unwrap();
    query_scalar("SELECT content FROM messages WHERE conversation_id = $1 ORDER BY seq")
        .bind(conversation.id.as_uuid())
        .fetch_all(&mut other)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_save_is_atomic_and_leaves_no_open_transaction() {
    // With one connection, the next call uses the one that the cancelled call returned.
    let store = PostgresStore::new(server_options(), 1);
    store.prepare(true).await.unwrap();
    let new = new_conversation(&user());
    let conversation = owned_ref(&new);
    store.create(&new, at(0)).await.unwrap();
    let mut dropped = 0;
    for round in 0..60 {
        let append = with_request_id(
            turn(&conversation, &["asked", "heard"]),
            &format!("save {round}"),
        );
        dropped += usize::from(
            poll_limited(store.append(&append), round % 15)
                .await
                .is_none(),
        );
        // After the retry, the turn has been saved once, and other connections see it.
        store.append(&retry_of(&append)).await.unwrap();
        let texts = committed_texts(&conversation).await;
        assert_eq!(texts, ["asked", "heard"].repeat(round + 1), "round {round}");
    }
    assert!(dropped > 5, "only {dropped} were dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_removal_is_atomic_and_leaves_no_open_transaction() {
    let store = PostgresStore::new(server_options(), 1);
    store.prepare(true).await.unwrap();
    let new = new_conversation(&user());
    let conversation = owned_ref(&new);
    store.create(&new, at(0)).await.unwrap();
    let mut dropped = 0;
    for round in 0..60 {
        let first_seq = match store
            .append(&turn(&conversation, &["a", "b"]))
            .await
            .unwrap()
        {
            Appended::Saved { first_seq, .. } => first_seq,
            Appended::Replayed { .. } => panic!("no earlier save exists that could be replayed"),
        };
        let key = UuidV7.uuid().to_string();
        let removal = truncation_with_request_id(&conversation, first_seq, &key);
        dropped += usize::from(
            poll_limited(store.truncate(&removal), round % 20)
                .await
                .is_none(),
        );
        let left = committed_texts(&conversation).await;
        assert!(left == ["a", "b"] || left == ["a"], "{left:?}");
        assert_eq!(store.truncate(&removal).await.unwrap().removed, 1);
        assert_eq!(committed_texts(&conversation).await, ["a"]);
        let all = truncation_with_request_id(&conversation, 0, &format!("all {key}"));
        poll_limited(store.truncate(&all), round % 20).await;
        store.truncate(&all).await.unwrap();
        assert_eq!(committed_texts(&conversation).await, [""; 0]);
    }
    assert!(dropped > 5, "only {dropped} were dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_reads_leave_the_connection_usable() {
    let store = PostgresStore::new(server_options(), 1);
    store.prepare(true).await.unwrap();
    let new = new_conversation(&user());
    let conversation = owned_ref(&new);
    store.create(&new, at(0)).await.unwrap();
    for round in 0..40 {
        let text = round.to_string();
        store.append(&turn(&conversation, &[&text])).await.unwrap();
        poll_limited(store.newest(&conversation, 5, true), round % 10).await;
        let Newest { messages, .. } = store.newest(&conversation, 1, false).await.unwrap();
        assert_eq!(messages[0].content.as_str(), text);
    }
}

/// Writes that run on tasks complete although their callers do not wait, also in a file, and
/// also many at once.
#[tokio::test(flavor = "multi_thread")]
async fn saves_on_tasks_complete_without_their_callers() {
    for fixture in [StoreFixture::sqlite().await, StoreFixture::postgres().await] {
        let conversation = fixture.create_conversation().await;
        let mut tasks = JoinSet::new();
        for round in 0..30 {
            let (store, conversation) = (Arc::clone(&fixture.store), conversation.clone());
            tasks.spawn(async move {
                let append = turn(&conversation, &["asked", "heard"]);
                poll_limited(store.append(&append), round % 15)
                    .await
                    .is_some()
            });
        }
        let answered = tasks
            .join_all()
            .await
            .iter()
            .filter(|answered| **answered)
            .count();
        fixture.append_texts(&conversation, &["last"]).await;
        let page = fixture
            .store
            .messages(&conversation, Bound::After(0), 1_000, false);
        let messages = page.await.unwrap();
        let seqs: Vec<_> = messages.iter().map(|message| message.seq).collect();
        assert!(seqs.len() > answered * 2 && seqs.len() % 2 == 1);
        assert_eq!(
            seqs,
            (1..=i64::try_from(seqs.len()).unwrap()).collect::<Vec<_>>()
        );
    }
}
