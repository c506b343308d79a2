use std::{
    any::Any,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::Request;
use tokio::{task::AbortHandle, time::Instant};

use super::{
    byte_budgets::ByteBudgets,
    connection_state::{AtomicTime, ConnectionState},
};
use crate::fairness::{Permits, ShareKey};

/// Number of bytes of a request or a response that no budget counts. They are bounded by the
/// number of exchanges, and most exchanges have fewer.
pub(super) const UNCOUNTED_BYTES: usize = 8 << 10;

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
    held: Mutex<Held>,
}

/// Values that are dropped at the end of an exchange.
#[derive(Debug, Default)]
struct Held {
    values: Vec<Box<dyn Any + Send>>,
    request: Option<Permits>,
    response: Option<Permits>,
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

    /// Records that the peer may call: its connection is kept in favor of others.
    pub fn trust_connection(&self) {
        self.0.connection.trust();
    }

    /// Replaces the time at which the exchange is ended.
    pub fn set_deadline(&self, deadline: Instant) {
        self.0.deadline.set_to(deadline);
    }

    /// Keeps a value until the peer has accepted the response, or the exchange is ended.
    pub fn hold(&self, value: impl Any + Send) {
        let mut held = self.held();
        if !self.is_aborted() {
            held.values.push(Box::new(value));
        }
    }

    /// Counts the bytes of a complete response that waits for the peer. Returns whether they are
    /// within the budget; if not, the response must not be sent.
    pub fn reserve_response(&self, bytes: usize) -> bool {
        if bytes <= UNCOUNTED_BYTES {
            return true;
        }
        let permits = self.0.budgets.responses.try_acquire(self.key(), bytes);
        let is_admitted = permits.is_some();
        self.held().response = permits;
        is_admitted
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
        let requests = &self.0.budgets.requests;
        let mut held = self.held();
        let counted = held.request.as_ref().map_or(0, Permits::number);
        let Some(more) = bytes.checked_sub(counted).filter(|more| *more > 0) else {
            return true;
        };
        let Some(permits) = requests.try_acquire(self.key(), more) else {
            return false;
        };
        match &mut held.request {
            Some(request) => request.merge(permits),
            request => *request = Some(permits),
        }
        true
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
    }
}
