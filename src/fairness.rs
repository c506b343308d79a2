//! Fair shares of bounded resources between callers.
//!
//! A [`FairSemaphore`] bounds the use of a resource. A part of it is reserved for callers that
//! use less than their share, so that one caller with many calls cannot use up the resource.
//! Waiting callers are ordered by start-time fair queueing: each gets the resource for the same time,
//! so that a caller with short uses does not wait for several long ones of others.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    hash::{DefaultHasher, Hash, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

/// Bounds on the time that is charged for a grant to a wait: grants of no duration alternate, too, and
/// a use that took long because a server did not respond has no lasting effect.
const MIN_CHARGE: Duration = Duration::from_micros(100);
const MAX_CHARGE: Duration = Duration::from_millis(100);

/// Time that a caller may use before others, after it has used less than they have: several short uses.
const CREDIT: Duration = Duration::from_millis(20);

/// Maximum number of callers whose charges are remembered while they neither hold nor wait.
const MAX_REMEMBERED: usize = 1_000;

tokio::task_local! {
    static CURRENT: ShareKey;
}

/// Identity of a caller for its shares: its name, or its connection if it is anonymous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShareKey(u64);

impl ShareKey {
    /// Key of the work that no caller waits for.
    const BACKGROUND: Self = Self(0);

    /// Key of a batch, in which several callers have calls. Its charge does not last, because the next
    /// batch has other callers: it counts as a caller that has used less than the others.
    pub(crate) const BATCH: Self = Self(2);

    /// Key of all callers without a name together.
    pub const ANONYMOUS: Self = Self(1);

    /// Key of the callers with the identity `of`.
    pub fn new(of: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        of.hash(&mut hasher);
        Self(hasher.finish())
    }

    /// Key of the caller for which the current task works.
    pub fn current() -> Self {
        CURRENT.try_with(|key| *key).unwrap_or(Self::BACKGROUND)
    }

    /// Runs `work` for the caller with this key.
    pub fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, work)
    }
}

/// Semaphore whose permits are shared fairly between callers. Clones share the permits.
#[derive(Clone, Debug)]
pub struct FairSemaphore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    /// Permits that only callers below their share can acquire.
    reserved: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    /// Charge that a caller would have that had always waited and got its share.
    virtual_time: Duration,
    /// Number of waits so far, which orders those of equal callers.
    waits: u64,
    callers: HashMap<ShareKey, CallerState>,
}

/// Permits and waits of a caller that has any.
#[derive(Debug, Default)]
struct CallerState {
    used: usize,
    waiting: VecDeque<Wait>,
    /// Time for which the caller has held permits, compared with that of others.
    charge: Duration,
}

#[derive(Debug)]
struct Wait {
    number: u64,
    granted: oneshot::Sender<Permits>,
}

/// Acquired permits, which are returned when they are dropped.
#[derive(Debug)]
pub struct Permits {
    shared: Arc<Shared>,
    key: ShareKey,
    number: usize,
    /// Time of the grant, if the time until the return is charged.
    charged_since: Option<Instant>,
}

impl FairSemaphore {
    /// Creates a semaphore of `limit` permits. A quarter is reserved for callers that hold less than
    /// their share.
    pub fn new(limit: usize) -> Self {
        Self::with_reserve(limit, limit / 4)
    }

    /// Creates a semaphore of `limit` permits, `reserved` of which only callers below their share
    /// can acquire.
    pub fn with_reserve(limit: usize, reserved: usize) -> Self {
        Self(Arc::new(Shared {
            limit,
            reserved,
            state: Mutex::default(),
        }))
    }

    /// Number of permits.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Number of permits that are held.
    pub fn used(&self) -> usize {
        self.0.state().used
    }

    /// Acquires `number` permits. `None` if they are not available, or only to callers that hold
    /// less.
    pub fn try_acquire(&self, key: ShareKey, number: usize) -> Option<Permits> {
        let mut state = self.0.state();
        self.0
            .admits(&state, key, number)
            .then(|| self.0.grant(&mut state, key, number))
    }

    /// Whether a caller with `number` more permits holds no more than its share.
    pub fn is_within_share(&self, key: ShareKey, number: usize) -> bool {
        self.0.is_within_share(&self.0.state(), key, number)
    }

    /// Whether a caller could acquire `number` permits, or is entitled to them by its share.
    pub fn is_available(&self, key: ShareKey, number: usize) -> bool {
        let state = self.0.state();
        self.0.admits(&state, key, number) || self.0.is_within_share(&state, key, number)
    }

    /// Acquires `number` permits even beyond the limit. Others are then not available for longer.
    pub fn acquire_beyond_limit(&self, key: ShareKey, number: usize) -> Permits {
        self.0.grant(&mut self.0.state(), key, number)
    }

