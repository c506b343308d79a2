//! Histories: what a model's input is built from.

use crate::{
    domain::{
        Conversation, HistoryBudget, HistoryItem, HistorySelection, Message, OlderMessages,
        SelectedMessages, select_history,
    },
    recent::{self, EncodedMessage, Window},
};

/// Upper bound on the size of the pinned messages of a history, in bytes of [`Message::size`].
const MAX_PINNED_BYTES: usize = Message::MAX_BYTES_PER_RESPONSE / 3;

/// Limits on a history.
#[derive(Clone, Copy, Debug)]
pub struct HistoryQuery {
    /// Target number of messages, without pinned ones from before and the summary.
    pub limit: u32,
    /// Upper bound on the tokens of all messages; `None` means no upper bound.
    pub max_tokens: Option<u32>,
    /// Whether messages before the first message of a user are omitted.
    pub start_on_user: bool,
}

/// Messages of a history.
#[derive(Debug, Default)]
pub struct History {
    /// Pinned messages from before, the summary, and the newest messages; each oldest first.
    pub messages: HistoryMessages,
    /// Tokens of these messages.
    pub token_count: u64,
    /// Whether the conversation has messages that are not in the history and that no summary
    /// stands for.
    pub older_omitted: bool,
}

/// Messages of a history, in the form in which they were read.
#[derive(Debug)]
pub enum HistoryMessages {
    /// Messages from the store.
    Decoded(Vec<Message>),
    /// Messages from a recent window.
    Encoded(Vec<EncodedMessage>),
}

impl Default for HistoryMessages {
    fn default() -> Self {
        Self::Decoded(Vec::new())
    }
}

/// Message from which a history is selected.
pub(super) trait Selectable: Sized {
    fn seq(&self) -> i64;
    fn tokens(&self) -> u64;
    /// Size in bytes of [`Message::size`].
    fn size(&self) -> usize;
    fn is_pinned(&self) -> bool;
    /// Properties that determine whether a history contains the message.
    fn item(&self) -> HistoryItem<'_>;
    fn into_history(messages: Vec<Self>) -> HistoryMessages;
}

impl Selectable for Message {
    fn seq(&self) -> i64 {
        self.seq
    }

    fn tokens(&self) -> u64 {
        self.tokens()
    }

    fn size(&self) -> usize {
        self.size()
    }

    fn is_pinned(&self) -> bool {
        self.pinned
    }

    fn item(&self) -> HistoryItem<'_> {
        recent::item(self)
    }

    fn into_history(messages: Vec<Self>) -> HistoryMessages {
        HistoryMessages::Decoded(messages)
    }
}

impl Selectable for EncodedMessage {
    fn seq(&self) -> i64 {
        self.seq
    }

    fn tokens(&self) -> u64 {
        self.tokens
    }

    fn size(&self) -> usize {
        self.size
    }

    fn is_pinned(&self) -> bool {
        self.pinned
    }

    fn item(&self) -> HistoryItem<'_> {
        self.item()
    }

    fn into_history(messages: Vec<Self>) -> HistoryMessages {
        HistoryMessages::Encoded(messages)
    }
}

/// Newest messages of a conversation, from which a history is selected.
#[derive(Debug)]
pub(super) struct Slice<M> {
    /// Newest pinned messages, oldest first. They can also be among `messages`.
    pub(super) pinned: Vec<M>,
    pub(super) summary: Option<M>,
    /// Newest messages, oldest first.
    pub(super) messages: Vec<M>,
    /// What is known of the messages before.
    pub(super) older: OlderMessages,
}

/// Messages of a history, as positions in a slice.
struct Selection {
    /// Number of the oldest pinned message that is included.
    first_pinned: usize,
    messages: SelectedMessages,
    token_count: u64,
    /// Size of all messages in bytes.
    bytes: usize,
}

impl<M: Selectable> Slice<M> {
    pub(super) fn from_window(window: Window<M>) -> Self {
        Self {
            pinned: window.pinned,
            summary: window.summary,
            messages: window.messages,
            older: if window.is_complete {
                OlderMessages::None
            } else {
                OlderMessages::Unread
            },
        }
    }

    /// Whether the history does not depend on older messages.
    pub(super) fn is_decided(&self, query: &HistoryQuery) -> bool {
        self.select_positions(query).is_some()
    }

