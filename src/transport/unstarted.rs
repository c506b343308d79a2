use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Number of exchanges on all connections that have been received, and whose tasks have not run yet.
///
/// A connection reads many requests at once, and all connections are read before the tasks of their
/// requests run. Beyond the limit, a connection that has such exchanges does not read until they have
/// run: else peers could allocate memory for as many exchanges as all connections permit together.
#[derive(Clone, Debug, Default)]
pub(super) struct UnstartedExchanges {
    all: Arc<AtomicUsize>,
    of_connection: Arc<AtomicUsize>,
    /// Number of exchanges that the connection has begun, which wraps around.
    begun: Arc<AtomicUsize>,
}

/// Exchange whose task has not run yet. It is dropped when the task runs.
#[derive(Debug)]
pub(super) struct UnstartedExchange {
    all: Arc<AtomicUsize>,
    of_connection: Arc<AtomicUsize>,
}

impl UnstartedExchanges {
    /// Tasks of other callers wait behind these. Many more would not fit in the runtime's local queues
    /// (256 tasks), from where they pass into a queue that is read rarely.
    const MAX: usize = 64;

    /// Creates the number for one more connection.
    pub(super) fn of_new_connection(&self) -> Self {
        Self {
            all: Arc::clone(&self.all),
            ..Self::default()
        }
    }

    pub(super) fn add(&self) -> UnstartedExchange {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed);
        self.of_connection.fetch_add(1, Ordering::Relaxed);
        UnstartedExchange {
            all: Arc::clone(&self.all),
            of_connection: Arc::clone(&self.of_connection),
        }
    }

    /// Number of exchanges that the connection has begun, which wraps around.
    pub(super) fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether the connection must not read before tasks have run.
    pub(super) fn is_limit_reached(&self) -> bool {
        self.all.load(Ordering::Relaxed) >= Self::MAX
            && self.of_connection.load(Ordering::Relaxed) > 0
    }
}

impl Drop for UnstartedExchange {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
        self.of_connection.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connections_with_unstarted_exchanges_wait_at_the_limit() {
        let [one, other] = [(); 2].map({
            let all = UnstartedExchanges::default();
            move |()| all.of_new_connection()
        });
        let mut unstarted: Vec<_> = (0..UnstartedExchanges::MAX).map(|_| one.add()).collect();
        assert!(one.is_limit_reached() && !other.is_limit_reached());
        let started = other.add();
        assert!(other.is_limit_reached());
        drop((started, unstarted.pop()));
        assert!(!one.is_limit_reached() && !other.is_limit_reached());
        assert_eq!((one.begun(), other.begun()), (UnstartedExchanges::MAX, 1));
    }
}
