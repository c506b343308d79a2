//! Sessions in the memory of this process, for a sidecar without Redis.

mod table;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;

use self::table::SessionTable;
use super::{SessionKey, SessionPage, SessionQuery, Sessions, SessionsUnavailable};
use crate::{
    domain::{Clock, NewSession, Session, SessionId, UserId},
    rejections::Limit,
};

/// Sessions in the memory of this process. They are lost when it exits.
#[derive(Debug)]
pub struct InProcessSessions {
    ttl: Duration,
    clock: Arc<dyn Clock>,
    table: Mutex<SessionTable>,
}

/// Upper bounds on the sessions in the memory of a process. At an upper bound, the sessions that
/// were not used for the longest time end first.
#[derive(Clone, Copy, Debug)]
pub struct InProcessLimits {
    /// Sessions of a user.
    pub sessions_per_user: usize,
    /// Bytes of a user's sessions.
    pub bytes_per_user: usize,
    /// Sessions of all users.
    pub sessions: usize,
    /// Bytes of all users' sessions.
    pub bytes: usize,
}

impl Default for InProcessLimits {
    fn default() -> Self {
        Self {
            sessions_per_user: 1_000,
            bytes_per_user: 4 << 20,
            sessions: 100_000,
            bytes: 64 << 20,
        }
    }
}

impl InProcessSessions {
    /// Creates storage for sessions that expire `ttl` after their last use. `clock`
    /// provides the times that a session contains, and does not affect expiry.
    pub fn new(ttl: Duration, clock: Arc<dyn Clock>, limits: InProcessLimits) -> Self {
        Self {
            ttl,
            clock,
            table: Mutex::new(SessionTable::new(limits)),
        }
    }

    /// Number of stored sessions, including expired ones that were not removed yet.
    pub fn stored_sessions(&self) -> usize {
        self.lock().len()
    }

    /// Approximate size of the stored sessions in bytes.
    pub fn stored_bytes(&self) -> usize {
        self.lock().bytes()
    }

    /// Locks the table after some of the expired sessions were removed.
    fn lock(&self) -> MutexGuard<'_, SessionTable> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.remove_expired(Instant::now());
        table
    }

    fn start_now(&self, new: &NewSession) -> Session {
        let mut table = self.lock();
        let now = self.clock.now();
        let mut session = match table.session(&new.user_id, new.id) {
            Some(live) => live.clone(),
            None => Session {
                id: new.id,
                user_id: new.user_id.clone(),
                dept_id: new.dept_id.clone(),
                conversation_id: None,
                created_at: now,
                last_active_at: now,
                expires_at: now,
            },
        };
        session.conversation_id = new.conversation_id.or(session.conversation_id);
        session.last_active_at = now;
        session.expires_at = now + self.ttl;
        let ended = table.insert(session.clone(), Instant::now() + self.ttl);
        // The log may block.
        drop(table);
        Limit::SessionsPerUser.record_rejections(ended.beyond_user);
        Limit::SessionMemory.record_rejections(ended.beyond_memory);
        session
    }

    /// Resets the TTL of a session.
    fn renew(&self, table: &mut SessionTable, user: &UserId, id: SessionId) -> Option<Session> {
        table.record_use(user, id, Instant::now() + self.ttl);
        let session = table.session(user, id)?;
        session.last_active_at = self.clock.now();
        session.expires_at = session.last_active_at + self.ttl;
        Some(session.clone())
    }
}

#[async_trait]
impl Sessions for InProcessSessions {
    async fn start(&self, new: &NewSession) -> Result<Session, SessionsUnavailable> {
        Ok(self.start_now(new))
    }

    async fn get(
        &self,
        id: SessionId,
        user: Option<&UserId>,
    ) -> Result<Option<Session>, SessionsUnavailable> {
        let mut table = self.lock();
        let Some(user) = table.user_of(id, user) else {
            return Ok(None);
        };
        Ok(table.session(&user, id).cloned())
    }

    async fn touch(
        &self,
        id: SessionId,
        user: Option<&UserId>,
    ) -> Result<Option<Session>, SessionsUnavailable> {
        let mut table = self.lock();
        let Some(user) = table.user_of(id, user) else {
            return Ok(None);
        };
        Ok(self.renew(&mut table, &user, id))
    }

    async fn end(&self, id: SessionId, user: Option<&UserId>) -> Result<bool, SessionsUnavailable> {
        let mut table = self.lock();
        let user = table.user_of(id, user);
        Ok(user.is_some_and(|user| table.remove(&user, id)))
    }

    async fn list(&self, query: &SessionQuery) -> Result<SessionPage, SessionsUnavailable> {
        let table = self.lock();
        let before = query
            .after
            .map_or(u64::MAX, |key| u64::try_from(key.last_use).unwrap_or(0));
        let limit = query.limit as usize;
        let mut live = table.latest_before(&query.user_id, before);
        let page: Vec<_> = live.by_ref().take(limit).collect();
        let last = page.last().filter(|_| live.next().is_some());
        Ok(SessionPage {
            next: last.map(|(last_use, session)| SessionKey {
                last_use: i64::try_from(*last_use).unwrap_or(i64::MAX),
                id: session.id,
            }),
            sessions: page
                .into_iter()
                .map(|(_, session)| session.clone())
                .collect(),
        })
    }
}
