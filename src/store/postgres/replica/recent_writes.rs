use std::{
    hash::{DefaultHasher, Hash, Hasher as _},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::Subject;
use crate::domain::{ConversationId, UserId};

/// Number of times that are kept. Users and conversations that share one are read from the primary
/// more often than necessary.
const SLOTS: usize = 4096;

/// When this process last wrote for a user or to a conversation. A replica that lags may not show
/// these writes yet, and a caller expects to read what it has written.
#[derive(Debug)]
pub(in crate::store::postgres) struct RecentWrites {
    /// Milliseconds from `epoch` to the end of the last write, plus one; 0 if there was none.
    slots: Box<[AtomicU64]>,
    /// The same for the writes whose user is not known: all lists and searches may lack them.
    of_unknown_users: AtomicU64,
    /// The same for the writes whose conversations are not known: all reads may lack them.
    of_unknown_conversations: AtomicU64,
    epoch: Instant,
}

impl RecentWrites {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            of_unknown_users: AtomicU64::new(0),
            of_unknown_conversations: AtomicU64::new(0),
            epoch: Instant::now(),
        }
    }

    /// Records a write to a conversation that has ended now, with any outcome.
    pub(in crate::store::postgres) fn record(
        &self,
        conversation: ConversationId,
        user: Option<&UserId>,
    ) {
        self.record_all(&[conversation], &[user]);
    }

    /// Records a write that has changed several conversations of these users. `None` stands for a user
    /// whom the write does not name.
    pub(in crate::store::postgres) fn record_all(
        &self,
        conversations: &[ConversationId],
        users: &[Option<&UserId>],
    ) {
        let now = self.now() + 1;
        for conversation in conversations {
            self.slot(conversation.as_uuid())
                .store(now, Ordering::Relaxed);
        }
        for user in users {
            let of_user = match user {
                Some(user) => self.slot(user.as_str()),
                None => &self.of_unknown_users,
            };
            of_user.store(now, Ordering::Relaxed);
        }
    }

    /// Records a write that may have changed any conversation.
    pub(in crate::store::postgres) fn record_unknown(&self) {
        let now = self.now() + 1;
        self.of_unknown_conversations.store(now, Ordering::Relaxed);
    }

    /// Whether a write that a read of `subject` may lack has ended within `duration`.
    pub(super) fn contains(&self, subject: Subject<'_>, duration: Duration) -> bool {
        let now = self.now();
        let is_recent = |last: &AtomicU64| {
            let last = last.load(Ordering::Relaxed);
            // Both times are rounded down.
            last > 0 && u128::from(now.saturating_sub(last)) <= duration.as_millis()
        };
        let is_written = match subject {
            Subject::Conversation(id) => is_recent(self.slot(id.as_uuid())),
            Subject::User(user) => {
                is_recent(self.slot(user.as_str())) || is_recent(&self.of_unknown_users)
            }
        };
        is_written || is_recent(&self.of_unknown_conversations)
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

    const SECOND: Duration = Duration::from_secs(1);

    fn is_recent(writes: &RecentWrites, number: u128) -> bool {
        writes.contains(Subject::Conversation(conversation(number)), SECOND)
    }

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    #[test]
    fn writes_are_recent_for_their_user_and_conversation() {
        let writes = RecentWrites::new();
        let (user, other) = (user("user"), user("other"));
        assert!(!is_recent(&writes, 1));
        assert!(!writes.contains(Subject::User(&user), SECOND));
        writes.record(conversation(1), Some(&user));
        assert!(is_recent(&writes, 1));
        assert!(writes.contains(Subject::User(&user), SECOND));
        assert!(!is_recent(&writes, 2));
        assert!(!writes.contains(Subject::User(&other), SECOND));
    }

    #[test]
    fn a_write_for_an_unknown_user_concerns_its_conversation_and_all_users() {
        let writes = RecentWrites::new();
        writes.record(conversation(1), None);
        assert!(writes.contains(Subject::User(&user("user")), SECOND));
        assert!(is_recent(&writes, 1));
        assert!(!is_recent(&writes, 2));
    }

    #[test]
    fn a_write_to_unknown_conversations_concerns_all_reads() {
        let writes = RecentWrites::new();
        writes.record_unknown();
        assert!(is_recent(&writes, 1));
        assert!(writes.contains(Subject::User(&user("user")), SECOND));
    }

    #[test]
    fn writes_are_recent_for_the_duration_only() {
        let writes = RecentWrites::new();
        writes.record(conversation(1), None);
        std::thread::sleep(Duration::from_millis(20));
        let subject = Subject::Conversation(conversation(1));
        assert!(!writes.contains(subject, Duration::from_millis(5)));
    }
}
