use std::{
    any::Any,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    time::Duration,
};

use http::Request;
use tokio::{task::AbortHandle, time::Instant};

use super::{
    byte_budgets::ByteBudgets,
    connection_state::{AtomicTime, ConnectionState},
    displacement::displace_one,
};
use crate::fairness::{FairSemaphore, Permits, ShareKey};

/// Number of bytes of a request or a response that no budget counts. They are bounded by the
/// number of exchanges, and most exchanges have fewer.
pub(super) const UNCOUNTED_BYTES: usize = 8 << 10;

/// Time after which an exchange that waits for its peer leaves its place to another one of the same
/// caller. A caller that makes many calls at a time would lose responses that it is about to read.
const MIN_WAIT_FOR_OWN: Duration = Duration::from_secs(1);

/// A request and its response on a connection, until the peer has accepted the last byte of the
/// response. It is an extension of the request. Clones are the same exchange.
#[derive(Clone, Debug)]
pub struct Exchange(Arc<ExchangeState>);

/// Reference to an [`Exchange`] that does not prolong it.
#[derive(Clone, Debug)]
pub(super) struct WeakExchange(Weak<ExchangeState>);

#[derive(Debug)]
struct ExchangeState {
    connection: Arc<ConnectionState>,
    /// Index among the exchanges of the connection.
    index: usize,
    budgets: Arc<ByteBudgets>,
    key: OnceLock<ShareKey>,
    deadline: AtomicTime,
    /// The task of an HTTP/2 stream. HTTP/1 has none.
    stream: OnceLock<AbortHandle>,
    is_aborted: AtomicBool,
    /// Whether the exchange is a call that has been accepted.
    is_call: AtomicBool,
    /// Whether the handler has returned a response.
    has_response: AtomicBool,
    /// Whether the request of the call could not be decoded.
    is_undecodable: AtomicBool,
    /// Whether what the exchange held was left to other requests.
    is_displaced: AtomicBool,
    /// Since when the exchange has waited for its peer to send the request or to read the response.
    waits_since: AtomicTime,
    held: Mutex<Held>,
}

/// Values that are dropped at the end of an exchange.
#[derive(Debug, Default)]
struct Held {
    values: Vec<Box<dyn Any + Send>>,
    request: Option<Permits>,
    response: Option<Permits>,
    /// The task that reads the request, while it waits for the peer.
    reader: Option<Waker>,
    /// Whether the complete response waits for the peer.
    is_answered: bool,
}

impl Exchange {
    /// Begins an exchange that is ended at `deadline` at the latest.
    pub(super) fn begin(
        connection: &Arc<ConnectionState>,
        budgets: &Arc<ByteBudgets>,
        deadline: Instant,
    ) -> Self {
        let state = Arc::new_cyclic(|exchange| ExchangeState {
            connection: Arc::clone(connection),
            index: connection.add_exchange(WeakExchange(Weak::clone(exchange))),
            budgets: Arc::clone(budgets),
            key: OnceLock::new(),
            deadline: AtomicTime::at(deadline),
            stream: OnceLock::new(),
            is_aborted: AtomicBool::new(false),
            is_call: AtomicBool::new(false),
            has_response: AtomicBool::new(false),
            is_undecodable: AtomicBool::new(false),
            is_displaced: AtomicBool::new(false),
            waits_since: AtomicTime::unset(),
            held: Mutex::default(),
        });
        Self(state)
    }

    /// The exchange of a request. `None` if the request was not received on a connection.
    pub fn of<B>(request: &Request<B>) -> Option<&Self> {
        request.extensions().get()
    }

    /// Key of the caller's shares: that of the connection unless it was set.
    pub fn key(&self) -> ShareKey {
        *self.0.key.get_or_init(|| self.0.connection.key())
    }

    /// Key of the connection.
    pub fn connection_key(&self) -> ShareKey {
        self.0.connection.key()
    }

    /// Limit on the bytes of the responses that callers have not read.
    pub fn max_response_bytes(&self) -> usize {
        self.0.budgets.responses.limit()
    }

