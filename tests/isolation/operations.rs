//! Random operations of a user, who names objects of their own, those of the other user, and some
//! that do not exist.

use std::{collections::HashSet, fmt};

use serde_json::{Value, json};
use test_support::random::Random;

use crate::{
    known::{Kind, Known, reference},
    messages::new_id,
};

/// Most of the objects that a user names are among this number of the latest ones.
pub(crate) const RECENT: usize = 8;
/// Idempotency keys, which are the same for both users.
const REQUEST_IDS: usize = 12;

/// Call with its requests, in which references stand for what the server has returned.
pub(crate) struct Operation {
    pub(crate) rpc: &'static str,
    pub(crate) requests: Vec<Value>,
    /// Id of an object of the other user that the call gives to a new object of its own.
    pub(crate) claimed: Option<String>,
}

/// Request whose response had a page token.
pub(crate) struct Page {
    pub(crate) rpc: &'static str,
    pub(crate) request: Value,
}

/// What a user knows when they choose an operation.
pub(crate) struct Scene<'a> {
    pub(crate) random: &'a mut Random,
    pub(crate) user: &'a str,
    pub(crate) other_user: &'a str,
    pub(crate) known: &'a Known,
    pub(crate) foreign: &'a Known,
    pub(crate) pages: &'a [Page],
    pub(crate) taken: &'a HashSet<String>,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rpc)?;
        for request in &self.requests {
            write!(f, " {request}")?;
        }
        Ok(())
    }
}

impl Operation {
    pub(crate) fn new(rpc: &'static str, request: Value) -> Self {
        Self {
            rpc,
            requests: vec![request],
            claimed: None,
        }
    }

    pub(crate) fn uses_a_session(&self) -> bool {
        self.rpc.contains("Session")
            || self.rpc == "BeginTurn"
            || self
                .requests
                .iter()
                .any(|request| !request["sessionId"].is_null())
    }
}

impl Scene<'_> {
    pub(crate) fn operation(mut self) -> Operation {
        match self.random.below(124) {
            0..12 => self.begin_turn(),
            12..32 => self.save_messages(),
            32..41 => self.get_history(),
            41..44 => self.create_conversation(),
            44..48 => self.get_conversation(),
            48..51 => self.list_conversations(),
            51..54 => self.update_conversation(),
            54..56 => Operation::new("DeleteConversation", self.named()),
            56..60 => self.list_messages(),
            60..63 => self.truncate(),
            63..66 => self.compact(),
            66..67 => self.transfer(),
            67..68 => self.redact(),
            68..72 => self.get_blob(),
            72..75 => self.export(),
            75..77 => self.import(),
            77..80 => self.branch(),
            80..82 => self.list_branches(),
            82..86 => self.search(),
            86..90 => self.next_page(),
            90..92 => self.create_session(),
            92..93 => self.of_session("GetSession"),
            93..95 => self.of_session("ExtendSession"),
            95..98 => self.of_session("EndSession"),
            98..100 => self.list_sessions(),
            100..114 => self.of_threads(),
            _ => self.of_items(),
        }
    }

    /// A reference to an object of this user, mostly to one of the latest.
    pub(crate) fn own(&mut self, kind: Kind) -> String {
        let count = self.known.of(kind).len();
        if count == 0 {
            return new_id(self.random);
        }
        let among = if self.random.one_in(8) { count } else { RECENT };
        let back = self.random.below(among.min(count));
        reference(kind, count - 1 - back)
    }

    pub(crate) fn others(&mut self, kind: Kind) -> String {
        let ids = self.foreign.of(kind);
        if ids.is_empty() {
            return new_id(self.random);
        }
        let among = if self.random.one_in(4) {
            ids.len()
        } else {
            RECENT
        };
        let back = self.random.below(among.min(ids.len()));
        let id = &ids[ids.len() - 1 - back];
        // The other user may have taken an id that this user had before.
        let own = self.known.position(kind, id);
        own.map_or_else(|| id.clone(), |position| reference(kind, position))
    }

    /// An id of any owner, or of no object.
    pub(crate) fn any(&mut self, kind: Kind) -> String {
        match self.random.below(20) {
            0..3 => self.others(kind),
            3 => new_id(self.random),
            4 if self.random.one_in(2) => {
                ["", "x", "\u{e9}", "{}"][self.random.below(4)].to_owned()
            }
            _ => self.own(kind),
        }
    }

    /// A request that names a conversation and claims to be its owner.
    pub(crate) fn named(&mut self) -> Value {
        let id = self.any(Kind::Conversation);
        let is_own = self.is_still_own(&id);
        let user = match self.random.below(16) {
            0 if is_own => self.other_user,
            1 if is_own => "",
            _ => self.user,
        };
        json!({ "conversationId": id, "userId": user })
    }

    /// A small number, sometimes a negative or a large one.
    pub(crate) fn number(&mut self, usual: i64) -> i64 {
        match self.random.below(16) {
            0 => -1,
            1 => 1_000_000,
            _ => self.random.between(0, usual),
        }
    }

    /// Sets a field one in `odds` times.
    pub(crate) fn maybe(&mut self, request: &mut Value, odds: usize, field: &str, value: Value) {
        if self.random.one_in(odds) {
            request[field] = value;
        }
    }

    pub(crate) fn request_id(&mut self) -> Value {
        format!("request-{}", self.random.below(REQUEST_IDS)).into()
    }

    pub(crate) fn limits(&mut self, request: &mut Value) {
        let (limit, tokens) = (self.number(8), self.number(200));
        self.maybe(request, 2, "limit", limit.into());
        self.maybe(request, 4, "maxTokens", tokens.into());
        self.maybe(request, 4, "startOnUser", true.into());
    }

    pub(crate) fn page_size(&mut self, request: &mut Value) {
        let size = self.number(4);
        self.maybe(request, 2, "pageSize", size.into());
        let token = match self.random.below(3) {
            0 => self.others(Kind::PageToken),
            1 => self.own(Kind::PageToken),
            _ => "AAAA".to_owned(),
        };
        self.maybe(request, 12, "pageToken", token.into());
    }

    /// Names a session in some of the requests that name a conversation.
    pub(crate) fn session(&mut self, request: &mut Value) {
        // A call with the name and the session of the other user is one of theirs.
        let session = if request["userId"] == self.user && request["messages"].is_null() {
            self.any(Kind::Session)
        } else {
            self.own(Kind::Session)
        };
        self.maybe(request, 5, "sessionId", session.into());
    }

    /// A reference to an object of this user whose id the other user has not taken.
    pub(crate) fn own_id(&mut self, kind: Kind) -> String {
        let own = self.own(kind);
        if self.is_still_own(&own) {
            own
        } else {
            new_id(self.random)
        }
    }

    pub(crate) fn is_still_own(&self, id: &str) -> bool {
        id.starts_with('@') && !self.taken.contains(&self.known.resolve_text(id))
    }

    /// What a call claims that gives this id to a new object: the id, unless it is one of this user's.
    pub(crate) fn claim(&self, id: &str) -> Option<String> {
        (!self.is_still_own(id)).then(|| self.known.resolve_text(id))
    }
}
