//! Fault tests: real servers killed, frozen and restarted under the real binary.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and is its own composition root"
)]

mod causes;
mod load;
mod postgres;
mod process;
mod redis;

use test_support::{postgres_server::PostgresServer, redis_server::RedisServer, sidecar::Form};

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
