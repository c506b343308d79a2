//! Fair shares of bounded resources between callers.
//!
//! A [`FairSemaphore`] bounds the use of a resource. A part of it is reserved for callers that
//! use less than their share, so that one caller with many calls cannot use up the resource,
//! and waiting callers take turns.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    hash::{DefaultHasher, Hash, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

tokio::task_local! {
    static CURRENT: ShareKey;
}

/// Identity of a caller for its shares: its name, or its connection if it is anonymous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShareKey(u64);

impl ShareKey {
    /// Key of the work that no caller waits for.
    const BACKGROUND: Self = Self(0);

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
    /// Number of grants to waits so far, which orders the callers.
    grants: u64,
    /// Number of waits so far, which orders them.
    waits: u64,
    callers: HashMap<ShareKey, CallerState>,
}

/// Permits and waits of a caller that has any.
#[derive(Debug, Default)]
struct CallerState {
    used: usize,
    waiting: VecDeque<Wait>,
    /// Number of the last grant to a wait of the caller.
    last_grant: u64,
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

    /// Acquires `number` permits even beyond the limit. Others are then not available for longer.
    pub fn acquire_beyond_limit(&self, key: ShareKey, number: usize) -> Permits {
        self.0.grant(&mut self.0.state(), key, number)
    }

    /// Waits for a permit. A permit that becomes free is granted to the caller that holds the
    /// fewest; among several, to the one that has waited for the longest time since its last grant.
    /// The caller bounds the time.
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
                    return self.0.grant(&mut state, key, 1);
                }
                let (sender, granted) = oneshot::channel();
                state.waits += 1;
                let wait = Wait {
                    number: state.waits,
                    granted: sender,
                };
                let caller = state.callers.entry(key).or_default();
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
        }
    }

    /// Returns the caller whose wait is to be granted next.
    fn next(&self, state: &State) -> Option<ShareKey> {
        let waiting = state.callers.iter().filter_map(|(key, caller)| {
            let first = caller.waiting.front()?;
            Some(((caller.used, caller.last_grant, first.number), *key))
        });
        let next = waiting.min_by_key(|(order, _)| *order);
        next.map(|(_, key)| key)
            .filter(|key| self.admits(state, *key, 1))
    }

    fn grant_waiting(self: &Arc<Self>, state: &mut State) {
        while let Some(key) = self.next(state) {
            state.grants += 1;
            let Some(caller) = state.callers.get_mut(&key) else {
                return;
            };
            caller.last_grant = state.grants;
            let Some(wait) = caller.waiting.pop_front() else {
                return;
            };
            if wait.granted.is_closed() {
                state.forget_if_unused(key);
                continue;
            }
            let permits = self.grant(state, key, 1);
            if let Err(permits) = wait.granted.send(permits) {
                // The wait was dropped meanwhile. Its permits are returned here, since the lock is held.
                state.release(permits.disarmed(), key);
            }
        }
    }
}

impl State {
    fn release(&mut self, number: usize, key: ShareKey) {
        self.used -= number;
        if let Some(caller) = self.callers.get_mut(&key) {
            caller.used -= number;
        }
        self.forget_if_unused(key);
    }

    fn forget_if_unused(&mut self, key: ShareKey) {
        let is_unused = |caller: &CallerState| caller.used == 0 && caller.waiting.is_empty();
        if self.callers.get(&key).is_some_and(is_unused) {
            self.callers.remove(&key);
        }
    }
}

impl CallerState {
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
        let mut state = self.shared.state();
        state.release(self.number, self.key);
        self.shared.grant_waiting(&mut state);
    }
}

#[cfg(test)]
mod tests;
