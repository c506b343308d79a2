//! Violations that the checker found in a history.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::history::ConversationIndex;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ViolationKind {
    /// An acknowledged write is missing.
    Lost,
    /// A message has two numbers or is shown twice.
    Duplicated,
    /// Numbers contradict real time or each other, or are missing.
    Reordered,
    /// A read lacks a write that was acknowledged before the read began.
    Stale,
    /// A message of another conversation or user is visible.
    Leaked,
    /// A part of a turn, or a write that failed, is visible.
    Partial,
}

#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) kind: ViolationKind,
    pub(crate) conversation: ConversationIndex,
    pub(crate) detail: String,
}

/// Result of checking one history.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) violations: Vec<Violation>,
    /// Reads that were late within the documented limit.
    pub(crate) late_reads: usize,
    /// Longest time after an acknowledgement at which such a read began.
    pub(crate) longest_lag: Duration,
    /// Turns that an asynchronous standby lacked when it was promoted.
    pub(crate) lost_by_fork: usize,
    pub(crate) calls: usize,
    pub(crate) acknowledged: usize,
    pub(crate) reads: usize,
    pub(crate) reads_from_window: usize,
}

impl Report {
    pub(crate) fn add(
        &mut self,
        kind: ViolationKind,
        conversation: ConversationIndex,
        detail: String,
    ) {
        self.violations.push(Violation {
            kind,
            conversation,
            detail,
        });
    }

    pub(crate) fn counts(&self) -> BTreeMap<ViolationKind, usize> {
        let mut counts = BTreeMap::new();
        for violation in &self.violations {
            *counts.entry(violation.kind).or_default() += 1;
        }
        counts
    }

    pub(crate) fn has(&self, kind: ViolationKind) -> bool {
        self.counts().contains_key(&kind)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{} calls, {} acknowledged writes, {} reads ({} from windows), {} late by at most {:?}; violations: {:?}",
            self.calls,
            self.acknowledged,
            self.reads,
            self.reads_from_window,
            self.late_reads,
            self.longest_lag,
            self.counts(),
        )?;
        for violation in self.violations.iter().take(30) {
            let Violation {
                kind,
                conversation,
                detail,
            } = violation;
            writeln!(
                formatter,
                "{kind:?} in conversation {conversation}: {detail}"
            )?;
        }
        Ok(())
    }
}
