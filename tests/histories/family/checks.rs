use conversation_memory::proto::{
    BeginTurnRequest, Consistency, GetConversationRequest, GetHistoryRequest, Message, Role, Source,
};

use super::{Family, SUMMARY_TOKENS, completed};
use crate::{
    checker,
    reference::{self, History},
};
use test_support::{eventually, requests::message};

impl Family<'_> {
    /// Compares histories with the reference, from the window through each sidecar and from the
    /// store.
    pub(super) async fn check(&mut self, at: usize) {
        let all = self.messages(at).await;
        let request = GetConversationRequest {
            conversation_id: self.members[at].id.clone(),
            omit_messages: true,
            ..GetConversationRequest::default()
        };
        let client = &self.clients[0];
        let conversation =
            completed(async || client.clone().get_conversation(request.clone()).await).await;
        let conversation = conversation.conversation.unwrap();
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
        // A window is late only if a sidecar could not reach Redis in time.
        let can_be_late = found.2 == Source::Cache && self.fixture.has_failed_on_redis().await;
        assert!(can_be_late, "{what}");
        eprintln!("{what} yet");
        self.fixture.late.set(self.fixture.late.get() + 1);
        eventually(&what, async || is_right(&self.read(client, &request).await)).await;
    }

    async fn read(&mut self, client: usize, request: &GetHistoryRequest) -> (History, i64, Source) {
        let client = &self.clients[client];
        let read = completed(async || client.clone().get_history(request.clone()).await).await;
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
        let client = self.client();
        let begun = completed(async || client.clone().begin_turn(begin.clone()).await).await;
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
