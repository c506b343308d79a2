use super::{Error, Memory, budget::Budget};
use crate::{
    domain::{Conversation, ConversationRef, Message, UserId},
    recent::{Lookup, Window},
    store::Bound,
};

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
    /// Upper bound on the messages.
    pub(super) limit: u32,
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
    /// Messages, oldest first.
    pub(super) messages: Vec<Message>,
    /// Number of the conversation's first message, if `messages` begins with it.
    first_seq: Option<i64>,
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
                .newest(conversation.id, query.limit, query.min_seq)
                .await
        };
        let lease = match lookup {
            Lookup::Hit(window) if matches_claim(conversation, &window) => {
                return Ok(NewestMessages::from_window(window));
            }
            // The store rejects a wrong owner in the same way as a missing conversation.
            Lookup::Hit(_) | Lookup::Busy | Lookup::Short | Lookup::Unavailable => None,
            Lookup::Miss(lease) => lease,
        };

        let Some(lease) = lease else {
            return self.newest_in_store(conversation, query).await;
        };
        let capacity = self.0.recent.capacity();
        let widened = NewestQuery {
            limit: query.limit.max(capacity),
            ..query
        };
        let mut newest = self.newest_in_store(conversation, widened).await?;
        let kept = last_messages(&newest.messages, capacity);
        let whole = kept
            .first()
            .is_none_or(|oldest| newest.first_seq == Some(oldest.seq));
        self.0
            .recent
            .fill(lease, &newest.owner, newest.last_seq, kept, whole)
            .await;
        let surplus = newest.messages.len() - last_messages(&newest.messages, query.limit).len();
        newest.messages.drain(..surplus);
        Ok(newest)
    }

    async fn newest_in_store(
        &self,
        conversation: &ConversationRef,
        query: NewestQuery,
    ) -> Result<NewestMessages, Error> {
        let failed = |error| Error::from_store(error, conversation.id);
        let mut budget = Budget::default();
        let mut wanted = budget.next_read(query.limit);
        let (found, mut read) = self
            .0
            .store
            .newest(conversation, wanted, query.contexts)
            .await
            .map_err(failed)?;
        if found.last_seq < query.min_seq {
            return Err(Error::MinSeqNotReached {
                last_seq: found.last_seq,
            });
        }
        read.reverse();
        let mut newest_first: Vec<Message> = Vec::new();
        let first_seq = loop {
            let is_all = read.len() < wanted as usize;
            let fitting = read
                .iter()
                .take_while(|message| budget.admits(message))
                .count();
            let is_cut = fitting < read.len();
            newest_first.extend(read.drain(..fitting));
            let last = newest_first.last().map(|message| message.seq);
            let missing = query.limit - u32::try_from(newest_first.len()).unwrap_or(query.limit);
            match last {
                _ if is_all && !is_cut => break last,
                Some(seq) if missing > 0 && !is_cut => {
                    wanted = budget.next_read(missing);
                    let before = Bound::Before(seq);
                    let older = self
                        .0
                        .store
                        .messages(conversation, before, wanted, query.contexts);
                    read = older.await.map_err(failed)?;
                }
                _ => break None,
            }
        };
        newest_first.reverse();
        Ok(NewestMessages {
            owner: found.user_id.clone(),
            last_seq: found.last_seq,
            conversation: Some(found),
            messages: newest_first,
            first_seq,
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
            conversation: Some(conversation),
            messages: Vec::new(),
            first_seq: None,
            source: Source::Store,
        }
    }

    fn from_window(window: Window) -> Self {
        Self {
            owner: window.owner,
            last_seq: window.last_seq,
            conversation: None,
            messages: window.messages,
            first_seq: None,
            source: Source::Cache,
        }
    }
}

fn matches_claim(conversation: &ConversationRef, window: &Window) -> bool {
    conversation
        .user_id
        .as_ref()
        .is_none_or(|claimed| *claimed == window.owner)
}

fn last_messages(messages: &[Message], limit: u32) -> &[Message] {
    &messages[messages.len().saturating_sub(limit as usize)..]
}
