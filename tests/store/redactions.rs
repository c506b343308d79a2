use std::{collections::BTreeSet, sync::Arc};

use conversation_memory::{
    domain::{
        ConversationId, ConversationRef, Limits, NewMessage, NumberedMessage, RawMessage, RawPart,
        Role,
    },
    store::{Appended, Bound, Invalidation, Redacted, StoreError},
};
use serde_json::json;
use tokio::task::JoinSet;

use test_support::store_fixture::{
    StoreFixture, append_of, at, compaction, context, message, message_id, metadata,
    new_conversation, owned_ref, redaction, retry_of, title, truncation, turn, user,
    with_chosen_id, with_request_id,
};

use crate::{
    branches::branch_of,
    imports::imported,
    search::{found, query},
};

/// Word that nothing contains after the redaction of the message that it is in.
const CANARY: &str = "canary";

async fn redact(fixture: &StoreFixture, conversation: &ConversationRef, seqs: &[i64]) -> Redacted {
    fixture
        .store
        .redact(&redaction(conversation, seqs))
        .await
        .unwrap()
}

/// Creates a conversation of these texts, with the title of the first.
async fn titled(fixture: &StoreFixture, texts: &[&str]) -> ConversationRef {
    let conversation = fixture.create_conversation().await;
    let mut append = turn(&conversation, texts);
    append.title = Some((title(texts[0]), 0));
    fixture.save(&append).await.unwrap();
    conversation
}

async fn title_of(fixture: &StoreFixture, conversation: &ConversationRef) -> Option<String> {
    let found = fixture.store.get(conversation).await.unwrap();
    found.title.map(|title| title.as_str().to_owned())
}

fn ids(conversations: &[&ConversationRef]) -> BTreeSet<ConversationId> {
    conversations.iter().map(|found| found.id).collect()
}

pub(crate) async fn redaction_leaves_number_role_and_times(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    let raw = RawMessage {
        name: CANARY.to_owned(),
        parts: vec![
            RawPart::Text {
                content: CANARY.to_owned(),
            },
            RawPart::Blob {
                mime_type: "image/png".to_owned(),
                modality: String::new(),
                bytes: 3,
                data: Some(vec![1, 2, 3].into()),
            },
        ],
        token_count: Some(9),
        pinned: true,
        tokens_used: Some(5),
        created_at: Some(at(-7)),
        metadata: Some(metadata(json!({"word": CANARY}))),
        ..RawMessage::text(Role::User, CANARY)
    };
    let mut full =
        NewMessage::new(raw, std::iter::empty(), message_id, &Limits::default()).unwrap();
    full.contexts = vec![context("doc", CANARY)];
    let batch = vec![message("first"), full, message("last")];
    fixture
        .save(&append_of(&conversation, batch))
        .await
        .unwrap();
    let before = fixture.all_messages(&conversation).await;
    let blobs = fixture.store.blobs(conversation.id, 2).await.unwrap();
    assert_eq!(blobs.len(), 1);

    let redacted = redact(fixture, &conversation, &[2]).await;
    let mut expected = before.clone();
    expected[1].redact();
    assert_eq!(redacted.messages, expected[1..2]);
    assert_eq!(redacted.conversations, [conversation.id]);
    assert_eq!(fixture.all_messages(&conversation).await, expected);
    let blobs = fixture.store.blobs(conversation.id, 2).await.unwrap();
    assert!(blobs.is_empty());
    let newest = fixture.store.newest(&conversation, 9, true).await.unwrap();
    assert_eq!((newest.messages, newest.pinned), (expected.clone(), vec![]));
    assert_eq!(newest.conversation.updated_at, at(1));

    // A retry returns the same; more messages can be redacted, in any order.
    let again = redact(fixture, &conversation, &[2]).await;
    assert_eq!(again.messages, redacted.messages);
    let more = redact(fixture, &conversation, &[3, 2, 3]).await;
    assert_eq!(
        more.messages.iter().map(|m| m.seq).collect::<Vec<_>>(),
        [2, 3]
    );
    assert_eq!(fixture.texts(&conversation).await, ["first", "", ""]);
}

