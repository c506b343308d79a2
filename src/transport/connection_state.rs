use std::{
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use slab::Slab;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    exchange::{Exchange, WeakExchange},
    open_connections::WeakOpenConnections,
    overhead::OverheadPace,
    unstarted::UnstartedExchanges,
};
use crate::fairness::ShareKey;

/// Kind of socket of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SocketKind {
    /// Socket whose peer can be on another machine.
    Tcp,
    /// Socket in the file system, whose peer is on this machine.
    Unix,
}

/// State of an open connection, by which it is limited.
#[derive(Debug)]
pub(super) struct ConnectionState {
    pub(super) id: u64,
    pub(super) kind: SocketKind,
    others: WeakOpenConnections,
    pub(super) unstarted: UnstartedExchanges,
    pub(super) overhead: OverheadPace,
    /// The caller of the first call that has been accepted on the connection.
    caller: OnceLock<ShareKey>,
    /// Begin or end of the last exchange, or the begin of the connection.
    active_at: AtomicTime,
    /// When the peer has last accepted a piece of a response.
    accepted_at: AtomicTime,
    /// Number of pieces of responses that the peer has not accepted yet.
    pieces: AtomicUsize,
    /// Since when the socket has accepted no bytes, if bytes are to be written.
    blocked_since: AtomicTime,
    exchanges: Mutex<Slab<WeakExchange>>,
    /// Number of exchanges that wait for their peer to send more of the request.
    awaited: AtomicUsize,
    /// The exchange whose stream is about to be spawned.
    beginning: Mutex<Option<WeakExchange>>,
    /// Cancelled when the connection is to be closed at once.
    pub(super) closed: CancellationToken,
    /// Cancelled when the connection is to be closed after its exchanges.
    pub(super) retired: CancellationToken,
}

