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
    /// Starts a session. If the same user has a live session with this id, the session is
    /// renewed and, if `new` contains a conversation, this becomes its current
    /// conversation. Returns `None` if the id belongs to another user's live session.
    ///
    /// # Errors
    ///
    /// Fails with [`SessionsUnavailable`] if the session tier is unavailable.
    async fn start(&self, new: &NewSession) -> Result<Option<Session>, SessionsUnavailable>;

    /// Reads a session. Returns `None` if it is not live.
    ///
    /// # Errors
    ///
    /// Fails with [`SessionsUnavailable`] if the session tier is unavailable.
    async fn get(&self, id: SessionId) -> Result<Option<Session>, SessionsUnavailable>;

    /// Renews a session and reads it. Returns `None`, without renewing it, if the session
    /// is not live or belongs to a user other than `user`.
    ///
    /// # Errors
    ///
    /// Fails with [`SessionsUnavailable`] if the session tier is unavailable.
    async fn touch(
        &self,
        id: SessionId,
        user: Option<&UserId>,
    ) -> Result<Option<Session>, SessionsUnavailable>;

    /// Ends a session. Returns `false` if it was not live.
    ///
    /// # Errors
    ///
    /// Fails with [`SessionsUnavailable`] if the session tier is unavailable.
    async fn end(&self, id: SessionId) -> Result<bool, SessionsUnavailable>;

    /// Reads a user's live sessions, the most recently used first.
    ///
    /// # Errors
    ///
    /// Fails with [`SessionsUnavailable`] if the session tier is unavailable.
    async fn list(&self, user: &UserId) -> Result<Vec<Session>, SessionsUnavailable>;
}

/// Error of an operation while the session tier is unavailable.
#[derive(Debug, thiserror::Error)]
#[error("the session tier is unavailable")]
pub struct SessionsUnavailable(#[source] pub Box<dyn Error + Send + Sync>);
