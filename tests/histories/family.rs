//! A conversation with its branches, changed step by step.

use std::collections::HashSet;

use conversation_memory::proto::{
    BeginTurnRequest, BranchConversationRequest, CompactConversationRequest, Consistency,
    CreateConversationRequest, GetConversationRequest, GetHistoryRequest, ListMessagesRequest,
    Message, RedactMessagesRequest, Role, Source, TruncateConversationRequest,
};

use crate::{
    Fixture, checker,
    messages::Author,
    random::Random,
    reference::{self, History},
};
use test_support::{
    eventually, new_id, new_user,
    requests::{message, save},
    sidecar::Memory,
};

/// Tokens of each summary.
const SUMMARY_TOKENS: i32 = 12;

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
        let mut clients = [first.memory(), last.memory()];
        let mut random = Random::new(number);
        let user = new_user();
        let create = CreateConversationRequest {
            user_id: user.clone(),
            ..CreateConversationRequest::default()
        };
        let created = clients[0].create_conversation(create).await.unwrap();
        let member = Member {
            id: created.into_inner().conversation.unwrap().id,
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

    fn client(&mut self) -> &mut Memory {
        &mut self.clients[self.random.below(2)]
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
        let first = self.client().save_messages(request.clone()).await.unwrap();
        if !request.request_id.is_empty() {
            // The other sidecar publishes a replay.
            let again = self.client().save_messages(request).await.unwrap();
            assert_eq!(again.get_ref().messages, first.get_ref().messages);
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
        self.client().truncate_conversation(request).await.unwrap();
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
        let branched = self.client().branch_conversation(request).await.unwrap();
        let parent = &self.members[at];
        let shares_summary = parent.compacted_upto_seq <= at_seq;
        self.members.push(Member {
            id: branched.into_inner().conversation.unwrap().id,
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
        self.client().compact_conversation(request).await.unwrap();
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
        self.client().redact_messages(request).await.unwrap();
        let ids: HashSet<&str> = redacted.iter().map(|message| message.id.as_str()).collect();
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
        let seqs = fields.lines().filter_map(|field| field.strip_prefix("m:"));
        let mut seqs: Vec<i64> = seqs.map(|seq| seq.parse().unwrap()).collect();
        if seqs.len() < 2 {
            return;
        }
        seqs.sort_unstable();
        let removed = 1 + self.random.below(seqs.len() - 1);
        self.steps
            .push(format!("trim {removed} messages of the window of {at}"));
        let removed: Vec<String> = seqs[..removed]
            .iter()
            .map(|seq| format!("m:{seq}"))
            .collect();
        let mut command = vec!["HDEL", &key, "whole"];
        command.extend(removed.iter().map(String::as_str));
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
            let page = self.clients[0].list_messages(request.clone()).await;
            let page = page.unwrap().into_inner();
            all.extend(page.messages);
            if page.next_page_token.is_empty() {
                return all;
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Compares histories with the reference, from the window through each sidecar and from the
    /// store.
    async fn check(&mut self, at: usize) {
        let all = self.messages(at).await;
        let request = GetConversationRequest {
            conversation_id: self.members[at].id.clone(),
            omit_messages: true,
            ..GetConversationRequest::default()
        };
        let conversation = self.clients[0].get_conversation(request).await.unwrap();
        let conversation = conversation.into_inner().conversation.unwrap();
        let upto_seq = self.members[at].compacted_upto_seq;
        assert_eq!(
            conversation.compacted_upto_seq, upto_seq,
            "{:#?}",
            self.steps
        );
        let summary = (upto_seq > 0).then(|| Message {
            token_count: Some(SUMMARY_TOKENS),
            is_summary: true,
            ..message(Role::System, &self.members[at].summary)
        });
        for _ in 0..4 {
            let request = self.request(at);
            let expected = reference::history(&all, upto_seq, summary.clone(), &request);
            if let Err(violation) = checker::check(&expected, &all, &request) {
                panic!("{violation}: {request:?} {expected:#?} {:#?}", self.steps);
            }
            if self.random.one_in(4) {
                self.check_turn(&request, &expected).await;
            }
            for (client, consistency) in [
                (0, Consistency::Cached),
                (1, Consistency::Cached),
                (1, Consistency::Strong),
            ] {
                let mut request = request.clone();
                request.set_consistency(consistency);
                self.check_history(client, request, &expected, conversation.last_seq)
                    .await;
            }
        }
    }

    fn request(&mut self, at: usize) -> GetHistoryRequest {
        let largest = [6, 12, 50][self.random.below(3)];
        let limit = self.random.below(largest + 1);
        let max_tokens = match self.random.below(3) {
            0 => 1 + self.random.below(40),
            1 => 1 + self.random.below(400),
            _ => 0,
        };
        GetHistoryRequest {
            conversation_id: self.members[at].id.clone(),
            limit: i32::try_from(limit).unwrap(),
            max_tokens: i32::try_from(max_tokens).unwrap(),
            start_on_user: self.random.one_in(4),
            ..GetHistoryRequest::default()
        }
    }

    async fn check_history(
        &mut self,
        client: usize,
        request: GetHistoryRequest,
        expected: &History,
        last_seq: i64,
    ) {
        let found = self.read(client, &request).await;
        self.fixture.checked.set(self.fixture.checked.get() + 1);
        let is_right = |(found, found_seq, _): &(History, i64, Source)| {
            found == expected && *found_seq == last_seq
        };
        if is_right(&found) {
            return;
        }
        let what = format!(
            "the history through sidecar {client} of {request:?} after {:#?} is {expected:#?}, not \
             {found:#?}",
            self.steps
        );
        assert!(found.2 == Source::Cache, "{what}");
        // A window is late if a sidecar could not reach Redis in time.
        eprintln!("{what} yet");
        self.fixture.late.set(self.fixture.late.get() + 1);
        eventually(&what, async || is_right(&self.read(client, &request).await)).await;
    }

    async fn read(&mut self, client: usize, request: &GetHistoryRequest) -> (History, i64, Source) {
        let read = self.clients[client].get_history(request.clone()).await;
        let read = read.unwrap().into_inner();
        let source = read.source();
        if source == Source::Cache {
            self.fixture.cached.set(self.fixture.cached.get() + 1);
        }
        let found = History {
            messages: without_random_fields(read.messages),
            token_count: u64::try_from(read.token_count).unwrap(),
            older_omitted: read.older_omitted,
        };
        (found, read.last_seq, source)
    }

    async fn check_turn(&mut self, request: &GetHistoryRequest, expected: &History) {
        let begin = BeginTurnRequest {
            user_id: self.user.clone(),
            conversation_id: request.conversation_id.clone(),
            limit: request.limit,
            max_tokens: request.max_tokens,
            start_on_user: request.start_on_user,
            ..BeginTurnRequest::default()
        };
        let begun = self.client().begin_turn(begin).await.unwrap().into_inner();
        let source = begun.source();
        let found = History {
            messages: without_random_fields(begun.messages),
            token_count: u64::try_from(begun.token_count).unwrap(),
            older_omitted: begun.older_omitted,
        };
        // `check_history` waits for a late window.
        assert!(
            found == *expected || source == Source::Cache,
            "the turn of {request:?} after {:#?} begins with {expected:#?}, not {found:#?}",
            self.steps
        );
        self.fixture.checked.set(self.fixture.checked.get() + 1);
    }
}

/// Removes what the server generates for a summary.
fn without_random_fields(mut messages: Vec<Message>) -> Vec<Message> {
    for message in &mut messages {
        if message.is_summary {
            message.id = String::new();
            message.conversation_id = String::new();
            message.created_at = None;
        }
    }
    messages
}
