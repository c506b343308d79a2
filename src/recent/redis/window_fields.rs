//! The fields of a window as Redis returns them.

use bytes::Bytes;

use super::entry;
use crate::{
    domain::UserId,
    recent::{Claim, EncodedMessage, Lookup, Window},
    redis::Reply,
};

/// Version of the format, with which the fields `v` and `epoch` begin.
pub(super) const VERSION: &str = "3";

/// Fields of a window. `common.lua` describes them.
#[derive(Debug, Default)]
pub(super) struct WindowFields {
    owner: Option<Bytes>,
    user: Option<Bytes>,
    hi: Option<Bytes>,
    v: Option<Bytes>,
    epoch: Option<Bytes>,
    is_announced: bool,
    slots: Vec<(usize, Bytes)>,
    heads: Vec<(usize, Bytes)>,
}

/// Properties of a window besides its messages: the field `v`.
#[derive(Debug)]
pub(super) struct Properties {
    /// Number of messages that were ever stored.
    pub(super) count: usize,
    /// Number of slots.
    pub(super) capacity: usize,
    /// Size of the slots.
    pub(super) bytes: usize,
    pub(super) is_whole: bool,
    pub(super) is_grouped: bool,
    /// Number of pinned messages and summary.
    pub(super) heads: usize,
    pub(super) compacted_upto_seq: i64,
    pub(super) uncompacted_tokens: i64,
}

/// Conditions on which a window is a hit without a script. A test can remove them.
#[derive(Clone, Copy, Debug)]
pub(super) struct HitConditions {
    pub(super) no_announcement: bool,
    pub(super) same_epoch: bool,
    pub(super) same_owner: bool,
}

impl HitConditions {
    pub(super) const ALL: Self = Self {
        no_announcement: true,
        same_epoch: true,
        same_owner: true,
    };
}

impl WindowFields {
    /// Reads the reply of HGETALL. `None` if it has another form.
    pub(super) fn parse(reply: Reply) -> Option<Self> {
        let mut fields = Self::default();
        let mut values = reply.list().ok()?.into_iter();
        while let (Some(name), Some(value)) = (values.next(), values.next()) {
            let (Reply::Bytes(name), Reply::Bytes(value)) = (name, value) else {
                return None;
            };
            fields.add(&name, value)?;
        }
        Some(fields)
    }

    /// Adds a field. `None` if its name is invalid.
    fn add(&mut self, name: &[u8], value: Bytes) -> Option<()> {
        match name {
            b"owner" => self.owner = Some(value),
            b"user" => self.user = Some(value),
            b"hi" => self.hi = Some(value),
            b"v" => self.v = Some(value),
            b"epoch" => self.epoch = Some(value),
            [b's', b':', slot @ ..] => self.slots.push((number(slot)?, value)),
            [b'h', b':', index @ ..] => self.heads.push((number(index)?, value)),
            [b'p', b':', ..] => self.is_announced = true,
            // Other fields do not concern a hit.
            _ => {}
        }
        Some(())
    }

    /// Whether a claim is that of the owner of the window, or claims nothing.
    pub(super) fn admits(&self, claim: Claim<'_>) -> bool {
        match claim {
            Claim::Unclaimed => true,
            Claim::Unconfirmed(claimed) | Claim::Confirmed(claimed) => {
                let known = [&self.user, &self.owner];
                known
                    .iter()
                    .all(|known| known.as_deref() == Some(claimed.as_str().as_bytes()))
            }
        }
    }

    /// Whether a caller can read the window without a script, if the servers have the given
    /// histories.
    pub(super) fn is_hit(
        &self,
        claim: Claim<'_>,
        (server, store): (&str, &[u8]),
        min_seq: i64,
        conditions: HitConditions,
    ) -> bool {
        let epoch = self.epoch.as_deref().and_then(|epoch| {
            epoch
                .strip_prefix(VERSION.as_bytes())?
                .strip_prefix(b":")?
                .strip_prefix(server.as_bytes())?
                .strip_prefix(b"/")
        });
        (self.admits(claim) || !conditions.same_owner)
            && (epoch == Some(store) || !conditions.same_epoch)
            && !(self.is_announced && conditions.no_announcement)
            && self
                .hi
                .as_deref()
                .and_then(number)
                .is_some_and(|hi: i64| hi >= min_seq)
    }

