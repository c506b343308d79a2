//! Histories as the contract defines them, selected from all messages of a conversation.

use conversation_memory::{
    domain::{self, HistoryBudget, HistoryItem, HistorySelection, OlderMessages, select_history},
    proto::{GetHistoryRequest, Message, Role},
};

use crate::messages::{answers, calls, has_only_reasoning, tokens};

const MAX_PINNED: usize = 32;

/// A history without the fields that depend on its source.
#[derive(Debug, PartialEq)]
pub(crate) struct History {
    pub(crate) messages: Vec<Message>,
    pub(crate) token_count: u64,
    pub(crate) older_omitted: bool,
}

/// Selects a history from all messages of a conversation.
pub(crate) fn history(
    all: &[Message],
    compacted_upto_seq: i64,
    summary: Option<Message>,
    request: &GetHistoryRequest,
) -> History {
    let max_tokens = (request.max_tokens > 0).then(|| request.max_tokens.unsigned_abs().into());
    let mut pinned = newest_pinned(all, max_tokens);
    let head_tokens: u64 = pinned.iter().copied().chain(&summary).map(tokens).sum();
    let recent: Vec<&Message> = all
        .iter()
        .filter(|message| message.seq > compacted_upto_seq)
        .collect();
    let items: Vec<HistoryItem<'_>> = recent
        .iter()
        .map(|message| HistoryItem {
            calls: calls(message),
            results: answers(message),
            has_only_reasoning: has_only_reasoning(message),
            ..HistoryItem::plain(
                role(message),
                // Already counted.
                if pinned.contains(message) {
                    0
                } else {
                    tokens(message)
                },
                0,
            )
        })
        .collect();
    let limit = match request.limit {
        0 => 6,
        limit => usize::try_from(limit).unwrap(),
    };
    let budget = HistoryBudget {
        limit,
        max_tokens: max_tokens.map(|max: u64| max.saturating_sub(head_tokens)),
        max_bytes: usize::MAX,
        start_on_user: request.start_on_user,
    };
    let HistorySelection::Selected(selected) = select_history(&items, OlderMessages::None, &budget)
    else {
        panic!("a whole conversation needs no older messages");
    };
    let newest = selected.pick(recent);
    pinned.retain(|message| !newest.contains(message));
    let mut messages: Vec<Message> = pinned.into_iter().cloned().collect();
    messages.extend(summary);
    messages.extend(newest.into_iter().cloned());
    History {
        messages,
        token_count: head_tokens + selected.tokens,
        older_omitted: selected.omits_older,
    }
}

/// The newest pinned messages that take at most half of the tokens, oldest first.
fn newest_pinned(all: &[Message], max_tokens: Option<u64>) -> Vec<&Message> {
    let mut taken = 0;
    let newest = all.iter().rev().filter(|message| message.pinned);
    let fitting = newest.take(MAX_PINNED).take_while(|message| {
        taken += tokens(message);
        max_tokens.is_none_or(|max| taken <= max / 2)
    });
    let mut pinned: Vec<_> = fitting.collect();
    pinned.reverse();
    pinned
}

fn role(message: &Message) -> domain::Role {
    match message.role() {
        Role::User => domain::Role::User,
        Role::Assistant => domain::Role::Assistant,
        Role::System => domain::Role::System,
        Role::Tool => domain::Role::Tool,
        Role::Unspecified => panic!("a message without a role"),
    }
}