pub(crate) async fn redaction_is_complete_or_absent(fixture: &StoreFixture) {
    let conversation = titled(fixture, &["1", "2", "3"]).await;
    let branch = fixture.branch(&branch_of(&conversation, 3)).await;
    fixture
        .store
        .truncate(&truncation(&conversation, 2))
        .await
        .unwrap();
    fixture.append_texts(&conversation, &["4"]).await;
    // Message 3 exists, but not in this conversation.
    for missing in [3, 9] {
        let seqs = [1, missing, 4];
        for refused in [
            fixture
                .store
                .redact(&redaction(&conversation, &seqs))
                .await
                .err(),
            fixture.store.containing(&conversation, &seqs).await.err(),
        ] {
            assert!(matches!(
                refused,
                Some(StoreError::MessageNotFound { seq }) if seq == missing
            ));
        }
    }
    let foreign = ConversationRef {
        user_id: Some(user()),
        ..conversation.clone()
    };
    let refused = fixture.store.redact(&redaction(&foreign, &[1])).await;
    assert!(matches!(refused, Err(StoreError::NotFound)));
    assert_eq!(fixture.texts(&conversation).await, ["1", "2", "4"]);
    assert_eq!(title_of(fixture, &conversation).await.as_deref(), Some("1"));
    redact(fixture, &branch, &[3]).await;
    assert_eq!(fixture.texts(&branch).await, ["1", "2", ""]);
}

pub(crate) async fn redaction_applies_to_all_conversations(fixture: &StoreFixture) {
    let parent = titled(fixture, &[CANARY, "2", "3"]).await;
    let branch = fixture.branch(&branch_of(&parent, 2)).await;
    fixture.append_texts(&branch, &["own 3"]).await;
    let of_branch = fixture.branch(&branch_of(&branch, 3)).await;
    let mut with_title = branch_of(&parent, 2);
    with_title.title = Some(title(CANARY));
    let set = fixture.branch(&with_title).await;
    let other = titled(fixture, &[CANARY]).await;

    let containing = fixture.store.containing(&of_branch, &[1]).await.unwrap();
    let all = ids(&[&parent, &branch, &of_branch, &set]);
    assert_eq!(containing.into_iter().collect::<BTreeSet<_>>(), all);
    let redacted = redact(fixture, &of_branch, &[1]).await;
    assert_eq!(
        redacted.conversations.into_iter().collect::<BTreeSet<_>>(),
        all
    );
    for conversation in [&parent, &branch, &of_branch] {
        assert_eq!(fixture.texts(conversation).await[0], "");
        assert_eq!(title_of(fixture, conversation).await, None);
    }
    // A title that was set stays, and so does another conversation with the same text.
    assert_eq!(title_of(fixture, &set).await.as_deref(), Some(CANARY));
    assert_eq!(title_of(fixture, &other).await.as_deref(), Some(CANARY));
    assert_eq!(fixture.texts(&other).await, [CANARY]);

    // Message 3 of the branch is another one than that of its parent.
    let redacted = redact(fixture, &branch, &[3]).await;
    assert_eq!(
        redacted.conversations.into_iter().collect::<BTreeSet<_>>(),
        ids(&[&branch, &of_branch])
    );
    assert_eq!(fixture.texts(&parent).await, ["", "2", "3"]);
    // A branch that was created afterwards contains the redacted message.
    let later = fixture.branch(&branch_of(&of_branch, 3)).await;
    assert_eq!(fixture.texts(&later).await, ["", "2", ""]);
    fixture
        .store
        .delete(&parent, Invalidation::Never)
        .await
        .unwrap();
    assert_eq!(fixture.texts(&branch).await, ["", "2", ""]);
}

