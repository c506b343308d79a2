//! Tests of the checker on a history that is really recorded: it is correct, and each mutation of it
//! is reported.

use std::{sync::Arc, time::Duration};

use test_support::random::Random;

use crate::{
    checker::check,
    cluster::Cluster,
    history::{Action, Call, Consistency, History, Outcome, Row, Shown},
    report::{Report, ViolationKind::*},
    round::{Disturbance, Round},
    workload::Pace,
};

/// Number of places at which each mutation is tried.
const PLACES: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn mutations_of_a_recorded_history_are_reported() {
    let _shared = crate::MACHINE.read().await;
    let cluster = Arc::new(Cluster::start().await);
    let round = Round {
        cluster: &cluster,
        seed: 1,
        duration: Duration::from_secs(4),
        pace: Pace::Fast,
    };
    let history = round.run(Disturbance::None).await;
    let report = check(&history);
    assert!(report.violations.is_empty(), "{report}");
    assert!(report.reads_from_window > 0, "{report}");
    let mut mutated = Mutated {
        history,
        random: Random::new(1),
    };
    mutated.stored_rows();
    mutated.reads();
    mutated.windows();
    mutated.failures();
}

/// Recorded history that is mutated at random places.
struct Mutated {
    history: History,
    random: Random,
}

impl Mutated {
    /// Applies a mutation at one of the places that `is_suitable` selects, and checks the history.
    fn reported(
        &mut self,
        what: &str,
        is_suitable: impl Fn(&Call) -> bool,
        mutate: impl Fn(&mut Call),
        is_reported: impl Fn(&Report) -> bool,
    ) {
        let calls = self.history.calls.iter().enumerate();
        let places = calls
            .filter(|(_, call)| is_suitable(call))
            .map(|(at, _)| at);
        let places: Vec<usize> = places.collect();
        assert!(!places.is_empty(), "no place for: {what}");
        for _ in 0..PLACES {
            let place = places[self.random.below(places.len())];
            let original = self.history.calls[place].clone();
            mutate(&mut self.history.calls[place]);
            let report = check(&self.history);
            assert!(is_reported(&report), "{what} at {original:?}: {report}");
            self.history.calls[place] = original;
        }
    }

    fn stored_rows(&mut self) {
        for _ in 0..PLACES {
            let original = self.history.final_state.clone();
            let stored = &mut self.history.final_state.conversations;
            stored.retain(|stored| stored.rows.len() > 3);
            let at = self.random.below(stored.len());
            let rows = &mut stored[at].rows;
            let place = self.random.below(rows.len() - 1);
            let (kind, what) = match self.random.below(3) {
                0 => {
                    rows.remove(place);
                    (Lost, "a row is removed")
                }
                1 => {
                    rows.insert(place, rows[place]);
                    (Duplicated, "a row is repeated")
                }
                _ => {
                    rows.swap(place, place + 1);
                    (Reordered, "two rows are exchanged")
                }
            };
            let report = check(&self.history);
            assert!(report.has(kind), "{what}: {report}");
            self.history.final_state = original;
        }
    }

    fn reads(&mut self) {
        let has_rows = |call: &Call| rows(call).is_some_and(|rows| rows.len() > 3);
        let remove = |call: &mut Call| {
            rows_mut(call).remove(1);
        };
        self.reported("a row is removed", has_rows, remove, |report| {
            report.has(Partial)
        });
        let repeat = |call: &mut Call| {
            let rows = rows_mut(call);
            rows.insert(1, rows[1]);
        };
        self.reported("a row is repeated", has_rows, repeat, |report| {
            report.has(Duplicated)
        });
        let exchange = |call: &mut Call| rows_mut(call).swap(1, 2);
        self.reported("two rows are exchanged", has_rows, exchange, |report| {
            report.has(Reordered)
        });
        let foreign = |call: &mut Call| rows_mut(call)[1].token = None;
        self.reported("a row is foreign", has_rows, foreign, |report| {
            report.has(Leaked)
        });
    }

    /// Replaces reads by older ones of the same conversation.
    fn windows(&mut self) {
        let history = self.history.clone();
        let older = |call: &Call| {
            let mut reads = history.calls.iter().filter(|read| {
                read.conversation == call.conversation && read.completed < call.invoked
            });
            let last_seq = last_seq(call)?;
            reads
                .rfind(|read| self::last_seq(read).is_some_and(|older| older < last_seq))
                .map(|read| read.action.clone())
        };
        // The newest message of the older read was not the newest one when the read began: a later
        // one was acknowledged.
        let was_acknowledged = |call: &Call, since: i64| {
            history.calls.iter().any(|save| {
                let is_acknowledged = matches!(
                    &save.action,
                    Action::Save { outcome: Outcome::Acknowledged(rows), .. }
                        if rows.last().is_some_and(|row| row.seq > since)
                );
                is_acknowledged
                    && save.conversation == call.conversation
                    && save.completed < call.invoked
            })
        };
        let is_suitable = |call: &Call| {
            let Some(Action::Read {
                shown: Shown::Messages { last_seq, .. },
                ..
            }) = older(call)
            else {
                return false;
            };
            last_seq.is_some_and(|last_seq| was_acknowledged(call, last_seq))
        };
        let roll_back = |call: &mut Call| call.action = older(call).unwrap();
        self.reported(
            "a window is rolled back",
            is_suitable,
            roll_back,
            |report| report.has(Stale),
        );
    }

    fn failures(&mut self) {
        let is_acknowledged = |call: &Call| {
            matches!(
                call.action,
                Action::Save {
                    outcome: Outcome::Acknowledged(_),
                    ..
                }
            )
        };
        let fail = |call: &mut Call| {
            if let Action::Save { outcome, .. } = &mut call.action {
                *outcome = Outcome::NotPerformed;
            }
        };
        // A failed save may have been removed again before anything showed it.
        let history = self.history.clone();
        let is_stored = |call: &Call| {
            let Action::Save { save, .. } = call.action else {
                return false;
            };
            let mut stored = history.final_state.conversations.iter();
            let has_save = |row: &Row| row.token.is_some_and(|token| token.save == save);
            is_acknowledged(call) && stored.any(|stored| stored.rows.iter().any(has_save))
        };
        self.reported("a failed save is visible", is_stored, fail, |report| {
            report.has(Partial)
        });
    }
}

fn rows(call: &Call) -> Option<&Vec<Row>> {
    match &call.action {
        Action::Read {
            shown: Shown::Messages { rows, .. },
            ..
        } => Some(rows),
        _ => None,
    }
}

fn rows_mut(call: &mut Call) -> &mut Vec<Row> {
    match &mut call.action {
        Action::Read {
            shown: Shown::Messages { rows, .. },
            ..
        } => rows,
        other => panic!("no read: {other:?}"),
    }
}

/// `last_seq` of a CACHED read.
fn last_seq(call: &Call) -> Option<i64> {
    match &call.action {
        Action::Read {
            consistency: Consistency::Cached,
            shown: Shown::Messages { last_seq, .. },
            ..
        } => *last_seq,
        _ => None,
    }
}
