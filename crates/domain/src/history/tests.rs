use super::*;

mod random;

const UNLIMITED: HistoryBudget = HistoryBudget {
    limit: 50,
    max_tokens: None,
    max_bytes: usize::MAX,
    start_on_user: false,
};

/// Creates items from lines such as `assistant +a +b` (calls), `tool -a` (results), `reasoning`.
/// Each message has ten tokens and a hundred bytes.
fn conversation<'a>(lines: &[&'a str]) -> Vec<HistoryItem<'a>> {
    let item = |line: &&'a str| {
        let mut words = line.split(' ');
        let (role, has_only_reasoning) = match words.next().unwrap() {
            "reasoning" => (Role::Assistant, true),
            role => (Role::parse(role).unwrap(), false),
        };
        let ids = words.map(|word| word.split_at(1));
        let (calls, results): (Vec<_>, Vec<_>) = ids.partition(|(sign, _)| *sign == "+");
        HistoryItem {
            calls: calls.into_iter().map(|(_, id)| id).collect(),
            results: results.into_iter().map(|(_, id)| id).collect(),
            has_only_reasoning,
            ..HistoryItem::plain(role, 10, 100)
        }
    };
    lines.iter().map(item).collect()
}

fn limit(limit: usize) -> HistoryBudget {
    HistoryBudget { limit, ..UNLIMITED }
}

/// Indexes of the messages that are selected of a whole conversation.
#[track_caller]
fn selected(lines: &[&str], budget: &HistoryBudget) -> Vec<usize> {
    match select_history(&conversation(lines), OlderMessages::None, budget) {
        HistorySelection::Selected(selected) => selected.indexes,
        HistorySelection::NeedsOlder => panic!("a whole conversation needs no older messages"),
    }
}

/// Indexes of the messages that are selected of the newest messages of a conversation, or `None`
/// if older ones are needed.
fn selected_of_newest(lines: &[&str], budget: &HistoryBudget) -> Option<Vec<usize>> {
    match select_history(&conversation(lines), OlderMessages::Unread, budget) {
        HistorySelection::Selected(selected) => Some(selected.indexes),
        HistorySelection::NeedsOlder => None,
    }
}

#[test]
fn plain_messages_are_selected_up_to_the_limit() {
    let lines = ["system", "user", "assistant", "user", "assistant"];
    assert_eq!(selected(&lines, &limit(2)), [3, 4]);
    assert_eq!(selected(&lines, &limit(5)), [0, 1, 2, 3, 4]);
    assert_eq!(selected(&[], &UNLIMITED), [0_usize; 0]);
}

#[test]
fn a_call_is_selected_with_all_its_results_or_not_at_all() {
    let lines = ["user", "assistant +a +b", "tool -a", "tool -b", "assistant"];
    for (size, expected) in [
        (1, &[4][..]),
        (2, &[4]),
        (3, &[4]),
        (4, &[1, 2, 3, 4]),
        (5, &[0, 1, 2, 3, 4]),
    ] {
        assert_eq!(selected(&lines, &limit(size)), expected, "{size}");
    }
}

#[test]
fn results_of_several_calls_in_one_message_unite_the_calls() {
    let lines = [
        "user",
        "assistant +a",
        "assistant +b",
        "tool -b -a",
        "assistant",
    ];
    assert_eq!(selected(&lines, &limit(3)), [4]);
    assert_eq!(selected(&lines, &limit(4)), [1, 2, 3, 4]);
}

#[test]
fn nested_calls_are_units_of_their_own() {
    let lines = ["user", "assistant +a", "assistant +b", "tool -b", "tool -a"];
    // The newest message belongs to the outer call, which is selected first.
    assert_eq!(selected(&lines, &limit(3)), [1, 4]);
    assert_eq!(selected(&lines, &limit(4)), [1, 2, 3, 4]);
}

#[test]
fn the_newest_unit_may_exceed_limit_and_tokens() {
    let lines = ["user", "assistant +a +b", "tool -a", "tool -b"];
    assert_eq!(selected(&lines, &limit(1)), [1, 2, 3]);
    let budget = HistoryBudget {
        max_tokens: Some(1),
        ..UNLIMITED
    };
    assert_eq!(selected(&lines, &budget), [1, 2, 3]);
    assert_eq!(selected_of_newest(&lines, &budget).unwrap(), [1, 2, 3]);
}

