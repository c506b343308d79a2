//! Reads of the newest messages.

use conversation_memory::proto::{BeginTurnRequest, GetHistoryRequest, Source};
use prost::Message as _;
use test_support::{
    new_user,
    requests::{begin, history, save},
    sidecar::{Form, Sidecar},
};

use super::{
    CALLERS, Path,
    bare::{self, Bare},
    client::Calls,
    compare,
    cpu::Processes,
    load::Load,
    table::{Goal, Verdict},
    texts::turns,
};

const GET_HISTORY: &str = "/conversation_memory.v1.ConversationMemory/GetHistory";
const BEGIN_TURN: &str = "/conversation_memory.v1.ConversationMemory/BeginTurn";
/// One conversation for each caller.
const CONVERSATIONS: usize = CALLERS[CALLERS.len() - 1];

/// Live sessions with conversations of six messages.
struct Conversations {
    turns: Vec<BeginTurnRequest>,
}

impl Conversations {
    async fn create(sidecar: &Sidecar) -> Self {
        let mut memory = sidecar.memory();
        let mut turns_begun = Vec::new();
        for _ in 0..CONVERSATIONS {
            let user = new_user();
            let turn = memory.begin_turn(begin(&user)).await.unwrap().into_inner();
            let turn = BeginTurnRequest {
                session_id: turn.session.unwrap().id,
                conversation_id: turn.conversation.unwrap().id,
                ..begin(&user)
            };
            let messages = save(&turn.conversation_id, turns(3));
            memory.save_messages(messages).await.unwrap();
            turns_begun.push(turn);
        }
        Self { turns: turns_begun }
    }

    fn requests(&self) -> impl Iterator<Item = GetHistoryRequest> {
        self.turns.iter().map(|turn| history(&turn.conversation_id))
    }

    /// Reads all histories, and returns the responses.
    async fn responses(&self, sidecar: &Sidecar, source: Source) -> Vec<Vec<u8>> {
        let mut memory = sidecar.memory();
        let mut responses = Vec::new();
        for request in self.requests() {
            // The first read may fill the window.
            memory.get_history(request.clone()).await.unwrap();
            let response = memory.get_history(request).await.unwrap().into_inner();
            assert_eq!(response.source(), source);
            assert_eq!(response.messages.len(), 6);
            responses.push(response.encode_to_vec());
        }
        responses
    }

    fn reads(&self, sidecar: &Sidecar, servers: Processes) -> Load {
        let calls = Calls::new(sidecar.address, GET_HISTORY, self.requests());
        Load::Grpc(Box::new(calls), Processes::of(sidecar, servers))
    }

    /// The same requests to a server to compare with.
    fn baseline(&self, bare: &Bare, servers: Processes) -> Load {
        let calls = Calls::new(bare.address, GET_HISTORY, self.requests());
        let processes = Processes {
            server: Some(bare.id()),
            ..servers
        };
        Load::Grpc(Box::new(calls), processes)
    }
}

/// Compares GetHistory and BeginTurn from the recent window with a handler that reads the same bytes
/// from Redis.
pub(super) async fn hits() -> Vec<Verdict> {
    let form = Form::servers();
    let Form::Servers { redis_url, .. } = &form else {
        return Vec::new();
    };
    let servers = Processes::servers(&form).await;
    let sidecar = Sidecar::start(&form).await;
    let conversations = Conversations::create(&sidecar).await;
    let responses = conversations.responses(&sidecar, Source::Cache).await;
    let redis = bare::connect(redis_url).await;
    for (turn, response) in conversations.turns.iter().zip(responses) {
        bare::set(&redis, &turn.conversation_id, response).await;
    }
    let handler = Bare::redis_get(redis_url);
    let begun = conversations.turns.iter().cloned();
    let begun = Calls::new(sidecar.address, BEGIN_TURN, begun);
    let mut loads = [
        conversations.baseline(&handler, servers),
        conversations.reads(&sidecar, servers),
        Load::Grpc(Box::new(begun), Processes::of(&sidecar, servers)),
    ];
    let paths = [
        Path {
            name: "GetHistory, Redis hit",
            goals: &[
                (1, Goal::Median(1.3)),
                (64, Goal::Throughput(0.8)),
                (64, Goal::Cpu(1.4)),
            ],
        },
        Path {
            name: "BeginTurn, live session",
            goals: &[(64, Goal::Throughput(0.5))],
        },
    ];
    let baseline = "a bare tonic handler that reads the same bytes with one GET and decodes them";
    compare(baseline, &paths, &CALLERS, &form, &mut loads).await
}

/// Compares GetHistory of the embedded form with a handler that responds with as many bytes.
pub(super) async fn embedded() -> Vec<Verdict> {
    let form = Form::embedded();
    let sidecar = Sidecar::start(&form).await;
    let conversations = Conversations::create(&sidecar).await;
    let mut memory = sidecar.memory();
    let request = conversations.requests().next().unwrap();
    let response = memory.get_history(request).await.unwrap().into_inner();
    let echo = Bare::echo(response.encoded_len());
    let none = Processes::default();
    let mut loads = [
        conversations.baseline(&echo, none),
        conversations.reads(&sidecar, none),
    ];
    let path = Path {
        name: "GetHistory, embedded",
        goals: &[(64, Goal::Throughput(0.7))],
    };
    let baseline = "a bare tonic handler that responds with as many bytes";
    compare(baseline, &[path], &CALLERS, &form, &mut loads).await
}

/// Compares GetHistory with and without the export of traces.
pub(super) async fn traced() -> Vec<Verdict> {
    let form = Form::servers();
    let servers = Processes::servers(&form).await;
    let collector = Bare::collector();
    let endpoint = format!("http://{}", collector.address);
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str());
    let sampled_out = [
        endpoint,
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0"),
    ];
    let sidecars = [
        Sidecar::start(&form).await,
        Sidecar::start_with(&form, &[endpoint]).await,
        Sidecar::start_with(&form, &sampled_out).await,
    ];
    let conversations = Conversations::create(&sidecars[0]).await;
    for sidecar in &sidecars {
        conversations.responses(sidecar, Source::Cache).await;
    }
    let mut loads = sidecars
        .each_ref()
        .map(|sidecar| conversations.reads(sidecar, servers));
    let paths = [
        Path {
            name: "GetHistory, every call exported",
            goals: &[(64, Goal::Cpu(1.3))],
        },
        Path {
            name: "GetHistory, sampled out",
            goals: &[(64, Goal::Cpu(1.03))],
        },
    ];
    let baseline = "the same without export";
    compare(baseline, &paths, &CALLERS, &form, &mut loads).await
}
