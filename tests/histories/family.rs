//! A conversation with its branches, changed step by step.

mod checks;

use std::collections::HashSet;

use conversation_memory::proto::{
    BranchConversationRequest, CompactConversationRequest, CreateConversationRequest,
    ListMessagesRequest, Message, RedactMessagesRequest, TruncateConversationRequest,
};

use tonic::{Code, Response, Status};

use crate::{Fixture, messages::Author};
use test_support::{new_id, new_user, random::Random, requests::save, sidecar::Memory};

/// Tokens of each summary.
const SUMMARY_TOKENS: i32 = 12;

/// Script that removes the oldest messages of a window.
const TRIM: &str = "
local v = redis.call('HGET', KEYS[1], 'v')
local count, capacity, bytes, rest = v:match('^3 (%d+) (%d+) (%d+) [01] (.*)$')
local stored = math.min(count, capacity)
local kept = {}
for i = count - stored + ARGV[1], count - 1 do
  kept[#kept + 1] = string.format('s:%.0f', #kept / 2)
  kept[#kept + 1] = redis.call('HGET', KEYS[1], string.format('s:%.0f', i % capacity))
end
for i = 0, capacity - 1 do
  redis.call('HDEL', KEYS[1], string.format('s:%.0f', i))
end
v = table.concat({ '3', #kept / 2, capacity, bytes, '0', rest }, ' ')
redis.call('HSET', KEYS[1], 'v', v, unpack(kept))
";

/// Conversation of a family, with its summary.
struct Member {
    id: String,
    compacted_upto_seq: i64,
    summary: String,
}

/// A conversation with its branches.
pub(crate) struct Family<'a> {
    fixture: &'a Fixture,
    /// A client of each sidecar; twice the same one in the embedded form.
    clients: [Memory; 2],
    random: Random,
    author: Author,
    user: String,
    members: Vec<Member>,
    /// What was done, for failures.
    steps: Vec<String>,
}

impl<'a> Family<'a> {
    pub(crate) async fn new(fixture: &'a Fixture, number: u64) -> Self {
        let (first, last) = (&fixture.sidecars[0], fixture.sidecars.last().unwrap());
        let clients = [first.memory(), last.memory()];
        let mut random = Random::new(number);
        let user = new_user();
        let create = CreateConversationRequest {
            user_id: user.clone(),
            ..CreateConversationRequest::default()
        };
        let created =
            completed(async || clients[0].clone().create_conversation(create.clone()).await);
        let member = Member {
            id: created.await.conversation.unwrap().id,
            compacted_upto_seq: 0,
            summary: String::new(),
        };
        Self {
            fixture,
            clients,
            author: Author::new(&mut random),
            random,
            user,
            members: vec![member],
            steps: vec![format!("conversation {number}")],
        }
    }

    pub(crate) async fn run(mut self) {
        for _ in 0..3 + self.random.below(10) {
            let at = self.random.below(self.members.len());
            let all = self.messages(at).await;
            match self.random.below(20) {
                0 | 1 => self.truncate(at, &all).await,
                2 => self.branch(at, &all).await,
                3 | 4 => self.compact(at, &all).await,
                5 => self.redact(at, &all).await,
                6 | 7 => self.evict(at).await,
                8 | 9 => self.trim(at).await,
                _ => self.save(at).await,
            }
            self.check(at).await;
            // A step must not change other conversations, except by a redaction.
            for other in 0..self.members.len() {
                if other != at && self.random.one_in(3) {
                    self.check(other).await;
                }
            }
        }
    }

    fn client(&mut self) -> Memory {
        self.clients[self.random.below(2)].clone()
    }

    async fn save(&mut self, at: usize) {
        let messages: Vec<Message> = (0..=self.random.below(6))
            .map(|_| self.author.next(&mut self.random))
            .collect();
        self.steps.push(format!("save in {at}: {messages:?}"));
        let mut request = save(&self.members[at].id, messages);
        if self.random.one_in(3) {
            request.request_id = new_id();
        }
        let client = self.client();
        let saved = completed(async || client.clone().save_messages(request.clone()).await).await;
        if !request.request_id.is_empty() {
            // A sidecar, perhaps the other one, publishes a replay.
            let client = self.client();
            let again = completed(async || client.clone().save_messages(request.clone()).await);
            assert_eq!(again.await.messages, saved.messages);
        }
    }

    async fn truncate(&mut self, at: usize, all: &[Message]) {
        let last_seq = all.last().map_or(0, |last| last.seq);
        let after_seq = self.random.between((last_seq - 9).max(0), last_seq);
        self.steps.push(format!("truncate {at} after {after_seq}"));
        let request = TruncateConversationRequest {
            conversation_id: self.members[at].id.clone(),
            after_seq,
            ..TruncateConversationRequest::default()
        };
        let client = self.client();
        completed(async || client.clone().truncate_conversation(request.clone()).await).await;
        if after_seq < self.members[at].compacted_upto_seq {
            self.members[at].compacted_upto_seq = 0;
        }
    }

    async fn branch(&mut self, at: usize, all: &[Message]) {
        let Some(last) = all.last() else {
            return;
        };
        let at_seq = self.random.between(1, last.seq);
        self.steps.push(format!("branch {at} at {at_seq}"));
        let request = BranchConversationRequest {
            conversation_id: self.members[at].id.clone(),
            at_seq,
            ..BranchConversationRequest::default()
        };
        let client = self.client();
        let branched =
            completed(async || client.clone().branch_conversation(request.clone()).await).await;
        let parent = &self.members[at];
        let shares_summary = parent.compacted_upto_seq <= at_seq;
        self.members.push(Member {
            id: branched.conversation.unwrap().id,
            compacted_upto_seq: if shares_summary {
                parent.compacted_upto_seq
            } else {
                0
            },
            summary: parent.summary.clone(),
        });
    }

    async fn compact(&mut self, at: usize, all: &[Message]) {
        let last_seq = all.last().map_or(0, |last| last.seq);
        let upto_seq = self.random.between(0, last_seq);
        self.steps.push(format!("compact {at} up to {upto_seq}"));
        let summary = if upto_seq == 0 {
            String::new()
        } else {
            format!("summary {}", self.steps.len())
        };
        let request = CompactConversationRequest {
            conversation_id: self.members[at].id.clone(),
            upto_seq,
            summary: summary.clone(),
            token_count: (upto_seq > 0).then_some(SUMMARY_TOKENS),
            ..CompactConversationRequest::default()
        };
        let client = self.client();
        completed(async || client.clone().compact_conversation(request.clone()).await).await;
        self.members[at].compacted_upto_seq = upto_seq;
        self.members[at].summary = summary;
    }

    async fn redact(&mut self, at: usize, all: &[Message]) {
        if all.is_empty() {
            return;
        }
        let redacted: Vec<&Message> = (0..=self.random.below(2))
            .map(|_| &all[self.random.below(all.len())])
            .collect();
        let seqs: Vec<i64> = redacted.iter().map(|message| message.seq).collect();
        self.steps.push(format!("redact {seqs:?} of {at}"));
        let request = RedactMessagesRequest {
            conversation_id: self.members[at].id.clone(),
            seqs,
            ..RedactMessagesRequest::default()
        };
        let client = self.client();
        completed(async || client.clone().redact_messages(request.clone()).await).await;
        // A summary that was made after the message had been redacted does not contain its text.
        let changed = redacted.iter().filter(|message| !message.redacted);
        let ids: HashSet<&str> = changed.map(|message| message.id.as_str()).collect();
        for at in 0..self.members.len() {
            let upto_seq = self.members[at].compacted_upto_seq;
            let all = self.messages(at).await;
            let mut summarized = all.iter().filter(|message| message.seq <= upto_seq);
            if summarized.any(|message| ids.contains(message.id.as_str())) {
                self.members[at].compacted_upto_seq = 0;
            }
        }
    }

    /// Deletes the window, as Redis does when it needs memory.
    async fn evict(&mut self, at: usize) {
        self.steps.push(format!("evict {at}"));
        self.fixture.redis(&["DEL", &self.window_key(at)]).await;
    }

    /// Removes the oldest messages of the window, as if its capacity were smaller.
    async fn trim(&mut self, at: usize) {
        let key = self.window_key(at);
        let Some(fields) = self.fixture.redis(&["HKEYS", &key]).await else {
            return;
        };
        let messages = fields.lines().filter(|field| field.starts_with("s:"));
        let messages = messages.count();
        if messages < 2 {
            return;
        }
        let removed = 1 + self.random.below(messages - 1);
        self.steps
            .push(format!("trim {removed} messages of the window of {at}"));
        let command = ["EVAL", TRIM, "1", &key, &removed.to_string()];
        self.fixture.redis(&command).await;
    }

    fn window_key(&self, at: usize) -> String {
        format!("history:{}:recent", self.members[at].id)
    }

    /// Reads all messages from the store.
    async fn messages(&mut self, at: usize) -> Vec<Message> {
        let mut request = ListMessagesRequest {
            conversation_id: self.members[at].id.clone(),
            ..ListMessagesRequest::default()
        };
        let mut all = Vec::new();
        loop {
            let client = &self.clients[0];
            let page =
                completed(async || client.clone().list_messages(request.clone()).await).await;
            all.extend(page.messages);
            if page.next_page_token.is_empty() {
                return all;
            }
            request.page_token = page.next_page_token;
        }
    }
}

/// Makes a call until it is not rejected because the machine is busy; nothing was written then.
async fn completed<T>(call: impl AsyncFn() -> Result<Response<T>, Status>) -> T {
    loop {
        match call().await {
            Ok(response) => return response.into_inner(),
            Err(status) if status.code() == Code::Unavailable => {}
            Err(status) => panic!("{status:?}"),
        }
    }
}
