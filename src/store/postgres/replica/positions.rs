use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Position of the primary's write-ahead log at a time. What was acknowledged before that time is
/// before the position.
#[derive(Clone, Copy, Debug)]
pub(super) struct PrimaryPosition {
    /// Number of bytes of the log before the position.
    pub(super) position: u64,
    /// When the query for it was sent.
    pub(super) at: Instant,
}

/// Positions of the last time, oldest first, from which follows what a replica must have reached in
/// order to show everything that was acknowledged more than `max_lag` ago.
#[derive(Debug)]
pub(super) struct Positions {
    max_lag: Duration,
    recent: VecDeque<PrimaryPosition>,
}

impl Positions {
    pub(super) fn new(max_lag: Duration) -> Self {
        Self {
            max_lag,
            recent: VecDeque::new(),
        }
    }

    /// Adds the latest position. A lower one than before shows that the primary has been replaced:
    /// the earlier ones are positions of another history.
    pub(super) fn add(&mut self, latest: PrimaryPosition) {
        if self
            .recent
            .back()
            .is_some_and(|last| latest.position < last.position)
        {
            self.recent.clear();
        }
        self.recent.push_back(latest);
        self.remove_old(latest.at);
    }

    /// Removes the positions of another history.
    pub(super) fn clear(&mut self) {
        self.recent.clear();
    }

    /// Position that a replica must have reached at `now`; `None` if it is not known.
    pub(super) fn required(&self, now: Instant) -> Option<u64> {
        let mut recent = self.recent.iter();
        recent
            .find(|known| now.saturating_duration_since(known.at) <= self.max_lag)
            .map(|known| known.position)
    }

    fn remove_old(&mut self, now: Instant) {
        while let Some(oldest) = self.recent.front()
            && now.saturating_duration_since(oldest.at) > self.max_lag
        {
            self.recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn positions(start: Instant, added: &[(u64, u64)]) -> Positions {
        let mut positions = Positions::new(SECOND);
        for (position, millis) in added {
            positions.add(PrimaryPosition {
                position: *position,
                at: start + Duration::from_millis(*millis),
            });
        }
        positions
    }

    #[test]
    fn the_oldest_position_within_the_lag_is_required() {
        let start = Instant::now();
        let positions = positions(start, &[(10, 0), (20, 500), (30, 900)]);
        let required = |millis| positions.required(start + Duration::from_millis(millis));
        assert_eq!(required(900), Some(10));
        assert_eq!(required(1_000), Some(10));
        assert_eq!(required(1_001), Some(20));
        assert_eq!(required(1_900), Some(30));
        assert_eq!(required(1_901), None);
    }

    #[test]
    fn a_lower_position_replaces_all_earlier_ones() {
        let start = Instant::now();
        let positions = positions(start, &[(10, 0), (20, 500), (15, 600)]);
        assert_eq!(
            positions.required(start + Duration::from_millis(600)),
            Some(15)
        );
        assert_eq!(positions.recent.len(), 1);
    }
}
