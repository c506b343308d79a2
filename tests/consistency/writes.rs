//! Writes of a history, each with all attempts to perform it.

use crate::history::{Call, ConversationIndex, Moment, Outcome, Process, Row};

/// Attempt of a write that may have been performed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) process: Process,
    pub(crate) invoked: Moment,
    pub(crate) completed: Moment,
    pub(crate) is_acknowledged: bool,
}

/// Attempts of one write, in the order of the history.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attempts(pub(crate) Vec<Attempt>);

impl Attempts {
    /// Adds a call, unless it has failed.
    pub(crate) fn add<T>(&mut self, call: &Call, outcome: &Outcome<T>) {
        let is_acknowledged = match outcome {
            Outcome::Acknowledged(_) => true,
            Outcome::Unknown => false,
            Outcome::NotPerformed | Outcome::NotFound => return,
        };
        self.0.push(Attempt {
            process: call.process,
            invoked: call.invoked,
            completed: call.completed,
            is_acknowledged,
        });
    }

    /// When the write can have been performed at the earliest; `None` if every attempt failed.
    pub(crate) fn started(&self) -> Option<Moment> {
        self.0.iter().map(|attempt| attempt.invoked).min()
    }

    pub(crate) fn acknowledged(&self) -> Option<Moment> {
        let acknowledged = self.0.iter().filter(|attempt| attempt.is_acknowledged);
        acknowledged.map(|attempt| attempt.completed).min()
    }

    /// Whether the write was acknowledged before a moment.
    pub(crate) fn precede(&self, moment: Moment) -> bool {
        self.acknowledged()
            .is_some_and(|acknowledged| acknowledged < moment)
    }
}

/// One turn, with all attempts to save it.
#[derive(Clone, Debug)]
pub(crate) struct Save {
    pub(crate) conversation: ConversationIndex,
    pub(crate) count: u32,
    pub(crate) attempts: Attempts,
    pub(crate) first_seq: Option<i64>,
}

impl Save {
    pub(crate) fn last_seq(&self) -> Option<i64> {
        Some(self.first_seq? + i64::from(self.count) - 1)
    }
}

/// Truncation that was or may have been performed.
#[derive(Clone, Debug)]
pub(crate) struct Removal {
    pub(crate) after: i64,
    /// Number at which the conversation ended; `None` while it is unknown whether and when the
    /// truncation was performed.
    pub(crate) upto: Option<i64>,
    /// Highest number that the truncation can have removed.
    pub(crate) cap: i64,
    pub(crate) attempts: Attempts,
    /// A truncation of the parent, before or during the branch.
    pub(crate) is_inherited: bool,
    /// An inherited truncation that was complete before the branch.
    pub(crate) precedes_branch: bool,
}

impl Removal {
    pub(crate) fn covers(&self, seq: i64) -> bool {
        seq > self.after && seq <= self.upto.unwrap_or(self.cap)
    }

    /// Highest number that the truncation has removed if it precedes a read of these messages;
    /// `None` if it cannot precede it.
    pub(crate) fn upto_before(&self, rows: &[Row]) -> Option<i64> {
        let shown = rows.iter().find(|row| self.covers(row.seq));
        match (self.upto, shown) {
            (Some(_), Some(_)) => None,
            (Some(upto), None) => Some(upto),
            (None, Some(row)) => Some(row.seq - 1),
            (None, None) => Some(self.cap),
        }
    }

    pub(crate) fn can_precede(&self, moment: Moment) -> bool {
        let started = self.attempts.started();
        self.is_inherited || started.is_some_and(|started| started < moment)
    }
}
