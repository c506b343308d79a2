//! Sessions in the memory of this process, for a sidecar without Redis.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::{Sessions, SessionsUnavailable};
use crate::domain::{Clock, NewSession, Session, SessionId, UserId};

/// Sessions in the memory of this process. They are lost when it exits.
#[derive(Debug)]
pub struct InProcessSessions {
    ttl: Duration,
    clock: Arc<dyn Clock>,
    table: Mutex<SessionTable>,
}

#[derive(Debug)]
struct SessionTable {
    /// Sessions by id. It can contain expired ones until the next sweep.
    sessions: HashMap<SessionId, SessionEntry>,
    by_user: HashMap<UserId, HashSet<SessionId>>,
    /// Number of uses of all sessions.
    uses: u64,
    next_sweep: Instant,
}

#[derive(Debug)]
struct SessionEntry {
    session: Session,
    expires: Instant,
    /// Value of [`SessionTable::uses`] at the last use. It orders uses within one
    /// instant.
    last_use: u64,
}

impl InProcessSessions {
    /// Creates storage for sessions that expire `ttl` after their last use. `clock`
    /// provides the times that a session contains, and does not affect expiry.
    pub fn new(ttl: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            ttl,
            clock,
            table: Mutex::new(SessionTable {
                sessions: HashMap::new(),
                by_user: HashMap::new(),
                uses: 0,
                next_sweep: Instant::now() + ttl,
            }),
        }
    }

    /// Number of stored sessions, including expired ones that were not removed yet.
    pub fn stored_sessions(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Locks the table and removes the session if it has expired.
    fn lock_without_expired(&self, id: SessionId) -> MutexGuard<'_, SessionTable> {
        let mut table = self.lock();
        let now = Instant::now();
        if table
            .sessions
            .get(&id)
            .is_some_and(|entry| entry.expires <= now)
        {
            table.remove(id);
        }
        table
    }

    fn lock(&self) -> MutexGuard<'_, SessionTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resets the TTL of a session.
    fn renew(
        &self,
        table: &mut SessionTable,
        id: SessionId,
        now: DateTime<Utc>,
    ) -> Option<Session> {
        table.uses += 1;
        let entry = table.sessions.get_mut(&id)?;
        entry.last_use = table.uses;
        entry.expires = Instant::now() + self.ttl;
        entry.session.last_active_at = now;
        entry.session.expires_at = entry.session.last_active_at + self.ttl;
        Some(entry.session.clone())
    }

    fn start_now(&self, new: &NewSession) -> Option<Session> {
        let mut table = self.lock_without_expired(new.id);
        table.remove_expired(self.ttl);
        let now = self.clock.now();
        if let Some(entry) = table.sessions.get_mut(&new.id) {
            if entry.session.user_id != new.user_id {
                return None;
            }
            if new.conversation_id.is_some() {
                entry.session.conversation_id = new.conversation_id;
            }
        } else {
            let session = Session {
                id: new.id,
                user_id: new.user_id.clone(),
                dept_id: new.dept_id.clone(),
                conversation_id: new.conversation_id,
                created_at: now,
                last_active_at: now,
                expires_at: now,
            };
            table.insert(session);
        }
        self.renew(&mut table, new.id, now)
    }

    fn touch_now(&self, id: SessionId, user: Option<&UserId>) -> Option<Session> {
        let mut table = self.lock_without_expired(id);
        let session = &table.sessions.get(&id)?.session;
        if user.is_some_and(|user| *user != session.user_id) {
            return None;
        }
        self.renew(&mut table, id, self.clock.now())
    }
}

#[async_trait]
impl Sessions for InProcessSessions {
    async fn start(&self, new: &NewSession) -> Result<Option<Session>, SessionsUnavailable> {
        Ok(self.start_now(new))
    }

    async fn get(&self, id: SessionId) -> Result<Option<Session>, SessionsUnavailable> {
        let table = self.lock_without_expired(id);
        Ok(table.sessions.get(&id).map(|entry| entry.session.clone()))
    }

    async fn touch(
        &self,
        id: SessionId,
        user: Option<&UserId>,
    ) -> Result<Option<Session>, SessionsUnavailable> {
        Ok(self.touch_now(id, user))
    }

    async fn end(&self, id: SessionId) -> Result<bool, SessionsUnavailable> {
        Ok(self.lock_without_expired(id).remove(id))
    }

    async fn list(&self, user: &UserId) -> Result<Vec<Session>, SessionsUnavailable> {
        let table = self.lock();
        let now = Instant::now();
        let ids = table.by_user.get(user).into_iter().flatten();
        let mut live: Vec<_> = ids
            .filter_map(|id| table.sessions.get(id))
            .filter(|entry| entry.expires > now)
            .collect();
        live.sort_by_key(|entry| Reverse(entry.last_use));
        Ok(live
            .into_iter()
            .map(|entry| entry.session.clone())
            .collect())
    }
}

impl SessionTable {
    fn insert(&mut self, session: Session) {
        self.by_user
            .entry(session.user_id.clone())
            .or_default()
            .insert(session.id);
        let entry = SessionEntry {
            expires: Instant::now(),
            last_use: 0,
            session,
        };
        self.sessions.insert(entry.session.id, entry);
    }

    fn remove(&mut self, id: SessionId) -> bool {
        let Some(entry) = self.sessions.remove(&id) else {
            return false;
        };
        if let Some(ids) = self.by_user.get_mut(&entry.session.user_id) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_user.remove(&entry.session.user_id);
            }
        }
        true
    }

    /// Removes expired sessions, at most twice per TTL, so that the table contains
    /// no session that was last used more than one and a half TTLs ago.
    fn remove_expired(&mut self, ttl: Duration) {
        let now = Instant::now();
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + ttl / 2;
        let expired: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, entry)| entry.expires <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in expired {
            self.remove(id);
        }
    }
}
