use std::collections::HashMap;

use super::{HistoryItem, OlderMessages, Size};
use crate::Role;

/// Whether a history may contain a unit. A unit has the greatest state of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Valid,
    /// Older messages determine whether the unit is valid and which messages it contains.
    Unresolved,
    Invalid,
}

/// Units of a slice of a conversation. A unit is identified by the index of its first message.
#[derive(Debug)]
pub(super) struct Units<'a> {
    items: &'a [HistoryItem<'a>],
    is_first_unresolved: bool,
    /// `None` if each message is a unit of its own, as in conversations without tools.
    groups: Option<Groups>,
}

impl<'a> Units<'a> {
    pub(super) fn new(items: &'a [HistoryItem<'a>], older: OlderMessages) -> Self {
        let is_unread = older == OlderMessages::Unread;
        let is_first_unresolved =
            is_unread && items.first().is_some_and(HistoryItem::may_join_previous);
        let has_groups = items.iter().any(|item| {
            item.role == Role::Tool
                || item.has_only_reasoning
                || !item.calls.is_empty()
                || !item.results.is_empty()
        });
        Self {
            items,
            is_first_unresolved,
            groups: has_groups.then(|| Groups::new(items, older, is_first_unresolved)),
        }
    }

    /// Number of messages in the slice.
    pub(super) fn messages(&self) -> usize {
        self.items.len()
    }

    /// Index of the first message of the unit to which the message at `index` belongs.
    pub(super) fn first_of(&self, index: usize) -> usize {
        match &self.groups {
            None => index,
            Some(groups) => groups.first[index],
        }
    }

    pub(super) fn state_of(&self, unit: usize) -> State {
        match &self.groups {
            None if unit == 0 && self.is_first_unresolved => State::Unresolved,
            None => State::Valid,
            Some(groups) => groups.states[unit],
        }
    }

    pub(super) fn size_of(&self, unit: usize) -> Size {
        match &self.groups {
            None => Size::of(&self.items[unit]),
            Some(groups) => groups.sizes[unit],
        }
    }
}

impl HistoryItem<'_> {
    /// Whether the message belongs to the unit of the message directly before it if that one has
    /// the right kind.
    fn may_join_previous(&self) -> bool {
        match self.role {
            Role::Assistant => true,
            // Messages that were saved without parts do not name their calls.
            Role::Tool => self.results.is_empty(),
            Role::User | Role::System => false,
        }
    }

    fn joins(&self, previous: &Self) -> bool {
        match self.role {
            Role::Assistant => previous.has_only_reasoning && previous.role == Role::Assistant,
            _ => self.may_join_previous() && matches!(previous.role, Role::Assistant | Role::Tool),
        }
    }

    /// Whether a model may have written the message together with calls of other messages.
    fn is_part_of_calls(&self) -> bool {
        self.role == Role::Assistant && (!self.calls.is_empty() || self.has_only_reasoning)
    }
}

/// Units that contain several messages. States and sizes are at the indexes of the first messages.
#[derive(Debug)]
struct Groups {
    first: Vec<usize>,
    states: Vec<State>,
    sizes: Vec<Size>,
}

impl Groups {
    fn new(items: &[HistoryItem<'_>], older: OlderMessages, is_first_unresolved: bool) -> Self {
        let is_unread = older == OlderMessages::Unread;
        let mut sets = DisjointSets::new(items.len());
        let mut states = pair_results(items, is_unread, &mut sets);
        for (index, pair) in items.windows(2).enumerate() {
            if pair[1].joins(&pair[0]) {
                sets.unite(index, index + 1);
            }
        }
        if is_first_unresolved {
            states[0] = states[0].max(State::Unresolved);
        }
        let begins_before = older == OlderMessages::OutOfReach
            && (items.first())
                .is_some_and(|item| item.role == Role::Tool && item.may_join_previous());
        if begins_before {
            states[0] = State::Invalid;
        }
        let mut sizes = vec![Size::default(); items.len()];
        let first: Vec<usize> = (0..items.len()).map(|index| sets.first_of(index)).collect();
        for (index, &unit) in first.iter().enumerate() {
            states[unit] = states[unit].max(states[index]);
            sizes[unit] = sizes[unit] + Size::of(&items[index]);
        }
        Self {
            first,
            states,
            sizes,
        }
    }
}

/// Unites messages with results and the messages with their calls. Returns the states of the
/// messages by themselves.
fn pair_results(items: &[HistoryItem<'_>], is_unread: bool, sets: &mut DisjointSets) -> Vec<State> {
    let without_call = if is_unread {
        State::Unresolved
    } else {
        State::Invalid
    };
    let mut states = vec![State::Valid; items.len()];
    // The message with the latest call of each id, or `None` once the call is answered. Ids may be
    // used again: the next result with the id answers the latest call.
    let mut open: HashMap<&str, Option<usize>> = HashMap::new();
    for (index, item) in items.iter().enumerate() {
        for &id in &item.results {
            match open.get_mut(id).map(Option::take) {
                Some(Some(call)) => sets.unite(call, index),
                Some(None) => states[index] = State::Invalid,
                None => states[index] = states[index].max(without_call),
            }
        }
        for &id in &item.calls {
            if let Some(Some(superseded)) = open.insert(id, Some(index)) {
                states[superseded] = State::Invalid;
            }
        }
    }
    let open_from = first_open_call(items);
    for call in open.into_values().flatten() {
        if call < open_from {
            states[call] = State::Invalid;
        }
    }
    states
}

/// Index of the first message whose calls may still be answered: the conversation ends with calls,
/// which a model may have made at once, followed by results. Whatever else comes after a call means
/// that the conversation has continued without its result.
fn first_open_call(items: &[HistoryItem<'_>]) -> usize {
    let after_last = |is_other: &dyn Fn(&HistoryItem<'_>) -> bool, end: usize| {
        let other = items[..end].iter().rposition(is_other);
        other.map_or(0, |index| index + 1)
    };
    let results_from = after_last(&|item| item.role != Role::Tool, items.len());
    after_last(&|item| !item.is_part_of_calls(), results_from)
}

/// Sets of indexes, each identified by its smallest one.
struct DisjointSets {
    parents: Vec<usize>,
}

impl DisjointSets {
    fn new(len: usize) -> Self {
        Self {
            parents: (0..len).collect(),
        }
    }

    fn first_of(&mut self, mut index: usize) -> usize {
        while self.parents[index] != index {
            self.parents[index] = self.parents[self.parents[index]];
            index = self.parents[index];
        }
        index
    }

    fn unite(&mut self, a: usize, b: usize) {
        let (a, b) = (self.first_of(a), self.first_of(b));
        self.parents[a.max(b)] = a.min(b);
    }
}