    /// Decodes the newest `limit` messages, or all if they are grouped. `None` if the window is
    /// invalid.
    pub(super) fn into_lookup(self, limit: u32) -> Option<Lookup> {
        let properties = Properties::parse(self.v.as_ref()?)?;
        let stored = properties.stored();
        let limit = usize::try_from(limit).ok()?;
        let is_short = stored < limit && !properties.is_whole;
        let wanted = if properties.is_grouped {
            stored
        } else {
            limit.min(stored)
        };
        // An invalid window is not short, since it is dropped.
        let window = self.into_window(&properties, wanted)?;
        Some(if is_short {
            Lookup::Short
        } else {
            Lookup::Hit(Box::new(window))
        })
    }

    /// Decodes all messages. `None` if the window is invalid.
    pub(super) fn into_whole(self) -> Option<Window<EncodedMessage>> {
        let properties = Properties::parse(self.v.as_ref()?)?;
        self.into_window(&properties, properties.stored())
    }

    fn into_window(
        mut self,
        properties: &Properties,
        wanted: usize,
    ) -> Option<Window<EncodedMessage>> {
        let owner = UserId::parse(std::str::from_utf8(self.owner.as_ref()?).ok()?).ok()?;
        let last_seq = number(self.hi.as_ref()?)?;
        let stored = properties.stored();
        if properties.capacity == 0 {
            return None;
        }
        self.slots.sort_unstable_by_key(|(slot, _)| *slot);
        self.heads.sort_unstable_by_key(|(index, _)| *index);
        let is_dense = |fields: &[(usize, Bytes)], length| {
            fields.len() == length && fields.iter().map(|(index, _)| *index).eq(0..length)
        };
        if !is_dense(&self.slots, stored) || !is_dense(&self.heads, properties.heads) {
            return None;
        }
        // Slots from the oldest message on.
        let oldest = if properties.count > stored {
            properties.count % stored
        } else {
            0
        };
        self.slots.rotate_left(oldest);
        let slots = self.slots.drain(stored - wanted..);
        let messages: Vec<_> = slots
            .map(|(_, entry)| entry::decode(entry))
            .collect::<Option<_>>()?;
        let heads = self.heads.drain(..);
        let heads: Vec<_> = heads
            .map(|(_, entry)| entry::decode(entry))
            .collect::<Option<_>>()?;
        let is_complete = properties.is_whole && wanted == stored;
        window(owner, last_seq, properties, heads, messages, is_complete)
    }
}

/// Creates a window, unless its messages contradict each other.
fn window(
    owner: UserId,
    last_seq: i64,
    properties: &Properties,
    mut pinned: Vec<EncodedMessage>,
    messages: Vec<EncodedMessage>,
    is_complete: bool,
) -> Option<Window<EncodedMessage>> {
    pinned.sort_unstable_by_key(|message| message.seq);
    let summary = pinned.first().is_some_and(|first| first.seq == 0);
    let summary = summary.then(|| pinned.remove(0));
    let is_ordered = messages.is_sorted_by(|a, b| a.seq < b.seq);
    let compacted_upto_seq = properties.compacted_upto_seq;
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
        uncompacted_tokens: properties.uncompacted_tokens,
        messages,
        is_complete,
    })
}

impl Properties {
    /// Number of messages in the slots.
    fn stored(&self) -> usize {
        self.count.min(self.capacity)
    }

    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(value).ok()?.split(' ');
        if words.next()? != VERSION {
            return None;
        }
        let parsed = Self {
            count: words.next()?.parse().ok()?,
            capacity: words.next()?.parse().ok()?,
            bytes: words.next()?.parse().ok()?,
            is_whole: words.next()? == "1",
            is_grouped: words.next()? == "1",
            heads: words.next()?.parse().ok()?,
            compacted_upto_seq: words.next()?.parse().ok()?,
            uncompacted_tokens: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(parsed)
    }

    pub(super) fn encode(&self) -> Bytes {
        let Self {
            count,
            capacity,
            bytes,
            is_whole,
            is_grouped,
            heads,
            compacted_upto_seq,
            uncompacted_tokens,
        } = self;
        let (whole, grouped) = (u8::from(*is_whole), u8::from(*is_grouped));
        Bytes::from(format!(
            "{VERSION} {count} {capacity} {bytes} {whole} {grouped} {heads} {compacted_upto_seq} \
             {uncompacted_tokens}"
        ))
    }
}

fn number<T: std::str::FromStr>(digits: impl AsRef<[u8]>) -> Option<T> {
    std::str::from_utf8(digits.as_ref()).ok()?.parse().ok()
}