    /// Sets the key of the caller's shares, unless it has been used.
    pub fn set_key(&self, key: ShareKey) {
        // Fails only if a key is set.
        let _ = self.0.key.set(key);
    }

    /// Records that the call of the exchange has been accepted. Its connection counts for the caller.
    pub fn accept_call(&self) {
        self.0.is_call.store(true, Ordering::Relaxed);
        let is_anonymous = self.key() == self.connection_key();
        let caller = if is_anonymous {
            ShareKey::ANONYMOUS
        } else {
            self.key()
        };
        self.0.connection.trust(caller);
    }

    /// Records that the request of the accepted call could not be decoded, which is also the case if its
    /// peer has cancelled the call before it was complete.
    pub fn reject_request(&self) {
        self.0.is_undecodable.store(true, Ordering::Relaxed);
    }

    /// Records that the handler has returned a response.
    pub(super) fn respond(&self) {
        self.0.has_response.store(true, Ordering::Relaxed);
    }

    /// Takes what an accepted call holds that waits for its peer, for a call of this exchange's caller.
    /// Others lose it only if `may_displace_others`, and the caller itself only what has waited for a
    /// while. Returns false if there is no such call.
    pub fn displace_call(&self, may_displace_others: bool) -> bool {
        displace_one(&self.0.connection, |other| {
            let is_call = other.0.is_call.load(Ordering::Relaxed);
            is_call && self.may_displace(other, may_displace_others)
        })
    }

    fn may_displace(&self, other: &Self, may_displace_others: bool) -> bool {
        if other.key() == self.key() {
            other.waits_for() >= MIN_WAIT_FOR_OWN
        } else {
            may_displace_others
        }
    }

    /// Replaces the time at which the exchange is ended.
    pub fn set_deadline(&self, deadline: Instant) {
        self.0.deadline.set_to(deadline);
    }

    /// Keeps a value until the peer has accepted the response, or the exchange is ended.
    pub fn hold(&self, value: impl Any + Send) {
        let mut held = self.held();
        if !self.is_aborted() && !self.is_displaced() {
            held.values.push(Box::new(value));
        }
    }

    /// Counts the bytes of a complete response that waits for the peer. Returns whether they are
    /// within the budget; if not, the response must not be sent.
    pub fn reserve_response(&self, bytes: usize) -> bool {
        if bytes > UNCOUNTED_BYTES {
            let responses = &self.0.budgets.responses;
            let reserved = self.acquire_bytes(responses, bytes, Self::reserved_response);
            let is_admitted = reserved.is_some();
            self.held().response = reserved;
            if !is_admitted {
                return false;
            }
        }
        self.held().is_answered = true;
        self.0.waits_since.set(true);
        true
    }

    /// Number of bytes of the response that have been counted.
    pub(super) fn reserved_response(&self) -> usize {
        self.held().response.as_ref().map_or(0, Permits::number)
    }

    /// Counts a piece of a response, beyond the budget if necessary, so that other responses are
    /// rejected.
    pub(super) fn count_piece(&self, bytes: usize) -> Permits {
        let responses = &self.0.budgets.responses;
        responses.acquire_beyond_limit(self.key(), bytes)
    }

    /// Counts the bytes of the request, of which `bytes` have been received. Returns whether they
    /// are within the budget.
    pub(super) fn count_request(&self, bytes: usize) -> bool {
        let counted = self.counted_request();
        let Some(more) = bytes.checked_sub(counted).filter(|more| *more > 0) else {
            return true;
        };
        let requests = &self.0.budgets.requests;
        let Some(permits) = self.acquire_bytes(requests, more, Self::counted_request) else {
            return false;
        };
        match &mut self.held().request {
            Some(request) => request.merge(permits),
            request => *request = Some(permits),
        }
        true
    }

