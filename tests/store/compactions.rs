use std::sync::Arc;

use conversation_memory::{
    domain::{ConversationRef, NewMessage, NumberedMessage},
    store::{Appended, Compaction, Invalidation, Newest, StoreError},
};
use tokio::task::JoinSet;

use test_support::store_fixture::{
    StoreFixture, append_of, at, compaction, compaction_with_request_id, content, message,
    new_conversation, owned_ref, title, truncation, turn, user,
};

use crate::{branches::branch_of, imports::imported};

/// Creates a conversation of messages with 1, 10, 100 … tokens.
async fn counted_conversation(fixture: &StoreFixture, length: u32) -> ConversationRef {
    let conversation = fixture.create_conversation().await;
    let messages = (0..length).map(|index| NewMessage {
        token_count: Some(10_i32.pow(index)),
        ..message((index + 1).to_string())
    });
    let append = append_of(&conversation, messages.collect());
    fixture.save(&append).await.unwrap();
    conversation
}

async fn compact(fixture: &StoreFixture, conversation: &ConversationRef, upto_seq: i64) -> i64 {
    let compaction = compaction(conversation, upto_seq);
    fixture.store.compact(&compaction).await.unwrap()
}

async fn newest(fixture: &StoreFixture, conversation: &ConversationRef) -> Newest {
    fixture
        .store
        .newest(conversation, 100, false)
        .await
        .unwrap()
}

/// The text of the summary, the numbers of the messages after it, and their tokens.
async fn seen(
    fixture: &StoreFixture,
    conversation: &ConversationRef,
) -> (Option<String>, Vec<i64>, i64) {
    let newest = newest(fixture, conversation).await;
    let summary = newest.summary.map(|summary| {
        assert!(summary.is_summary());
        summary.content.into_string()
    });
    let found = newest.conversation;
    assert_eq!(summary.is_some(), found.compacted_upto_seq > 0);
    let seqs: Vec<i64> = newest.messages.iter().map(|message| message.seq).collect();
    assert!(seqs.iter().all(|seq| *seq > found.compacted_upto_seq));
    (summary, seqs, found.uncompacted_tokens)
}

pub(crate) async fn summary_replaces_messages_in_histories(fixture: &StoreFixture) {
    let conversation = counted_conversation(fixture, 5).await;
    let before = fixture.store.get(&conversation).await.unwrap();
    assert_eq!(before.uncompacted_tokens, 11_111);
    let compaction = compaction(&conversation, 3);
    assert_eq!(fixture.store.compact(&compaction).await.unwrap(), 5);
    let newest = newest(fixture, &conversation).await;
    let found = newest.summary.unwrap();
    assert_eq!(
        (found.id, found.content, found.token_count, found.created_at),
        (
            compaction.summary_id,
            compaction.summary,
            Some(compaction.token_count),
            compaction.at
        )
    );
    let texts: Vec<_> = newest.messages.iter().map(|m| m.content.as_str()).collect();
    assert_eq!(texts, ["4", "5"]);
    // All else is unchanged, the time of the last activity included.
    let after = fixture.store.get(&conversation).await.unwrap();
    assert_eq!(
        (after.compacted_upto_seq, after.uncompacted_tokens),
        (3, 11_000)
    );
    assert_eq!(after.updated_at, before.updated_at);
    assert_eq!(
        fixture.texts(&conversation).await,
        ["1", "2", "3", "4", "5"]
    );
    fixture.append_texts(&conversation, &["6"]).await;
    assert_eq!(seen(fixture, &conversation).await.1, [4, 5, 6]);
}

pub(crate) async fn compactions_replace_each_other(fixture: &StoreFixture) {
    let conversation = counted_conversation(fixture, 5).await;
    for (upto_seq, after, tokens) in [
        (2, vec![3, 4, 5], 11_100),
        (4, vec![5], 10_000),
        (5, vec![], 0),
        (1, vec![2, 3, 4, 5], 11_110),
        (1, vec![2, 3, 4, 5], 11_110),
        (3, vec![4, 5], 11_000),
    ] {
        assert_eq!(compact(fixture, &conversation, upto_seq).await, 5);
        let text = Some(format!("up to {upto_seq}"));
        assert_eq!(seen(fixture, &conversation).await, (text, after, tokens));
    }
    let removal = Compaction {
        summary: content(""),
        ..compaction(&conversation, 0)
    };
    for _ in 0..2 {
        assert_eq!(fixture.store.compact(&removal).await.unwrap(), 5);
        let all = (None, vec![1, 2, 3, 4, 5], 11_111);
        assert_eq!(seen(fixture, &conversation).await, all);
    }
}

