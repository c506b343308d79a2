//! Selection of the messages of a history, so that model APIs accept it.
//!
//! Messages that only make sense together form a *unit*: tool calls with their results, and
//! reasoning with the message that it preceded. A history contains whole units. The selection is
//! the same whether it reads the whole conversation or as few of its newest messages as decide it.

mod units;

use std::ops::Add;

use self::units::{State, Units};
use super::Role;

/// Properties of a message that determine whether a history contains it.
#[derive(Clone, Debug)]
pub struct HistoryItem<'a> {
    /// Author of the message.
    pub role: Role,
    /// Ids of the tool calls that the message contains.
    pub calls: Vec<&'a str>,
    /// Ids of the tool calls whose results the message contains.
    pub results: Vec<&'a str>,
    /// Whether the message contains reasoning and nothing else. Model APIs reject reasoning
    /// without the message that followed it.
    pub has_only_reasoning: bool,
    /// Number of tokens.
    pub tokens: u64,
    /// Size in a response, in bytes.
    pub bytes: usize,
}

impl HistoryItem<'_> {
    /// Creates the item of a message without tool calls, results and reasoning.
    pub const fn plain(role: Role, tokens: u64, bytes: usize) -> Self {
        Self {
            role,
            calls: Vec::new(),
            results: Vec::new(),
            has_only_reasoning: false,
            tokens,
            bytes,
        }
    }
}

/// Limits on a history.
#[derive(Clone, Copy, Debug)]
pub struct HistoryBudget {
    /// Upper bound on the messages.
    pub limit: usize,
    /// Upper bound on the tokens of all messages; `None` means no upper bound.
    pub max_tokens: Option<u64>,
    /// Upper bound on the bytes of all messages.
    pub max_bytes: usize,
    /// Whether messages before the first message of a user are omitted.
    pub start_on_user: bool,
}

/// What is known of the messages before a slice of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OlderMessages {
    /// There are none, or a summary stands for them.
    None,
    /// There are some, which can still be read.
    Unread,
    /// There are some, which are not read because the slice has reached its maximum size.
    OutOfReach,
}

/// Outcome of [`select_history`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistorySelection {
    /// The messages of the history.
    Selected(SelectedMessages),
    /// The history depends on messages before the slice.
    NeedsOlder,
}

/// Messages of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectedMessages {
    /// Indexes into the slice, ascending. They may have gaps.
    pub indexes: Vec<usize>,
    /// Number of tokens of these messages.
    pub tokens: u64,
    /// Whether the conversation has messages that are not selected and that no summary stands for.
    pub omits_older: bool,
}

impl SelectedMessages {
    /// Returns the selected ones of `messages`, which must correspond to the items of the slice.
    pub fn pick<T>(&self, messages: impl IntoIterator<Item = T>) -> Vec<T> {
        let mut picked = Vec::with_capacity(self.indexes.len());
        for (index, message) in messages.into_iter().enumerate() {
            match self.indexes.get(picked.len()) {
                None => break,
                Some(&next) if next == index => picked.push(message),
                Some(_) => {}
            }
        }
        picked
    }
}

/// Selects the messages of a history from `items`, the newest messages of a conversation, oldest
/// first.
///
/// Units are considered from the newest to the oldest, in the order of their first messages. The
/// first valid unit that exceeds `budget` ends the selection. The unit of the newest valid message
/// is selected first and may exceed the limit and the tokens, and a unit of one message also the
/// bytes. If it has several and exceeds the bytes, nothing is selected.
///
/// Units with results without a call, or with unanswered calls that later messages have passed
/// over, are invalid. They are omitted and do not count.
///
/// Older messages are needed if the budget has room for them or if they determine what the unit of
/// the newest message contains. Reading one message more than the limit suffices for most
/// conversations.
pub fn select_history(
    items: &[HistoryItem<'_>],
    older: OlderMessages,
    budget: &HistoryBudget,
) -> HistorySelection {
    let units = Units::new(items, older);
    let Some(mut selected) = select_units(&units, older, budget) else {
        return HistorySelection::NeedsOlder;
    };
    let mut has_started = !budget.start_on_user;
    let mut tokens = 0;
    let mut indexes = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let unit = units.first_of(index);
        if selected[unit] {
            has_started |= item.role == Role::User;
            selected[unit] = has_started;
        }
        if selected[unit] {
            tokens += item.tokens;
            indexes.push(index);
        }
    }
    HistorySelection::Selected(SelectedMessages {
        omits_older: older != OlderMessages::None || indexes.len() < items.len(),
        indexes,
        tokens,
    })
}

/// Marks the selected units at the indexes of their first messages. Returns `None` if older
/// messages are needed.
fn select_units(
    units: &Units<'_>,
    older: OlderMessages,
    budget: &HistoryBudget,
) -> Option<Vec<bool>> {
    let is_unread = older == OlderMessages::Unread;
    let mut selected = vec![false; units.messages()];
    let newest = (0..units.messages())
        .rev()
        .map(|index| units.first_of(index))
        .find(|&unit| units.state_of(unit) != State::Invalid);
    let Some(newest) = newest else {
        return (!is_unread).then_some(selected);
    };
    if units.state_of(newest) == State::Unresolved {
        return None;
    }
    let mut total = units.size_of(newest);
    if total.messages > 1 && total.bytes > budget.max_bytes {
        return Some(selected);
    }
    selected[newest] = true;
    for unit in (0..units.messages()).rev() {
        // An unresolved unit begins before the slice or is invalid. So it comes after all others.
        let is_valid = units.first_of(unit) == unit && units.state_of(unit) == State::Valid;
        if unit == newest || !is_valid {
            continue;
        }
        total = total + units.size_of(unit);
        if !budget.has_room_for(total) {
            return Some(selected);
        }
        selected[unit] = true;
    }
    let needs_older = is_unread && budget.has_room_for(total + Size::EMPTY_MESSAGE);
    (!needs_older).then_some(selected)
}

impl HistoryBudget {
    fn has_room_for(&self, size: Size) -> bool {
        size.messages <= self.limit
            && self.max_tokens.is_none_or(|max| size.tokens <= max)
            && size.bytes <= self.max_bytes
    }
}

/// Size of some messages.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    messages: usize,
    tokens: u64,
    bytes: usize,
}

impl Size {
    const EMPTY_MESSAGE: Self = Self {
        messages: 1,
        tokens: 0,
        bytes: 0,
    };

    fn of(item: &HistoryItem<'_>) -> Self {
        Self {
            messages: 1,
            tokens: item.tokens,
            bytes: item.bytes,
        }
    }
}

impl Add for Size {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            messages: self.messages + other.messages,
            tokens: self.tokens.saturating_add(other.tokens),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

#[cfg(test)]
mod tests;