#[test]
fn only_a_single_message_may_exceed_the_bytes() {
    let budget = HistoryBudget {
        max_bytes: 99,
        ..UNLIMITED
    };
    assert_eq!(selected(&["user", "assistant"], &budget), [1]);
    let lines = ["user", "assistant +a", "tool -a"];
    assert_eq!(selected(&lines, &budget), [0_usize; 0]);
}

#[test]
fn the_first_unit_that_does_not_fit_ends_the_selection() {
    let lines = ["user", "assistant +a", "tool -a", "assistant"];
    assert_eq!(selected(&lines, &limit(2)), [3]);
    let tokens = |max| HistoryBudget {
        max_tokens: Some(max),
        ..UNLIMITED
    };
    assert_eq!(selected(&lines, &tokens(29)), [3]);
    assert_eq!(selected(&lines, &tokens(30)), [1, 2, 3]);
    let bytes = |max_bytes| HistoryBudget {
        max_bytes,
        ..UNLIMITED
    };
    assert_eq!(selected(&lines, &bytes(399)), [1, 2, 3]);
    assert_eq!(selected(&lines, &bytes(400)), [0, 1, 2, 3]);
}

#[test]
fn an_interrupted_call_is_omitted_with_its_partial_results() {
    let lines = ["user", "assistant +a +b", "tool -a", "user", "assistant"];
    assert_eq!(selected(&lines, &UNLIMITED), [0, 3, 4]);
    // Omitted messages do not count.
    assert_eq!(selected(&lines, &limit(3)), [0, 3, 4]);
}

#[test]
fn an_open_call_at_the_end_is_selected() {
    let lines = ["user", "assistant +a +b", "tool -a"];
    assert_eq!(selected(&lines, &UNLIMITED), [0, 1, 2]);
    let lines = [
        "user",
        "assistant +a",
        "reasoning",
        "assistant +b",
        "tool -b",
    ];
    assert_eq!(selected(&lines, &UNLIMITED), [0, 1, 2, 3, 4]);
    let lines = ["user", "assistant +a", "assistant"];
    assert_eq!(selected(&lines, &UNLIMITED), [0, 2]);
    // The model has gone on with the result of another call.
    let lines = [
        "user",
        "assistant +a",
        "assistant +b",
        "tool -b",
        "assistant +c",
        "tool -c",
    ];
    assert_eq!(selected(&lines, &UNLIMITED), [0, 2, 3, 4, 5]);
}

#[test]
fn a_result_without_a_call_is_omitted() {
    let lines = ["tool -a", "user", "tool -b", "assistant"];
    assert_eq!(selected(&lines, &UNLIMITED), [1, 3]);
    // So are the calls whose results are in the same message.
    let lines = ["user", "assistant +a", "tool -a -b", "assistant"];
    assert_eq!(selected(&lines, &UNLIMITED), [0, 3]);
    // A call has one result.
    let lines = ["user", "assistant +a", "tool -a", "tool -a"];
    assert_eq!(selected(&lines, &UNLIMITED), [0, 1, 2]);
}

#[test]
fn a_result_answers_the_latest_call_with_its_id() {
    let lines = ["assistant +a", "tool -a", "user", "assistant +a", "tool -a"];
    assert_eq!(selected(&lines, &limit(2)), [3, 4]);
    assert_eq!(selected(&lines, &UNLIMITED), [0, 1, 2, 3, 4]);
    // A call whose id is used again can no longer be answered.
    let lines = ["user", "assistant +a", "assistant +a", "tool -a"];
    assert_eq!(selected(&lines, &UNLIMITED), [0, 2, 3]);
}

#[test]
fn a_tool_message_without_ids_belongs_to_the_message_before_it() {
    let lines = ["user", "assistant", "tool", "tool", "assistant"];
    assert_eq!(selected(&lines, &limit(3)), [4]);
    assert_eq!(selected(&lines, &limit(4)), [1, 2, 3, 4]);
    let lines = ["tool", "user", "tool"];
    assert_eq!(selected(&lines, &limit(1)), [2]);
    assert_eq!(selected(&lines, &UNLIMITED), [0, 1, 2]);
}

