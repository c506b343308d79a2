//! Live sessions, each with a sliding TTL.

pub mod in_process;
pub mod redis;

use std::{error::Error, fmt::Debug};

use async_trait::async_trait;

use crate::domain::{NewSession, Session, SessionId, UserId};

/// Session tier: storage of live sessions.
///
/// Each user has their own sessions. What other users do with the same session id has no effect on
/// the results of an operation that names a user. An operation that names none finds the session
/// of the first user who started one with this id.
///
/// The number of a user's live sessions is bounded: a further one ends those that were not used for
/// the longest time. The cost of an operation does not depend on their number.
///
/// An expired session is indistinguishable from one that never existed. Each use
/// of a session resets its TTL; [`Self::get`] and [`Self::list`] do not count as
/// use. TTLs do not depend on a wall clock that can be set.
#[async_trait]
pub trait Sessions: Send + Sync + Debug {
    /// Starts a session. If the same user has a live session with this id, the session is
    /// renewed and, if `new` contains a conversation, this becomes its current
    /// conversation.
    ///
    /// # Errors
    ///
    /// Fails with [`SessionsUnavailable`] if the session tier is unavailable.
    async fn start(&self, new: &NewSession) -> Result<Session, SessionsUnavailable>;

    /// Reads a session. Returns `None` if `user` has no live session with this id.
    ///
    /// # Errors
    ///
    /// Fails with [`SessionsUnavailable`] if the session tier is unavailable.
    async fn get(
        &self,
        id: SessionId,
        user: Option<&UserId>,
    ) -> Result<Option<Session>, SessionsUnavailable>;

    /// Renews a session and reads it. Returns `None` if `user` has no live session with this id.
    ///
    /// # Errors
    ///
    /// Fails with [`SessionsUnavailable`] if the session tier is unavailable.
    async fn touch(
        &self,
        id: SessionId,
        user: Option<&UserId>,
    ) -> Result<Option<Session>, SessionsUnavailable>;

    /// Ends a session. Returns `false` if `user` had no live session with this id.
    ///
    /// # Errors
    ///
    /// Fails with [`SessionsUnavailable`] if the session tier is unavailable.
    async fn end(&self, id: SessionId, user: Option<&UserId>) -> Result<bool, SessionsUnavailable>;

    /// Reads a page of a user's live sessions, the most recently used first. A page can have fewer
    /// sessions than the limit, or none, although more follow. A session that is used while its
    /// user's pages are read can be on no page.
    ///
    /// # Errors
    ///
    /// Fails with [`SessionsUnavailable`] if the session tier is unavailable.
    async fn list(&self, query: &SessionQuery) -> Result<SessionPage, SessionsUnavailable>;
}

/// Page of a user's live sessions to be read.
#[derive(Clone, Debug)]
pub struct SessionQuery {
    /// User of the sessions.
    pub user_id: UserId,
    /// Value of [`SessionPage::next`] of the previous page; `None` for the first page.
    pub after: Option<SessionKey>,
    /// Upper bound on the sessions of the page.
    pub limit: u32,
}

/// Page of a user's live sessions.
#[derive(Debug)]
pub struct SessionPage {
    /// Sessions of the page.
    pub sessions: Vec<Session>,
    /// Key after which the next page begins; `None` for the last page.
    pub next: Option<SessionKey>,
}

/// Key by which a user's sessions are ordered, descending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionKey {
    /// Position of the last use in the order of all uses.
    pub last_use: i64,
    /// Session, which orders simultaneous uses.
    pub id: SessionId,
}

/// Error of an operation while the session tier is unavailable.
#[derive(Debug, thiserror::Error)]
#[error("the session tier is unavailable")]
pub struct SessionsUnavailable(#[source] pub Box<dyn Error + Send + Sync>);
