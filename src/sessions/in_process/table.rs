use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tokio::time::Instant;

use super::InProcessLimits;
use crate::domain::{DeptId, Session, SessionId, UserId};

/// Number of expired sessions that one operation removes, so that it ends soon.
const REMOVED_AT_ONCE: usize = 64;

/// Size of a session in all tables, without its texts.
const SESSION_BYTES: usize = 600;

/// Sessions, ordered by their last use. All have the same TTL, so that this is also the order in which
/// they expire.
#[derive(Debug)]
pub(super) struct SessionTable {
    limits: InProcessLimits,
    users: HashMap<Arc<UserId>, UserSessions>,
    /// Sessions of all users by last use.
    by_use: BTreeMap<u64, (Arc<UserId>, SessionId)>,
    /// First user who has started a session with an id that is in use.
    first_users: HashMap<SessionId, Arc<UserId>>,
    bytes: usize,
    /// Number of uses of all sessions, which orders them.
    uses: u64,
}

#[derive(Debug, Default)]
struct UserSessions {
    entries: HashMap<SessionId, SessionEntry>,
    by_use: BTreeMap<u64, SessionId>,
    bytes: usize,
}

#[derive(Debug)]
struct SessionEntry {
    session: Session,
    expires: Instant,
    last_use: u64,
}

/// Numbers of live sessions that ended because a limit was exceeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EndedByLimits {
    /// Sessions beyond the number for a user.
    pub(super) beyond_user: u64,
    /// Sessions beyond the memory for a user or for all sessions.
    pub(super) beyond_memory: u64,
}