    /// Selects a history, and converts the slice into it. `None` if it depends on older messages.
    pub(super) fn into_history(mut self, query: &HistoryQuery) -> Option<History> {
        let selection = self.select_positions(query)?;
        let mut pinned = self.pinned.split_off(selection.first_pinned);
        let length = self.messages.len();
        let mut messages = self.messages;
        if selection.messages.indexes.len() < length {
            messages = selection.messages.pick(messages);
        }
        pinned.retain(|pinned| {
            let position = messages.binary_search_by_key(&pinned.seq(), Selectable::seq);
            position.is_err()
        });
        // A pinned message can lie between the messages of a group.
        let first = messages.first().map_or(i64::MAX, Selectable::seq);
        let mut inner = pinned.split_off(pinned.partition_point(|pinned| pinned.seq() < first));
        if !inner.is_empty() {
            messages.append(&mut inner);
            messages.sort_unstable_by_key(Selectable::seq);
        }
        let mut history = pinned;
        history.extend(self.summary);
        if !history.is_empty() {
            history.append(&mut messages);
            messages = history;
        }
        Some(History {
            messages: M::into_history(messages),
            token_count: selection.token_count,
            older_omitted: selection.messages.omits_older,
        })
    }

    fn select_positions(&self, query: &HistoryQuery) -> Option<Selection> {
        let first_pinned = self.first_pinned(query.max_tokens.map(u64::from));
        let selection = self.select_with(query, first_pinned)?;
        if first_pinned == self.pinned.len() || !self.lacks_room(query, &selection)? {
            return Some(selection);
        }
        // The newest messages are more important than pinned ones.
        self.select_with(query, self.pinned.len())
    }

    /// Whether the newest messages do not fit beside the pinned ones. `None` if that depends on
    /// older messages.
    fn lacks_room(&self, query: &HistoryQuery, selection: &Selection) -> Option<bool> {
        if selection.bytes > Message::MAX_BYTES_PER_RESPONSE {
            return Some(true);
        }
        if !selection.messages.indexes.is_empty() || self.messages.is_empty() {
            return Some(false);
        }
        // Nothing may be left also because no message is a user's.
        let query = HistoryQuery {
            start_on_user: false,
            ..*query
        };
        let is_empty = |first_pinned| {
            let selection = self.select_with(&query, first_pinned)?;
            Some(selection.messages.indexes.is_empty())
        };
        Some(is_empty(selection.first_pinned)? && !is_empty(self.pinned.len())?)
    }

    /// Selects a history with the pinned messages from a position on.
    fn select_with(&self, query: &HistoryQuery, first_pinned: usize) -> Option<Selection> {
        let max_tokens = query.max_tokens.map(u64::from);
        let pinned = &self.pinned[first_pinned..];
        let head = || pinned.iter().chain(&self.summary);
        let head_tokens: u64 = head().map(Selectable::tokens).sum();
        let head_bytes: usize = head().map(Selectable::size).sum();
        let items: Vec<_> = self
            .messages
            .iter()
            .map(|message| {
                // The head includes the message, whether it is selected or not.
                let is_in_head = message.is_pinned()
                    && pinned.binary_search_by_key(&message.seq(), M::seq).is_ok();
                let mut item = message.item();
                if is_in_head {
                    (item.tokens, item.bytes) = (0, 0);
                }
                item
            })
            .collect();
        let budget = HistoryBudget {
            limit: query.limit as usize,
            max_tokens: max_tokens.map(|max| max.saturating_sub(head_tokens)),
            max_bytes: Message::MAX_BYTES_PER_RESPONSE.saturating_sub(head_bytes),
            start_on_user: query.start_on_user,
        };
        match select_history(&items, self.older, &budget) {
            HistorySelection::NeedsOlder => None,
            HistorySelection::Selected(messages) => {
                let bytes = messages.indexes.iter().map(|index| items[*index].bytes);
                Some(Selection {
                    first_pinned,
                    token_count: head_tokens + messages.tokens,
                    bytes: head_bytes + bytes.sum::<usize>(),
                    messages,
                })
            }
        }
    }

    /// Returns the position of the oldest pinned message that is included: pinned messages take at
    /// most half of the tokens, the newest ones first.
    fn first_pinned(&self, max_tokens: Option<u64>) -> usize {
        let (mut tokens, mut bytes) = (0, 0);
        let fitting = self.pinned.iter().rev().take_while(|message| {
            tokens += message.tokens();
            bytes += message.size();
            max_tokens.is_none_or(|max| tokens <= max / 2) && bytes <= MAX_PINNED_BYTES
        });
        self.pinned.len() - fitting.count()
    }

    /// Converts into the window of the conversation.
    pub(super) fn into_window(self, conversation: &Conversation) -> Window<M> {
        Window {
            owner: conversation.user_id.clone(),
            last_seq: conversation.last_seq,
            pinned: self.pinned,
            summary: self.summary,
            compacted_upto_seq: conversation.compacted_upto_seq,
            uncompacted_tokens: conversation.uncompacted_tokens,
            messages: self.messages,
            is_complete: self.older == OlderMessages::None,
        }
    }
}
