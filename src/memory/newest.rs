use super::{Error, Memory, budget::Budget};
use crate::{
    domain::{Conversation, ConversationRef, Message, UserId},
    recent::{Lookup, Window},
    store::Bound,
};

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The recent window.
    Cache,
    /// The durable store.
    Store,
}

/// What a reader wants of the newest messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    pub(super) limit: u32,
    pub(super) min_seq: i64,
    pub(super) strong: bool,
    pub(super) contexts: bool,
}

/// The newest messages of a conversation.
#[derive(Debug)]
pub(super) struct Newest {
    pub(super) owner: UserId,
    pub(super) last_seq: i64,
    /// The whole of it, where it was read on the way.
    pub(super) conversation: Option<Conversation>,
    pub(super) messages: Vec<Message>,
    /// The number of the conversation's first message, where it was reached.
    oldest: Option<i64>,
    pub(super) source: Source,
}

impl Memory {
    /// Reads the newest messages: from the window if it may and can, else from
    /// the store, filling the window if it was given the lease.
    pub(super) async fn newest(
        &self,
        conversation: &ConversationRef,
        want: Want,
    ) -> Result<Newest, Error> {
        // The window keeps no contexts.
        let lookup = if want.strong || want.contexts {
            Lookup::Miss(None)
        } else {
            self.0
                .recent
                .newest(conversation.id, want.limit, want.min_seq)
                .await
        };
        let lease = match lookup {
            Lookup::Hit(window) if is_claimed(conversation, &window) => {
                return Ok(Newest::from_window(window));
            }
            // Whose it is is the store's to say when the claim is refused.
            Lookup::Hit(_) | Lookup::Busy | Lookup::Short | Lookup::Unavailable => None,
            Lookup::Miss(lease) => lease,
        };

        let Some(lease) = lease else {
            return self.newest_in_store(conversation, want).await;
        };
        let capacity = self.0.recent.capacity();
        let wide = Want {
            limit: want.limit.max(capacity),
            ..want
        };
        let mut newest = self.newest_in_store(conversation, wide).await?;
        let kept = newest_of(&newest.messages, capacity);
        let whole = kept
            .first()
            .is_none_or(|oldest| newest.oldest == Some(oldest.seq));
        self.0
            .recent
            .fill(lease, &newest.owner, newest.last_seq, kept, whole)
            .await;
        let surplus = newest.messages.len() - newest_of(&newest.messages, want.limit).len();
        newest.messages.drain(..surplus);
        Ok(newest)
    }

    async fn newest_in_store(
        &self,
        conversation: &ConversationRef,
        want: Want,
    ) -> Result<Newest, Error> {
        let failed = |error| Error::of_store(error, conversation.id);
        let mut budget = Budget::default();
        let mut wanted = budget.next_read(want.limit);
        let (found, mut read) = self
            .0
            .store
            .newest(conversation, wanted, want.contexts)
            .await
            .map_err(failed)?;
        if found.last_seq < want.min_seq {
            return Err(Error::MinSeqNotReached {
                last_seq: found.last_seq,
            });
        }
        read.reverse();
        let mut newest_first: Vec<Message> = Vec::new();
        let oldest = loop {
            let is_all = read.len() < wanted as usize;
            let fit = read
                .iter()
                .take_while(|message| budget.admits(message))
                .count();
            let is_cut = fit < read.len();
            newest_first.extend(read.drain(..fit));
            let last = newest_first.last().map(|message| message.seq);
            let missing = want.limit - u32::try_from(newest_first.len()).unwrap_or(want.limit);
            match last {
                _ if is_all && !is_cut => break last,
                Some(seq) if missing > 0 && !is_cut => {
                    wanted = budget.next_read(missing);
                    let before = Bound::Before(seq);
                    let older = self
                        .0
                        .store
                        .messages(conversation, before, wanted, want.contexts);
                    read = older.await.map_err(failed)?;
                }
                _ => break None,
            }
        };
        newest_first.reverse();
        Ok(Newest {
            owner: found.user_id.clone(),
            last_seq: found.last_seq,
            conversation: Some(found),
            messages: newest_first,
            oldest,
            source: Source::Store,
        })
    }
}

impl Newest {
    /// A conversation that was created just now.
    pub(super) fn of_new(conversation: Conversation) -> Self {
        Self {
            owner: conversation.user_id.clone(),
            last_seq: conversation.last_seq,
            conversation: Some(conversation),
            messages: Vec::new(),
            oldest: None,
            source: Source::Store,
        }
    }

    fn from_window(window: Window) -> Self {
        Self {
            owner: window.owner,
            last_seq: window.last_seq,
            conversation: None,
            messages: window.messages,
            oldest: None,
            source: Source::Cache,
        }
    }
}

fn is_claimed(conversation: &ConversationRef, window: &Window) -> bool {
    conversation
        .user_id
        .as_ref()
        .is_none_or(|claimed| *claimed == window.owner)
}

fn newest_of(messages: &[Message], limit: u32) -> &[Message] {
    &messages[messages.len().saturating_sub(limit as usize)..]
}
