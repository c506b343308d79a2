//! Histories in which the store went back to an earlier state: an asynchronous standby was promoted.
//!
//! The acknowledged writes that the standby lacks are lost by definition. What begins after the fork
//! is checked as a history of its own, in which they never happened.

use std::collections::HashSet;

use crate::{
    checker::{MAX_LAG, describe},
    history::{Action, Call, FinalState, History, Moment, Outcome, Shown, Token},
    report::{Report, ViolationKind::Stale},
};

/// State of the promoted standby. No call was in progress at its moment.
pub(crate) struct Fork {
    pub(crate) state: FinalState,
}

impl Fork {
    /// Returns the history after the fork, and reports reads that show lost messages although a read
    /// of the store has shown the state without them. Before the fork there are only saves and reads.
    pub(crate) fn continue_history(&self, history: &History, report: &mut Report) -> History {
        let conversations = self.state.conversations.iter();
        let rows = conversations.flat_map(|stored| &stored.rows);
        let kept: HashSet<Token> = rows.filter_map(|row| row.token).collect();
        let is_earlier = |call: &&Call| call.completed < self.state.moment;
        let saved_before = history.calls.iter().filter(is_earlier);
        let saved_before: HashSet<u32> = saved_before.filter_map(saved).collect();
        let is_lost = |token: &Token| saved_before.contains(&token.save) && !kept.contains(token);
        let mut calls = Vec::new();
        for call in &history.calls {
            if is_earlier(&call) {
                let token = saved(call).map(|save| Token { save, index: 0 });
                calls.extend(token.filter(|it| kept.contains(it)).map(|_| call.clone()));
            } else if !shown_tokens(call).any(|token| is_lost(&token)) {
                calls.push(call.clone());
            } else if self.is_late(history, call) {
                let what = format!("shows lost messages: {}", describe(history, call));
                report.add(Stale, call.conversation, what);
            } else {
                report.late_reads += 1;
            }
        }
        History {
            calls,
            ..history.clone()
        }
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
fn saved(call: &Call) -> Option<u32> {
    match &call.action {
        Action::Save {
            save,
            outcome: Outcome::Acknowledged(_) | Outcome::Unknown,
            ..
        } => Some(*save),
        _ => None,
    }
}

fn shown_tokens(call: &Call) -> impl Iterator<Item = Token> {
    let rows = match &call.action {
        Action::Read {
            shown: Shown::Messages { rows, .. },
            ..
        } => rows.as_slice(),
        _ => &[],
    };
    rows.iter().filter_map(|row| row.token)
}