#[test]
fn reasoning_belongs_to_the_message_that_followed_it() {
    let lines = ["user", "reasoning", "assistant +a", "tool -a", "assistant"];
    assert_eq!(selected(&lines, &limit(3)), [4]);
    assert_eq!(selected(&lines, &limit(4)), [1, 2, 3, 4]);
    let lines = ["reasoning", "user", "reasoning"];
    assert_eq!(selected(&lines, &limit(2)), [1, 2]);
    // It is omitted with the message that followed it.
    let lines = ["user", "reasoning", "assistant +a", "user"];
    assert_eq!(selected(&lines, &UNLIMITED), [0, 3]);
}

#[test]
fn start_on_user_drops_whole_units() {
    let budget = |limit| HistoryBudget {
        limit,
        start_on_user: true,
        ..UNLIMITED
    };
    let lines = ["user", "assistant +a", "tool -a", "user", "assistant"];
    assert_eq!(selected(&lines, &budget(4)), [3, 4]);
    assert_eq!(selected(&lines, &budget(5)), [0, 1, 2, 3, 4]);
    assert_eq!(selected(&lines, &budget(1)), [0_usize; 0]);
    // The result after the user's message belongs to a dropped call.
    let lines = ["assistant +a", "user", "tool -a", "assistant"];
    assert_eq!(selected(&lines, &budget(4)), [1, 3]);
}

#[test]
fn older_messages_are_needed_while_there_is_room_for_them() {
    let lines = ["user", "assistant", "user"];
    assert_eq!(selected_of_newest(&lines, &limit(2)).unwrap(), [1, 2]);
    assert_eq!(selected_of_newest(&lines, &limit(3)).unwrap(), [0, 1, 2]);
    assert_eq!(selected_of_newest(&lines, &limit(4)), None);
    assert_eq!(selected_of_newest(&[], &limit(4)), None);
}

#[test]
fn older_messages_are_needed_to_resolve_the_newest_unit() {
    for lines in [
        &["tool -a"][..],
        &["tool"],
        &["assistant"],
        &["tool -a", "user", "tool -b"],
    ] {
        assert_eq!(selected_of_newest(lines, &limit(1)), None, "{lines:?}");
    }
    // A call in the slice decides about a second result.
    let lines = ["assistant +a", "tool -a", "tool -a"];
    assert_eq!(selected_of_newest(&lines, &limit(2)), None);
    let lines = ["user", "assistant +a", "tool -a", "tool -a"];
    assert_eq!(selected_of_newest(&lines, &limit(2)).unwrap(), [1, 2]);
}

#[test]
fn an_unresolved_unit_is_not_needed_if_the_budget_is_used_up() {
    let lines = ["tool -a", "user", "assistant"];
    assert_eq!(selected_of_newest(&lines, &limit(2)).unwrap(), [1, 2]);
    assert_eq!(selected_of_newest(&lines, &limit(3)), None);
    // Its messages come after those of all other units.
    let lines = ["user", "tool -a", "assistant"];
    assert_eq!(selected_of_newest(&lines, &limit(2)).unwrap(), [0, 2]);
}

#[test]
fn results_whose_calls_are_out_of_reach_are_omitted() {
    let items = conversation(&["tool -a", "user", "assistant"]);
    let selection = select_history(&items, OlderMessages::OutOfReach, &UNLIMITED);
    let expected = SelectedMessages {
        indexes: vec![1, 2],
        tokens: 20,
        omits_older: true,
    };
    assert_eq!(selection, HistorySelection::Selected(expected));
}

#[test]
fn omitted_messages_are_reported() {
    let omits = |lines: &[&str], older, budget: &HistoryBudget| match select_history(
        &conversation(lines),
        older,
        budget,
    ) {
        HistorySelection::Selected(selected) => selected.omits_older,
        HistorySelection::NeedsOlder => panic!("{lines:?}"),
    };
    let lines = ["user", "assistant"];
    assert!(!omits(&lines, OlderMessages::None, &limit(2)));
    assert!(omits(&lines, OlderMessages::None, &limit(1)));
    assert!(omits(&lines, OlderMessages::Unread, &limit(2)));
    assert!(omits(&lines, OlderMessages::OutOfReach, &limit(9)));
    assert!(omits(&["tool -a", "user"], OlderMessages::None, &limit(9)));
}

#[test]
fn selected_messages_are_picked_in_order() {
    let selected = SelectedMessages {
        indexes: vec![0, 2, 3],
        tokens: 0,
        omits_older: true,
    };
    assert_eq!(selected.pick(["a", "b", "c", "d", "e"]), ["a", "c", "d"]);
}
