use std::{
    hash::{DefaultHasher, Hash, Hasher as _},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::domain::{ConversationId, UserId};

/// Number of times that are kept. Users and conversations that share one are read from the primary
/// more often than necessary.
const SLOTS: usize = 4096;

/// When this process last wrote for a user or to a conversation. A replica that lags may not show
/// these writes yet, and a caller expects to read what it has written.
#[derive(Debug)]
pub(super) struct RecentWrites {
    /// Milliseconds from `epoch` to the end of the last write, plus one; 0 if there was none.
    slots: Box<[AtomicU64]>,
    /// The same for the writes whose user is not known.
    of_unknown_users: AtomicU64,
    epoch: Instant,
}

impl RecentWrites {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            of_unknown_users: AtomicU64::new(0),
            epoch: Instant::now(),
        }
    }

    /// Records a write that has ended now.
    pub(super) fn record(&self, conversation: ConversationId, user: Option<&UserId>) {
        let now = self.now() + 1;
        self.slot(conversation.as_uuid())
            .store(now, Ordering::Relaxed);
        let of_user = match user {
            Some(user) => self.slot(user.as_str()),
            None => &self.of_unknown_users,
        };
        of_user.store(now, Ordering::Relaxed);
    }

    /// Whether a write to the conversation or for the user has ended within `duration`.
    pub(super) fn contains(
        &self,
        conversation: Option<ConversationId>,
        user: Option<&UserId>,
        duration: Duration,
    ) -> bool {
        let now = self.now();
        let is_recent = |last: &AtomicU64| {
            let last = last.load(Ordering::Relaxed);
            // Both times are rounded down.
            last > 0 && u128::from(now.saturating_sub(last)) <= duration.as_millis()
        };
        conversation.is_some_and(|id| is_recent(self.slot(id.as_uuid())))
            || user.is_some_and(|user| is_recent(self.slot(user.as_str())))
            || is_recent(&self.of_unknown_users)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }

    fn slot(&self, key: impl Hash) -> &AtomicU64 {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % SLOTS as u64).unwrap_or_default();
        &self.slots[index]
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn conversation(number: u128) -> ConversationId {
        ConversationId::from_uuid(Uuid::from_u128(number))
    }

    #[test]
    fn writes_are_recent_for_their_user_and_conversation() {
        let writes = RecentWrites::new();
        let user = UserId::parse("user").unwrap();
        let second = Duration::from_secs(1);
        assert!(!writes.contains(Some(conversation(1)), Some(&user), second));
        writes.record(conversation(1), Some(&user));
        assert!(writes.contains(Some(conversation(1)), None, second));
        assert!(writes.contains(None, Some(&user), second));
        let other = UserId::parse("other").unwrap();
        assert!(!writes.contains(Some(conversation(2)), Some(&other), second));
    }

    #[test]
    fn a_write_for_an_unknown_user_concerns_all() {
        let writes = RecentWrites::new();
        writes.record(conversation(1), None);
        let user = UserId::parse("user").unwrap();
        assert!(writes.contains(Some(conversation(2)), Some(&user), Duration::from_secs(1)));
    }

    #[test]
    fn writes_are_recent_for_the_duration_only() {
        let writes = RecentWrites::new();
        writes.record(conversation(1), None);
        std::thread::sleep(Duration::from_millis(20));
        assert!(!writes.contains(Some(conversation(1)), None, Duration::from_millis(5)));
    }
}