impl ConnectionState {
    pub(super) fn new(
        id: u64,
        kind: SocketKind,
        others: WeakOpenConnections,
        unstarted: UnstartedExchanges,
        overhead: OverheadPace,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            kind,
            others,
            unstarted,
            overhead,
            caller: OnceLock::new(),
            active_at: AtomicTime::now(),
            accepted_at: AtomicTime::now(),
            pieces: AtomicUsize::new(0),
            blocked_since: AtomicTime::unset(),
            exchanges: Mutex::default(),
            awaited: AtomicUsize::new(0),
            beginning: Mutex::default(),
            closed: CancellationToken::new(),
            retired: CancellationToken::new(),
        })
    }

    /// Key of the shares of an anonymous caller.
    pub(super) fn key(&self) -> ShareKey {
        ShareKey::new(self.id)
    }

    /// Records that a call of `caller` has been accepted. The connection counts for the first one.
    pub(super) fn trust(&self, caller: ShareKey) {
        self.caller.get_or_init(|| caller);
    }

    /// The caller for whom the connection counts. `None` before a call on it has been accepted.
    pub(super) fn caller(&self) -> Option<ShareKey> {
        self.caller.get().copied()
    }

    pub(super) fn is_trusted(&self) -> bool {
        self.caller.get().is_some()
    }

    /// Time since the begin or end of the last exchange.
    pub(super) fn inactive_for(&self) -> Duration {
        self.active_at.elapsed()
    }

    /// Time for which the peer has not accepted any byte of the responses that wait for it.
    pub(super) fn stalled_for(&self) -> Duration {
        let has_pieces = self.pieces.load(Ordering::Relaxed) > 0;
        let unaccepted = if has_pieces {
            self.accepted_at.elapsed()
        } else {
            Duration::ZERO
        };
        unaccepted.max(self.blocked_since.elapsed())
    }

    /// Records whether the socket accepts bytes.
    pub(super) fn set_blocked(&self, is_blocked: bool) {
        if is_blocked != self.blocked_since.is_set() {
            self.blocked_since.set(is_blocked);
        }
    }

    pub(super) fn add_piece(&self) {
        if self.pieces.fetch_add(1, Ordering::Relaxed) == 0 {
            self.accepted_at.set(true);
        }
    }

    pub(super) fn remove_piece(&self) {
        self.pieces.fetch_sub(1, Ordering::Relaxed);
        self.accepted_at.set(true);
    }

    /// Adds an exchange, and returns the index by which it is removed.
    pub(super) fn add_exchange(&self, exchange: WeakExchange) -> usize {
        self.active_at.set(true);
        self.exchanges().insert(exchange)
    }

    pub(super) fn remove_exchange(&self, index: usize) {
        self.active_at.set(true);
        self.exchanges().try_remove(index);
    }

    pub(super) fn has_exchanges(&self) -> bool {
        !self.exchanges().is_empty()
    }

    /// Whether the connection has an exchange that does not wait for its peer to send a request.
    pub(super) fn is_in_use(&self) -> bool {
        self.exchanges().len() > self.awaited.load(Ordering::Relaxed)
    }

    /// Whether an exchange waits for its peer to send more of the request.
    pub(super) fn awaits_requests(&self) -> bool {
        self.awaited.load(Ordering::Relaxed) > 0
    }

    /// Records that one more exchange waits for its peer to send more of the request.
    pub(super) fn add_awaited(&self) {
        self.awaited.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn remove_awaited(&self) {
        self.awaited.fetch_sub(1, Ordering::Relaxed);
    }

    /// The open connections, of which this is one.
    pub(super) fn all_connections(&self) -> Vec<Arc<Self>> {
        self.others.all()
    }

    /// Exchanges that have not ended.
    pub(super) fn open_exchanges(&self) -> Vec<Exchange> {
        let exchanges = self.exchanges();
        exchanges
            .iter()
            .filter_map(|(_, it)| it.upgrade())
            .collect()
    }

    /// Sets the exchange of the stream that is spawned next.
    pub(super) fn set_beginning(&self, exchange: WeakExchange) {
        *self.beginning() = Some(exchange);
    }

    pub(super) fn take_beginning(&self) -> Option<Exchange> {
        self.beginning().take()?.upgrade()
    }

    fn beginning(&self) -> MutexGuard<'_, Option<WeakExchange>> {
        self.beginning
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn exchanges(&self) -> MutexGuard<'_, Slab<WeakExchange>> {
        self.exchanges
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A point in time, in milliseconds of the clock; 0 if it is not set.
#[derive(Debug)]
pub(super) struct AtomicTime(AtomicU64);

/// Begin of the clock's time, which precedes every time that is recorded.
static BEGIN: LazyLock<Instant> = LazyLock::new(|| {
    let now = std::time::Instant::now();
    now.checked_sub(Duration::from_hours(1))
        .unwrap_or(now)
        .into()
});

/// Milliseconds of the clock until `at`; at least 1.
fn milliseconds(at: Instant) -> u64 {
    u64::try_from(at.duration_since(*BEGIN).as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}

impl AtomicTime {
    pub(super) fn unset() -> Self {
        Self(AtomicU64::new(0))
    }

    fn now() -> Self {
        Self::at(Instant::now())
    }

    pub(super) fn at(time: Instant) -> Self {
        Self(AtomicU64::new(milliseconds(time)))
    }

    /// Sets the present time, or none.
    pub(super) fn set(&self, is_set: bool) {
        let now = if is_set {
            milliseconds(Instant::now())
        } else {
            0
        };
        self.0.store(now, Ordering::Relaxed);
    }

    pub(super) fn set_to(&self, time: Instant) {
        self.0.store(milliseconds(time), Ordering::Relaxed);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Time that has passed since; zero if it is in the future or not set.
    pub(super) fn elapsed(&self) -> Duration {
        match self.0.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            time => Duration::from_millis(milliseconds(Instant::now()).saturating_sub(time)),
        }
    }
}
