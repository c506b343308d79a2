use std::time::{Duration, Instant};

use super::{
    instruments::Outcome,
    positions::{Positions, PrimaryPosition},
    server::{Primary, Refusal, Required},
};

/// Number of times that the interval is doubled: while a mistake lasts, or because reads failed again
/// although the check before them had succeeded.
const MAX_DOUBLINGS: u32 = 5;

/// The same while a server is down.
const MAX_DOUBLINGS_OF_OUTAGE: u32 = 1;

/// What checks and reads have found out.
pub(super) struct State {
    positions: Positions,
    /// The primary that has these positions.
    origin: Option<Origin>,
    pub(super) status: Status,
    /// When the last check has ended, or the replica turned out to be unusable since.
    changed: Option<Instant>,
    pub(super) is_checking: bool,
    /// How often reads have ended the use of the replica since the last one that succeeded.
    failures: u32,
    /// Number of checks that have refused the replica since the last one that did not, and whether the
    /// reason lasts.
    refusals: u32,
    refusal_lasts: bool,
    /// When another server was last looked for.
    pub(super) relocated: Option<Instant>,
}

/// History of a primary.
struct Origin {
    started_at: i64,
    /// The same as the server's connections report it.
    started_at_text: String,
    timeline: Option<i32>,
}

/// Whether the replica can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It has never been connected to.
    Unknown,
    Usable,
    Behind,
    Unusable,
}

impl State {
    pub(super) fn new(max_lag: Duration) -> Self {
        Self {
            positions: Positions::new(max_lag),
            origin: None,
            status: Status::Unknown,
            changed: None,
            is_checking: false,
            failures: 0,
            refusals: 0,
            refusal_lasts: false,
            relocated: None,
        }
    }

    /// Whether the last check is longer ago than `interval`, or a multiple of it while the replica cannot be
    /// used.
    pub(super) fn is_due(&self, now: Instant, interval: Duration) -> bool {
        let interval = interval * self.interval_factor();
        self.changed
            .is_none_or(|at| now.duration_since(at) >= interval)
    }

    /// What a replica must have applied, if that is known and `is_current` confirms when the primary was
    /// started.
    pub(super) fn required(
        &self,
        now: Instant,
        is_current: impl FnOnce(&str) -> bool,
    ) -> Option<Required> {
        let origin = self.origin.as_ref()?;
        let position = self.positions.required(now)?;
        is_current(&origin.started_at_text).then_some(Required {
            position,
            started_at: origin.started_at,
            timeline: origin.timeline,
        })
    }

    /// Ends the use of the replica after a read that failed.
    pub(super) fn fail(&mut self) {
        if self.status == Status::Usable {
            self.status = Status::Unusable;
            self.failures += 1;
            self.changed = Some(Instant::now());
        }
    }

    /// Records that a read has succeeded.
    pub(super) fn succeed(&mut self) {
        self.failures = 0;
    }

    /// Records the outcome of a check.
    pub(super) fn conclude(&mut self, checked: &Result<(), Refusal>) {
        self.changed = Some(Instant::now());
        match checked {
            Ok(()) => {
                self.status = Status::Usable;
                self.refusals = 0;
            }
            Err(Refusal::Behind) => {
                self.status = Status::Behind;
                self.refusals = 0;
            }
            Err(refusal) => {
                self.refusals = self.refusals.saturating_add(1);
                self.refusal_lasts = refusal.lasts();
                if self.status != Status::Unknown {
                    self.status = Status::Unusable;
                }
            }
        }
    }

    /// Factor of the interval of the checks. A replica that is refused for a reason that lasts, or whose
    /// checks succeed but whose reads fail, is checked less and less often.
    fn interval_factor(&self) -> u32 {
        match self.status {
            Status::Unknown | Status::Unusable => {
                let max = if self.refusal_lasts {
                    MAX_DOUBLINGS
                } else {
                    MAX_DOUBLINGS_OF_OUTAGE
                };
                let of_refusals = self.refusals.saturating_sub(1).min(max);
                let of_failures = self.failures.saturating_sub(1).min(MAX_DOUBLINGS);
                1 << of_refusals.max(of_failures)
            }
            Status::Usable | Status::Behind => 1,
        }
    }

    /// Adds a position of the primary. The earlier ones of another primary are those of another history.
    pub(super) fn add(&mut self, primary: &Primary, sent: Instant, timeline: Option<i32>) {
        let origin = self.origin.as_ref();
        if origin.is_none_or(|origin| origin.started_at != primary.started_at) {
            self.positions.clear();
        }
        self.origin = Some(Origin {
            started_at: primary.started_at,
            started_at_text: primary.started_at.to_string(),
            timeline,
        });
        self.positions.add(PrimaryPosition {
            position: primary.position(),
            at: sent,
        });
    }
}

impl Status {
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Self::Behind => Outcome::Behind,
            Self::Unknown | Self::Usable | Self::Unusable => Outcome::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Factors of the interval after each of some checks with the same outcome.
    fn factors(refusal: impl Fn() -> Refusal) -> Vec<u32> {
        let mut state = State::new(Duration::from_secs(1));
        let checks = (0..8).map(|_| {
            state.conclude(&Err(refusal()));
            state.interval_factor()
        });
        checks.collect()
    }

    #[test]
    fn mistakes_that_last_are_checked_less_and_less_often() {
        let mistakes = factors(|| Refusal::lasting("wrong password"));
        assert_eq!(mistakes, [1, 2, 4, 8, 16, 32, 32, 32]);
        assert_eq!(factors(|| Refusal::OtherHistory), mistakes);
        let outage = factors(|| Refusal::transient("refused"));
        assert_eq!(outage, [1, 2, 2, 2, 2, 2, 2, 2]);
        assert_eq!(factors(|| Refusal::Behind), [1; 8]);
    }

    #[test]
    fn a_check_that_succeeds_resets_the_interval() {
        let mut state = State::new(Duration::from_secs(1));
        for checked in [
            Err(Refusal::lasting("wrong password")),
            Err(Refusal::lasting("wrong password")),
            Ok(()),
            Err(Refusal::lasting("wrong password")),
        ] {
            state.conclude(&checked);
        }
        assert_eq!(state.interval_factor(), 1);
    }
}
