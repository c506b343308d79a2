//! The use cases, a file each. They know the domain and the three traits, and
//! neither gRPC nor SQL nor Redis.

mod begin_turn;
mod branches;
mod budget;
mod conversations;
mod delete_conversation;
mod error;
mod export_conversation;
mod get_history;
mod import_conversation;
mod newest;
mod save_messages;
mod search_messages;
mod session_service;
mod truncate_conversation;
mod write_through;

use std::{fmt, future::Future, sync::Arc};

use opentelemetry::context::FutureExt as _;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

pub use self::{
    begin_turn::{BeginTurn, Begun, SessionState},
    branches::{BranchConversation, ListBranches},
    conversations::{CreateConversation, ListMessages},
    error::{Error, Resource},
    export_conversation::ConversationExport,
    get_history::{GetHistory, History},
    import_conversation::{ConversationImport, ImportConversation},
    newest::Source,
    save_messages::{SaveMessages, SaveOutcome},
    session_service::CreateSession,
    truncate_conversation::TruncateConversation,
};
use crate::{
    domain::{Clock, IdSource},
    recent::RecentWindow,
    sessions::Sessions,
    store::Store,
};

/// What the use cases are given to work with.
#[derive(Debug)]
pub struct Dependencies {
    /// The durable truth.
    pub store: Arc<dyn Store>,
    /// The newest messages, faster.
    pub recent: Arc<dyn RecentWindow>,
    /// Live sessions.
    pub sessions: Arc<dyn Sessions>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub ids: Arc<dyn IdSource>,
    /// Where writes run, so that shutdown can wait for them.
    pub writes: TaskTracker,
    /// How many writes may run at once, those included whose callers have left.
    pub write_permits: Arc<Semaphore>,
    /// How many messages a history has when the caller does not say.
    pub default_limit: u32,
}

/// The use cases. A clone is another handle on the same.
#[derive(Clone)]
pub struct Memory(Arc<Dependencies>);

impl Memory {
    /// The most messages that a history or a page has.
    pub const MAX_LIMIT: u32 = 1000;

    /// Puts the parts together.
    pub fn new(parts: Dependencies) -> Self {
        Self(Arc::new(parts))
    }

    /// A new id.
    pub fn new_id(&self) -> uuid::Uuid {
        self.0.ids.uuid()
    }

    /// Runs a write to its end, also when the caller stops waiting for it. A
    /// half-run write would leave a transaction open on a pooled connection, or
    /// a commit that no window was told of.
    async fn uninterrupted<T, F>(&self, write: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let permits = Arc::clone(&self.0.write_permits);
        let permit = permits.try_acquire_owned().map_err(|_| Error::Overloaded)?;
        let write = async move {
            let outcome = write.await;
            drop(permit);
            outcome
        };
        self.0
            .writes
            .spawn(write.in_current_span().with_current_context())
            .await
            // What a panic says may quote a message: the log has its place.
            .unwrap_or_else(|_| Err(Error::Internal("a write panicked".into())))
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error as _, time::Duration};

    use super::*;
    use crate::{
        domain::{SystemClock, UuidV7},
        recent::none::NoWindow,
        sessions::in_process::InProcessSessions,
        store::sqlite::SqliteStore,
    };

    fn memory() -> Memory {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("conversations.db")).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Memory::new(Dependencies {
            store: Arc::new(store),
            recent: Arc::new(NoWindow),
            sessions: Arc::new(InProcessSessions::new(
                Duration::from_mins(1),
                Arc::clone(&clock),
            )),
            clock,
            ids: Arc::new(UuidV7),
            writes: TaskTracker::new(),
            write_permits: Arc::new(Semaphore::new(1)),
            default_limit: 6,
        })
    }

    #[tokio::test]
    async fn what_a_panic_says_goes_nowhere() {
        let memory = memory();
        // Twice: the first took its permit with it.
        for _ in 0..2 {
            let failed = memory
                .uninterrupted(async { panic!("message text") as Result<(), Error> })
                .await
                .unwrap_err();
            let cause = failed.source().unwrap();
            assert_eq!(cause.to_string(), "a write panicked");
            assert!(!format!("{failed:?}").contains("message text"));
        }
    }

    #[tokio::test]
    async fn writes_whose_callers_left_count() {
        let memory = memory();
        let (finish, finished) = tokio::sync::oneshot::channel::<()>();
        let slow = memory.uninterrupted(async {
            let _ = finished.await;
            Ok(())
        });
        // The caller leaves as soon as the write runs.
        let left = tokio::time::timeout(Duration::from_millis(1), slow).await;
        assert!(left.is_err());
        let refused = memory.uninterrupted(async { Ok(()) }).await;
        assert!(matches!(refused, Err(Error::Overloaded)));
        finish.send(()).unwrap();
        memory.0.writes.close();
        memory.0.writes.wait().await;
        memory.uninterrupted(async { Ok(()) }).await.unwrap();
    }
}