impl SessionTable {
    pub(super) fn new(limits: InProcessLimits) -> Self {
        Self {
            limits,
            users: HashMap::new(),
            by_use: BTreeMap::new(),
            first_users: HashMap::new(),
            bytes: 0,
            uses: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_use.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the user whose session an operation concerns: the one that it names, or else the
    /// first one who has started a session with the id.
    pub(super) fn user_of(&self, id: SessionId, named: Option<&UserId>) -> Option<UserId> {
        match named {
            Some(user) => Some(user.clone()),
            None => self.first_users.get(&id).map(|user| (**user).clone()),
        }
    }

    /// Returns a live session of a user.
    pub(super) fn session(&mut self, user: &UserId, id: SessionId) -> Option<&mut Session> {
        let entry = self.users.get_mut(user)?.entries.get_mut(&id)?;
        (entry.expires > Instant::now()).then_some(&mut entry.session)
    }

    /// Adds a session as the one that was used last, in place of one with the same id. Ends the
    /// sessions beyond the limits.
    pub(super) fn insert(&mut self, session: Session, expires: Instant) -> EndedByLimits {
        let id = session.id;
        let first_user = self.first_users.get(&id).cloned();
        self.remove(&session.user_id, id);
        let user = match self.users.get_key_value(&session.user_id) {
            Some((user, _)) => Arc::clone(user),
            None => Arc::new(session.user_id.clone()),
        };
        let bytes = session_bytes(&session);
        self.uses += 1;
        let last_use = self.uses;
        let sessions = self.users.entry(Arc::clone(&user)).or_default();
        sessions.bytes += bytes;
        sessions.by_use.insert(last_use, id);
        let entry = SessionEntry {
            session,
            expires,
            last_use,
        };
        sessions.entries.insert(id, entry);
        self.bytes += bytes;
        self.by_use.insert(last_use, (Arc::clone(&user), id));
        let first_user = first_user.unwrap_or_else(|| Arc::clone(&user));
        self.first_users.insert(id, first_user);
        self.end_excess(&user, last_use)
    }

    /// Makes a session the one that was used last.
    pub(super) fn record_use(&mut self, user: &UserId, id: SessionId, expires: Instant) {
        let Some(sessions) = self.users.get_mut(user) else {
            return;
        };
        let Some(entry) = sessions.entries.get_mut(&id) else {
            return;
        };
        self.uses += 1;
        sessions.by_use.remove(&entry.last_use);
        sessions.by_use.insert(self.uses, id);
        if let Some(place) = self.by_use.remove(&entry.last_use) {
            self.by_use.insert(self.uses, place);
        }
        entry.last_use = self.uses;
        entry.expires = expires;
    }

    /// Removes a session. Returns whether it was live.
    pub(super) fn remove(&mut self, user: &UserId, id: SessionId) -> bool {
        let Some(sessions) = self.users.get_mut(user) else {
            return false;
        };
        let Some(entry) = sessions.entries.remove(&id) else {
            return false;
        };
        let bytes = session_bytes(&entry.session);
        sessions.by_use.remove(&entry.last_use);
        sessions.bytes -= bytes;
        if sessions.entries.is_empty() {
            self.users.remove(user);
        }
        self.bytes -= bytes;
        self.by_use.remove(&entry.last_use);
        if self
            .first_users
            .get(&id)
            .is_some_and(|first| **first == *user)
        {
            self.first_users.remove(&id);
        }
        entry.expires > Instant::now()
    }

    /// Removes some of the sessions that have expired.
    pub(super) fn remove_expired(&mut self, now: Instant) {
        for _ in 0..REMOVED_AT_ONCE {
            let Some((user, id)) = self
                .by_use
                .first_key_value()
                .map(|(_, place)| place.clone())
            else {
                return;
            };
            let sessions = self.users.get(&user);
            let entry = sessions.and_then(|sessions| sessions.entries.get(&id));
            if entry.is_some_and(|entry| entry.expires > now) {
                return;
            }
            self.remove(&user, id);
        }
    }

    /// Returns a user's live sessions that were last used before `before`, with their last use,
    /// latest first.
    pub(super) fn latest_before(
        &self,
        user: &UserId,
        before: u64,
    ) -> impl Iterator<Item = (u64, &Session)> {
        let now = Instant::now();
        let sessions = self.users.get(user);
        let latest = sessions.map(|sessions| {
            let ids = sessions.by_use.range(..before).rev();
            ids.filter_map(|(last_use, id)| Some((*last_use, sessions.entries.get(id)?)))
        });
        // All sessions after an expired one have expired, too.
        let live = latest.into_iter().flatten();
        live.take_while(move |(_, entry)| entry.expires > now)
            .map(|(last_use, entry)| (last_use, &entry.session))
    }

    /// Ends the sessions beyond the limits, but not the one that was used at `newest`.
    fn end_excess(&mut self, user: &Arc<UserId>, newest: u64) -> EndedByLimits {
        let mut ended = EndedByLimits::default();
        let limits = self.limits;
        while let Some(sessions) = self.users.get(user)
            && (sessions.entries.len() > limits.sessions_per_user
                || sessions.bytes > limits.bytes_per_user)
            && let Some((_, id)) = sessions.by_use.range(..newest).next()
        {
            let (id, is_in_number) = (*id, sessions.entries.len() <= limits.sessions_per_user);
            let is_live = u64::from(self.remove(user, id));
            if is_in_number {
                ended.beyond_memory += is_live;
            } else {
                ended.beyond_user += is_live;
            }
        }
        while (self.by_use.len() > limits.sessions || self.bytes > limits.bytes)
            && let Some((_, (user, id))) = self.by_use.range(..newest).next()
        {
            let (user, id) = (Arc::clone(user), *id);
            ended.beyond_memory += u64::from(self.remove(&user, id));
        }
        ended
    }
}

/// Approximate size of a session in all tables. A user id is stored twice at most for each session:
/// in it, and as a key.
fn session_bytes(session: &Session) -> usize {
    let dept = session
        .dept_id
        .as_ref()
        .map_or(0, |dept| DeptId::as_str(dept).len());
    SESSION_BYTES + 2 * session.user_id.as_str().len() + dept
}
