//! Checks of one read against the model.

use std::{ops::RangeInclusive, time::Duration};

use crate::{
    checker::{MAX_LAG, RECONNECTION, check_not_found, describe},
    history::{Action, Call, Consistency, ConversationIndex, History, Moment, Row, Shown},
    model::{Model, Timeline},
    report::{
        Report,
        ViolationKind::{self, *},
    },
    writes::Attempts,
};

/// Messages that a read shows.
#[derive(Clone, Copy)]
pub(crate) struct Shows<'a> {
    pub(crate) last_seq: Option<i64>,
    pub(crate) rows: &'a [Row],
}

/// Check of one read of one conversation.
pub(crate) struct ReadCheck<'a> {
    history: &'a History,
    model: &'a Model,
    timeline: &'a Timeline,
    conversation: ConversationIndex,
    /// `None` for the final state of the store.
    call: Option<&'a Call>,
    invoked: Moment,
    completed: Moment,
    consistency: Consistency,
    limit: usize,
    shows: Option<Shows<'a>>,
}

impl<'a> ReadCheck<'a> {
    pub(crate) fn of_call(history: &'a History, model: &'a Model, call: &'a Call) -> Self {
        let Action::Read {
            consistency,
            limit,
            shown,
        } = &call.action
        else {
            unreachable!("the call is a read")
        };
        let shows = match shown {
            Shown::Messages { last_seq, rows, .. } => Some(Shows {
                last_seq: *last_seq,
                rows,
            }),
            _ => None,
        };
        Self {
            history,
            model,
            timeline: &model.timelines[call.conversation],
            conversation: call.conversation,
            call: Some(call),
            invoked: call.invoked,
            completed: call.completed,
            consistency: *consistency,
            limit: *limit,
            shows,
        }
    }

    pub(crate) fn of_store(
        history: &'a History,
        model: &'a Model,
        conversation: ConversationIndex,
        shows: Shows<'a>,
    ) -> Self {
        let moment = history.final_state.moment;
        Self {
            history,
            model,
            timeline: &model.timelines[conversation],
            conversation,
            call: None,
            invoked: moment,
            completed: moment,
            consistency: Consistency::Strong,
            limit: usize::MAX,
            shows: Some(shows),
        }
    }

    pub(crate) fn run(&self, report: &mut Report) {
        if let Some(shows) = self.shows {
            self.check_deletion(report);
            if self.check_rows(shows, report) {
                self.check_removed(shows, report);
                self.check_missing(shows, report);
                self.check_end(shows, report);
            }
            return;
        }
        let Some(call) = self.call else { return };
        let Action::Read { shown, .. } = &call.action else {
            return;
        };
        let is_not_found = matches!(shown, Shown::NotFound);
        check_not_found(self.timeline, call, is_not_found, report);
        if let Shown::EndsAt(last_seq) = shown {
            self.check_saves_after(*last_seq, report);
        }
    }

    /// A deleted conversation is not shown.
    fn check_deletion(&self, report: &mut Report) {
        let deletions = &self.timeline.deletions;
        if deletions.precede(self.invoked) {
            let deleted = deletions.acknowledged().unwrap_or_default();
            self.late(
                deletions,
                deleted,
                None,
                "shows a deleted conversation",
                report,
            );
        }
    }

    /// Messages ascend, and none is shown before it was sent.
    fn check_rows(&self, shows: Shows<'_>, report: &mut Report) -> bool {
        let pairs = shows.rows.windows(2);
        for pair in pairs {
            if pair[0].seq == pair[1].seq || pair[0].token == pair[1].token {
                self.add(Duplicated, "shows a message twice", report);
                return false;
            }
            if pair[0].seq > pair[1].seq {
                self.add(Reordered, "is not in order", report);
                return false;
            }
        }
        for row in shows.rows {
            let save = row
                .token
                .and_then(|token| self.model.saves.get(&token.save));
            let started = save.and_then(|save| save.attempts.started());
            if started.is_some_and(|started| started > self.completed) {
                self.add(Reordered, "shows a save before it was sent", report);
                return false;
            }
        }
        let last = shows.rows.last().map_or(0, |row| row.seq);
        if shows.last_seq.is_some_and(|last_seq| last_seq < last) {
            self.add(Partial, "shows messages beyond its last_seq", report);
            return false;
        }
        true
    }

