//! Tests of the checker: each mutation of a correct history is reported.

use std::time::Duration;

use crate::{
    checker::{MAX_LAG, check},
    history::{Action, Consistency::*, History, Outcome, Row, Shown},
    report::ViolationKind::{self, *},
    synthetic::{Script, acknowledged_save, failed_save, read, row, truncation, turn},
};

/// Two conversations with saves, a retry, a truncation, a failed save and reads.
fn script() -> Script {
    let mut script = Script::new(2);
    script.call(0, acknowledged_save(1, 1, 2));
    script.call_on(1, 0, acknowledged_save(1, 100, 1));
    script.call(1, read(Cached, 2, turn(1, 1, 2)));
    script.call(0, failed_save(2, 1, Outcome::Unknown));
    script.call(1, acknowledged_save(3, 2, 1));
    script.call(2, acknowledged_save(4, 3, 2));
    script.call(1, read(Strong, 5, all()));
    script.call(1, truncation(50, 4, Outcome::Acknowledged(5)));
    script.call(0, failed_save(4, 1, Outcome::NotPerformed));
    script.call(2, acknowledged_save(6, 5, 1));
    script.call(0, read(Cached, 6, last_rows()));
    script.call(0, read(AtLeast(6), 6, last_rows()));
    script
}

/// Rows before the truncation.
fn all() -> Vec<Row> {
    [turn(1, 1, 2), turn(3, 2, 1), turn(4, 3, 2)].concat()
}

fn last_rows() -> Vec<Row> {
    [
        turn(1, 1, 2),
        turn(3, 2, 1),
        vec![row(4, 3, 0), row(6, 5, 0)],
    ]
    .concat()
}

fn history() -> History {
    script().end(vec![(6, last_rows()), (1, turn(1, 100, 1))])
}

