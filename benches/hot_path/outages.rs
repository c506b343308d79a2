//! Latency of calls while a server is unavailable.

use conversation_memory::proto::Source;
use tonic::Code;

use crate::{
    compare::{Call, Caller, Times, difference, heading, millis, row},
    costs::{begun, read_strong},
};
use test_support::{
    eventually, new_user,
    postgres_server::PostgresServer,
    redis_server::RedisServer,
    requests::{history, new_conversation},
    required_variable,
    sidecar::{Form, Sidecar},
};

/// Number of outages for each call.
const OUTAGES: usize = 8;
/// Number of calls in an outage after the first one.
const LATER_CALLS: usize = 15;

/// Measures the additional latency of calls while Redis is unavailable, compared with a
/// sidecar without Redis.
pub(crate) async fn redis() {
    let mut redis = RedisServer::start(&[]).await;
    let form = Form::Servers {
        database_url: required_variable("TEST_DATABASE_URL"),
        redis_url: redis.url(),
    };
    let sidecar = Sidecar::start(&form).await;
    let without_redis = Sidecar::start_with(&form, &[("REDIS_URL", "")]).await;
    let turn = begun(&sidecar).await;
    let turn_without_redis = begun(&without_redis).await;
    let id = turn.conversation_id.as_str();
    let calls = [
        (
            "GetHistory",
            Call::History(history(id)),
            Call::History(history(&turn_without_redis.conversation_id)),
        ),
        (
            "BeginTurn",
            Call::Begin(turn.clone()),
            Call::Begin(turn_without_redis.clone()),
        ),
        (
            "SaveMessages",
            Call::save(id),
            Call::save(&turn_without_redis.conversation_id),
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
        for (label, call, base_call) in &calls {
            let mut caller = Caller::new(&sidecar, call.clone());
            let mut base_caller = Caller::new(&without_redis, base_call.clone());
            let [mut first, mut later, mut base] = [const { Times::new() }; 3];
            for _ in 0..OUTAGES {
                // Both connections are opened before the outage.
                caller.time().await;
                base_caller.time().await;
                eventually("Redis is used", async || cached.time().await.is_some()).await;
                match kind {
                    "frozen" => redis.freeze(),
                    _ => redis.kill(),
                }
                first.add(caller.time().await);
                for _ in 0..LATER_CALLS {
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
                difference(first.median(), usual),
                difference(first.max(), usual),
                difference(later.median(), usual),
                difference(later.max(), usual),
                difference(base.max(), usual),
            ];
            row(label, &cells);
        }
    }
}

/// Measures the time until a call fails while PostgreSQL is unavailable.
pub(crate) async fn store() {
    let mut postgres = PostgresServer::start().await;
    let form = Form::Servers {
        database_url: postgres.url(),
        redis_url: required_variable("TEST_REDIS_URL"),
    };
    let sidecar = Sidecar::start(&form).await;
    let id = new_conversation(&mut sidecar.memory(), &new_user()).await;
    let mut calls = [
        ("GetHistory STRONG", read_strong(&sidecar, &id)),
        ("SaveMessages", Caller::new(&sidecar, Call::save(&id))),
    ];
    for kind in ["refused", "frozen"] {
        let title = format!("store {kind}: responses (UA: UNAVAILABLE, ?: UNKNOWN)");
        heading(&title, &["first", "second", "third"]);
        for (label, caller) in &mut calls {
            eventually("PostgreSQL is used again", async || {
                caller.time_with_code().await.1 == Code::Ok
            })
            .await;
            match kind {
                "refused" => postgres.kill(),
                _ => postgres.freeze(),
            }
            time_failures(label, caller).await;
            match kind {
                "refused" => postgres.run().await,
                _ => postgres.thaw(),
            }
        }
    }
}

async fn time_failures(label: &str, caller: &mut Caller) {
    let mut cells = Vec::new();
    for _ in 0..3 {
        let (duration, code) = caller.time_with_code().await;
        cells.push(format!("{} {}", millis(duration), abbreviate(code)));
    }
    row(label, &cells);
}

fn abbreviate(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Unavailable => "UA",
        Code::Unknown => "?",
        Code::DeadlineExceeded => "DE",
        _ => "other",
    }
}