    fn end(shows: Shows<'_>) -> i64 {
        let last = shows.rows.last().map_or(0, |row| row.seq);
        shows.last_seq.unwrap_or(last)
    }

    /// Messages that were removed before the read, or before the last message in it, are not shown.
    fn check_removed(&self, shows: Shows<'_>, report: &mut Report) {
        let end = Self::end(shows);
        for removal in &self.timeline.removals {
            if !shows.rows.iter().any(|row| removal.covers(row.seq)) {
                continue;
            }
            let is_certain = if removal.is_inherited {
                removal.precedes_branch
            } else {
                removal.attempts.precede(self.invoked)
                    || removal.upto.is_some_and(|upto| upto < end)
            };
            // Otherwise the read is from before the removal, and lacks a save if it is late.
            if is_certain && removal.upto.is_none_or(|upto| upto <= end) {
                let removed = removal.attempts.acknowledged();
                let removed = removed.unwrap_or(self.invoked);
                let what = format!("shows messages removed after {}", removal.after);
                self.late(&removal.attempts, removed, None, &what, report);
            }
        }
    }

    /// Numbers that truncations can have removed before this read.
    fn explanations(&self, shows: Shows<'_>) -> Vec<RangeInclusive<i64>> {
        let removals = self.timeline.removals.iter();
        removals
            .filter(|removal| removal.can_precede(self.completed))
            .filter(|removal| {
                let ends = removal.upto.zip(shows.last_seq);
                ends.is_none_or(|(upto, last_seq)| removal.is_inherited || upto <= last_seq)
            })
            .filter_map(|removal| {
                let upto = removal.upto_before(shows.rows)?;
                Some(removal.after + 1..=upto)
            })
            .collect()
    }

    /// The messages are the newest ones, without gaps.
    fn check_missing(&self, shows: Shows<'_>, report: &mut Report) {
        let first = match shows.rows.first() {
            Some(row) if shows.rows.len() >= self.limit => row.seq,
            _ => 1,
        };
        let explanations = self.explanations(shows);
        let mut rows = shows.rows.iter().map(|row| row.seq).peekable();
        for seq in first..=Self::end(shows) {
            if rows.next_if_eq(&seq).is_some()
                || explanations.iter().any(|removed| removed.contains(&seq))
            {
                continue;
            }
            let kind = match (self.call, self.is_known(seq)) {
                (None, true) => Lost,
                (Some(_), true) => Partial,
                (_, false) => Reordered,
            };
            self.add(kind, &format!("lacks message {seq}"), report);
            return;
        }
        if shows.last_seq.is_some() {
            self.check_saves_after(Self::end(shows), report);
        } else {
            let saves = self.timeline.saves.range(Self::end(shows) + 1..);
            for (first_seq, number) in saves {
                let save = &self.model.saves[number];
                let is_removed = explanations
                    .iter()
                    .any(|removed| removed.contains(first_seq));
                if !is_removed && save.attempts.precede(self.invoked) {
                    self.add(
                        self.missing(),
                        &format!("lacks message {first_seq}"),
                        report,
                    );
                    return;
                }
            }
        }
    }

    fn is_known(&self, seq: i64) -> bool {
        match self.timeline.origin {
            Some(origin) if seq <= origin.at => true,
            _ => self.timeline.save_at(seq).is_some(),
        }
    }

    fn missing(&self) -> ViolationKind {
        if self.call.is_none() { Lost } else { Stale }
    }

