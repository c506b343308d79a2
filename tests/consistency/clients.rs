//! Calls of one client, each of which is recorded.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use conversation_memory::proto::{
    self, BeginTurnRequest, BranchConversationRequest, CreateConversationRequest,
    DeleteConversationRequest, GetHistoryRequest, ListMessagesRequest, Role, SaveMessagesRequest,
    SessionState, Source, TruncateConversationRequest,
};
use test_support::{new_id, requests::message, sidecar::Memory};
use tonic::{Response, Status};

use crate::{
    cluster::{Cluster, SIDECARS},
    history::{
        Action, Consistency, Moment, Outcome, Process, Recorder, Row, Shown, Token, WriteNumber,
    },
    outcome,
    targets::Target,
};

/// Time after which a client stops waiting: longer than any limit of a sidecar that runs.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// One client with connections to all sidecars.
pub(crate) struct Client {
    cluster: Arc<Cluster>,
    recorder: Arc<Recorder>,
    memories: Vec<Memory>,
}

/// Turn to save.
#[derive(Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) save: WriteNumber,
    pub(crate) count: u32,
    pub(crate) has_request_id: bool,
    pub(crate) expected_last_seq: Option<i64>,
}

impl Client {
    pub(crate) fn new(cluster: &Arc<Cluster>, recorder: &Arc<Recorder>) -> Self {
        Self {
            cluster: Arc::clone(cluster),
            recorder: Arc::clone(recorder),
            memories: (0..SIDECARS).map(|at| cluster.client(at)).collect(),
        }
    }

    fn begin(&self, sidecar: usize) -> (Process, Moment, Memory) {
        let process = self.cluster.process(sidecar);
        let memory = self.memories[sidecar].clone();
        (process, self.recorder.now(), memory)
    }

    /// Waits for a call; `None` if it takes longer than [`CALL_LIMIT`].
    async fn limited<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Option<Result<T, Status>> {
        let started = Instant::now();
        let result = tokio::time::timeout(CALL_LIMIT, call).await.ok()?;
        if let Err(status) = &result {
            self.recorder.count_failure(status, started.elapsed());
        }
        Some(result.map(Response::into_inner))
    }

    pub(crate) async fn save(
        &self,
        sidecar: usize,
        target: &Target,
        turn: Turn,
    ) -> Outcome<Vec<Row>> {
        let messages = (0..turn.count).map(|index| {
            let role = if index == 0 {
                Role::User
            } else {
                Role::Assistant
            };
            let token = Token {
                save: turn.save,
                index,
            };
            message(role, &token.text())
        });
        let mut request = SaveMessagesRequest {
            conversation_id: target.id.clone(),
            messages: messages.collect(),
            expected_last_seq: turn.expected_last_seq,
            ..SaveMessagesRequest::default()
        };
        if turn.has_request_id {
            request.request_id = format!("save-{}", turn.save);
        }
        let (process, invoked, mut memory) = self.begin(sidecar);
        let outcome = match self.limited(memory.save_messages(request)).await {
            Some(Ok(saved)) => Outcome::Acknowledged(outcome::rows(&saved.messages)),
            Some(Err(status)) => outcome::of_failed_write(&status),
            None => Outcome::Unknown,
        };
        let action = Action::Save {
            save: turn.save,
            count: turn.count,
            outcome: outcome.clone(),
        };
        self.recorder
            .record(process, target.conversation, invoked, action);
        if let Outcome::Acknowledged(rows) = &outcome
            && let Some(row) = rows.last()
        {
            target.acknowledge(row.seq);
        }
        outcome
    }

    pub(crate) async fn history(
        &self,
        sidecar: usize,
        target: &Target,
        consistency: Consistency,
        limit: usize,
    ) -> Shown {
        let mut request = GetHistoryRequest {
            conversation_id: target.id.clone(),
            user_id: target.user.clone(),
            limit: limit.try_into().unwrap(),
            ..GetHistoryRequest::default()
        };
        match consistency {
            Consistency::Cached => (),
            Consistency::AtLeast(seq) => request.min_seq = seq,
            Consistency::Strong => request.set_consistency(proto::Consistency::Strong),
        }
        let (process, invoked, mut memory) = self.begin(sidecar);
        let shown = match self.limited(memory.get_history(request)).await {
            Some(Ok(read)) => Shown::Messages {
                last_seq: Some(read.last_seq),
                rows: outcome::rows(&read.messages),
                from_window: read.source() == Source::Cache,
            },
            Some(Err(status)) => outcome::of_failed_read(&status),
            None => Shown::Failed,
        };
        let action = Action::Read {
            consistency,
            limit,
            shown: shown.clone(),
        };
        self.recorder
            .record(process, target.conversation, invoked, action);
        shown
    }

    /// Reads a conversation as another user.
    pub(crate) async fn foreign_history(&self, sidecar: usize, target: &Target) {
        let request = GetHistoryRequest {
            conversation_id: target.id.clone(),
            user_id: format!("not-{}", target.user),
            ..GetHistoryRequest::default()
        };
        let (process, invoked, mut memory) = self.begin(sidecar);
        let shown = match self.limited(memory.get_history(request)).await {
            Some(Ok(read)) => Shown::Messages {
                last_seq: Some(read.last_seq),
                rows: outcome::rows(&read.messages),
                from_window: read.source() == Source::Cache,
            },
            Some(Err(status)) => outcome::of_failed_read(&status),
            None => Shown::Failed,
        };
        let action = Action::ForeignRead { shown };
        self.recorder
            .record(process, target.conversation, invoked, action);
    }

