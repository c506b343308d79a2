use super::{
    Error, Memory,
    budget::Budget,
    history::{History, HistoryQuery, Slice},
};
use crate::{
    domain::{Conversation, ConversationRef, Message, OlderMessages, UserId},
    recent::{Claim, EncodedMessage, FillLease, Lookup, Window},
    store::Bound,
};

/// Number of messages before the limit that are read to complete a group. A result that follows
/// its call later than that is treated as a result without a call.
const REACH: u32 = 1_000;

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
    /// window. For a missing conversation and for another user's, it does the same.
    pub(super) async fn newest(
        &self,
        conversation: &ConversationRef,
        query: NewestQuery,
    ) -> Result<NewestMessages, Error> {
        // The window has no contexts.
        let lookup = if query.strong || query.contexts {
            Lookup::Miss(None)
        } else {
            self.look_up(conversation, query).await?
        };
        let lease = match lookup {
            Lookup::Hit(window) if matches_claim(conversation, &window) => {
                if let Some(newest) = NewestMessages::from_window(*window, &query.history) {
                    return Ok(newest);
                }
                None
            }
            // The store rejects a wrong owner in the same way as a missing conversation.
            Lookup::Hit(_)
            | Lookup::Busy
            | Lookup::Short
            | Lookup::OwnerUnknown
            | Lookup::Unavailable => None,
            Lookup::Miss(lease) => lease,
        };
        self.newest_in_store(conversation, query, lease).await
    }

    /// Reads the window. If that does not know the claimed user as the owner, the store confirms
    /// the claim first, so that no other user's call changes the window.
    async fn look_up(
        &self,
        conversation: &ConversationRef,
        query: NewestQuery,
    ) -> Result<Lookup, Error> {
        let claim = Claim::of(conversation);
        let read = async |claim| {
            let limit = query.history.limit;
            self.0
                .recent
                .newest(conversation.id, claim, limit, query.min_seq)
                .await
        };
        match read(claim).await {
            Lookup::OwnerUnknown => {
                self.get_conversation(conversation).await?;
                Ok(read(claim.confirmed()).await)
            }
            lookup => Ok(lookup),
        }
    }

    async fn newest_in_store(
        &self,
        conversation: &ConversationRef,
        query: NewestQuery,
        lease: Option<FillLease>,
    ) -> Result<NewestMessages, Error> {
        let _permit = self.read_permit().await?;
        let target = match &lease {
            Some(_) => query.history.limit.max(self.0.recent.capacity()),
            None => query.history.limit,
        };
        // Each repetition follows a truncation, and the deadline of the call limits them.
        let read = loop {
            if let Some(read) = self
                .try_newest_in_store(conversation, query, target)
                .await?
            {
                break read;
            }
        };
        let StoredNewest {
            conversation: found,
            mut slice,
            is_settled,
        } = read;
        if let Some(lease) = lease {
            let older = slice.older;
            let window = slice.into_window(&found);
            // The lease expires unused otherwise.
            if is_settled {
                self.0.recent.fill(lease, &window).await;
            }
            // A window does not tell that older messages are out of reach.
            slice = Slice {
                older,
                ..Slice::from_window(window)
            };
        }
        Ok(NewestMessages {
            owner: found.user_id.clone(),
            last_seq: found.last_seq,
            uncompacted_tokens: found.uncompacted_tokens,
            conversation: Some(found),
            history: slice.into_history(&query.history).unwrap_or_default(),
            source: Source::Store,
        })
    }

    /// Reads the newest messages, `target` of them if the conversation has as many. `None` if some
    /// of them were removed between two reads: then the messages are not from one state.
    async fn try_newest_in_store(
        &self,
        conversation: &ConversationRef,
        query: NewestQuery,
        target: u32,
    ) -> Result<Option<StoredNewest>, Error> {
        let failed = |error| Error::from_store(error, conversation.id);
        let mut budget = Budget::default();
        // One more shows whether there are older messages.
        let target = target.saturating_add(1);
        let mut wanted = budget.next_read(target);
        let read = self.0.store.newest(conversation, wanted, query.contexts);
        let read = read.await.map_err(failed)?;
        let found = read.conversation;
        if found.last_seq < query.min_seq {
            return Err(Error::MinSeqNotReached {
                last_seq: found.last_seq,
            });
        }
        let is_settled = read.is_settled;
        let mut is_all = !read.is_cut && read.messages.len() < wanted as usize;
        let mut slice = Slice {
            pinned: read.pinned,
            summary: read.summary,
            messages: read.messages,
            older: OlderMessages::Unread,
        };
        budget.add(&slice.messages);
        let first_read = slice.messages.first().map(|message| message.seq);
        let mut reads = 1;
        loop {
            let length = u32::try_from(slice.messages.len()).unwrap_or(u32::MAX);
            slice.older = if is_all {
                OlderMessages::None
            } else if budget.is_exhausted() || length >= query.history.limit + REACH {
                OlderMessages::OutOfReach
            } else {
                OlderMessages::Unread
            };
            let missing = target.saturating_sub(length);
            let is_long_enough = missing == 0 || slice.older != OlderMessages::Unread;
            if is_long_enough && slice.is_decided(&query.history) {
                break;
            }
            let Some(first) = slice.messages.first() else {
                break;
            };
            wanted = budget.next_read(if missing > 0 { missing } else { length });
            reads += 1;
            let before = Bound::Before(first.seq);
            let older = self
                .0
                .store
                .messages(conversation, before, wanted, query.contexts);
            let mut older = older.await.map_err(failed)?;
            let upto = found.compacted_upto_seq;
            is_all = older.is_empty() || older.iter().any(|older| older.seq <= upto);
            older.retain(|older| older.seq > upto);
            budget.add(&older);
            older.reverse();
            slice.messages.splice(0..0, older);
        }
        if reads > 1 && !self.is_stored(conversation, first_read).await? {
            return Ok(None);
        }
        Ok(Some(StoredNewest {
            conversation: found,
            slice,
            is_settled,
        }))
    }

    /// Whether a conversation contains the message with a number. A removal ends at the last
    /// message, so that all messages before this one have been there as long as it.
    async fn is_stored(
        &self,
        conversation: &ConversationRef,
        seq: Option<i64>,
    ) -> Result<bool, Error> {
        let Some(seq) = seq else {
            return Ok(true);
        };
        let upto = Bound::Before(seq.saturating_add(1));
        let read = self.0.store.messages(conversation, upto, 1, false).await;
        let read = read.map_err(|error| Error::from_store(error, conversation.id))?;
        Ok(read.first().is_some_and(|message| message.seq == seq))
    }
}

/// Newest messages of a conversation in the store.
struct StoredNewest {
    conversation: Conversation,
    slice: Slice<Message>,
    /// Whether a window may be filled with them.
    is_settled: bool,
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
    fn from_window(window: Window<EncodedMessage>, query: &HistoryQuery) -> Option<Self> {
        let (owner, last_seq) = (window.owner.clone(), window.last_seq);
        let uncompacted_tokens = window.uncompacted_tokens;
        Some(Self {
            owner,
            last_seq,
            uncompacted_tokens,
            conversation: None,
            history: Slice::from_window(window).into_history(query)?,
            source: Source::Cache,
        })
    }
}

fn matches_claim<M>(conversation: &ConversationRef, window: &Window<M>) -> bool {
    conversation
        .user_id
        .as_ref()
        .is_none_or(|claimed| *claimed == window.owner)
}
