use std::mem;

use hashlink::LinkedHashMap;
use tokio::time::Instant;

use super::{
    LEASE_DURATION,
    stored::{Publication, Stored},
};
use crate::{
    domain::{ConversationId, UserId},
    recent::{
        Claim, EncodedMessage, Window,
        instruments::{DropReason, FillOutcome},
        redis::WINDOW_BYTES,
    },
};

/// Bytes that count for a conversation besides its messages.
const ENTRY_BYTES: usize = 384;
/// Bytes that count for an announced write.
const WRITE_BYTES: usize = 32;

/// Windows of all conversations. Those that were not used for the longest time are the first.
pub(super) struct WindowTable {
    entries: LinkedHashMap<ConversationId, Entry>,
    bytes: usize,
    max_bytes: usize,
    /// Upper bound on the messages of a window.
    capacity: usize,
    /// Number of announcements and leases so far.
    numbers: u64,
    dropped: Dropped,
}

/// Windows that were dropped, so that they can be freed and counted without the lock.
type Dropped = Vec<(DropReason, Stored)>;

/// What is stored of a conversation.
#[derive(Default)]
struct Entry {
    /// Owner of the conversation, also of a cold window: the store has confirmed it.
    user: Option<UserId>,
    /// `None` while the window is cold.
    window: Option<Stored>,
    /// Highest sequence number that was ever published while the entry existed. It only matters
    /// while writes are announced, and therefore need not be kept after them.
    top: i64,
    /// Writes that are announced and neither published nor withdrawn.
    writes: Vec<AnnouncedWrite>,
    lease: Option<Lease>,
}

struct AnnouncedWrite {
    number: u64,
    deadline: Instant,
}

/// Permission of one reader to fill the window.
pub(super) struct Lease {
    pub(super) number: u64,
    /// When the lease expires, or the time of a fill with it.
    pub(super) expiry: Instant,
}

/// Result of reading a window.
pub(super) enum Found {
    OwnerUnknown,
    Busy,
    Short,
    /// The number of the lease, if it was granted.
    Miss(Option<u64>),
    Hit(Box<Window<EncodedMessage>>),
}