pub(crate) async fn compaction_does_not_change_the_order_of_conversations(fixture: &StoreFixture) {
    let owner = user();
    let mut created = Vec::new();
    for text in ["older", "newer"] {
        let new = new_conversation(&owner);
        fixture.store.create(&new, at(0)).await.unwrap();
        let conversation = owned_ref(&new);
        fixture.append_texts(&conversation, &[text]).await;
        created.push(conversation);
    }
    compact(fixture, &created[0], 1).await;
    let query = conversation_memory::store::ConversationQuery {
        user_id: owner,
        dept_id: None,
        after: None,
        state: conversation_memory::store::MinState::ANY,
        limit: 9,
    };
    let listed = fixture.store.list(&query).await.unwrap().conversations;
    let ids: Vec<_> = listed.iter().map(|found| found.id).collect();
    assert_eq!(ids, [created[1].id, created[0].id]);
    assert_eq!(listed[1].compacted_upto_seq, 1);
}

pub(crate) async fn compaction_retry_returns_first_outcome(fixture: &StoreFixture) {
    let conversation = counted_conversation(fixture, 3).await;
    let first = compaction_with_request_id(&conversation, 2, "key");
    assert_eq!(fixture.store.compact(&first).await.unwrap(), 3);
    fixture.append_texts(&conversation, &["4"]).await;
    compact(fixture, &conversation, 3).await;
    // The retry does not replace the later compaction.
    assert_eq!(fixture.store.compact(&first).await.unwrap(), 3);
    let (text, after, _) = seen(fixture, &conversation).await;
    assert_eq!((text, after), (Some("up to 3".to_owned()), vec![4]));
    for other in [
        compaction_with_request_id(&conversation, 3, "key"),
        Compaction {
            request: test_support::store_fixture::with_request_id(
                turn(&conversation, &["saved"]),
                "key",
            )
            .request,
            ..first.clone()
        },
    ] {
        let refused = fixture.store.compact(&other).await;
        assert!(matches!(refused, Err(StoreError::AlreadyExists(_))));
    }
    let (text, ..) = seen(fixture, &conversation).await;
    assert_eq!(text, Some("up to 3".to_owned()));
}

pub(crate) async fn compaction_checks_its_numbers(fixture: &StoreFixture) {
    let conversation = counted_conversation(fixture, 2).await;
    let refused = fixture.store.compact(&compaction(&conversation, 3)).await;
    assert!(matches!(
        refused,
        Err(StoreError::BeyondEnd {
            field: "upto_seq",
            last_seq: 2
        })
    ));
    let mut expecting = compaction(&conversation, 1);
    expecting.expected_last_seq = Some(1);
    let refused = fixture.store.compact(&expecting).await;
    assert!(matches!(
        refused,
        Err(StoreError::Conflict { current_seq: 2 })
    ));
    let foreign = ConversationRef {
        user_id: Some(user()),
        ..conversation.clone()
    };
    let refused = fixture.store.compact(&compaction(&foreign, 1)).await;
    assert!(matches!(refused, Err(StoreError::NotFound)));
    assert_eq!(seen(fixture, &conversation).await, (None, vec![1, 2], 11));
    expecting.expected_last_seq = Some(2);
    assert_eq!(fixture.store.compact(&expecting).await.unwrap(), 2);
}

pub(crate) async fn branch_inherits_a_compaction_of_its_messages(fixture: &StoreFixture) {
    let parent = counted_conversation(fixture, 4).await;
    compact(fixture, &parent, 2).await;
    let later = fixture.branch(&branch_of(&parent, 3)).await;
    let earlier = fixture.branch(&branch_of(&parent, 1)).await;
    assert_eq!(seen(fixture, &earlier).await.0, None);
    assert_eq!(seen(fixture, &earlier).await.1, [1]);
    assert_eq!(seen(fixture, &later).await.0, Some("up to 2".to_owned()));
    assert_eq!(seen(fixture, &later).await.1, [3]);
    // The compactions of both are independent from then on.
    compact(fixture, &later, 3).await;
    assert_eq!(
        seen(fixture, &later).await,
        (Some("up to 3".to_owned()), vec![], 0)
    );
    assert_eq!(
        seen(fixture, &parent).await,
        (Some("up to 2".to_owned()), vec![3, 4], 1_100)
    );
    // Shared messages are counted.
    compact(fixture, &later, 1).await;
    assert_eq!(
        seen(fixture, &later).await,
        (Some("up to 1".to_owned()), vec![2, 3], 110)
    );
    fixture
        .store
        .delete(&parent, Invalidation::Never)
        .await
        .unwrap();
    assert_eq!(seen(fixture, &later).await.0, Some("up to 1".to_owned()));
}

pub(crate) async fn truncation_removes_a_summary_of_removed_messages(fixture: &StoreFixture) {
    let conversation = counted_conversation(fixture, 5).await;
    compact(fixture, &conversation, 3).await;
    for (after_seq, expected) in [
        (4, (Some("up to 3".to_owned()), vec![4], 1_000)),
        (3, (Some("up to 3".to_owned()), vec![], 0)),
        (2, (None, vec![1, 2], 11)),
        (0, (None, vec![], 0)),
    ] {
        let truncation = truncation(&conversation, after_seq);
        fixture.store.truncate(&truncation).await.unwrap();
        assert_eq!(seen(fixture, &conversation).await, expected, "{after_seq}");
    }
    // The same in a branch, whose messages are stored under another id.
    let parent = counted_conversation(fixture, 4).await;
    compact(fixture, &parent, 3).await;
    let branch = fixture.branch(&branch_of(&parent, 4)).await;
    fixture
        .store
        .truncate(&truncation(&branch, 2))
        .await
        .unwrap();
    assert_eq!(seen(fixture, &branch).await, (None, vec![1, 2], 11));
    let of_parent = (Some("up to 3".to_owned()), vec![4], 1_000);
    assert_eq!(seen(fixture, &parent).await, of_parent);
}

