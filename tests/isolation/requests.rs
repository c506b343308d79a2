//! Requests of each method.

use serde_json::{Value, json};

use crate::{
    known::{Kind, reference},
    messages::{self, metadata, new_id, words},
    operations::{Operation, Page, RECENT, Scene},
};

impl Scene<'_> {
    pub(crate) fn begin_turn(&mut self) -> Operation {
        let mut request = json!({ "userId": self.user });
        self.maybe(&mut request, 4, "deptId", "hr".into());
        match self.random.below(8) {
            0..5 => request["sessionId"] = self.own(Kind::Session).into(),
            5 => request["sessionId"] = new_id(self.random).into(),
            _ => {}
        }
        if !self.random.one_in(6) {
            request["conversationId"] = self.any(Kind::Conversation).into();
        }
        self.limits(&mut request);
        Operation::new("BeginTurn", request)
    }

    pub(crate) fn save_messages(&mut self) -> Operation {
        let mut request = self.named();
        let count = 1 + self.random.below(4);
        let mut messages: Vec<_> = (0..count)
            .map(|_| messages::message(self.random, self.user))
            .collect();
        let mut claimed = None;
        match self.random.below(20) {
            0 => messages[0]["id"] = self.own_id(Kind::Message).into(),
            1 => {
                let id = self.others(Kind::Message);
                claimed = self.claim(&id);
                messages[0]["id"] = id.into();
            }
            2 | 3 => messages[0]["id"] = new_id(self.random).into(),
            4 => messages::spoil(self.random, &mut messages[count - 1]),
            5 => messages.clear(),
            _ => {}
        }
        request["messages"] = messages.into();
        let (request_id, expected) = (self.request_id(), self.number(20));
        self.maybe(&mut request, 5, "requestId", request_id);
        self.maybe(&mut request, 12, "expectedLastSeq", expected.into());
        if claimed.is_none() {
            // A rejected save renews a session, too.
            self.session(&mut request);
        }
        Operation {
            claimed,
            ..Operation::new("SaveMessages", request)
        }
    }

    pub(crate) fn get_history(&mut self) -> Operation {
        let mut request = self.named();
        self.limits(&mut request);
        let seq = self.number(6);
        self.maybe(&mut request, 6, "minSeq", seq.into());
        self.maybe(&mut request, 4, "consistency", "CONSISTENCY_STRONG".into());
        self.maybe(&mut request, 4, "includeContexts", true.into());
        self.session(&mut request);
        Operation::new("GetHistory", request)
    }

    pub(crate) fn create_conversation(&mut self) -> Operation {
        let mut request = json!({ "userId": self.user });
        let (title, metadata) = (words(self.random, 4), metadata(self.random, self.user));
        self.maybe(&mut request, 3, "title", title.into());
        self.maybe(&mut request, 3, "metadata", metadata);
        self.maybe(&mut request, 3, "deptId", "hr".into());
        let mut claimed = None;
        match self.random.below(8) {
            0 => request["conversationId"] = self.own_id(Kind::Conversation).into(),
            1 => request["conversationId"] = new_id(self.random).into(),
            2 => {
                let id = self.others(Kind::Conversation);
                claimed = self.claim(&id);
                request["conversationId"] = id.into();
            }
            3 => request["title"] = "x".repeat(300).into(),
            _ => {}
        }
        Operation {
            claimed,
            ..Operation::new("CreateConversation", request)
        }
    }

    pub(crate) fn get_conversation(&mut self) -> Operation {
        let mut request = self.named();
        let size = self.number(4);
        self.maybe(&mut request, 2, "pageSize", size.into());
        self.contents(&mut request);
        self.maybe(&mut request, 4, "omitMessages", true.into());
        Operation::new("GetConversation", request)
    }

    pub(crate) fn contents(&mut self, request: &mut Value) {
        self.maybe(request, 3, "includeContexts", true.into());
        self.maybe(request, 3, "includeBlobs", true.into());
    }

    pub(crate) fn list_conversations(&mut self) -> Operation {
        let mut request = json!({ "userId": self.user });
        self.maybe(&mut request, 4, "deptId", "hr".into());
        self.page_size(&mut request);
        Operation::new("ListConversations", request)
    }

    pub(crate) fn update_conversation(&mut self) -> Operation {
        let named = self.named();
        let (title, metadata) = (words(self.random, 4), metadata(self.random, self.user));
        let mask = ["title", "metadata", "title,metadata", "userId", ""][self.random.below(5)];
        let conversation = json!({
            "id": named["conversationId"],
            "title": title,
            "metadata": metadata,
        });
        let request = json!({
            "conversation": conversation,
            "updateMask": mask,
            "userId": named["userId"],
        });
        Operation::new("UpdateConversation", request)
    }

    pub(crate) fn list_messages(&mut self) -> Operation {
        let mut request = self.named();
        self.page_size(&mut request);
        self.contents(&mut request);
        self.maybe(&mut request, 3, "newestFirst", true.into());
        Operation::new("ListMessages", request)
    }

    pub(crate) fn truncate(&mut self) -> Operation {
        let mut request = self.named();
        request["afterSeq"] = self.number(12).into();
        let (request_id, expected) = (self.request_id(), self.number(12));
        self.maybe(&mut request, 4, "requestId", request_id);
        self.maybe(&mut request, 6, "expectedLastSeq", expected.into());
        Operation::new("TruncateConversation", request)
    }

    pub(crate) fn compact(&mut self) -> Operation {
        let mut request = self.named();
        let upto = self.number(6);
        request["uptoSeq"] = upto.into();
        if upto > 0 {
            request["summary"] = format!("{} {}", words(self.random, 5), self.user).into();
        }
        let (request_id, expected) = (self.request_id(), self.number(12));
        self.maybe(&mut request, 4, "requestId", request_id);
        self.maybe(&mut request, 6, "expectedLastSeq", expected.into());
        self.maybe(&mut request, 3, "tokenCount", 5.into());
        Operation::new("CompactConversation", request)
    }

    pub(crate) fn redact(&mut self) -> Operation {
        let mut request = self.named();
        let seqs = [self.number(4), self.number(4)];
        request["seqs"] = json!(seqs[self.random.below(2)..]);
        Operation::new("RedactMessages", request)
    }

    pub(crate) fn transfer(&mut self) -> Operation {
        let mut request = self.named();
        // Operators may name the conversations of every user: those who claim to be the owner are
        // compared.
        if request["userId"] == "" {
            request["userId"] = self.user.into();
        }
        request["newUserId"] = self.user.into();
        self.maybe(&mut request, 4, "newDeptId", "hr".into());
        Operation::new("TransferConversation", request)
    }

    pub(crate) fn get_blob(&mut self) -> Operation {
        let mut request = self.named();
        request["seq"] = self.number(6).into();
        request["part"] = self.random.between(1, 2).into();
        if self.random.one_in(8) {
            request["part"] = self.number(4).into();
        }
        Operation::new("GetBlob", request)
    }

    pub(crate) fn export(&mut self) -> Operation {
        let mut request = self.named();
        let formats = ["JSON", "JSONL", "CSV", "UNSPECIFIED"];
        let format = formats[self.random.below(formats.len())];
        request["format"] = format!("EXPORT_FORMAT_{format}").into();
        Operation::new("ExportConversation", request)
    }

    pub(crate) fn import(&mut self) -> Operation {
        let (format, file) = match self.random.below(6) {
            0 => ("JSON", self.own(Kind::File)),
            1 => ("JSONL", self.own(Kind::File)),
            2 => ("JSONL", self.others(Kind::File)),
            _ => ("JSONL", messages::file(self.random, self.user)),
        };
        let mut options = json!({
            "userId": self.user,
            "format": format!("EXPORT_FORMAT_{format}"),
        });
        self.maybe(&mut options, 3, "deptId", "hr".into());
        Operation {
            rpc: "ImportConversation",
            requests: vec![
                json!({ "options": options }),
                json!({ "file": { "data": file } }),
            ],
            claimed: None,
        }
    }

    pub(crate) fn branch(&mut self) -> Operation {
        let mut request = self.named();
        request["atSeq"] = self.number(5).into();
        let title = words(self.random, 3);
        self.maybe(&mut request, 2, "title", title.into());
        Operation::new("BranchConversation", request)
    }

    pub(crate) fn list_branches(&mut self) -> Operation {
        let mut request = self.named();
        self.page_size(&mut request);
        Operation::new("ListBranches", request)
    }

    pub(crate) fn search(&mut self) -> Operation {
        let mut request = json!({ "userId": self.user });
        request["query"] = match self.random.below(8) {
            // Names of users are in all messages.
            0 => self.other_user.into(),
            1 => self.user.into(),
            2 => "((( & ! \\ \"".into(),
            3 => "".into(),
            _ => words(self.random, 2).into(),
        };
        let conversation = self.any(Kind::Conversation);
        self.maybe(&mut request, 3, "conversationId", conversation.into());
        self.maybe(&mut request, 6, "deptId", "hr".into());
        self.maybe(&mut request, 6, "role", "ROLE_USER".into());
        self.maybe(
            &mut request,
            8,
            "createdFrom",
            "2024-01-01T00:00:00Z".into(),
        );
        self.maybe(
            &mut request,
            8,
            "createdUntil",
            "2924-01-01T00:00:00Z".into(),
        );
        self.maybe(&mut request, 8, "metadataKey", "user".into());
        self.page_size(&mut request);
        Operation::new("SearchMessages", request)
    }

    pub(crate) fn next_page(&mut self) -> Operation {
        let Some(last) = self.pages.len().checked_sub(1) else {
            return self.list_conversations();
        };
        let position = last - self.random.below(RECENT.min(last + 1));
        let Page { rpc, request } = &self.pages[position];
        // The next pages of a conversation are those of ListMessages.
        let mut request = request.clone();
        let rpc = if *rpc == "GetConversation" {
            request.as_object_mut().unwrap().remove("omitMessages");
            "ListMessages"
        } else {
            rpc
        };
        request["pageToken"] = reference(Kind::PageToken, position).into();
        Operation::new(rpc, request)
    }

    pub(crate) fn create_session(&mut self) -> Operation {
        let mut request = json!({ "userId": self.user });
        let conversation = self.any(Kind::Conversation);
        self.maybe(&mut request, 2, "conversationId", conversation.into());
        self.maybe(&mut request, 4, "deptId", "hr".into());
        Operation::new("CreateSession", request)
    }

    pub(crate) fn of_session(&mut self, rpc: &'static str) -> Operation {
        let id = self.any(Kind::Session);
        let is_own = self.is_still_own(&id);
        let user = match self.random.below(12) {
            0 if is_own => self.other_user,
            1 if is_own => "",
            _ => self.user,
        };
        Operation::new(rpc, json!({ "sessionId": id, "userId": user }))
    }

    pub(crate) fn list_sessions(&mut self) -> Operation {
        let user = match self.random.below(10) {
            0 => String::new(),
            1 => "x".repeat(300),
            _ => self.user.to_owned(),
        };
        Operation::new("ListSessions", json!({ "userId": user }))
    }
}
