//! Writes that fail halfway. Each write maps to the error that the contract names,
//! leaves the data unchanged, and succeeds as soon as the fault is over.

use conversation_memory::{
    domain::{
        Conversation, ConversationChanges, ConversationId, ConversationRef, IdSource as _, Message,
        NewConversation, NumberedMessage, SessionId, UuidV7,
    },
    store::{Append, Branch, ConversationQuery, Invalidation, MinState, Store, StoreError},
};
use test_support::store_fixture::{
    StoreFixture, at, compaction, message, new_conversation, owner_change, redaction, session,
    title, truncation, turn, user, with_request_id,
};

use crate::{
    branches::branch_of,
    faulty_store::{Fault, FaultyStore},
};

/// Kind of write of the trait `Store`.
#[derive(Clone, Copy, Debug)]
enum Write {
    Append,
    AttachSession,
    Branch,
    Compact,
    ChangeOwner,
    Create,
    Delete,
    Import,
    Redact,
    Truncate,
    Update,
}

impl Write {
    const ALL: [Self; 11] = [
        Self::Append,
        Self::AttachSession,
        Self::Branch,
        Self::ChangeOwner,
        Self::Compact,
        Self::Create,
        Self::Delete,
        Self::Import,
        Self::Redact,
        Self::Truncate,
        Self::Update,
    ];

    async fn run(self, store: &dyn Store, subject: &Subject) -> Result<(), StoreError> {
        let conversation = &subject.conversation;
        match self {
            Self::Append => store.append(&subject.append).await.map(drop),
            Self::AttachSession => {
                let attached = store.attach_session(conversation, subject.session).await;
                attached.map(drop)
            }
            Self::Branch => store.branch(&subject.branch).await.map(drop),
            Self::ChangeOwner => {
                let change = owner_change(conversation, &user());
                store.change_owner(&change).await.map(drop)
            }
            Self::Compact => store.compact(&compaction(conversation, 1)).await.map(drop),
            Self::Create => store.create(&subject.created, at(0)).await.map(drop),
            Self::Delete => store.delete(conversation, Invalidation::Never).await,
            Self::Import => {
                let mut import = store.import(&subject.imported).await?;
                let message = message("imported");
                import.add(&[NumberedMessage { seq: 1, message }]).await?;
                import.finish(1).await.map(drop)
            }
            Self::Redact => store.redact(&redaction(conversation, &[1])).await.map(drop),
            Self::Truncate => {
                let truncated = store.truncate(&truncation(conversation, 1)).await;
                truncated.map(drop)
            }
            Self::Update => {
                let changes = ConversationChanges {
                    title: Some(Some(title("changed"))),
                    metadata: None,
                };
                let updated = store.update(conversation, &changes, at(5)).await;
                updated.map(drop)
            }
        }
    }
}

/// Conversation of two messages that every [`Write`] can be applied to.
struct Subject {
    conversation: ConversationRef,
    append: Append,
    branch: Branch,
    created: NewConversation,
    imported: Conversation,
    session: SessionId,
}

/// All data of a user that a write could have changed.
#[derive(Debug, PartialEq)]
struct State {
    conversations: Vec<Conversation>,
    messages: Vec<Vec<Message>>,
    with_session: Option<ConversationId>,
}

impl Subject {
    async fn new(fixture: &StoreFixture) -> Self {
        let conversation = fixture.create_conversation().await;
        fixture.append_texts(&conversation, &["one", "two"]).await;
        let stored = fixture.store.get(&conversation).await.unwrap();
        Self {
            append: with_request_id(turn(&conversation, &["three", "four"]), "key"),
            branch: branch_of(&conversation, 1),
            created: new_conversation(&stored.user_id),
            imported: Conversation {
                id: ConversationId::from_uuid(UuidV7.uuid()),
                last_seq: 0,
                ..stored
            },
            conversation,
            session: session(),
        }
    }

    async fn state(&self, fixture: &StoreFixture) -> State {
        let user_id = self.conversation.user_id.clone().unwrap();
        let with_session = fixture
            .store
            .conversation_of_session(self.session, &user_id)
            .await
            .unwrap();
        let query = ConversationQuery {
            user_id,
            dept_id: None,
            after: None,
            state: MinState::ANY,
            limit: 10,
        };
        let conversations = fixture.store.list(&query).await.unwrap().conversations;
        let mut messages = Vec::new();
        for Conversation { id, user_id, .. } in &conversations {
            let conversation = ConversationRef {
                id: *id,
                user_id: Some(user_id.clone()),
            };
            messages.push(fixture.all_messages(&conversation).await);
        }
        State {
            conversations,
            messages,
            with_session: with_session.map(|conversation| conversation.id),
        }
    }
}

/// Runs each kind of write while the fault is injected, and again after it.
async fn assert_writes_fail(
    fixture: &StoreFixture,
    fault: Fault,
    is_expected: impl Fn(Write, &StoreError) -> bool,
) {
    let mut faulty = FaultyStore::like(fixture, fault).await;
    for write in Write::ALL {
        let subject = Subject::new(&faulty.healthy).await;
        let before = subject.state(&faulty.healthy).await;
        faulty.inject().await;
        let failed = write.run(faulty.store(), &subject).await;
        faulty.clear().await;
        let Err(error) = failed else {
            panic!("{fault:?}, {write:?}: the write succeeded");
        };
        assert!(
            is_expected(write, &error),
            "{fault:?}, {write:?}: {error:?}"
        );
        let after = subject.state(&faulty.healthy).await;
        assert_eq!(after, before, "{fault:?}, {write:?}");
        let retried = write.run(faulty.store(), &subject).await;
        assert!(retried.is_ok(), "{fault:?}, {write:?}: {retried:?}");
        let after = subject.state(&faulty.healthy).await;
        assert_ne!(after, before, "{fault:?}, {write:?}");
    }
}

fn is_unavailable(_: Write, error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable(_))
}

pub(crate) async fn busy_store_rejects_each_write(fixture: &StoreFixture) {
    assert_writes_fail(fixture, Fault::Busy, is_unavailable).await;
}

pub(crate) async fn full_disk_rejects_each_write(fixture: &StoreFixture) {
    let is_full = |_, error: &StoreError| matches!(error, StoreError::Full(_));
    assert_writes_fail(fixture, Fault::DiskFull, is_full).await;
}

pub(crate) async fn read_only_store_rejects_each_write(fixture: &StoreFixture) {
    assert_writes_fail(fixture, Fault::ReadOnly, is_unavailable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_writes_again_after_it_rolled_a_transaction_back() {
    let fixture = StoreFixture::sqlite().await;
    let is_internal = |_, error: &StoreError| matches!(error, StoreError::Internal(_));
    assert_writes_fail(&fixture, Fault::RolledBack, is_internal).await;
}

/// A single statement in autocommit mode may have been committed before its
/// connection was lost. A transaction whose COMMIT was not sent has not.
#[tokio::test(flavor = "multi_thread")]
async fn lost_connection_leaves_only_autocommitted_writes_unknown() {
    let fixture = StoreFixture::postgres().await;
    let is_expected = |write: Write, error: &StoreError| match write {
        Write::Append | Write::AttachSession | Write::Create | Write::Update => {
            matches!(error, StoreError::OutcomeUnknown(_))
        }
        Write::Branch
        | Write::ChangeOwner
        | Write::Compact
        | Write::Delete
        | Write::Import
        | Write::Redact
        | Write::Truncate => is_unavailable(write, error),
    };
    assert_writes_fail(&fixture, Fault::ConnectionLost, is_expected).await;
}
