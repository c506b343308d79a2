use std::vec;

use super::{entry, instruments::Reason};
use crate::{
    domain::{ConversationId, UserId},
    recent::Window,
    redis::{RedisError, Reply},
};

/// What a script answered. common.lua says what is in it.
#[derive(Debug)]
pub(super) struct Answer {
    word: Reply,
    /// Why the script dropped the window, if it did.
    pub(super) dropped: Option<Reason>,
    rest: vec::IntoIter<Reply>,
}

impl Answer {
    pub(super) fn read(reply: Reply) -> Result<Self, RedisError> {
        let mut parts = reply.list()?.into_iter();
        let word = parts.next().ok_or(RedisError::Unexpected)?;
        let dropped = parts.next().ok_or(RedisError::Unexpected)?;
        let dropped = match dropped.text()? {
            "" => None,
            reason => Some(Reason::from_word(reason).ok_or(RedisError::Unexpected)?),
        };
        Ok(Self {
            word,
            dropped,
            rest: parts,
        })
    }

    /// What the script did. Empty when that is no word.
    pub(super) fn word(&self) -> &str {
        self.word.text().unwrap_or_default()
    }

    /// The one text that belongs to it.
    pub(super) fn text(mut self) -> Option<String> {
        self.rest.next()?.text().ok().map(str::to_owned)
    }

    /// The window that belongs to it. None when it makes no sense.
    pub(super) fn window(mut self, conversation: ConversationId) -> Option<Window> {
        let owner = UserId::parse(self.rest.next()?.text().ok()?).ok()?;
        let last_seq = self.rest.next()?.integer().ok()?;
        let messages: Vec<_> = self
            .rest
            .map(|part| match part {
                Reply::Bytes(json) => entry::decode(conversation, &json),
                _ => None,
            })
            .collect::<Option<_>>()?;
        let in_order = messages.is_sorted_by(|a, b| a.seq < b.seq);
        let in_range = messages.last().is_none_or(|last| last.seq <= last_seq);
        (in_order && in_range).then_some(Window {
            owner,
            last_seq,
            messages,
        })
    }
}