    /// Lists the newest messages from the store.
    pub(crate) async fn list(&self, sidecar: usize, target: &Target, page_size: usize) {
        let request = ListMessagesRequest {
            conversation_id: target.id.clone(),
            page_size: page_size.try_into().unwrap(),
            newest_first: true,
            ..ListMessagesRequest::default()
        };
        let (process, invoked, mut memory) = self.begin(sidecar);
        let shown = match self.limited(memory.list_messages(request)).await {
            Some(Ok(page)) => {
                let mut rows = outcome::rows(&page.messages);
                rows.reverse();
                Shown::Messages {
                    last_seq: None,
                    rows,
                    from_window: false,
                }
            }
            Some(Err(status)) => outcome::of_failed_read(&status),
            None => Shown::Failed,
        };
        let action = Action::Read {
            consistency: Consistency::Strong,
            limit: page_size,
            shown,
        };
        self.recorder
            .record(process, target.conversation, invoked, action);
    }

    /// Begins a turn, which reads like a CACHED history. Returns the state of the session.
    pub(crate) async fn begin_turn(
        &self,
        sidecar: usize,
        target: &Target,
        session_id: &mut String,
    ) -> Option<SessionState> {
        let limit = 6;
        let request = BeginTurnRequest {
            user_id: target.user.clone(),
            conversation_id: target.id.clone(),
            session_id: session_id.clone(),
            limit: limit.try_into().unwrap(),
            ..BeginTurnRequest::default()
        };
        let (process, invoked, mut memory) = self.begin(sidecar);
        let mut state = None;
        let shown = match self.limited(memory.begin_turn(request)).await {
            Some(Ok(begun)) => {
                state = Some(begun.session_state());
                let owners = begun.session.iter().map(|session| &session.user_id);
                let owners = owners.chain(begun.conversation.iter().map(|found| &found.user_id));
                if owners.into_iter().any(|owner| *owner != target.user) {
                    self.recorder.record_unexpected("a turn of another user");
                }
                if begun.session.is_none() {
                    self.recorder.count_turn_without_session();
                }
                if let Some(session) = &begun.session {
                    session_id.clone_from(&session.id);
                }
                Shown::Messages {
                    last_seq: begun.conversation.as_ref().map(|found| found.last_seq),
                    rows: outcome::rows(&begun.messages),
                    from_window: begun.source() == Source::Cache,
                }
            }
            Some(Err(status)) => outcome::of_failed_read(&status),
            None => Shown::Failed,
        };
        let action = Action::Read {
            consistency: Consistency::Cached,
            limit,
            shown,
        };
        self.recorder
            .record(process, target.conversation, invoked, action);
        state
    }

    pub(crate) async fn truncate(
        &self,
        sidecar: usize,
        target: &Target,
        removal: WriteNumber,
        after: i64,
    ) -> Outcome<i64> {
        let request = TruncateConversationRequest {
            conversation_id: target.id.clone(),
            after_seq: after,
            request_id: format!("removal-{removal}"),
            ..TruncateConversationRequest::default()
        };
        let (process, invoked, mut memory) = self.begin(sidecar);
        let outcome = match self.limited(memory.truncate_conversation(request)).await {
            Some(Ok(truncated)) => Outcome::Acknowledged(truncated.last_seq),
            Some(Err(status)) => outcome::of_failed_write(&status),
            None => Outcome::Unknown,
        };
        let action = Action::Truncate {
            removal,
            after,
            outcome: outcome.clone(),
        };
        self.recorder
            .record(process, target.conversation, invoked, action);
        outcome
    }

    pub(crate) async fn delete(&self, sidecar: usize, target: &Target) -> Outcome<()> {
        let request = DeleteConversationRequest {
            conversation_id: target.id.clone(),
            ..DeleteConversationRequest::default()
        };
        let (process, invoked, mut memory) = self.begin(sidecar);
        let outcome = match self.limited(memory.delete_conversation(request)).await {
            Some(Ok(_)) => Outcome::Acknowledged(()),
            Some(Err(status)) => outcome::of_failed_write(&status),
            None => Outcome::Unknown,
        };
        let action = Action::Delete {
            outcome: outcome.clone(),
        };
        self.recorder
            .record(process, target.conversation, invoked, action);
        outcome
    }

    /// Branches a conversation, and returns the branch.
    pub(crate) async fn branch(&self, sidecar: usize, target: &Target, at: i64) -> Option<Target> {
        let request = BranchConversationRequest {
            conversation_id: target.id.clone(),
            at_seq: at,
            ..BranchConversationRequest::default()
        };
        let (process, invoked, mut memory) = self.begin(sidecar);
        let mut branch = None;
        let outcome = match self.limited(memory.branch_conversation(request)).await {
            Some(Ok(branched)) => {
                let id = branched.conversation.unwrap().id;
                let new = Target::new(&self.recorder, id, target.user.clone());
                new.acknowledge(at);
                let conversation = new.conversation;
                branch = Some(new);
                Outcome::Acknowledged(conversation)
            }
            Some(Err(status)) => outcome::of_failed_write(&status),
            None => Outcome::Unknown,
        };
        let action = Action::Branch { at, outcome };
        self.recorder
            .record(process, target.conversation, invoked, action);
        branch
    }

    /// Creates a conversation, and repeats that until it succeeds or `is_over`.
    pub(crate) async fn create(&self, user: &str, is_over: impl Fn() -> bool) -> Option<Target> {
        let request = CreateConversationRequest {
            user_id: user.to_owned(),
            conversation_id: new_id(),
            ..CreateConversationRequest::default()
        };
        for sidecar in (0..SIDECARS).cycle() {
            let mut memory = self.memories[sidecar].clone();
            let created = memory.create_conversation(request.clone());
            if let Some(Ok(_)) = self.limited(created).await {
                let id = request.conversation_id;
                return Some(Target::new(&self.recorder, id, user.to_owned()));
            }
            if is_over() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }
}
