use std::vec;

use super::{instruments::DropReason, message_codec};
use crate::{
    domain::{ConversationId, Message, UserId},
    recent::Window,
    redis::{RedisError, Reply},
};

/// Reply of a window script: its outcome, the reason if it dropped the window,
/// and further values. `common.lua` defines the form.
#[derive(Debug)]
pub(super) struct ScriptReply {
    outcome: Reply,
    /// Reason why the script dropped the window. `None` if it did not.
    pub(super) drop_reason: Option<DropReason>,
    values: vec::IntoIter<Reply>,
}

impl ScriptReply {
    pub(super) fn parse(reply: Reply) -> Result<Self, RedisError> {
        let mut values = reply.list()?.into_iter();
        let outcome = values.next().ok_or(RedisError::UnexpectedReply)?;
        let reason = values.next().ok_or(RedisError::UnexpectedReply)?;
        let drop_reason = match reason.text()? {
            "" => None,
            name => Some(DropReason::from_name(name).ok_or(RedisError::UnexpectedReply)?),
        };
        Ok(Self {
            outcome,
            drop_reason,
            values,
        })
    }

    /// Outcome of the script. Empty if it is not text.
    pub(super) fn outcome(&self) -> &str {
        self.outcome.text().unwrap_or_default()
    }

    /// First of the further values, as text.
    pub(super) fn into_text(mut self) -> Option<String> {
        self.values.next()?.text().ok().map(str::to_owned)
    }

    /// Decodes the further values as a window. `None` if they are invalid.
    pub(super) fn into_window(mut self, conversation: ConversationId) -> Option<Window> {
        let owner = UserId::parse(self.values.next()?.text().ok()?).ok()?;
        let last_seq = self.values.next()?.integer().ok()?;
        let compacted_upto_seq = self.values.next()?.integer().ok()?;
        let uncompacted_tokens = self.values.next()?.integer().ok()?;
        let is_complete = self.values.next()?.integer().ok()? == 1;
        let head_length = usize::try_from(self.values.next()?.integer().ok()?).ok()?;
        let decode = |value| match value {
            Reply::Bytes(json) => message_codec::decode(conversation, &json),
            _ => None,
        };
        let head = self.values.by_ref().take(head_length).map(decode);
        let mut pinned: Vec<_> = head.collect::<Option<_>>()?;
        let messages: Vec<_> = self.values.map(decode).collect::<Option<_>>()?;
        pinned.sort_unstable_by_key(|message| message.seq);
        let summary = pinned.first().is_some_and(Message::is_summary);
        let summary = summary.then(|| pinned.remove(0));
        let is_ordered = messages.is_sorted_by(|a, b| a.seq < b.seq);
        let is_in_range = messages.last().is_none_or(|last| last.seq <= last_seq)
            && messages
                .first()
                .is_none_or(|first| first.seq > compacted_upto_seq);
        let is_compacted = summary.is_some() == (compacted_upto_seq > 0);
        (is_ordered && is_in_range && is_compacted).then_some(Window {
            owner,
            last_seq,
            pinned,
            summary,
            compacted_upto_seq,
            uncompacted_tokens,
            messages,
            is_complete,
        })
    }
}
