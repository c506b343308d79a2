//! Reads and fills windows.

use bytes::Bytes;

use super::{
    RedisRecent, WINDOW_BYTES, decimal, entry,
    script_reply::ScriptReply,
    window_fields::{Properties, WindowFields},
};
use crate::{
    domain::{ConversationId, Message},
    recent::{Claim, FillLease, Lookup, Window, instruments::FillOutcome},
    redis::{ErrorReply, RedisError},
};

impl RedisRecent {
    /// Reads a window without a script. `None` if that is not possible: a script must find out
    /// why.
    pub(super) async fn read_hit(
        &self,
        conversation: ConversationId,
        claim: Claim<'_>,
        history: &Bytes,
        (limit, min_seq): (u32, i64),
    ) -> Option<Lookup> {
        let scripts = &self.runner.scripts;
        let conditions = scripts.conditions;
        let is_known = self.owners.admits(conversation, claim);
        if !is_known && conditions.same_owner {
            return None;
        }
        let reply = match self.runner.read(conversation).await {
            Ok(reply) => reply,
            // The error recurs in the script, which logs it, unless it concerns the type of the key, or
            // a permission.
            Err(RedisError::ErrorReply(_)) => return None,
            Err(_) => return Some(Lookup::Unavailable),
        };
        let fields = WindowFields::parse(reply.fields)?;
        let server = match &scripts.server_of {
            Some(server_of) => server_of(conversation).into(),
            None => reply.server,
        };
        if fields.is_hit(claim, (&*server, history.as_ref()), min_seq, conditions) {
            return fields.into_lookup(limit);
        }
        // The conversation may have been deleted, and its id used again by another user.
        if let Claim::Unconfirmed(user) | Claim::Confirmed(user) = claim
            && !fields.admits(claim)
        {
            self.owners.remove(conversation, user);
        }
        None
    }

    /// Decodes the reply of `newest.lua`. `None` if the content is invalid.
    pub(super) fn decode_lookup(
        &self,
        conversation: ConversationId,
        claim: Claim<'_>,
        history: &Bytes,
        reply: ScriptReply,
        limit: u32,
    ) -> Option<Lookup> {
        if reply.outcome() == "owner_unknown" {
            return Some(Lookup::OwnerUnknown);
        }
        if let Claim::Unconfirmed(user) | Claim::Confirmed(user) = claim {
            self.owners.add(conversation, user);
        }
        match reply.outcome() {
            "busy" => Some(Lookup::Busy),
            "hit" => reply.into_fields()?.into_lookup(limit),
            "miss" => {
                let id = reply.into_text()?;
                let lease = (!id.is_empty()).then(|| FillLease {
                    conversation,
                    history: history.clone(),
                    id,
                    guard: None,
                });
                Some(Lookup::Miss(lease))
            }
            _ => None,
        }
    }

    pub(super) async fn run_fill(&self, lease: FillLease, window: &Window<Message>) -> FillOutcome {
        if self.runner.pending.contains(lease.conversation) {
            return FillOutcome::Refused;
        }
        let messages = self.newest_of(&window.messages);
        let heads = window.pinned.iter().chain(&window.summary);
        let Some(entries) = encode(heads.chain(messages)) else {
            return FillOutcome::TooLarge;
        };
        let heads = window.pinned.len() + usize::from(window.summary.is_some());
        let properties = Properties {
            count: messages.len(),
            capacity: self.capacity,
            bytes: entries[heads..].iter().map(Bytes::len).sum(),
            is_whole: window.is_complete && messages.len() == window.messages.len(),
            is_grouped: are_grouped(messages),
            heads,
            compacted_upto_seq: window.compacted_upto_seq,
            uncompacted_tokens: window.uncompacted_tokens,
        };
        let mut args = vec![
            lease.history,
            Bytes::from(lease.id),
            self.runner.ttl.clone(),
            Bytes::copy_from_slice(window.owner.as_str().as_bytes()),
            decimal(window.last_seq),
            properties.encode(),
            decimal(heads),
        ];
        args.extend(entries);
        let fill = &self.runner.scripts.fill;
        match self.runner.run(fill, lease.conversation, &args).await {
            Ok(reply) => match reply.outcome() {
                "filled" => {
                    self.owners.add(lease.conversation, &window.owner);
                    FillOutcome::Filled
                }
                "out_of_memory" => FillOutcome::OutOfMemory,
                _ => FillOutcome::Refused,
            },
            Err(RedisError::ErrorReply(ErrorReply::OutOfMemory)) => FillOutcome::OutOfMemory,
            Err(_) => FillOutcome::Error,
        }
    }
}

/// Encodes messages as entries. `None` if they exceed [`WINDOW_BYTES`].
pub(super) fn encode<'a>(messages: impl Iterator<Item = &'a Message>) -> Option<Vec<Bytes>> {
    let mut entries = Vec::with_capacity(messages.size_hint().0);
    let mut bytes = 0;
    for message in messages {
        let entry = entry::encode(message);
        bytes += entry.len();
        if bytes > WINDOW_BYTES {
            return None;
        }
        entries.push(entry);
    }
    Some(entries)
}

/// Whether some of the messages are not valid in every history by themselves.
pub(super) fn are_grouped(messages: &[Message]) -> bool {
    messages.iter().any(Message::is_grouped)
}
