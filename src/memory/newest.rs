use super::{Error, Memory};
use crate::{
    domain::{Conversation, ConversationRef, Message, UserId},
    recent::{Lookup, Window},
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

        let capacity = self.0.recent.capacity();
        let limit = match lease {
            Some(_) => want.limit.max(capacity),
            None => want.limit,
        };
        let (found, mut messages) = self
            .0
            .store
            .newest(conversation, limit, want.contexts)
            .await
            .map_err(|error| Error::of_store(error, conversation.id))?;
        if found.last_seq < want.min_seq {
            return Err(Error::MinSeqNotReached {
                last_seq: found.last_seq,
            });
        }
        if let Some(lease) = lease {
            let kept = newest_of(&messages, capacity);
            let whole = messages.len() < limit as usize && kept.len() == messages.len();
            self.0
                .recent
                .fill(lease, &found.user_id, found.last_seq, kept, whole)
                .await;
        }
        messages.drain(..messages.len() - newest_of(&messages, want.limit).len());
        Ok(Newest {
            owner: found.user_id.clone(),
            last_seq: found.last_seq,
            conversation: Some(found),
            messages,
            source: Source::Store,
        })
    }
}

impl Newest {
    fn from_window(window: Window) -> Self {
        Self {
            owner: window.owner,
            last_seq: window.last_seq,
            conversation: None,
            messages: window.messages,
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
