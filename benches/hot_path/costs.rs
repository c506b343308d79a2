//! What calls cost when all is well.

use conversation_memory::proto::{
    BeginTurnRequest, BranchConversationRequest, Consistency, GetHistoryRequest, Source,
};

use crate::{
    compare::{Call, Caller, Times, heading, in_turns, micros, row},
    conversation,
};
use test_support::{
    new_user,
    requests::{begin, history},
    sidecar::{Form, Sidecar},
};

const SHORT: u32 = 10;
const LONG: u32 = 1_000_000;

/// Whether the cost grows with the conversation.
pub(crate) async fn growth(rounds: usize) {
    heading("growth: messages", &["10", "1,000,000", "ratio"]);
    let servers = Form::servers();
    let sidecar = Sidecar::start(&servers).await;
    let ids = short_and_long(&servers, &sidecar).await;
    let hit = |id: &str| read(&sidecar, id).from(Source::Cache);
    let strong = |id: &str| read_strong(&sidecar, id);
    let save = |id: &str| Caller::new(&sidecar, Call::save(id));
    pair(rounds, "PostgreSQL + Redis: GetHistory, window", &ids, hit).await;
    pair(
        rounds,
        "PostgreSQL + Redis: GetHistory STRONG",
        &ids,
        strong,
    )
    .await;
    pair(rounds, "PostgreSQL + Redis: SaveMessages", &ids, save).await;
    branches(rounds, "PostgreSQL + Redis", &sidecar, &ids).await;
    drop(sidecar);

    let embedded = Form::embedded();
    let sidecar = Sidecar::start(&embedded).await;
    let ids = short_and_long(&embedded, &sidecar).await;
    let read = |id: &str| read(&sidecar, id);
    let save = |id: &str| Caller::new(&sidecar, Call::save(id));
    pair(rounds, "embedded: GetHistory", &ids, read).await;
    pair(rounds, "embedded: SaveMessages", &ids, save).await;
    branches(rounds, "embedded", &sidecar, &ids).await;
}

/// Whether what branches cost grows with what they share.
async fn branches(rounds: usize, form: &str, sidecar: &Sidecar, ids: &[String; 2]) {
    let lengths = [SHORT, LONG].map(i64::from);
    let requests = [0, 1].map(|at| BranchConversationRequest {
        conversation_id: ids[at].clone(),
        at_seq: lengths[at],
        ..BranchConversationRequest::default()
    });
    let mut branches = Vec::new();
    for request in &requests {
        let branched = sidecar.memory().branch_conversation(request.clone()).await;
        branches.push(branched.unwrap().into_inner().conversation.unwrap().id);
    }
    let branches = [branches[0].clone(), branches[1].clone()];
    let make = |id: &str| {
        let request = requests
            .iter()
            .find(|request| request.conversation_id == id);
        Caller::new(sidecar, Call::Branch(request.unwrap().clone()))
    };
    let label = |what: &str| format!("{form}: {what}");
    pair(rounds, &label("BranchConversation"), ids, make).await;
    let strong = |id: &str| read_strong(sidecar, id);
    pair(
        rounds,
        &label("GetHistory STRONG, branch"),
        &branches,
        strong,
    )
    .await;
}

async fn short_and_long(form: &Form, sidecar: &Sidecar) -> [String; 2] {
    [
        conversation::of_length(form, sidecar, SHORT).await,
        conversation::of_length(form, sidecar, LONG).await,
    ]
}

async fn pair(rounds: usize, label: &str, ids: &[String; 2], caller: impl Fn(&str) -> Caller) {
    let callers = ids.each_ref().map(|id| caller(id));
    let [short, long] = in_turns(rounds, callers).await;
    let cells = [
        micros(short.median()),
        micros(long.median()),
        long.ratio(&short),
        long.remark(),
    ];
    row(label, &cells);
}

