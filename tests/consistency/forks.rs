//! Histories in which the store went back to an earlier state: an asynchronous standby was promoted.
//!
//! The acknowledged writes that the standby lacks are lost by definition. What begins after the fork
//! is checked as a history of its own, in which they never happened.

use std::collections::HashSet;

use crate::{
    checker::{self, MAX_LAG, describe},
    history::{Action, Call, FinalState, History, Moment, Outcome, Shown, WriteNumber},
    report::{Report, ViolationKind::Stale},
};

/// State of the promoted standby. No call was in progress at its moment.
pub(crate) struct Fork {
    pub(crate) state: FinalState,
}

impl Fork {
    /// Checks a history whose calls before the fork are saves and reads. A read that shows a lost
    /// message must not begin after a read of the store has shown the state without it.
    pub(crate) fn check(&self, history: &History) -> Report {
        let conversations = self.state.conversations.iter();
        let rows = conversations.flat_map(|stored| &stored.rows);
        let kept: HashSet<WriteNumber> = rows
            .filter_map(|row| row.token)
            .map(|token| token.save)
            .collect();
        let (before, after): (Vec<&Call>, Vec<&Call>) = history
            .calls
            .iter()
            .partition(|call| call.completed < self.state.moment);
        let saves = before.iter().filter_map(|call| saved(call));
        let lost: HashSet<WriteNumber> = saves.filter(|save| !kept.contains(save)).collect();
        let kept = before
            .into_iter()
            .filter(|call| saved(call).is_some_and(|save| kept.contains(&save)));
        let (showing_lost, after): (Vec<&Call>, Vec<&Call>) = after
            .into_iter()
            .partition(|call| shown_saves(call).any(|save| lost.contains(&save)));
        let mut report = checker::check(&History {
            calls: kept.chain(after).cloned().collect(),
            ..history.clone()
        });
        report.lost_by_fork = lost.len();
        for call in showing_lost {
            if self.is_late(history, call) {
                let what = format!("shows lost messages: {}", describe(history, call));
                report.add(Stale, call.conversation, what);
            } else {
                report.late_reads += 1;
            }
        }
        report
    }

    /// Whether the sidecar, or one second ago another one, has read the new state of the store.
    fn is_late(&self, history: &History, call: &Call) -> bool {
        history.calls.iter().any(|read| {
            let from_store = matches!(
                read.action,
                Action::Read {
                    shown: Shown::Messages {
                        from_window: false,
                        ..
                    },
                    ..
                }
            );
            let is_before = |moment: Moment| {
                let is_same = read.process == call.process;
                moment < call.invoked && (is_same || moment.at + MAX_LAG < call.invoked.at)
            };
            from_store && read.invoked > self.state.moment && is_before(read.completed)
        })
    }
}

/// The save that a call has performed or may have performed.
fn saved(call: &Call) -> Option<WriteNumber> {
    match &call.action {
        Action::Save {
            save,
            outcome: Outcome::Acknowledged(_) | Outcome::Unknown,
            ..
        } => Some(*save),
        _ => None,
    }
}

fn shown_saves(call: &Call) -> impl Iterator<Item = WriteNumber> {
    let rows = match &call.action {
        Action::Read {
            shown: Shown::Messages { rows, .. },
            ..
        } => rows.as_slice(),
        _ => &[],
    };
    rows.iter().filter_map(|row| Some(row.token?.save))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Consistency::*, Row, StoredConversation},
        synthetic::{Script, acknowledged_save, read, row},
    };

    /// Two saves, of which the second is lost, and the reads after that by sidecar and source.
    fn report(reads: &[(usize, Action)], last_row: Row) -> Report {
        let mut script = Script::new(1);
        script.call(0, acknowledged_save(1, 1, 1));
        script.call(0, acknowledged_save(2, 2, 1));
        let stored = StoredConversation {
            conversation: 0,
            last_seq: 1,
            rows: vec![row(1, 1, 0)],
        };
        let state = FinalState {
            moment: script.now(),
            conversations: vec![stored],
            removals: vec![],
        };
        for (sidecar, read) in reads {
            script.call(*sidecar, read.clone());
        }
        script.call(0, acknowledged_save(2, 3, 1));
        let history = script.end(vec![(2, vec![row(1, 1, 0), last_row])]);
        Fork { state }.check(&history)
    }

    #[test]
    fn lost_messages_may_be_shown_until_the_store_was_read() {
        let lost = (0, read(Cached, 2, vec![row(1, 1, 0), row(2, 2, 0)]));
        let store = |sidecar| (sidecar, read(Strong, 1, vec![row(1, 1, 0)]));
        let has_violation = |reads: &[(usize, Action)]| {
            let report = report(reads, row(2, 3, 0));
            assert_eq!(report.lost_by_fork, 1);
            !report.violations.is_empty()
        };
        assert!(!has_violation(&[]));
        assert!(!has_violation(&[lost.clone(), store(0)]));
        assert!(!has_violation(&[store(1), lost.clone()]));
        assert!(has_violation(&[store(0), lost]));
    }

    #[test]
    fn saves_after_the_fork_are_checked() {
        assert!(!report(&[], row(2, 2, 0)).violations.is_empty());
    }
}
