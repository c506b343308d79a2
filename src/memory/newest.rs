use super::{
    Error, Memory,
    budget::Budget,
    history::{History, HistoryQuery, Slice},
};
use crate::{
    domain::{Conversation, ConversationRef, Message, OlderMessages, UserId},
    recent::{FillLease, Lookup, Window},
    store::Bound,
};

/// Number of messages before the limit that are read to complete a group. A result that follows
/// its call later than that is treated as a result without a call.
const REACH: usize = 1_000;

/// Origin of the messages in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Recent window.
    Cache,
    /// Durable store.
    Store,
}

/// Query for the newest messages of a conversation.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewestQuery {
    /// Limits on the history.
    pub(super) history: HistoryQuery,
    /// Number up to which all messages must be included.
    pub(super) min_seq: i64,
    /// Whether the store must be read.
    pub(super) strong: bool,
    /// Whether messages include their contexts.
    pub(super) contexts: bool,
}

/// Newest messages of a conversation.
#[derive(Debug)]
pub(super) struct NewestMessages {
    pub(super) owner: UserId,
    pub(super) last_seq: i64,
    /// Whole conversation, if the store was read.
    pub(super) conversation: Option<Conversation>,
    pub(super) history: History,
    /// Tokens of the conversation's messages that no summary stands for.
    pub(super) uncompacted_tokens: i64,
    pub(super) source: Source,
}

impl Memory {
    /// Reads the newest messages: from the window if the query allows it and the window
    /// has them, otherwise from the store. A reader that gets the window's lease fills the
    /// window.
    pub(super) async fn newest(
        &self,
        conversation: &ConversationRef,
        query: NewestQuery,
    ) -> Result<NewestMessages, Error> {
        // The window has no contexts.
        let lookup = if query.strong || query.contexts {
            Lookup::Miss(None)
        } else {
            self.0
                .recent
                .newest(conversation.id, query.history.limit, query.min_seq)
                .await
        };
        let lease = match lookup {
            Lookup::Hit(window) if matches_claim(conversation, &window) => {
                if let Some(newest) = NewestMessages::from_window(window, &query.history) {
                    return Ok(newest);
                }
                None
            }
            // The store rejects a wrong owner in the same way as a missing conversation.
            Lookup::Hit(_) | Lookup::Busy | Lookup::Short | Lookup::Unavailable => None,
            Lookup::Miss(lease) => lease,
        };
        self.newest_in_store(conversation, query, lease).await
    }

    async fn newest_in_store(
        &self,
        conversation: &ConversationRef,
        query: NewestQuery,
        lease: Option<FillLease>,
    ) -> Result<NewestMessages, Error> {
        let failed = |error| Error::from_store(error, conversation.id);
        let mut budget = Budget::default();
        let fill_length = lease.as_ref().map_or(0, |_| self.0.recent.capacity());
        let mut wanted = budget.next_read(query.history.limit.max(fill_length));
        let read = self.0.store.newest(conversation, wanted, query.contexts);
        let read = read.await.map_err(failed)?;
        let found = read.conversation;
        if found.last_seq < query.min_seq {
            return Err(Error::MinSeqNotReached {
                last_seq: found.last_seq,
            });
        }
        let mut is_all = read.messages.len() < wanted as usize;
        let mut slice = Slice {
            pinned: read.pinned,
            summary: read.summary,
            messages: read.messages,
            older: OlderMessages::Unread,
        };
        let max_length = query.history.limit as usize + REACH;
        budget.add(&slice.messages);
        let history = loop {
            let is_out_of_reach = budget.is_exhausted() || slice.messages.len() >= max_length;
            slice.older = match is_all {
                true => OlderMessages::None,
                false if is_out_of_reach => OlderMessages::OutOfReach,
                false => OlderMessages::Unread,
            };
            let can_be_longer = slice.older == OlderMessages::Unread;
            let is_long_enough = slice.messages.len() >= fill_length as usize || !can_be_longer;
            let selected = slice.select(&query.history);
            match selected {
                Some(history) if is_long_enough => break history,
                _ => {}
            }
            let Some(first) = slice.messages.first() else {
                // Unreachable: a slice that can be longer is not empty.
                break History::default();
            };
            wanted = budget.next_read(u32::try_from(slice.messages.len()).unwrap_or(u32::MAX));
            let before = Bound::Before(first.seq);
            let older = self
                .0
                .store
                .messages(conversation, before, wanted, query.contexts);
            let mut older = older.await.map_err(failed)?;
            is_all = older.len() < wanted as usize;
            let compacted = older
                .iter()
                .position(|message| message.seq <= found.compacted_upto_seq);
            if let Some(compacted) = compacted {
                older.truncate(compacted);
                is_all = true;
            }
            budget.add(&older);
            older.reverse();
            slice.messages.splice(0..0, older);
        };
        if let Some(lease) = lease {
            self.0.recent.fill(lease, &slice.into_window(&found)).await;
        }
        Ok(NewestMessages {
            owner: found.user_id.clone(),
            last_seq: found.last_seq,
            uncompacted_tokens: found.uncompacted_tokens,
            conversation: Some(found),
            history,
            source: Source::Store,
        })
    }
}

impl NewestMessages {
    /// Creates the result for a conversation that was just created.
    pub(super) fn of_new(conversation: Conversation) -> Self {
        Self {
            owner: conversation.user_id.clone(),
            last_seq: conversation.last_seq,
            uncompacted_tokens: conversation.uncompacted_tokens,
            conversation: Some(conversation),
            history: History::default(),
            source: Source::Store,
        }
    }

    /// Selects the history from a window. `None` if it depends on older messages.
    fn from_window(window: Window, query: &HistoryQuery) -> Option<Self> {
        let slice = Slice {
            pinned: window.pinned,
            summary: window.summary,
            messages: window.messages,
            older: if window.is_complete {
                OlderMessages::None
            } else {
                OlderMessages::Unread
            },
        };
        Some(Self {
            history: slice.into_history(query)?,
            owner: window.owner,
            last_seq: window.last_seq,
            conversation: None,
            uncompacted_tokens: window.uncompacted_tokens,
            source: Source::Cache,
        })
    }
}

fn matches_claim(conversation: &ConversationRef, window: &Window) -> bool {
    conversation
        .user_id
        .as_ref()
        .is_none_or(|claimed| *claimed == window.owner)
}