pub(crate) async fn redaction_clears_a_title_of_unknown_origin(fixture: &StoreFixture) {
    // It is unknown what the title of an import was derived from.
    for (text, role, expected) in [
        ("Vacation", Role::User, None),
        ("another", Role::User, Some("Vacation")),
        ("Vacation", Role::Assistant, Some("Vacation")),
    ] {
        let wanted = imported(user());
        let mut import = fixture.store.import(&wanted).await.unwrap();
        let message = NewMessage {
            role,
            ..message(text)
        };
        import
            .add(&[NumberedMessage { seq: 2, message }])
            .await
            .unwrap();
        import.finish(2).await.unwrap();
        let conversation = ConversationRef {
            id: wanted.id,
            user_id: None,
        };
        let branch = fixture.branch(&branch_of(&conversation, 2)).await;
        redact(fixture, &branch, &[2]).await;
        assert_eq!(title_of(fixture, &conversation).await.as_deref(), expected);
        assert_eq!(title_of(fixture, &branch).await.as_deref(), expected);
    }
}

pub(crate) async fn redaction_removes_summaries_of_redacted_messages(fixture: &StoreFixture) {
    let parent = fixture.create_conversation().await;
    let counted = (1..=4).map(|seq: i32| NewMessage {
        token_count: Some(10_i32.pow(seq.unsigned_abs())),
        ..message(seq.to_string())
    });
    let append = append_of(&parent, counted.collect());
    fixture.save(&append).await.unwrap();
    fixture
        .store
        .compact(&compaction(&parent, 2))
        .await
        .unwrap();
    let branch = fixture.branch(&branch_of(&parent, 4)).await;
    fixture
        .store
        .compact(&compaction(&branch, 3))
        .await
        .unwrap();
    let state = async |conversation: &ConversationRef| {
        let newest = fixture.store.newest(conversation, 9, false).await.unwrap();
        let summary = newest.summary.map(|summary| summary.content.into_string());
        (summary, newest.conversation.uncompacted_tokens)
    };
    let summary = |upto: i64| Some(format!("up to {upto}"));
    // The summary of the branch stands for message 3, that of its parent does not.
    redact(fixture, &parent, &[3]).await;
    assert_eq!(state(&parent).await, (summary(2), 10_000));
    assert_eq!(state(&branch).await, (None, 10_110));
    fixture
        .store
        .compact(&compaction(&branch, 4))
        .await
        .unwrap();
    // A retry does not remove a summary that was made since.
    redact(fixture, &parent, &[3]).await;
    assert_eq!(state(&branch).await, (summary(4), 0));
    redact(fixture, &branch, &[1]).await;
    assert_eq!(state(&parent).await, (None, 10_100));
    assert_eq!(state(&branch).await, (None, 10_100));
    let newest = fixture.store.newest(&parent, 9, false).await.unwrap();
    assert_eq!(newest.messages.len(), 4);
}

pub(crate) async fn redacted_messages_are_not_found(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    let texts = ["a canary sings", "another canary", "the bird sings"];
    fixture.append_texts(&conversation, &texts).await;
    let branch = fixture.branch(&branch_of(&conversation, 3)).await;
    let user = conversation.user_id.clone().unwrap();
    let canary = query(&user, CANARY);
    assert_eq!(found(fixture, &canary).await.len(), 2);
    redact(fixture, &branch, &[1]).await;
    assert_eq!(found(fixture, &canary).await, ["another canary"]);
    assert_eq!(
        found(fixture, &query(&user, "sings")).await,
        ["the bird sings"]
    );
    redact(fixture, &conversation, &[1, 2]).await;
    assert!(found(fixture, &canary).await.is_empty());
    // The index is intact after redacted messages are removed, and others are added.
    let truncation = truncation(&branch, 1);
    fixture.store.truncate(&truncation).await.unwrap();
    fixture
        .store
        .delete(&branch, Invalidation::Never)
        .await
        .unwrap();
    fixture.append_texts(&conversation, &["a new canary"]).await;
    assert_eq!(found(fixture, &canary).await, ["a new canary"]);
    fixture
        .store
        .delete(&conversation, Invalidation::Never)
        .await
        .unwrap();
    assert!(found(fixture, &canary).await.is_empty());
}

