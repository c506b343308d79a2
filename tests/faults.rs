//! Fault tests: real servers killed, frozen and restarted under the real binary.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is its own composition root"
)]

#[path = "support/mod.rs"]
mod support;

#[path = "faults/causes.rs"]
mod causes;
#[path = "faults/load.rs"]
mod load;
#[path = "faults/postgres.rs"]
mod postgres;
#[path = "faults/process.rs"]
mod process;
#[path = "faults/redis.rs"]
mod redis;
#[path = "grpc/requests.rs"]
#[expect(dead_code, reason = "this crate uses a part of it")]
mod requests;

use support::{postgres_server::PostgresServer, redis_server::RedisServer, sidecar::Form};

/// A PostgreSQL and a Redis of a test's own, and sidecars on them.
struct Servers {
    postgres: PostgresServer,
    redis: RedisServer,
}

impl Servers {
    async fn start() -> Self {
        let (postgres, redis) = tokio::join!(PostgresServer::start(), RedisServer::start(&[]));
        Self { postgres, redis }
    }

    fn form(&self) -> Form {
        Form::Servers {
            database_url: self.postgres.url(),
            redis_url: self.redis.url(),
        }
    }
}
