//! Sizes of pages: a page ends before its bytes exceed a response, and the next one continues.

use std::collections::BTreeSet;

use conversation_memory::{
    domain::{ConversationId, ConversationRef, Message, NewConversation, NewMessage},
    store::{Bound, ConversationPage, ConversationQuery, MinState, SearchHit},
};
use serde_json::json;

use crate::{branches::branch_of, search::query};
use test_support::store_fixture::{
    StoreFixture, append_of, at, context, message, metadata, new_conversation, owned_ref, turn,
    user,
};

/// Metadata of 60 KB, which `jsonb` would return as 3 MB.
fn large() -> conversation_memory::domain::Metadata {
    metadata(json!({ "numbers": vec![1e308; 10_000] }))
}

/// Reads all pages with a function that reads the one after a position, and returns their sizes.
async fn read_pages(
    mut read: impl AsyncFnMut(Option<i64>) -> ConversationPage,
) -> (Vec<ConversationId>, Vec<usize>) {
    let (mut ids, mut sizes, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let page = read(after).await;
        sizes.push(page.conversations.len());
        ids.extend(page.conversations.iter().map(|found| found.id));
        after = page.next;
        if after.is_none() {
            return (ids, sizes);
        }
    }
}

fn assert_bounded(ids: &[ConversationId], expected: &[ConversationId], sizes: &[usize]) {
    assert_eq!(ids, expected);
    assert!(sizes.len() > 1, "{sizes:?}");
    let (last, full) = sizes.split_last().unwrap();
    assert!(full.iter().all(|size| (1..30).contains(size)), "{sizes:?}");
    assert!(*last > 0, "a page that follows is not empty: {sizes:?}");
}

pub(crate) async fn pages_of_conversations_end_at_their_bytes(fixture: &StoreFixture) {
    let user = user();
    let mut expected = Vec::new();
    for _ in 0..40 {
        let new = NewConversation {
            metadata: Some(large()),
            ..new_conversation(&user)
        };
        fixture.store.create(&new, at(0)).await.unwrap();
        expected.insert(0, new.id);
    }
    let (ids, sizes) = read_pages(async |after| {
        let query = ConversationQuery {
            user_id: user.clone(),
            dept_id: None,
            after,
            state: MinState::ANY,
            limit: 1_000,
        };
        fixture.store.list(&query).await.unwrap()
    })
    .await;
    assert_bounded(&ids, &expected, &sizes);
}

pub(crate) async fn long_pages_of_conversations_are_complete(fixture: &StoreFixture) {
    let user = user();
    let mut expected = Vec::new();
    for _ in 0..200 {
        let new = new_conversation(&user);
        fixture.store.create(&new, at(0)).await.unwrap();
        expected.insert(0, new.id);
    }
    for limit in [63, 64, 65, 128, 199, 200, 201, 1_000] {
        let (ids, sizes) = read_pages(async |after| {
            let query = ConversationQuery {
                user_id: user.clone(),
                dept_id: None,
                after,
                state: MinState::ANY,
                limit,
            };
            fixture.store.list(&query).await.unwrap()
        })
        .await;
        assert_eq!(ids, expected);
        assert_eq!(sizes.len(), expected.len().div_ceil(limit as usize));
    }
}

pub(crate) async fn pages_of_branches_end_at_their_bytes(fixture: &StoreFixture) {
    let new = NewConversation {
        metadata: Some(large()),
        ..new_conversation(&user())
    };
    fixture.store.create(&new, at(0)).await.unwrap();
    let parent = owned_ref(&new);
    fixture.append_texts(&parent, &["first"]).await;
    let mut expected = Vec::new();
    for _ in 0..40 {
        expected.insert(0, fixture.branch(&branch_of(&parent, 1)).await.id);
    }
    let (ids, sizes) = read_pages(async |after| {
        let page = fixture.store.branches(&parent, after, 1_000).await;
        page.unwrap()
    })
    .await;
    assert_bounded(&ids, &expected, &sizes);
}