pub(crate) async fn truncation_clears_a_title_derived_from_removed_messages(
    fixture: &StoreFixture,
) {
    let title_of = async |conversation: &ConversationRef| {
        let found = fixture.store.get(conversation).await.unwrap();
        found.title.map(|title| title.as_str().to_owned())
    };
    let derived = async |texts: &[&str], at: usize| {
        let conversation = fixture.create_conversation().await;
        let mut append = turn(&conversation, texts);
        append.title = Some((title(texts[at]), at));
        fixture.save(&append).await.unwrap();
        conversation
    };
    let truncate = async |conversation: &ConversationRef, after_seq| {
        let truncation = truncation(conversation, after_seq);
        fixture.store.truncate(&truncation).await.unwrap();
    };
    let conversation = derived(&["hello", "question"], 1).await;
    let branch = fixture.branch(&branch_of(&conversation, 2)).await;
    truncate(&conversation, 2).await;
    assert_eq!(title_of(&conversation).await.as_deref(), Some("question"));
    truncate(&conversation, 1).await;
    assert_eq!(title_of(&conversation).await, None);
    // The branch still contains the message.
    assert_eq!(title_of(&branch).await.as_deref(), Some("question"));
    truncate(&branch, 1).await;
    assert_eq!(title_of(&branch).await, None);
    // The next save derives another one.
    let mut append = turn(&conversation, &["next"]);
    append.title = Some((title("next"), 0));
    fixture.save(&append).await.unwrap();
    assert_eq!(title_of(&conversation).await.as_deref(), Some("next"));

    // A title that was set stays, whatever its text.
    let mut new = new_conversation(&user());
    new.title = Some(title("same"));
    fixture.store.create(&new, at(0)).await.unwrap();
    let conversation = owned_ref(&new);
    fixture.append_texts(&conversation, &["same"]).await;
    truncate(&conversation, 0).await;
    assert_eq!(title_of(&conversation).await.as_deref(), Some("same"));

    // It is unknown what the title of an import was derived from.
    for (text, expected) in [("Vacation", None), ("another", Some("Vacation"))] {
        let wanted = imported(user());
        let mut import = fixture.store.import(&wanted).await.unwrap();
        let message = message(text);
        let messages = [NumberedMessage { seq: 1, message }];
        import.add(&messages).await.unwrap();
        import.finish(1).await.unwrap();
        let conversation = ConversationRef {
            id: wanted.id,
            user_id: None,
        };
        truncate(&conversation, 0).await;
        assert_eq!(title_of(&conversation).await.as_deref(), expected);
    }
}

pub(crate) async fn concurrent_compactions_and_saves_are_serialized(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    let mut tasks = JoinSet::new();
    for _ in 0..3 {
        let (store, conversation) = (Arc::clone(&fixture.store), conversation.clone());
        tasks.spawn(async move {
            for _ in 0..20 {
                let messages = ["a", "b"].map(|text| NewMessage {
                    token_count: Some(1),
                    ..message(text)
                });
                let append = append_of(&conversation, messages.to_vec());
                let saved = store.append(&append).await.unwrap();
                assert!(matches!(saved, Appended::Saved { .. }));
            }
        });
    }
    let (store, of) = (Arc::clone(&fixture.store), conversation.clone());
    tasks.spawn(async move {
        for round in 0..20 {
            let found = store.get(&of).await.unwrap();
            let upto_seq = if round % 5 == 4 { 0 } else { found.last_seq };
            let mut compaction = compaction(&of, upto_seq);
            if upto_seq == 0 {
                compaction.summary = content("");
            }
            let last_seq = store.compact(&compaction).await.unwrap();
            assert!(last_seq >= found.last_seq);
            // Every history is the messages after those that the summary stands for.
            let newest = store.newest(&of, 1_000, false).await.unwrap();
            let upto = newest.conversation.compacted_upto_seq;
            assert_eq!(newest.summary.is_some(), upto > 0);
            let seqs: Vec<i64> = newest.messages.iter().map(|m| m.seq).collect();
            let last = newest.conversation.last_seq;
            assert_eq!(seqs, (upto + 1..=last).collect::<Vec<_>>());
            assert_eq!(newest.conversation.uncompacted_tokens, last - upto);
        }
    });
    tasks.join_all().await;
    assert_eq!(
        fixture.seqs(&conversation).await,
        (1..=120).collect::<Vec<_>>()
    );
}