    /// The conversation ends at a turn's end.
    fn check_end(&self, shows: Shows<'_>, report: &mut Report) {
        let Some(last_seq) = shows.last_seq else {
            return;
        };
        let saves = self.timeline.saves.range(..=last_seq);
        if let Some((_, number)) = saves.last()
            && let Some(end) = self.model.saves[number].last_seq()
            && last_seq < end
        {
            self.add(
                Partial,
                &format!("ends within the turn up to {end}"),
                report,
            );
        }
    }

    /// Every turn that the conversation had reached before the read is in it.
    fn check_saves_after(&self, last_seq: i64, report: &mut Report) {
        let reached = self.timeline.reached_before(self.invoked);
        if reached <= last_seq {
            return;
        }
        let mut is_explained = false;
        for (first_seq, number) in self.timeline.saves.range(last_seq + 1..=reached) {
            let save = &self.model.saves[number];
            let Some(known) = save
                .last_seq()
                .and_then(|last| self.timeline.reached_at(last))
            else {
                continue;
            };
            let since = save.attempts.acknowledged().unwrap_or(known);
            let what = format!("ends at {last_seq} and lacks message {first_seq}");
            is_explained = true;
            if known < self.invoked
                && !self.late(&save.attempts, since, Some(*first_seq), &what, report)
            {
                return;
            }
        }
        if !is_explained {
            let what = format!("ends at {last_seq}, after {reached} was reached");
            self.add(self.missing(), &what, report);
        }
    }

    /// Reports a read that is late, unless the documented limit allows it. Returns whether it does.
    fn late(
        &self,
        attempts: &Attempts,
        since: Moment,
        seq: Option<i64>,
        what: &str,
        report: &mut Report,
    ) -> bool {
        let lag = self.lag(since.at);
        if self.may_be_late(attempts, since, seq) && lag < MAX_LAG {
            report.late_reads += 1;
            report.longest_lag = report.longest_lag.max(lag);
            return true;
        }
        let what = format!("{what}, {lag:.3?} after the write by {:?}", attempts.0);
        self.add(self.missing(), &what, report);
        false
    }

    /// Time from a write to this read in which the sidecars reached PostgreSQL.
    fn lag(&self, since: Duration) -> Duration {
        let faults = self.history.faults.iter();
        let faults = faults.filter(|fault| fault.cuts_postgres);
        let outages = faults.map(|fault| {
            let until = fault.until.min(self.invoked.at);
            until.saturating_sub(fault.from.max(since))
        });
        let time = self.invoked.at.saturating_sub(since);
        time.saturating_sub(outages.sum())
    }

    /// Whether the limit for sidecars without Redis, and for writes that are committed after their
    /// call has failed, applies to this read of a write.
    fn may_be_late(&self, attempts: &Attempts, since: Moment, seq: Option<i64>) -> bool {
        let Some(call) = self.call else { return false };
        let is_cached = match (self.consistency, seq) {
            (Consistency::Cached, _) | (Consistency::AtLeast(_), None) => true,
            (Consistency::AtLeast(min_seq), Some(seq)) => seq > min_seq,
            (Consistency::Strong, _) => false,
        };
        let has_acknowledged = attempts.acknowledged().is_some();
        let writers = attempts.0.iter();
        let mut writers = writers.filter(|it| it.is_acknowledged || !has_acknowledged);
        is_cached
            && !writers.clone().any(|writer| writer.process == call.process)
            && writers.any(|writer| {
                !has_acknowledged
                    || self.history.faults.iter().any(|fault| {
                        let begins = fault.from <= since.at.max(writer.completed.at);
                        let ends: Duration = fault.until + RECONNECTION;
                        fault.cuts_redis
                            && fault.affects(writer.process)
                            && begins
                            && ends >= writer.invoked.at
                    })
            })
    }

    fn add(&self, kind: ViolationKind, what: &str, report: &mut Report) {
        let detail = match self.call {
            Some(call) => format!("{what}: {}", describe(self.history, call)),
            None => format!("the store {what}"),
        };
        report.add(kind, self.conversation, detail);
    }
}
