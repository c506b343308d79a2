//! Live sessions, each with a sliding TTL.

pub mod in_process;
pub mod redis;

use std::{error::Error, fmt::Debug};

use async_trait::async_trait;

use crate::domain::{NewSession, Session, SessionId, UserId};

/// Session tier: storage of live sessions.
///
/// An expired session is indistinguishable from one that never existed. Each use
/// of a session resets its TTL; [`Self::get`] and [`Self::list`] do not count as
/// use. TTLs do not depend on a wall clock that can be set.
#[async_trait]
pub trait Sessions: Send + Sync + Debug {
    /// Starts a session. If the same user has a live session with this id, it is
    /// renewed and, if `new` contains a conversation, moved to it. None if the id
    /// belongs to another user's live session.
    ///
    /// # Errors
    ///
    /// Fails if the session tier is unavailable, as do all methods.
    async fn start(&self, new: &NewSession) -> Result<Option<Session>, SessionsUnavailable>;

    /// Reads a session. None if it is not live.
    async fn get(&self, id: SessionId) -> Result<Option<Session>, SessionsUnavailable>;

    /// Renews a session and reads it. None, without renewal, if it is not live or
    /// belongs to a user other than `user`.
    async fn touch(
        &self,
        id: SessionId,
        user: Option<&UserId>,
    ) -> Result<Option<Session>, SessionsUnavailable>;

    /// Ends a session. False if it was not live.
    async fn end(&self, id: SessionId) -> Result<bool, SessionsUnavailable>;

    /// Reads a user's live sessions, the most recently used first.
    async fn list(&self, user: &UserId) -> Result<Vec<Session>, SessionsUnavailable>;
}

/// Error of an operation while the session tier is unavailable.
#[derive(Debug, thiserror::Error)]
#[error("the session tier is unavailable")]
pub struct SessionsUnavailable(#[source] pub Box<dyn Error + Send + Sync>);
