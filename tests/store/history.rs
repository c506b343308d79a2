use std::sync::Arc;

use conversation_memory::{
    domain::{ConversationRef, Message},
    store::{Bound, Newest},
};
use tokio::task::JoinSet;

use test_support::store_fixture::{StoreFixture, append_of, context, message, truncation};

/// Creates a conversation of `length` messages, whose texts are their numbers.
async fn numbered(fixture: &StoreFixture, length: i64) -> ConversationRef {
    let conversation = fixture.create_conversation().await;
    for seq in 1..=length {
        let mut new = message(seq.to_string());
        new.contexts = vec![context("doc", format!("of {seq}"))];
        fixture
            .save(&append_of(&conversation, vec![new]))
            .await
            .unwrap();
    }
    conversation
}

fn seqs(messages: &[Message]) -> Vec<i64> {
    for message in messages {
        assert_eq!(message.content.as_str(), message.seq.to_string());
    }
    messages.iter().map(|message| message.seq).collect()
}

pub(crate) async fn newest_returns_ascending_order(fixture: &StoreFixture) {
    let empty = fixture.create_conversation().await;
    let Newest {
        conversation,
        messages,
        ..
    } = fixture.store.newest(&empty, 10, true).await.unwrap();
    assert_eq!((conversation.last_seq, messages), (0, vec![]));
    assert_eq!(conversation, fixture.store.get(&empty).await.unwrap());

    let five = numbered(fixture, 5).await;
    for (limit, expected) in [
        (0, vec![]),
        (1, vec![5]),
        (4, vec![2, 3, 4, 5]),
        (5, vec![1, 2, 3, 4, 5]),
        (u32::MAX, vec![1, 2, 3, 4, 5]),
    ] {
        let Newest {
            conversation,
            messages,
            ..
        } = fixture.store.newest(&five, limit, false).await.unwrap();
        assert_eq!((conversation.last_seq, seqs(&messages)), (5, expected));
    }
}

pub(crate) async fn messages_are_paged_in_both_directions(fixture: &StoreFixture) {
    let conversation = numbered(fixture, 7).await;
    for limit in 1..=8 {
        for (mut from, expected) in [
            (Bound::After(0), (1..=7).collect::<Vec<_>>()),
            (Bound::Before(i64::MAX), (1..=7).rev().collect()),
        ] {
            let mut seen = Vec::new();
            loop {
                let page = fixture
                    .store
                    .messages(&conversation, from, limit, false)
                    .await
                    .unwrap();
                assert!(page.len() <= limit as usize);
                let Some(last) = page.last() else { break };
                from = match from {
                    Bound::After(_) => Bound::After(last.seq),
                    Bound::Before(_) => Bound::Before(last.seq),
                };
                seen.extend(seqs(&page));
            }
            assert_eq!(seen, expected, "{limit} a page");
        }
    }
    for (from, expected) in [
        (Bound::After(4), vec![5, 6]),
        (Bound::Before(4), vec![3, 2]),
        (Bound::After(7), vec![]),
        (Bound::Before(1), vec![]),
        (Bound::After(i64::MAX), vec![]),
        (Bound::Before(i64::MIN), vec![]),
        (Bound::After(-5), vec![1, 2]),
    ] {
        let page = fixture
            .store
            .messages(&conversation, from, 2, false)
            .await
            .unwrap();
        assert_eq!(seqs(&page), expected, "{from:?}");
    }
}

pub(crate) async fn gaps_do_not_count_towards_limits(fixture: &StoreFixture) {
    let conversation = numbered(fixture, 4).await;
    fixture
        .store
        .truncate(&truncation(&conversation, 2))
        .await
        .unwrap();
    for seq in 5..=6 {
        assert_eq!(
            fixture
                .append_texts(&conversation, &[&seq.to_string()])
                .await,
            seq
        );
    }
    let Newest {
        conversation: found,
        messages: newest,
        ..
    } = fixture.store.newest(&conversation, 3, true).await.unwrap();
    assert_eq!((found.last_seq, seqs(&newest)), (6, vec![2, 5, 6]));
    let contexts: Vec<_> = newest
        .iter()
        .map(|message| message.contexts.len())
        .collect();
    assert_eq!(contexts, [1, 0, 0]);
    let after = fixture
        .store
        .messages(&conversation, Bound::After(1), 2, false)
        .await
        .unwrap();
    assert_eq!(seqs(&after), [2, 5]);
    let before = fixture
        .store
        .messages(&conversation, Bound::Before(6), 2, false)
        .await
        .unwrap();
    assert_eq!(seqs(&before), [5, 2]);
}

pub(crate) async fn contexts_are_returned_on_request(fixture: &StoreFixture) {
    let conversation = numbered(fixture, 3).await;
    for asked in [false, true] {
        let Newest {
            messages: newest, ..
        } = fixture.store.newest(&conversation, 2, asked).await.unwrap();
        let after = fixture
            .store
            .messages(&conversation, Bound::After(1), 9, asked)
            .await
            .unwrap();
        let before = fixture
            .store
            .messages(&conversation, Bound::Before(3), 9, asked)
            .await
            .unwrap();
        for message in newest.iter().chain(&after).chain(&before) {
            let expected = asked.then(|| context("doc", format!("of {}", message.seq)));
            assert_eq!(message.contexts, expected.into_iter().collect::<Vec<_>>());
        }
    }
}

pub(crate) async fn readers_see_complete_turns(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    let mut tasks = JoinSet::new();
    for _ in 0..3 {
        let (store, conversation) = (Arc::clone(&fixture.store), conversation.clone());
        tasks.spawn(async move {
            let mut seen = 0;
            while seen < 120 {
                let Newest {
                    conversation: found,
                    messages,
                    ..
                } = store.newest(&conversation, 8, false).await.unwrap();
                assert!(found.last_seq >= seen && found.last_seq % 3 == 0);
                seen = found.last_seq;
                let oldest = (seen - 7).max(1);
                let seqs: Vec<_> = messages.iter().map(|message| message.seq).collect();
                assert_eq!(seqs, (oldest..=seen).collect::<Vec<_>>());
            }
        });
    }
    for _ in 0..40 {
        fixture.append_texts(&conversation, &["a", "b", "c"]).await;
    }
    tasks.join_all().await;
}