    /// Waits for a permit. A permit that becomes free is granted to the caller that holds the
    /// fewest; among several, to the one that has held permits for the shortest time. The wait has
    /// no limit of its own.
    ///
    /// # Cancel safety
    /// A dropped wait acquires nothing.
    pub async fn acquire(&self, key: ShareKey) -> Permits {
        loop {
            let granted = {
                let mut state = self.0.state();
                let is_first = state
                    .callers
                    .get(&key)
                    .is_none_or(|it| it.waiting.is_empty());
                if is_first && self.0.admits(&state, key, 1) {
                    state.begin_wait(key);
                    return self.0.grant_to_wait(&mut state, key);
                }
                let (sender, granted) = oneshot::channel();
                state.waits += 1;
                let wait = Wait {
                    number: state.waits,
                    granted: sender,
                };
                let caller = state.begin_wait(key);
                caller.remove_dropped_waits();
                caller.waiting.push_back(wait);
                granted
            };
            if let Ok(permits) = granted.await {
                return permits;
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admits(&self, state: &State, key: ShareKey, number: usize) -> bool {
        let used = state.used.saturating_add(number);
        used <= self.limit - self.reserved
            || used <= self.limit && self.is_within_share(state, key, number)
    }

    fn is_within_share(&self, state: &State, key: ShareKey, number: usize) -> bool {
        let held = state.callers.get(&key).map_or(0, |caller| caller.used);
        let others = state.callers.values().filter(|caller| caller.used > 0);
        let others = others.count() - usize::from(held > 0);
        // As if there were one more, for whom its share is kept.
        let share = (self.limit / (others + 2)).max(1);
        held.saturating_add(number) <= share
    }

    fn grant(self: &Arc<Self>, state: &mut State, key: ShareKey, number: usize) -> Permits {
        state.used += number;
        state.callers.entry(key).or_default().used += number;
        Permits {
            shared: Arc::clone(self),
            key,
            number,
            charged_since: None,
        }
    }

    /// Grants a permit whose time is charged.
    fn grant_to_wait(self: &Arc<Self>, state: &mut State, key: ShareKey) -> Permits {
        let mut permits = self.grant(state, key, 1);
        permits.charged_since = Some(Instant::now());
        if let Some(caller) = state.callers.get_mut(&key) {
            state.virtual_time = state.virtual_time.max(caller.charge);
            caller.charge += MIN_CHARGE;
        }
        permits
    }

    /// Returns the caller whose wait is to be granted next.
    fn next(&self, state: &State) -> Option<ShareKey> {
        let waiting = state.callers.iter().filter_map(|(key, caller)| {
            let first = caller.waiting.front()?;
            Some(((caller.used, caller.charge, first.number), *key))
        });
        let next = waiting.min_by_key(|(order, _)| *order);
        next.map(|(_, key)| key)
            .filter(|key| self.admits(state, *key, 1))
    }

    fn grant_waiting(self: &Arc<Self>, state: &mut State) {
        while let Some(key) = self.next(state) {
            let Some(caller) = state.callers.get_mut(&key) else {
                return;
            };
            let Some(wait) = caller.waiting.pop_front() else {
                return;
            };
            if wait.granted.is_closed() {
                state.forget_if_unused(key);
                continue;
            }
            let permits = self.grant_to_wait(state, key);
            if let Err(permits) = wait.granted.send(permits) {
                // The wait was dropped meanwhile. Its permits are returned here, since the lock is held.
                state.release(permits.disarmed(), key, Duration::ZERO);
            }
        }
    }
}

impl State {
    /// Returns the caller of a new wait.
    fn begin_wait(&mut self, key: ShareKey) -> &mut CallerState {
        let least = self.least_charge();
        let caller = self.callers.entry(key).or_default();
        caller.charge = match key {
            ShareKey::BATCH => least,
            _ => caller.charge.max(least),
        };
        caller
    }

    /// Charge of a caller that has used less than the others.
    fn least_charge(&self) -> Duration {
        self.virtual_time.saturating_sub(CREDIT)
    }

    fn release(&mut self, number: usize, key: ShareKey, charge: Duration) {
        self.used -= number;
        if let Some(caller) = self.callers.get_mut(&key) {
            caller.used -= number;
            caller.charge += charge;
        }
        if !charge.is_zero() {
            // New callers, however many there are, do not come before an earlier one forever.
            let others = self.callers.values().filter(|it| !it.is_unused());
            let callers = 1 + others.count();
            self.virtual_time += charge / u32::try_from(callers).unwrap_or(u32::MAX);
        }
        self.forget_if_unused(key);
    }

    /// Forgets callers that neither hold nor wait, unless they would be granted a permit later than
    /// others.
    fn forget_if_unused(&mut self, key: ShareKey) {
        if self.callers.len() > MAX_REMEMBERED {
            self.forget_unused();
        } else if let Some(caller) = self.callers.get(&key)
            && caller.is_unused()
            && caller.charge <= self.least_charge()
        {
            self.callers.remove(&key);
        }
    }

    fn forget_unused(&mut self) {
        self.callers.retain(|_, caller| !caller.is_unused());
    }
}

impl CallerState {
    fn is_unused(&self) -> bool {
        self.used == 0 && self.waiting.is_empty()
    }

    /// Removes dropped waits, so that they do not accumulate while no permit becomes free. The
    /// queue is examined each time its length has doubled.
    fn remove_dropped_waits(&mut self) {
        if self.waiting.len().is_power_of_two() {
            self.waiting.retain(|wait| !wait.granted.is_closed());
        }
    }
}

impl Permits {
    /// Number of the permits.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Adds permits of the same caller and semaphore.
    pub fn merge(&mut self, other: Self) {
        self.number += other.disarmed();
    }

    /// Returns the number without returning the permits.
    fn disarmed(mut self) -> usize {
        std::mem::take(&mut self.number)
    }
}

impl Drop for Permits {
    fn drop(&mut self) {
        if self.number == 0 {
            return;
        }
        let held = self.charged_since.map(|since| since.elapsed());
        let charge = held.unwrap_or_default().min(MAX_CHARGE);
        let mut state = self.shared.state();
        state.release(self.number, self.key, charge);
        self.shared.grant_waiting(&mut state);
        if state.used == 0 {
            state.forget_unused();
        }
    }
}

#[cfg(test)]
mod tests;