pub(crate) async fn pages_of_hits_end_at_their_bytes(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    for _ in 0..4 {
        let messages = vec![
            NewMessage {
                metadata: Some(large()),
                ..message("word")
            };
            10
        ];
        let messages: Vec<NewMessage> = messages
            .into_iter()
            .map(|large| NewMessage {
                id: test_support::store_fixture::message_id(),
                ..large
            })
            .collect();
        fixture
            .save(&append_of(&conversation, messages))
            .await
            .unwrap();
    }
    let mut query = query(&conversation.user_id.clone().unwrap(), "word");
    query.limit = 1_000;
    let mut seqs = BTreeSet::new();
    let mut pages = 0;
    loop {
        let page = fixture.store.search(&query).await.unwrap();
        let bytes: usize = page.hits.iter().map(SearchHit::footprint).sum();
        assert!(bytes <= Message::MAX_BYTES_PER_RESPONSE);
        pages += 1;
        query.after = page.hits.last().map(|hit| hit.key);
        seqs.extend(page.hits.iter().map(|hit| hit.message.seq));
        if !page.more {
            break;
        }
    }
    assert_eq!(seqs, (1..=40).collect());
    assert!(pages > 2);
}

/// Reads all messages in an order, with the given limit, and returns their numbers and the number
/// of reads.
async fn read_all(
    fixture: &StoreFixture,
    conversation: &ConversationRef,
    mut from: Bound,
    contexts: bool,
) -> (Vec<i64>, usize) {
    let (mut seqs, mut reads) = (Vec::new(), 0);
    loop {
        let read = fixture.store.messages(conversation, from, 500, contexts);
        let read = read.await.unwrap();
        let Some(last) = read.last() else {
            return (seqs, reads);
        };
        let bytes: usize = read.iter().map(Message::footprint).sum();
        assert!(bytes <= 2 * Message::MAX_BYTES_PER_RESPONSE || read.len() == 1);
        reads += 1;
        from = from.past(last.seq);
        seqs.extend(read.iter().map(|message| message.seq));
    }
}

pub(crate) async fn reads_of_large_messages_end_early(fixture: &StoreFixture) {
    let parent = fixture.create_conversation().await;
    let text = "x".repeat(900_000);
    for _ in 0..10 {
        fixture.append_texts(&parent, &["small", &text]).await;
    }
    let branch = fixture.branch(&branch_of(&parent, 15)).await;
    let retrieved = NewMessage {
        contexts: vec![context("d", text.as_str()); 10],
        ..message("found")
    };
    fixture.append_texts(&branch, &[text.as_str(); 5]).await;
    fixture
        .save(&append_of(&branch, vec![retrieved]))
        .await
        .unwrap();
    for (conversation, count) in [(&parent, 20), (&branch, 21)] {
        for contexts in [false, true] {
            let (seqs, reads) = read_all(fixture, conversation, Bound::After(0), contexts).await;
            assert_eq!(seqs, (1..=count).collect::<Vec<_>>());
            assert!(reads > 2);
            let from = Bound::Before(i64::MAX);
            let (seqs, _) = read_all(fixture, conversation, from, contexts).await;
            assert_eq!(seqs, (1..=count).rev().collect::<Vec<_>>());
            let newest = fixture
                .store
                .newest(conversation, 100, contexts)
                .await
                .unwrap();
            assert!(newest.is_cut);
            let seqs: Vec<i64> = newest.messages.iter().map(|m| m.seq).collect();
            assert_eq!(
                seqs,
                (count + 1 - i64::try_from(seqs.len()).unwrap()..=count).collect::<Vec<_>>()
            );
        }
    }
    assert!(
        !fixture
            .store
            .newest(&branch, 2, false)
            .await
            .unwrap()
            .is_cut
    );
}

pub(crate) async fn large_messages_do_not_displace_pinned_ones(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    let pinned: Vec<NewMessage> = (0..20)
        .map(|number| NewMessage {
            pinned: true,
            ..message(format!("pinned {number}"))
        })
        .collect();
    fixture
        .save(&append_of(&conversation, pinned))
        .await
        .unwrap();
    let text = "x".repeat(900_000);
    for _ in 0..4 {
        fixture
            .save(&turn(&conversation, &[text.as_str(); 5]))
            .await
            .unwrap();
    }
    let newest = fixture
        .store
        .newest(&conversation, 50, false)
        .await
        .unwrap();
    assert_eq!(newest.pinned.len(), 20);
    assert!(newest.is_cut && !newest.messages.is_empty());
}