pub(crate) async fn replay_of_a_redacted_save_returns_no_text(fixture: &StoreFixture) {
    let conversation = fixture.create_conversation().await;
    let with_key = with_request_id(turn(&conversation, &[CANARY, "2"]), "key");
    let with_ids = append_of(
        &conversation,
        vec![with_chosen_id(CANARY), with_chosen_id("4")],
    );
    for append in [&with_key, &with_ids] {
        fixture.save(append).await.unwrap();
    }
    redact(fixture, &conversation, &[1, 3]).await;
    for (append, expected) in [(&with_key, ["", "2"]), (&with_ids, ["", "4"])] {
        let Appended::Replayed { messages, .. } = fixture.save(&retry_of(append)).await.unwrap()
        else {
            panic!("the save was not replayed");
        };
        let texts: Vec<_> = messages.iter().map(|m| m.content.as_str()).collect();
        assert_eq!(texts, expected);
        assert!(messages[0].redacted);
    }
}

pub(crate) async fn redaction_applies_to_many_branches(fixture: &StoreFixture) {
    let parent = titled(fixture, &[CANARY, "2"]).await;
    fixture
        .store
        .compact(&compaction(&parent, 1))
        .await
        .unwrap();
    let mut branches = JoinSet::new();
    for _ in 0..150 {
        let (store, branch) = (Arc::clone(&fixture.store), branch_of(&parent, 2));
        branches.spawn(async move { store.branch(&branch).await });
        if branches.len() > 8 {
            branches.join_next().await.unwrap().unwrap().unwrap();
        }
    }
    branches.join_all().await;
    let redacted = redact(fixture, &parent, &[1, 2]).await;
    assert_eq!(redacted.conversations.len(), 151);
    for id in redacted.conversations {
        let conversation = ConversationRef { id, user_id: None };
        let newest = fixture.store.newest(&conversation, 9, false).await.unwrap();
        assert_eq!(newest.summary, None);
        assert_eq!(newest.conversation.title, None);
        assert!(newest.messages.iter().all(|message| message.redacted));
    }
}

/// Whatever is branched, truncated or compacted at the same time, nothing of the message is left.
pub(crate) async fn concurrent_changes_do_not_keep_redacted_messages(fixture: &StoreFixture) {
    for _ in 0..6 {
        let mut new = new_conversation(&user());
        new.title = None;
        fixture.store.create(&new, at(0)).await.unwrap();
        let parent = owned_ref(&new);
        let mut append = turn(&parent, &[CANARY, "2", "3"]);
        append.title = Some((title(CANARY), 0));
        fixture.save(&append).await.unwrap();
        fixture
            .store
            .compact(&compaction(&parent, 2))
            .await
            .unwrap();
        let mut tasks = JoinSet::new();
        for task in 0..3 {
            let (store, mut of) = (Arc::clone(&fixture.store), parent.clone());
            tasks.spawn(async move {
                let mut created = vec![of.clone()];
                for round in 0..4 {
                    let branched = store.branch(&branch_of(&of, 3)).await.unwrap();
                    of = ConversationRef {
                        id: branched.id,
                        user_id: None,
                    };
                    created.push(of.clone());
                    if task == round {
                        store
                            .truncate(&truncation(&created[round], 1))
                            .await
                            .unwrap();
                    }
                }
                created
            });
        }
        redact(fixture, &parent, &[1]).await;
        for conversation in tasks.join_all().await.into_iter().flatten() {
            let newest = fixture.store.newest(&conversation, 9, false).await.unwrap();
            assert_eq!(newest.conversation.title, None);
            assert_eq!(newest.summary, None);
            let all = fixture
                .store
                .messages(&conversation, Bound::After(0), 9, true);
            for message in all.await.unwrap() {
                assert_eq!(message.redacted, message.seq == 1);
                assert_ne!(message.content.as_str(), CANARY);
            }
        }
    }
}
