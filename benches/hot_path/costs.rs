//! Latency of calls while all servers are available.

use conversation_memory::proto::{
    BeginTurnRequest, BranchConversationRequest, Consistency, GetHistoryRequest, Source,
};

use crate::{
    compare::{Call, Caller, Times, alternate, heading, micros, row},
    conversation,
};
use test_support::{
    new_user,
    requests::{begin, history},
    sidecar::{Form, Sidecar},
};

const SHORT: u32 = 10;
const LONG: u32 = 1_000_000;

/// Compares calls on a short and a long conversation.
pub(crate) async fn growth(rounds: usize) {
    heading("growth: messages", &["10", "1,000,000", "ratio"]);
    let servers = Form::servers();
    let sidecar = Sidecar::start(&servers).await;
    let ids = short_and_long(&servers, &sidecar).await;
    let hit = |id: &str| read(&sidecar, id).from(Source::Cache);
    let strong = |id: &str| read_strong(&sidecar, id);
    let save = |id: &str| Caller::new(&sidecar, Call::save(id));
    compare_lengths(rounds, "PostgreSQL + Redis: GetHistory, window", &ids, hit).await;
    compare_lengths(
        rounds,
        "PostgreSQL + Redis: GetHistory STRONG",
        &ids,
        strong,
    )
    .await;
    compare_lengths(rounds, "PostgreSQL + Redis: SaveMessages", &ids, save).await;
    branches(rounds, "PostgreSQL + Redis", &sidecar, &ids).await;
    drop(sidecar);

    let embedded = Form::embedded();
    let sidecar = Sidecar::start(&embedded).await;
    let ids = short_and_long(&embedded, &sidecar).await;
    let read = |id: &str| read(&sidecar, id);
    let save = |id: &str| Caller::new(&sidecar, Call::save(id));
    compare_lengths(rounds, "embedded: GetHistory", &ids, read).await;
    compare_lengths(rounds, "embedded: SaveMessages", &ids, save).await;
    branches(rounds, "embedded", &sidecar, &ids).await;
}

/// Compares branches of a short and a long conversation.
async fn branches(rounds: usize, form: &str, sidecar: &Sidecar, ids: &[String; 2]) {
    let lengths = [SHORT, LONG].map(i64::from);
    let requests = [0, 1].map(|index| BranchConversationRequest {
        conversation_id: ids[index].clone(),
        at_seq: lengths[index],
        ..BranchConversationRequest::default()
    });
    let mut branches = Vec::new();
    for request in &requests {
        let branched = sidecar.memory().branch_conversation(request.clone()).await;
        branches.push(branched.unwrap().into_inner().conversation.unwrap().id);
    }
    let branches = [branches[0].clone(), branches[1].clone()];
    let branch = |id: &str| {
        let request = requests
            .iter()
            .find(|request| request.conversation_id == id);
        Caller::new(sidecar, Call::Branch(request.unwrap().clone()))
    };
    let label = |what: &str| format!("{form}: {what}");
    compare_lengths(rounds, &label("BranchConversation"), ids, branch).await;
    let strong = |id: &str| read_strong(sidecar, id);
    compare_lengths(
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

async fn compare_lengths(
    rounds: usize,
    label: &str,
    ids: &[String; 2],
    caller: impl Fn(&str) -> Caller,
) {
    let callers = ids.each_ref().map(|id| caller(id));
    let [short, long] = alternate(rounds, callers).await;
    let cells = [
        micros(short.median()),
        micros(long.median()),
        long.ratio(&short),
        long.remark(),
    ];
    row(label, &cells);
}

/// Compares reads from the window and from the store.
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
    let [hit, strong, miss, health] = alternate(rounds, callers).await;
    heading("window", &["median", "of a hit"]);
    compare_row("GetHistory, window", &hit, &hit);
    compare_row("GetHistory STRONG", &strong, &hit);
    compare_row("GetHistory, missed and filled", &miss, &hit);
    compare_row("health check (gRPC alone)", &health, &hit);
}

/// Measures the additional cost of a session, and of Redis.
pub(crate) async fn steps(rounds: usize) {
    let servers = Form::servers();
    let sidecar = Sidecar::start(&servers).await;
    let without_redis = Sidecar::start_with(&servers, &[("REDIS_URL", "")]).await;
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
    let [hit, in_session, both, by_session] = alternate(rounds, callers).await;
    heading("steps: reads", &["median", "of a hit"]);
    compare_row("GetHistory, window", &hit, &hit);
    compare_row("GetHistory in a session", &in_session, &hit);
    compare_row("BeginTurn, live session and conversation", &both, &hit);
    compare_row("BeginTurn, live session", &by_session, &hit);

    let Call::Save(mut in_session) = Call::save(id) else {
        return;
    };
    let without_session = in_session.clone();
    in_session.session_id = turn.session_id.clone();
    let other = conversation::of_length(&servers, &without_redis, SHORT).await;
    let callers = [
        Caller::new(&without_redis, Call::save(&other)),
        Caller::new(&sidecar, Call::Save(without_session)),
        Caller::new(&sidecar, Call::Save(in_session)),
    ];
    let [without_redis, with_redis, in_session] = alternate(rounds, callers).await;
    heading("steps: SaveMessages", &["median", "ratio"]);
    compare_row("PostgreSQL alone", &without_redis, &without_redis);
    compare_row("PostgreSQL + Redis", &with_redis, &without_redis);
    compare_row(
        "PostgreSQL + Redis, in a session",
        &in_session,
        &without_redis,
    );
}

/// Begins a turn in a live session, in a conversation with ten messages.
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

fn compare_row(label: &str, times: &Times, base: &Times) {
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
