//! Pending invalidations of recent windows, which only PostgreSQL records: one process uses an
//! embedded store, and it has no windows.

use std::time::{Duration, Instant};

use conversation_memory::{
    domain::{ConversationId, ConversationRef, IdSource as _, UuidV7},
    store::{
        Append, Branch, Compaction, Invalidation, OwnerChange, PendingInvalidation, Redaction,
        StoreError, Truncation,
    },
};
use sqlx::{ConnectOptions as _, Connection as _, query};
use test_support::{
    eventually,
    store_fixture::{
        StoreFixture, at, compaction, owner_change, redaction, server_options, truncation, turn,
        user, with_request_id,
    },
};

/// Write to a conversation.
#[derive(Clone, Copy, Debug)]
enum Write {
    Save,
    Truncate,
    Compact,
    Redact,
    ChangeOwner,
    Delete,
}

impl Write {
    const ALL: [Self; 6] = [
        Self::Save,
        Self::Truncate,
        Self::Compact,
        Self::Redact,
        Self::ChangeOwner,
        Self::Delete,
    ];

    async fn run(
        self,
        fixture: &StoreFixture,
        conversation: &ConversationRef,
        invalidation: Invalidation,
    ) -> Result<(), StoreError> {
        let store = &fixture.store;
        match self {
            Self::Save => {
                let append = Append {
                    invalidation,
                    ..turn(conversation, &["three"])
                };
                store.append(&append).await.map(drop)
            }
            Self::Truncate => {
                let truncation = Truncation {
                    invalidation,
                    ..truncation(conversation, 1)
                };
                store.truncate(&truncation).await.map(drop)
            }
            Self::Compact => {
                let compaction = Compaction {
                    invalidation,
                    ..compaction(conversation, 1)
                };
                store.compact(&compaction).await.map(drop)
            }
            Self::Redact => {
                let redaction = Redaction {
                    announced: vec![conversation.id],
                    invalidation,
                    ..redaction(conversation, &[1])
                };
                store.redact(&redaction).await.map(drop)
            }
            Self::ChangeOwner => {
                let change = OwnerChange {
                    announced: vec![conversation.id],
                    invalidation,
                    ..owner_change(conversation, &user())
                };
                store.change_owner(&change).await.map(drop)
            }
            Self::Delete => store.delete(conversation, invalidation).await,
        }
    }
}

/// Creates a conversation with two messages.
async fn conversation(fixture: &StoreFixture) -> ConversationRef {
    let conversation = fixture.create_conversation().await;
    fixture.append_texts(&conversation, &["one", "two"]).await;
    conversation
}

fn branch_of(parent: &ConversationRef) -> Branch {
    Branch {
        parent: parent.clone(),
        at_seq: 2,
        id: ConversationId::from_uuid(UuidV7.uuid()),
        title: None,
        at: at(3),
    }
}

/// Finds the pending invalidation of a conversation, among those of all tests.
async fn pending(
    fixture: &StoreFixture,
    conversation: &ConversationRef,
) -> Option<PendingInvalidation> {
    let mut after = None;
    loop {
        let page = fixture.store.pending_invalidations(after, 2).await.unwrap();
        let found = page.iter().find(|one| one.conversation == conversation.id);
        if let Some(found) = found {
            return Some(*found);
        }
        after = Some(page.last()?.conversation);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn write_records_an_invalidation_on_its_condition() {
    let fixture = StoreFixture::postgres().await;
    let now = Instant::now();
    let hour = Duration::from_hours(1);
    for write in Write::ALL {
        for (invalidation, is_recorded) in [
            (Invalidation::Never, false),
            (Invalidation::Always, true),
            (Invalidation::After(now + hour), false),
            // A statement that was sent in time and is executed late looks like this.
            (Invalidation::After(now.checked_sub(hour).unwrap()), true),
        ] {
            let conversation = conversation(&fixture).await;
            write
                .run(&fixture, &conversation, invalidation)
                .await
                .unwrap();
            let recorded = pending(&fixture, &conversation).await;
            assert_eq!(
                recorded.is_some(),
                is_recorded,
                "{write:?} {invalidation:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_write_and_replay_record_nothing() {
    let fixture = StoreFixture::postgres().await;
    let conversation = conversation(&fixture).await;
    let save = with_request_id(turn(&conversation, &["three"]), "key");
    fixture.store.append(&save).await.unwrap();
    let replay = Append {
        invalidation: Invalidation::Always,
        ..save
    };
    fixture.store.append(&replay).await.unwrap();
    let rejected = Truncation {
        expected_last_seq: Some(9),
        invalidation: Invalidation::Always,
        ..truncation(&conversation, 1)
    };
    fixture.store.truncate(&rejected).await.unwrap_err();
    assert_eq!(pending(&fixture, &conversation).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn redaction_records_conversations_that_are_not_announced() {
    let fixture = StoreFixture::postgres().await;
    let parent = conversation(&fixture).await;
    let branch = fixture.branch(&branch_of(&parent)).await;
    let announced = Redaction {
        announced: vec![parent.id],
        invalidation: Invalidation::After(Instant::now() + Duration::from_hours(1)),
        ..redaction(&parent, &[1])
    };
    fixture.store.redact(&announced).await.unwrap();
    assert_eq!(pending(&fixture, &parent).await, None);
    assert!(pending(&fixture, &branch).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn completed_invalidation_remains_if_it_was_recorded_again() {
    let fixture = StoreFixture::postgres().await;
    let conversation = conversation(&fixture).await;
    let save = async || {
        let saved = Write::Save.run(&fixture, &conversation, Invalidation::Always);
        saved.await.unwrap();
    };
    save().await;
    let first = pending(&fixture, &conversation).await.unwrap();
    save().await;
    let second = pending(&fixture, &conversation).await.unwrap();
    assert_ne!(first.mark, second.mark);
    fixture
        .store
        .complete_invalidations(&[first])
        .await
        .unwrap();
    assert_eq!(pending(&fixture, &conversation).await, Some(second));
    fixture
        .store
        .complete_invalidations(&[second])
        .await
        .unwrap();
    assert_eq!(pending(&fixture, &conversation).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn read_during_a_write_is_not_settled() {
    let fixture = StoreFixture::postgres().await;
    let mut other = server_options().connect().await.unwrap();
    let statements = [
        "UPDATE conversations SET last_seq = last_seq WHERE id = $1",
        "DELETE FROM conversations WHERE id = $1",
        "SELECT 1 FROM conversations WHERE id = $1 FOR UPDATE",
    ];
    for statement in statements {
        let conversation = conversation(&fixture).await;
        let is_settled = async || {
            let newest = fixture.store.newest(&conversation, 9, false).await;
            newest.unwrap().is_settled
        };
        // A reader can see a commit later than the writer.
        eventually("the saves are settled", is_settled).await;
        let mut transaction = other.begin().await.unwrap();
        query(statement)
            .bind(conversation.id.as_uuid())
            .execute(&mut *transaction)
            .await
            .unwrap();
        assert!(!is_settled().await, "{statement}");
        transaction.rollback().await.unwrap();
        assert!(is_settled().await, "{statement}");
    }
}