impl WindowTable {
    pub(super) fn new(capacity: usize, max_bytes: usize) -> Self {
        Self {
            entries: LinkedHashMap::new(),
            bytes: 0,
            max_bytes,
            capacity,
            numbers: 0,
            dropped: Vec::new(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn take_dropped(&mut self) -> Dropped {
        mem::take(&mut self.dropped)
    }

    /// Announces a write, and returns its number. `None` if the claimed user is not known as the
    /// owner.
    pub(super) fn announce(
        &mut self,
        conversation: ConversationId,
        claim: Claim<'_>,
        deadline: Instant,
    ) -> Option<u64> {
        if !self.admits(conversation, claim) {
            return None;
        }
        let number = self.next_number();
        self.update(conversation, |entry, _| {
            entry.confirm(claim);
            entry.writes.push(AnnouncedWrite { number, deadline });
            // A reader that holds a lease may have read the store before the commit.
            entry.lease = None;
        });
        Some(number)
    }

    /// Adds committed messages to the window.
    pub(super) fn publish(
        &mut self,
        conversation: ConversationId,
        number: Option<u64>,
        publication: Publication,
    ) {
        let (capacity, max_bytes) = (self.capacity, self.max_window_bytes());
        self.update(conversation, |entry, dropped| {
            let is_announced = entry.withdraw(number);
            let previous_top = entry.raise_top(publication.last_seq);
            if !is_announced {
                return entry.drop_window(DropReason::Unannounced, dropped);
            }
            let Some(window) = &mut entry.window else {
                // The first messages start a window, unless later ones were published already.
                if publication.first_seq == 1 && previous_top < 1 {
                    let is_complete = usize::try_from(publication.last_seq)
                        .is_ok_and(|length| length <= capacity);
                    let mut window = Stored::empty(&publication.owner, is_complete);
                    window.append(publication, capacity);
                    entry.user = Some(window.owner.clone());
                    entry.set_window(window, max_bytes, dropped);
                }
                return;
            };
            if publication.first_seq == window.last_seq + 1 {
                window.append(publication, capacity);
                if window.bytes > max_bytes {
                    entry.drop_window(DropReason::TooLarge, dropped);
                }
            } else if publication.last_seq > window.last_seq {
                entry.drop_window(DropReason::Gap, dropped);
            } else if !window.has_last_of(&publication) {
                entry.drop_window(DropReason::Diverged, dropped);
            }
        });
    }

    /// Ends the announcement of a write that was a replay of one committed up to `last_seq`.
    pub(super) fn publish_replay(
        &mut self,
        conversation: ConversationId,
        number: Option<u64>,
        last_seq: i64,
    ) {
        self.update(conversation, |entry, dropped| {
            let is_announced = entry.withdraw(number);
            entry.raise_top(last_seq);
            let ends_before = |window: &Stored| window.last_seq < last_seq;
            if !is_announced {
                entry.drop_window(DropReason::Unannounced, dropped);
            } else if entry.window.as_ref().is_some_and(ends_before) {
                entry.drop_window(DropReason::BehindReplay, dropped);
            }
        });
    }

    /// Withdraws an announcement, because nothing was committed.
    pub(super) fn abort(&mut self, conversation: ConversationId, number: Option<u64>) {
        self.update(conversation, |entry, _| {
            entry.withdraw(number);
        });
    }

    /// Withdraws an announcement, and drops the window with all that it implies: a concurrent
    /// publish must not start a window with the first messages, and the conversation may not exist.
    pub(super) fn drop_window(
        &mut self,
        conversation: ConversationId,
        number: Option<u64>,
        reason: DropReason,
    ) {
        self.update(conversation, |entry, dropped| {
            entry.withdraw(number);
            entry.raise_top(1);
            entry.drop_window(reason, dropped);
            entry.user = None;
        });
    }

    /// Reads the newest `limit` messages, or all of the window if some belong to groups.
    pub(super) fn newest(
        &mut self,
        conversation: ConversationId,
        claim: Claim<'_>,
        limit: usize,
        min_seq: i64,
        now: Instant,
    ) -> Found {
        if !self.admits(conversation, claim) {
            return Found::OwnerUnknown;
        }
        if let Some(entry) = self.entries.to_back(&conversation) {
            if entry.writes.iter().any(|write| write.deadline > now) {
                return Found::Busy;
            }
            if let Some(window) = entry.readable(claim, min_seq) {
                return window.newest(limit);
            }
        }
        let number = self.next_number();
        self.update(conversation, |entry, dropped| {
            entry.drop_unreadable(claim, min_seq, dropped);
            if entry.lease.as_ref().is_some_and(|lease| lease.expiry > now) {
                return Found::Miss(None);
            }
            let expiry = now + LEASE_DURATION;
            entry.lease = Some(Lease { number, expiry });
            entry.confirm(claim);
            Found::Miss(Some(number))
        })
    }

    /// Fills a window, if the lease is still valid.
    pub(super) fn fill(
        &mut self,
        conversation: ConversationId,
        lease: &Lease,
        window: Stored,
    ) -> FillOutcome {
        if window.bytes > self.max_window_bytes() {
            return FillOutcome::TooLarge;
        }
        self.update(conversation, |entry, _| {
            let is_valid = entry.lease.as_ref().is_some_and(|granted| {
                granted.number == lease.number && granted.expiry > lease.expiry
            });
            if !is_valid || !entry.writes.is_empty() {
                return FillOutcome::Refused;
            }
            entry.lease = None;
            entry.user = Some(window.owner.clone());
            entry.window = Some(window);
            FillOutcome::Filled
        })
    }

    /// Ends a lease that was not used.
    pub(super) fn end_lease(&mut self, conversation: ConversationId, number: u64) {
        let holds = |entry: &Entry| entry.lease.as_ref().is_some_and(|it| it.number == number);
        if self.entries.get(&conversation).is_some_and(holds) {
            self.update(conversation, |entry, _| entry.lease = None);
        }
    }

    /// Removes all that is stored of a conversation.
    pub(super) fn evict(&mut self, conversation: ConversationId) {
        if let Some(entry) = self.entries.remove(&conversation) {
            self.record_eviction(entry);
        }
    }

    /// Whether the claimed user is known as the owner, or was confirmed by the store.
    fn admits(&self, conversation: ConversationId, claim: Claim<'_>) -> bool {
        let Claim::Unconfirmed(claimed) = claim else {
            return true;
        };
        let known = self.entries.get(&conversation);
        known.and_then(|entry| entry.user.as_ref()) == Some(claimed)
    }

    fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Upper bound on the size of one window.
    fn max_window_bytes(&self) -> usize {
        WINDOW_BYTES.min(self.max_bytes / 2)
    }

    /// Changes what is stored of a conversation, and makes it the last one that was used. Other
    /// conversations leave if the total size requires it.
    fn update<T>(
        &mut self,
        conversation: ConversationId,
        change: impl FnOnce(&mut Entry, &mut Dropped) -> T,
    ) -> T {
        let mut entry = match self.entries.remove(&conversation) {
            Some(entry) => {
                self.bytes -= entry.bytes();
                entry
            }
            None => Entry::default(),
        };
        let outcome = change(&mut entry, &mut self.dropped);
        if !entry.is_empty() {
            self.bytes += entry.bytes();
            self.entries.insert(conversation, entry);
        }
        while self.bytes > self.max_bytes
            && let Some((_, entry)) = self.entries.pop_front()
        {
            self.record_eviction(entry);
        }
        outcome
    }

    fn record_eviction(&mut self, entry: Entry) {
        self.bytes -= entry.bytes();
        if let Some(window) = entry.window {
            self.dropped.push((DropReason::Evicted, window));
        }
    }
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.user.is_none()
            && self.window.is_none()
            && self.writes.is_empty()
            && self.lease.is_none()
    }

    fn bytes(&self) -> usize {
        let user = self.user.as_ref().map_or(0, |user| user.as_str().len());
        let window = self.window.as_ref().map_or(0, |window| window.bytes);
        ENTRY_BYTES + user + window + WRITE_BYTES * self.writes.len()
    }

    /// Stores the owner, if the store has confirmed it.
    fn confirm(&mut self, claim: Claim<'_>) {
        if let Claim::Confirmed(user) = claim {
            self.user = Some(user.clone());
        }
    }

    /// Removes an announcement. Returns whether it existed.
    fn withdraw(&mut self, number: Option<u64>) -> bool {
        let is_same = |write: &AnnouncedWrite| Some(write.number) == number;
        let found = self.writes.iter().position(is_same);
        found.map(|at| self.writes.swap_remove(at)).is_some()
    }

    /// Raises the highest published number, and returns the previous one.
    fn raise_top(&mut self, seq: i64) -> i64 {
        let previous = self.top;
        self.top = previous.max(seq);
        previous
    }

    fn drop_window(&mut self, reason: DropReason, dropped: &mut Dropped) {
        self.lease = None;
        dropped.extend(self.window.take().map(|window| (reason, window)));
    }

    fn set_window(&mut self, window: Stored, max_bytes: usize, dropped: &mut Dropped) {
        let is_too_large = window.bytes > max_bytes;
        self.window = Some(window);
        if is_too_large {
            self.drop_window(DropReason::TooLarge, dropped);
        }
    }

    /// Returns the window if it can be read.
    fn readable(&self, claim: Claim<'_>, min_seq: i64) -> Option<&Stored> {
        let is_readable = self.unreadable_reason(claim, min_seq).is_none();
        self.window.as_ref().filter(|_| is_readable)
    }

    /// Reason for which a window must be dropped instead of being read, after no announced write is
    /// in progress.
    fn unreadable_reason(&self, claim: Claim<'_>, min_seq: i64) -> Option<DropReason> {
        if !self.writes.is_empty() {
            return Some(DropReason::Abandoned);
        }
        let window = self.window.as_ref()?;
        if window.last_seq < min_seq {
            return Some(DropReason::Stale);
        }
        match claim {
            Claim::Confirmed(user) if window.owner != *user => {
                Some(DropReason::UnknownConversation)
            }
            _ => None,
        }
    }

    /// Drops a window that cannot be read, and the announcements that have expired.
    fn drop_unreadable(&mut self, claim: Claim<'_>, min_seq: i64, dropped: &mut Dropped) {
        if let Some(reason) = self.unreadable_reason(claim, min_seq) {
            self.writes.clear();
            self.drop_window(reason, dropped);
        }
    }
}
