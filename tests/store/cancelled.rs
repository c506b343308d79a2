//! Calls that nobody waits for any longer, at any of their awaits.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use conversation_memory::{
    domain::{ConversationRef, IdSource, UuidV7},
    store::{Appended, Bound, Store, postgres::PostgresStore},
};
use sqlx::{ConnectOptions, query_scalar};
use tokio::task::JoinSet;

use test_support::world::{
    World, at, keyed, keyed_truncation, named, new_conversation, retry_of, server, turn, user,
};

/// Polls a future so many times at most and drops it then. None: it was dropped.
async fn polled<F: Future>(future: F, times: usize) -> Option<F::Output> {
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

/// The messages as another connection sees them, once nobody is at work on the
/// conversation any more.
async fn settled(conversation: &ConversationRef) -> Vec<String> {
    let mut other = server().connect().await.unwrap();
    // Waits for whoever still holds the lock of the row.
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
async fn a_dropped_save_is_whole_or_none_and_leaves_a_clean_pool() {
    // One connection, so that what a dropped call leaves behind is met.
    let store = PostgresStore::new(server(), 1);
    store.prepare(true).await.unwrap();
    let new = new_conversation(&user());
    let conversation = named(&new);
    store.create(&new, at(0)).await.unwrap();
    let mut dropped = 0;
    for round in 0..60 {
        let append = keyed(
            turn(&conversation, &["asked", "heard"]),
            &format!("save {round}"),
        );
        dropped += usize::from(polled(store.append(&append), round % 15).await.is_none());
        // Saved or not, the retry makes it certain, and what is acknowledged is
        // there for others.
        store.append(&retry_of(&append)).await.unwrap();
        let texts = settled(&conversation).await;
        assert_eq!(texts, ["asked", "heard"].repeat(round + 1), "round {round}");
    }
    assert!(dropped > 5, "only {dropped} were dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_removal_is_whole_or_none_and_leaves_a_clean_pool() {
    let store = PostgresStore::new(server(), 1);
    store.prepare(true).await.unwrap();
    let new = new_conversation(&user());
    let conversation = named(&new);
    store.create(&new, at(0)).await.unwrap();
    let mut dropped = 0;
    for round in 0..60 {
        let first_seq = match store
            .append(&turn(&conversation, &["a", "b"]))
            .await
            .unwrap()
        {
            Appended::Saved { first_seq, .. } => first_seq,
            Appended::Replayed { .. } => panic!("nothing was there to be replayed"),
        };
        let key = UuidV7.uuid().to_string();
        let removal = keyed_truncation(&conversation, first_seq, &key);
        dropped += usize::from(polled(store.truncate(&removal), round % 20).await.is_none());
        let left = settled(&conversation).await;
        assert!(left == ["a", "b"] || left == ["a"], "{left:?}");
        assert_eq!(store.truncate(&removal).await.unwrap().removed, 1);
        assert_eq!(settled(&conversation).await, ["a"]);
        let all = keyed_truncation(&conversation, 0, &format!("all {key}"));
        polled(store.truncate(&all), round % 20).await;
        store.truncate(&all).await.unwrap();
        assert_eq!(settled(&conversation).await, [""; 0]);
    }
    assert!(dropped > 5, "only {dropped} were dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_reads_leave_a_clean_pool() {
    let store = PostgresStore::new(server(), 1);
    store.prepare(true).await.unwrap();
    let new = new_conversation(&user());
    let conversation = named(&new);
    store.create(&new, at(0)).await.unwrap();
    for round in 0..40 {
        let text = round.to_string();
        store.append(&turn(&conversation, &[&text])).await.unwrap();
        polled(store.newest(&conversation, 5, true), round % 10).await;
        let (_, messages) = store.newest(&conversation, 1, false).await.unwrap();
        assert_eq!(messages[0].content.as_str(), text);
    }
}

/// On a file too, and with many at once: callers that run writes on tasks lose
/// none of them by not waiting.
#[tokio::test(flavor = "multi_thread")]
async fn saves_on_tasks_go_on_without_their_callers() {
    for world in [World::sqlite().await, World::postgres().await] {
        let conversation = world.conversation().await;
        let mut tasks = JoinSet::new();
        for round in 0..30 {
            let (store, conversation) = (Arc::clone(&world.store), conversation.clone());
            tasks.spawn(async move {
                let append = turn(&conversation, &["asked", "heard"]);
                polled(store.append(&append), round % 15).await.is_some()
            });
        }
        let answered = tasks
            .join_all()
            .await
            .iter()
            .filter(|answered| **answered)
            .count();
        world.say(&conversation, &["last"]).await;
        let page = world
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
