//! Checks of a recorded history: a pure function of its calls and its final state.

use std::fmt::Write as _;
use std::time::Duration;

use crate::{
    history::{Action, Call, ConversationIndex, History, Moment, Outcome, Process, Shown},
    model::{Model, Timeline},
    reads::{ReadCheck, Shows},
    report::{Report, ViolationKind::*},
};

/// Longest time for which a CACHED read may lack a write of another sidecar that could not reach
/// Redis, or that PostgreSQL committed after the call had failed. One second in which PostgreSQL is
/// reached is documented; the rest is slack for a busy machine.
pub(crate) const MAX_LAG: Duration = Duration::from_secs(1).saturating_add(Duration::from_secs(1));
/// Time after a fault in which a sidecar may still be without a connection to Redis.
pub(crate) const RECONNECTION: Duration = Duration::from_secs(3);

/// Returns every contradiction of a history.
pub(crate) fn check(history: &History) -> Report {
    let mut report = Report::default();
    let model = Model::new(history, &mut report);
    for (conversation, timeline) in model.timelines.iter().enumerate() {
        check_order(&model, conversation, timeline, &mut report);
        check_removals(&model, conversation, timeline, &mut report);
    }
    for call in &history.calls {
        report.calls += 1;
        check_call(history, &model, call, &mut report);
    }
    check_final_state(history, &model, &mut report);
    report
}

/// Numbers follow real time: a save that begins after another one was acknowledged has a higher one.
fn check_order(
    model: &Model,
    conversation: ConversationIndex,
    timeline: &Timeline,
    report: &mut Report,
) {
    let mut earliest: Option<(Moment, i64)> = None;
    for (first_seq, number) in timeline.saves.iter().rev() {
        let attempts = &model.saves[number].attempts;
        if let (Some(started), Some((acknowledged, later))) = (attempts.started(), earliest)
            && acknowledged < started
        {
            let detail = format!("{later} was acknowledged before {first_seq} was sent");
            report.add(Reordered, conversation, detail);
        }
        if let Some(acknowledged) = attempts.acknowledged()
            && earliest.is_none_or(|(other, _)| acknowledged < other)
        {
            earliest = Some((acknowledged, *first_seq));
        }
    }
}

/// A truncation comes after the saves up to its number, and before all others.
fn check_removals(
    model: &Model,
    conversation: ConversationIndex,
    timeline: &Timeline,
    report: &mut Report,
) {
    for removal in timeline.removals.iter().filter(|it| !it.is_inherited) {
        let Some(upto) = removal.upto else { continue };
        for number in timeline.saves.values() {
            let save = &model.saves[number];
            let is_before = save.last_seq().is_some_and(|last| last <= upto);
            let attempts = (&save.attempts, &removal.attempts);
            let (first, second) = if is_before {
                attempts
            } else {
                (attempts.1, attempts.0)
            };
            if let (Some(started), Some(acknowledged)) = (first.started(), second.acknowledged())
                && acknowledged < started
            {
                let detail =
                    format!("save {number} and a truncation at {upto} are in the wrong order");
                report.add(Reordered, conversation, detail);
            }
        }
    }
}

fn check_call(history: &History, model: &Model, call: &Call, report: &mut Report) {
    let timeline = &model.timelines[call.conversation];
    match &call.action {
        Action::Save { outcome, count, .. } => {
            if let Outcome::Acknowledged(rows) = outcome {
                report.acknowledged += 1;
                // A retry returns the messages that were not truncated since the first attempt.
                let is_truncated = timeline
                    .removals
                    .iter()
                    .any(|removal| removal.can_precede(call.completed));
                let expected = usize::try_from(*count).unwrap();
                if rows.len() > expected || (rows.len() < expected && !is_truncated) {
                    report.add(
                        Partial,
                        call.conversation,
                        format!("saved {rows:?} of {count}"),
                    );
                }
            }
            check_write(timeline, call, outcome, report);
        }
        Action::Truncate { outcome, .. } => {
            report.acknowledged += usize::from(matches!(outcome, Outcome::Acknowledged(_)));
            check_write(timeline, call, outcome, report);
        }
        Action::Delete { outcome } => {
            report.acknowledged += usize::from(matches!(outcome, Outcome::Acknowledged(())));
            // A retry of a deletion with an unknown outcome finds nothing.
            check_not_found(timeline, call, outcome == &Outcome::NotFound, report);
        }
        Action::Branch { outcome, .. } => check_write(timeline, call, outcome, report),
        Action::Read { shown, .. } => {
            report.reads += 1;
            if let Shown::Messages { from_window, .. } = shown {
                report.reads_from_window += usize::from(*from_window);
            }
            ReadCheck::of_call(history, model, call).run(report);
        }
        Action::ForeignRead { shown } => {
            if let Shown::Messages { .. } | Shown::EndsAt(_) = shown {
                let detail = format!("another user reads it: {}", describe(history, call));
                report.add(Leaked, call.conversation, detail);
            }
        }
    }
}

/// Checks a write against the deletions of its conversation.
fn check_write<T>(timeline: &Timeline, call: &Call, outcome: &Outcome<T>, report: &mut Report) {
    let is_not_found = matches!(outcome, Outcome::NotFound);
    check_not_found(timeline, call, is_not_found, report);
    if matches!(outcome, Outcome::Acknowledged(_)) && timeline.deletions.precede(call.invoked) {
        let detail = format!("a write after the deletion: {:?}", call.action);
        report.add(Stale, call.conversation, detail);
    }
}

/// A conversation is missing only after its deletion has begun.
pub(crate) fn check_not_found(
    timeline: &Timeline,
    call: &Call,
    is_not_found: bool,
    report: &mut Report,
) {
    let started = timeline.deletions.started();
    if is_not_found && started.is_none_or(|started| started > call.completed) {
        let detail = format!("NOT_FOUND without a deletion: {:?}", call.action);
        report.add(Lost, call.conversation, detail);
    }
}

fn check_final_state(history: &History, model: &Model, report: &mut Report) {
    let state = &history.final_state;
    for (conversation, timeline) in model.timelines.iter().enumerate() {
        let mut stored = state.conversations.iter();
        let stored = stored.find(|stored| stored.conversation == conversation);
        match stored {
            Some(stored) => {
                let shows = Shows {
                    last_seq: Some(stored.last_seq),
                    rows: &stored.rows,
                };
                ReadCheck::of_store(history, model, conversation, shows).run(report);
            }
            None if timeline.deletions.started().is_none() => {
                let detail = "the conversation is not in the store".to_owned();
                report.add(Lost, conversation, detail);
            }
            None => (),
        }
    }
}

/// Describes a call and the faults around it.
pub(crate) fn describe(history: &History, call: &Call) -> String {
    let Process {
        sidecar,
        generation,
    } = call.process;
    let (from, until) = (call.invoked.at, call.completed.at);
    let mut text = format!(
        "{:?} by sidecar {sidecar}.{generation} at {from:.3?}..{until:.3?}; faults:",
        call.action
    );
    for fault in &history.faults {
        if fault.from <= until && from <= fault.until + RECONNECTION {
            let (from, until) = (fault.from, fault.until);
            // Writing to a string cannot fail.
            let _ = write!(text, " [{} {from:.3?}..{until:.3?}]", fault.name);
        }
    }
    text
}