/// What the window saves.
pub(crate) async fn window(rounds: usize) {
    let servers = Form::servers();
    let Form::Servers { redis_url, .. } = &servers else {
        return;
    };
    let sidecar = Sidecar::start(&servers).await;
    let id = conversation::of_length(&servers, &sidecar, 100).await;
    let missed = conversation::of_length(&servers, &sidecar, 100).await;
    let missed_key = format!("history:{missed}:recent");
    let hit = read(&sidecar, &id).from(Source::Cache);
    let miss = read(&sidecar, &missed).without_key(redis_url, missed_key);
    let callers = [
        hit,
        read_strong(&sidecar, &id),
        miss.from(Source::Store),
        Caller::new(&sidecar, Call::Health),
    ];
    let [hit, strong, miss, health] = in_turns(rounds, callers).await;
    heading("window", &["median", "of a hit"]);
    compared("GetHistory, window", &hit, &hit);
    compared("GetHistory STRONG", &strong, &hit);
    compared("GetHistory, missed and filled", &miss, &hit);
    compared("a health check, which does nothing", &health, &hit);
}

/// What a session, and Redis, cost a call.
pub(crate) async fn steps(rounds: usize) {
    let servers = Form::servers();
    let sidecar = Sidecar::start(&servers).await;
    let alone = Sidecar::start_with(&servers, &[("REDIS_URL", "")]).await;
    let turn = begun(&sidecar).await;
    let id = turn.conversation_id.as_str();
    let in_session = GetHistoryRequest {
        session_id: turn.session_id.clone(),
        ..history(id)
    };
    let by_session = BeginTurnRequest {
        conversation_id: String::new(),
        ..turn.clone()
    };
    let call = |call| Caller::new(&sidecar, call).from(Source::Cache);
    let callers = [
        read(&sidecar, id).from(Source::Cache),
        call(Call::History(in_session)),
        call(Call::Begin(turn.clone())),
        call(Call::Begin(by_session)),
    ];
    let [hit, in_session, both, by_session] = in_turns(rounds, callers).await;
    heading("steps: reads", &["median", "of a hit"]);
    compared("GetHistory, window", &hit, &hit);
    compared("GetHistory in a session", &in_session, &hit);
    compared("BeginTurn, live session and conversation", &both, &hit);
    compared("BeginTurn, live session", &by_session, &hit);

    let Call::Save(mut in_session) = Call::save(id) else {
        return;
    };
    let in_none = in_session.clone();
    in_session.session_id = turn.session_id.clone();
    let other = conversation::of_length(&servers, &alone, SHORT).await;
    let callers = [
        Caller::new(&alone, Call::save(&other)),
        Caller::new(&sidecar, Call::Save(in_none)),
        Caller::new(&sidecar, Call::Save(in_session)),
    ];
    let [alone, with_redis, in_session] = in_turns(rounds, callers).await;
    heading("steps: SaveMessages", &["median", "ratio"]);
    compared("PostgreSQL alone", &alone, &alone);
    compared("PostgreSQL + Redis", &with_redis, &alone);
    compared("PostgreSQL + Redis, in a session", &in_session, &alone);
}

/// A turn that goes on in a live session, with ten messages before it.
pub(crate) async fn begun(sidecar: &Sidecar) -> BeginTurnRequest {
    let user = new_user();
    let mut memory = sidecar.memory();
    let turn = memory.begin_turn(begin(&user)).await.unwrap().into_inner();
    let turn = BeginTurnRequest {
        session_id: turn.session.unwrap().id,
        conversation_id: turn.conversation.unwrap().id,
        ..begin(&user)
    };
    for _ in 0..5 {
        Caller::new(sidecar, Call::save(&turn.conversation_id))
            .time()
            .await;
    }
    turn
}

fn compared(label: &str, times: &Times, base: &Times) {
    let cells = [micros(times.median()), times.ratio(base), times.remark()];
    row(label, &cells);
}

fn read(sidecar: &Sidecar, id: &str) -> Caller {
    Caller::new(sidecar, Call::History(history(id)))
}

pub(crate) fn read_strong(sidecar: &Sidecar, id: &str) -> Caller {
    let request = GetHistoryRequest {
        consistency: Consistency::Strong.into(),
        ..history(id)
    };
    Caller::new(sidecar, Call::History(request))
}
