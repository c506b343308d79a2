//! The use cases, a file each. They know the domain and the three traits, and
//! neither gRPC nor SQL nor Redis.

mod begin_turn;
mod budget;
mod conversations;
mod delete_conversation;
mod error;
mod get_history;
mod newest;
mod save_messages;
mod session_service;
mod truncate_conversation;

use std::{fmt, future::Future, sync::Arc};

use tokio_util::task::TaskTracker;
use tracing::Instrument;

pub use self::{
    begin_turn::{BeginTurn, Begun, SessionState},
    conversations::{CreateConversation, ListMessages},
    error::{Error, Resource},
    get_history::{GetHistory, History},
    newest::Source,
    save_messages::{SaveMessages, Saved},
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
pub struct Parts {
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
    /// How many messages a history has when the caller does not say.
    pub default_limit: u32,
}

/// The use cases. A clone is another handle on the same.
#[derive(Clone)]
pub struct Memory(Arc<Parts>);

impl Memory {
    /// The most messages that a history or a page has.
    pub const MAX_LIMIT: u32 = 1000;

    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
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
        self.0
            .writes
            .spawn(write.in_current_span())
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
