//! Live sessions, each with a sliding TTL.

pub mod in_process;
pub mod redis;

use std::{error::Error, fmt::Debug};

use async_trait::async_trait;

use crate::domain::{NewSession, Session, SessionId, UserId};

/// Where live sessions are kept.
///
/// A session that has expired and one that never was are the same. Using a
/// session gives it its whole TTL again; [`Self::get`] and [`Self::list`] are no
/// use. TTLs follow no wall clock that can be set.
#[async_trait]
pub trait Sessions: Send + Sync + Debug {
    /// Starts a session. One that is live under the same id and the same user
    /// is renewed and, when `new` names a conversation, put on it. None when the
    /// id is another user's live session.
    async fn start(&self, new: &NewSession) -> Result<Option<Session>, SessionsUnavailable>;

    /// Reads a session.
    async fn get(&self, id: SessionId) -> Result<Option<Session>, SessionsUnavailable>;

    /// Renews a session and reads it. None when it is not live or, with
    /// `user`, not that user's: then nothing is renewed.
    async fn touch(
        &self,
        id: SessionId,
        user: Option<&UserId>,
    ) -> Result<Option<Session>, SessionsUnavailable>;

    /// Ends a session. False when it was not live.
    async fn end(&self, id: SessionId) -> Result<bool, SessionsUnavailable>;

    /// A user's live sessions, the one used last first.
    async fn list(&self, user: &UserId) -> Result<Vec<Session>, SessionsUnavailable>;
}

/// The session tier cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("the session tier is unavailable")]
pub struct SessionsUnavailable(#[source] pub Box<dyn Error + Send + Sync>);