    /// Acquires bytes of a budget. If there are none and the caller is within its share, those of
    /// exchanges that wait for their peer are taken, of which `bytes_of` returns the number.
    fn acquire_bytes(
        &self,
        budget: &FairSemaphore,
        bytes: usize,
        bytes_of: fn(&Self) -> usize,
    ) -> Option<Permits> {
        loop {
            let acquired = budget.try_acquire(self.key(), bytes);
            if acquired.is_some() || !budget.is_within_share(self.key(), bytes) {
                return acquired;
            }
            let may_be_displaced =
                |other: &Self| bytes_of(other) > 0 && self.may_displace(other, true);
            if !displace_one(&self.0.connection, may_be_displaced) {
                return None;
            }
        }
    }

    /// Number of bytes of the request that have been counted.
    fn counted_request(&self) -> usize {
        self.held().request.as_ref().map_or(0, Permits::number)
    }

    /// Records that the exchange waits for its peer to send more of the request, and which task reads
    /// it.
    pub(super) fn begin_wait(&self, reader: &Waker) {
        match &mut self.held().reader {
            Some(waker) => waker.clone_from(reader),
            waker => {
                *waker = Some(reader.clone());
                self.0.waits_since.set(true);
                self.0.connection.add_awaited();
            }
        }
    }

    pub(super) fn end_wait(&self) {
        if self.held().reader.take().is_some() {
            self.0.waits_since.set(false);
            self.0.connection.remove_awaited();
        }
    }

    /// Whether the server has nothing to do for the exchange until the peer has sent more of the
    /// request or read the response.
    pub(super) fn waits_for_peer(&self) -> bool {
        self.0.waits_since.is_set() && !self.is_displaced() && !self.is_aborted()
    }

    pub(super) fn waits_for(&self) -> Duration {
        self.0.waits_since.elapsed()
    }

    /// Drops what an exchange holds that waits for its peer. Its request fails when it is next read,
    /// or its response is ended. Returns false if it no longer waits.
    pub(super) fn displace(&self) -> bool {
        let mut held = {
            let mut held = self.held();
            if held.reader.is_none() && !held.is_answered {
                return false;
            }
            self.0.is_displaced.store(true, Ordering::Relaxed);
            std::mem::take(&mut *held)
        };
        if let Some(reader) = held.reader.take() {
            self.0.connection.remove_awaited();
            reader.wake();
        } else if !self.abort() {
            // HTTP/1 has no stream that could be ended by itself.
            self.0.connection.closed.cancel();
        }
        true
    }

    pub(super) fn is_displaced(&self) -> bool {
        self.0.is_displaced.load(Ordering::Relaxed)
    }

    pub(super) fn connection(&self) -> &Arc<ConnectionState> {
        &self.0.connection
    }

    pub(super) fn budgets(&self) -> &ByteBudgets {
        &self.0.budgets
    }

    pub(super) fn downgrade(&self) -> WeakExchange {
        WeakExchange(Arc::downgrade(&self.0))
    }

    pub(super) fn set_stream(&self, stream: AbortHandle) {
        // Fails only if there is one.
        let _ = self.0.stream.set(stream);
    }

    /// Time since the deadline.
    pub(super) fn overdue_for(&self) -> Duration {
        self.0.deadline.elapsed()
    }

    /// Ends the exchange's stream, and drops what it holds. Returns false if the exchange has no
    /// stream of its own.
    pub(super) fn abort(&self) -> bool {
        let Some(stream) = self.0.stream.get() else {
            return false;
        };
        self.0.is_aborted.store(true, Ordering::Relaxed);
        stream.abort();
        let held = std::mem::take(&mut *self.held());
        // Dropped without the lock.
        drop(held);
        true
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.0.is_aborted.load(Ordering::Relaxed)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WeakExchange {
    pub(super) fn upgrade(&self) -> Option<Exchange> {
        self.0.upgrade().map(Exchange)
    }
}

impl Drop for ExchangeState {
    fn drop(&mut self) {
        self.connection.remove_exchange(self.index);
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        if !is(&self.is_call) {
            self.connection.overhead.add_rejected_call();
        } else if is(&self.is_undecodable) || !is(&self.has_response) {
            self.connection.overhead.add_cancelled_call();
        }
    }
}
