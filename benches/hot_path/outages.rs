//! What calls cost when a server is away.

use conversation_memory::proto::Source;
use tonic::Code;

use crate::{
    compare::{Call, Caller, Times, extra, heading, millis, row},
    costs::{begun, read_strong},
};
use test_support::{
    eventually, given, new_user,
    postgres_server::PostgresServer,
    redis_server::RedisServer,
    requests::{history, new_conversation},
    sidecar::{Form, Sidecar},
};

/// How often a server goes away, for each call.
const OUTAGES: usize = 8;
/// How many calls are made in an outage after the first one.
const LATER: usize = 15;

/// How much slower calls are without Redis than those of a sidecar that was
/// never given one.
pub(crate) async fn redis() {
    let mut redis = RedisServer::start(&[]).await;
    let form = Form::Servers {
        database_url: given("TEST_DATABASE_URL"),
        redis_url: redis.url(),
    };
    let sidecar = Sidecar::start(&form).await;
    let alone = Sidecar::start_with(&form, &[("REDIS_URL", "")]).await;
    let turn = begun(&sidecar).await;
    let turn_alone = begun(&alone).await;
    let id = turn.conversation_id.as_str();
    let calls = [
        (
            "GetHistory",
            Call::History(history(id)),
            Call::History(history(&turn_alone.conversation_id)),
        ),
        (
            "BeginTurn",
            Call::Begin(turn.clone()),
            Call::Begin(turn_alone.clone()),
        ),
        (
            "SaveMessages",
            Call::save(id),
            Call::save(&turn_alone.conversation_id),
        ),
    ];
    let mut cached = Caller::new(&sidecar, Call::History(history(id))).from(Source::Cache);
    let columns = [
        "first, median",
        "first, max",
        "later, median",
        "later, max",
        "base, max",
    ];
    for kind in ["frozen", "refused"] {
        heading(&format!("redis {kind}: added time"), &columns);
        for (label, call, call_alone) in &calls {
            let mut caller = Caller::new(&sidecar, call.clone());
            let mut base_caller = Caller::new(&alone, call_alone.clone());
            let [mut first, mut later, mut base] = [const { Times::new() }; 3];
            for _ in 0..OUTAGES {
                // Neither connection is opened in the outage.
                caller.time().await;
                base_caller.time().await;
                eventually("Redis is used", async || cached.time().await.is_some()).await;
                match kind {
                    "frozen" => redis.freeze(),
                    _ => redis.kill(),
                }
                first.add(caller.time().await);
                for _ in 0..LATER {
                    base.add(base_caller.time().await);
                    later.add(caller.time().await);
                }
                match kind {
                    "frozen" => redis.thaw(),
                    _ => redis.run().await,
                }
                eventually("Redis is used again", async || {
                    cached.time().await.is_some()
                })
                .await;
            }
            let usual = base.median();
            let cells = [
                extra(first.median(), usual),
                extra(first.max(), usual),
                extra(later.median(), usual),
                extra(later.max(), usual),
                extra(base.max(), usual),
            ];
            row(label, &cells);
        }
    }
}

/// How long until a call is refused without PostgreSQL.
pub(crate) async fn store() {
    let mut postgres = PostgresServer::start().await;
    let form = Form::Servers {
        database_url: postgres.url(),
        redis_url: given("TEST_REDIS_URL"),
    };
    let sidecar = Sidecar::start(&form).await;
    let id = new_conversation(&mut sidecar.memory(), &new_user()).await;
    let mut calls = [
        ("GetHistory STRONG", read_strong(&sidecar, &id)),
        ("SaveMessages", Caller::new(&sidecar, Call::save(&id))),
    ];
    for kind in ["refused", "frozen"] {
        let title = format!("store {kind}: answers (UA: unavailable, ?: unknown)");
        heading(&title, &["first", "second", "third"]);
        for (label, caller) in &mut calls {
            eventually("PostgreSQL is used again", async || {
                caller.time_refusal().await.1 == Code::Ok
            })
            .await;
            match kind {
                "refused" => postgres.kill(),
                _ => postgres.freeze(),
            }
            refusals(label, caller).await;
            match kind {
                "refused" => postgres.run().await,
                _ => postgres.thaw(),
            }
        }
    }
}

async fn refusals(label: &str, caller: &mut Caller) {
    let mut cells = Vec::new();
    for _ in 0..3 {
        let (took, code) = caller.time_refusal().await;
        cells.push(format!("{} {}", millis(took), short(code)));
    }
    row(label, &cells);
}

fn short(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Unavailable => "UA",
        Code::Unknown => "?",
        Code::DeadlineExceeded => "DE",
        _ => "other",
    }
}
