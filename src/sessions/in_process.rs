//! Sessions in this process, for a sidecar without Redis.

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

/// Sessions in this process. They end with it.
#[derive(Debug)]
pub struct InProcessSessions {
    ttl: Duration,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    live: HashMap<SessionId, Live>,
    by_user: HashMap<UserId, HashSet<SessionId>>,
    uses: u64,
    next_sweep: Instant,
}

#[derive(Debug)]
struct Live {
    session: Session,
    ends: Instant,
    /// Orders the uses, which may fall on one instant.
    last_use: u64,
}

impl InProcessSessions {
    /// Sessions that live for `ttl` after their last use. The clock is for the
    /// times that they show.
    pub fn new(ttl: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            ttl,
            clock,
            state: Mutex::new(State {
                live: HashMap::new(),
                by_user: HashMap::new(),
                uses: 0,
                next_sweep: Instant::now() + ttl,
            }),
        }
    }

    /// How many sessions are held, of which some may have expired lately.
    pub fn held(&self) -> usize {
        self.lock().live.len()
    }

    /// The state without the session, should it have expired.
    fn state(&self, id: SessionId) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        let now = Instant::now();
        if state.live.get(&id).is_some_and(|live| live.ends <= now) {
            state.remove(id);
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a session its whole TTL again.
    fn renew(&self, state: &mut State, id: SessionId, now: DateTime<Utc>) -> Option<Session> {
        state.uses += 1;
        let live = state.live.get_mut(&id)?;
        live.last_use = state.uses;
        live.ends = Instant::now() + self.ttl;
        live.session.last_active_at = now;
        live.session.expires_at = live.session.last_active_at + self.ttl;
        Some(live.session.clone())
    }

    fn start_now(&self, new: &NewSession) -> Option<Session> {
        let mut state = self.state(new.id);
        state.sweep(self.ttl);
        let now = self.clock.now();
        if let Some(live) = state.live.get_mut(&new.id) {
            if live.session.user_id != new.user_id {
                return None;
            }
            if new.conversation_id.is_some() {
                live.session.conversation_id = new.conversation_id;
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
            state.insert(session);
        }
        self.renew(&mut state, new.id, now)
    }

    fn touch_now(&self, id: SessionId, user: Option<&UserId>) -> Option<Session> {
        let mut state = self.state(id);
        let session = &state.live.get(&id)?.session;
        if user.is_some_and(|user| *user != session.user_id) {
            return None;
        }
        self.renew(&mut state, id, self.clock.now())
    }
}

#[async_trait]
impl Sessions for InProcessSessions {
    async fn start(&self, new: &NewSession) -> Result<Option<Session>, SessionsUnavailable> {
        Ok(self.start_now(new))
    }

    async fn get(&self, id: SessionId) -> Result<Option<Session>, SessionsUnavailable> {
        let state = self.state(id);
        Ok(state.live.get(&id).map(|live| live.session.clone()))
    }

    async fn touch(
        &self,
        id: SessionId,
        user: Option<&UserId>,
    ) -> Result<Option<Session>, SessionsUnavailable> {
        Ok(self.touch_now(id, user))
    }

    async fn end(&self, id: SessionId) -> Result<bool, SessionsUnavailable> {
        Ok(self.state(id).remove(id))
    }

    async fn list(&self, user: &UserId) -> Result<Vec<Session>, SessionsUnavailable> {
        let state = self.lock();
        let now = Instant::now();
        let ids = state.by_user.get(user).into_iter().flatten();
        let mut live: Vec<_> = ids
            .filter_map(|id| state.live.get(id))
            .filter(|live| live.ends > now)
            .collect();
        live.sort_by_key(|live| Reverse(live.last_use));
        Ok(live.into_iter().map(|live| live.session.clone()).collect())
    }
}

impl State {
    fn insert(&mut self, session: Session) {
        self.by_user
            .entry(session.user_id.clone())
            .or_default()
            .insert(session.id);
        let live = Live {
            ends: Instant::now(),
            last_use: 0,
            session,
        };
        self.live.insert(live.session.id, live);
    }

    fn remove(&mut self, id: SessionId) -> bool {
        let Some(live) = self.live.remove(&id) else {
            return false;
        };
        if let Some(ids) = self.by_user.get_mut(&live.session.user_id) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_user.remove(&live.session.user_id);
            }
        }
        true
    }

    /// Removes what has expired, at most twice in a session's life, so that no
    /// more is held than was used within one and a half lives.
    fn sweep(&mut self, ttl: Duration) {
        let now = Instant::now();
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + ttl / 2;
        let expired: Vec<_> = self
            .live
            .iter()
            .filter(|(_, live)| live.ends <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in expired {
            self.remove(id);
        }
    }
}