/// The result of the read at `call`.
fn shown(history: &mut History, call: usize) -> (&mut Option<i64>, &mut Vec<Row>) {
    match &mut history.calls[call].action {
        Action::Read {
            shown: Shown::Messages { last_seq, rows, .. },
            ..
        } => (last_seq, rows),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_reported(kind: ViolationKind, mutate: impl FnOnce(&mut History)) {
    let mut history = history();
    mutate(&mut history);
    let report = check(&history);
    assert!(report.has(kind), "{kind:?} is not reported: {report}");
}

#[track_caller]
fn assert_correct(history: &History) {
    let report = check(history);
    assert!(report.violations.is_empty(), "{report}");
}

const CACHED_READ: usize = 10;
const STRONG_READ: usize = 6;

#[test]
fn a_correct_history_has_no_violation() {
    assert_correct(&history());
}

#[test]
fn missing_rows_are_lost() {
    for row in 0..5 {
        assert_reported(Lost, |history| {
            history.final_state.conversations[0].rows.remove(row);
        });
    }
    assert_reported(Lost, |history| {
        history.final_state.conversations.remove(1);
    });
    assert_reported(Lost, |history| {
        let stored = &mut history.final_state.conversations[0];
        stored.rows.pop();
        stored.last_seq = 5;
    });
}

#[test]
fn missing_rows_of_a_read_are_partial() {
    for row in 0..4 {
        assert_reported(Partial, |history| {
            shown(history, CACHED_READ).1.remove(row);
        });
    }
}

#[test]
fn repeated_rows_are_duplicated() {
    assert_reported(Duplicated, |history| {
        let rows = &mut history.final_state.conversations[0].rows;
        rows.insert(1, rows[1]);
    });
    assert_reported(Duplicated, |history| {
        let (_, rows) = shown(history, CACHED_READ);
        rows.insert(1, rows[1]);
    });
    // A retry was performed once more.
    assert_reported(Duplicated, |history| {
        let stored = &mut history.final_state.conversations[0];
        stored.rows.push(row(7, 2, 0));
        stored.last_seq = 7;
    });
}

#[test]
fn exchanged_rows_are_reordered() {
    assert_reported(Reordered, |history| {
        shown(history, CACHED_READ).1.swap(1, 2);
    });
    // Two readers have different orders.
    assert_reported(Duplicated, |history| {
        let (_, rows) = shown(history, STRONG_READ);
        (rows[1].token, rows[2].token) = (rows[2].token, rows[1].token);
    });
    // Two saves have numbers that contradict real time.
    let mut script = Script::new(1);
    script.call(0, acknowledged_save(2, 1, 1));
    script.call(1, acknowledged_save(1, 2, 1));
    let report = check(&script.end(vec![(2, vec![row(1, 2, 0), row(2, 1, 0)])]));
    assert!(report.has(Reordered), "{report}");
}

#[test]
fn numbers_without_messages_are_reordered() {
    let mut script = Script::new(1);
    script.call(0, acknowledged_save(1, 1, 1));
    script.call(0, acknowledged_save(3, 2, 1));
    let report = check(&script.end(vec![(3, vec![row(1, 1, 0), row(3, 2, 0)])]));
    assert!(report.has(Reordered), "{report}");
}

#[test]
fn two_messages_with_one_number_are_reordered() {
    assert_reported(Reordered, |history| {
        history.calls[5].action = acknowledged_save(3, 3, 2);
    });
}

#[test]
fn older_windows_are_stale() {
    let prefixes = [
        (5, all()),
        (3, all()[..3].to_vec()),
        (2, turn(1, 1, 2)),
        (0, vec![]),
    ];
    for (last_seq, rows) in prefixes {
        for call in [CACHED_READ, CACHED_READ + 1] {
            assert_reported(Stale, |history| {
                *shown(history, call).0 = Some(last_seq);
                shown(history, call).1.clone_from(&rows);
            });
        }
    }
}

#[test]
fn removed_messages_are_stale() {
    // The message is shown between those that remain.
    assert_reported(Stale, |history| {
        shown(history, CACHED_READ).1.insert(4, row(5, 3, 1));
    });
    let mut script = Script::new(1);
    script.call(0, acknowledged_save(1, 1, 2));
    script.call(0, truncation(9, 1, Outcome::Acknowledged(2)));
    script.call(1, read(Cached, 2, turn(1, 1, 2)));
    let report = check(&script.end(vec![(2, turn(1, 1, 1))]));
    assert!(report.has(Stale), "{report}");
}

#[test]
fn deleted_conversations_are_stale() {
    let mut script = Script::new(1);
    script.call(0, acknowledged_save(1, 1, 2));
    let outcome = Outcome::Acknowledged(());
    script.call(0, Action::Delete { outcome });
    assert_correct(&History {
        final_state: script_end(),
        ..script.history.clone()
    });
    script.call(1, read(Cached, 2, turn(1, 1, 2)));
    let report = check(&script.end(vec![]));
    assert!(report.has(Stale), "{report}");
}

fn script_end() -> crate::history::FinalState {
    Script::new(1).end(vec![]).final_state
}

#[test]
fn messages_of_others_are_leaked() {
    assert_reported(Leaked, |history| {
        shown(history, CACHED_READ).1[0] = row(1, 100, 0);
    });
    assert_reported(Leaked, |history| {
        shown(history, CACHED_READ).1[0].token = None;
    });
    assert_reported(Leaked, |history| {
        let mut other = history.calls[CACHED_READ].clone();
        let Action::Read { shown, .. } = other.action else {
            panic!("{other:?}")
        };
        other.action = Action::ForeignRead { shown };
        history.calls.push(other);
    });
}

#[test]
fn half_a_turn_is_partial() {
    assert_reported(Partial, |history| {
        let (last_seq, rows) = shown(history, STRONG_READ);
        *last_seq = Some(4);
        rows.pop();
    });
    assert_reported(Partial, |history| {
        shown(history, STRONG_READ).1.pop();
    });
}

#[test]
fn failed_writes_that_are_visible_are_partial() {
    assert_reported(Partial, |history| {
        let (last_seq, rows) = shown(history, CACHED_READ);
        *last_seq = Some(7);
        rows.push(row(7, 4, 0));
    });
}

#[test]
fn a_read_that_lacks_its_own_save_is_stale_during_a_fault_too() {
    let mut script = Script::new(1);
    script.call(0, acknowledged_save(1, 1, 1));
    script.cut(0, Duration::from_secs(9));
    script.call(0, acknowledged_save(2, 2, 1));
    script.call(0, read(Cached, 1, turn(1, 1, 1)));
    let report = check(&script.end(vec![(2, vec![row(1, 1, 0), row(2, 2, 0)])]));
    assert!(report.has(Stale), "{report}");
}

#[test]
fn a_cached_read_through_another_sidecar_may_be_late_during_a_fault_only() {
    let stale = |consistency, cut: Option<usize>, wait| {
        let mut script = Script::new(1);
        script.call(0, acknowledged_save(1, 1, 1));
        if let Some(sidecar) = cut {
            script.cut(sidecar, Duration::from_secs(9));
        }
        script.call(0, acknowledged_save(2, 2, 1));
        script.wait(wait);
        script.call(1, read(consistency, 1, turn(1, 1, 1)));
        check(&script.end(vec![(2, vec![row(1, 1, 0), row(2, 2, 0)])])).has(Stale)
    };
    assert!(!stale(Cached, Some(0), Duration::ZERO));
    assert!(!stale(AtLeast(1), Some(0), Duration::ZERO));
    assert!(stale(AtLeast(2), Some(0), Duration::ZERO));
    assert!(stale(Strong, Some(0), Duration::ZERO));
    assert!(stale(Cached, Some(0), MAX_LAG));
    assert!(stale(Cached, Some(1), Duration::ZERO));
    assert!(stale(Cached, None, Duration::ZERO));
}

#[test]
fn uncertain_saves_may_appear_late_and_do_not_disappear() {
    let rows = [turn(1, 1, 1), turn(2, 2, 1)].concat();
    let history = |reads: &[usize], stored: usize| {
        let mut script = Script::new(1);
        script.call(0, acknowledged_save(1, 1, 1));
        script.call(0, failed_save(2, 1, Outcome::Unknown));
        for count in reads {
            let last_seq = i64::try_from(*count).unwrap();
            script.call(1, read(Cached, last_seq, rows[..*count].to_vec()));
        }
        let last_seq = i64::try_from(stored).unwrap();
        script.end(vec![(last_seq, rows[..stored].to_vec())])
    };
    assert_correct(&history(&[1, 1, 2], 2));
    assert_correct(&history(&[1], 1));
    assert_correct(&history(&[1], 2));
    assert!(check(&history(&[2], 1)).has(Lost));
}

#[test]
fn uncertain_saves_that_were_shown_disappear_for_a_moment_at_most() {
    let rows = [turn(1, 1, 1), turn(2, 2, 1)].concat();
    let is_stale = |sidecar, consistency, wait| {
        let mut script = Script::new(1);
        script.call(0, acknowledged_save(1, 1, 1));
        script.call(0, failed_save(2, 1, Outcome::Unknown));
        script.call(1, read(Strong, 2, rows.clone()));
        script.wait(wait);
        script.call(sidecar, read(consistency, 1, turn(1, 1, 1)));
        check(&script.end(vec![(2, rows.clone())])).has(Stale)
    };
    assert!(!is_stale(1, Cached, Duration::ZERO));
    assert!(is_stale(1, Cached, MAX_LAG));
    assert!(is_stale(0, Cached, Duration::ZERO));
    assert!(is_stale(1, Strong, Duration::ZERO));
}

#[test]
fn time_without_postgres_does_not_count_as_lag() {
    let is_stale = |cuts_postgres| {
        let mut script = Script::new(1);
        script.call(0, acknowledged_save(1, 1, 1));
        script.cut(0, Duration::from_secs(1));
        script.call(0, acknowledged_save(2, 2, 1));
        script.cut(1, Duration::from_secs(9));
        script.history.faults[1].cuts_postgres = cuts_postgres;
        script.wait(Duration::from_secs(9));
        script.call(1, read(Cached, 1, turn(1, 1, 1)));
        check(&script.end(vec![(2, vec![row(1, 1, 0), row(2, 2, 0)])])).has(Stale)
    };
    assert!(is_stale(false));
    assert!(!is_stale(true));
}

#[test]
fn uncertain_truncations_may_remove_late() {
    let mut script = Script::new(1);
    script.call(0, acknowledged_save(1, 1, 2));
    script.call(0, truncation(9, 1, Outcome::Unknown));
    script.call(0, read(Strong, 2, turn(1, 1, 2)));
    script.call(0, read(Strong, 2, turn(1, 1, 1)));
    script.history.final_state.removals.push((9, 2));
    assert_correct(&script.end(vec![(2, turn(1, 1, 1))]));
}

#[test]
fn truncations_with_an_unknown_end_explain_a_gap() {
    // The conversation is deleted later, so that the store has no record of the truncation.
    let history = |last_read: Vec<Row>| {
        let mut script = Script::new(1);
        script.call(0, acknowledged_save(1, 1, 3));
        script.call(0, truncation(9, 1, Outcome::Unknown));
        script.call(0, acknowledged_save(4, 2, 2));
        script.call(0, read(Strong, 5, last_read));
        let outcome = Outcome::Acknowledged(());
        script.call(0, Action::Delete { outcome });
        script.end(vec![])
    };
    assert_correct(&history([turn(1, 1, 1), turn(4, 2, 2)].concat()));
    assert_correct(&history([turn(1, 1, 3), turn(4, 2, 2)].concat()));
    let half = [turn(1, 1, 2), turn(4, 2, 2)].concat();
    assert!(check(&history(half)).has(Partial));
}

#[test]
fn branches_keep_the_messages_of_their_parents() {
    let branched = |rows: Vec<Row>| {
        let mut script = Script::new(2);
        script.call(0, acknowledged_save(1, 1, 3));
        let outcome = Outcome::Acknowledged(1);
        script.call(0, Action::Branch { at: 2, outcome });
        script.call(0, truncation(9, 0, Outcome::Acknowledged(3)));
        script.call_on(1, 1, acknowledged_save(3, 2, 1));
        let report = check(&script.end(vec![(3, vec![]), (3, rows)]));
        report.counts().into_keys().collect::<Vec<_>>()
    };
    assert_eq!(branched([turn(1, 1, 2), turn(3, 2, 1)].concat()), []);
    assert_eq!(branched(turn(3, 2, 1)), [Lost]);
    assert!(branched(turn(1, 1, 3)).contains(&Leaked));
}
