//! Random faults of the servers, the sidecars and the connections between them. Each fault heals.

use std::time::{Duration, Instant};

use test_support::{random::Random, tcp_proxy::Direction};
use tokio::time::sleep;

use crate::{
    cluster::{Cluster, SIDECARS},
    history::{Fault, Moment, Recorder},
};

/// Faults between the sidecars and Redis, one at a time.
const REDIS_FAULTS: [&str; 21] = [
    "redis pauses",
    "redis stops for seconds",
    "redis restarts empty",
    "redis restarts from a snapshot",
    "redis is flushed",
    "redis scripts are flushed",
    "redis is full",
    "redis evicts",
    "redis denies writes",
    "redis denies everything",
    "redis lacks replicas",
    "redis is a replica",
    "redis closes connections",
    "connection is closed",
    "connection is refused",
    "connection is silent",
    "connection receives nothing",
    "connection sends nothing",
    "connection loses a response",
    "connection is held",
    "connection is slow",
];

/// Faults of PostgreSQL and of the sidecars, one at a time, at the same time as those of Redis.
const OTHER_FAULTS: [&str; 10] = [
    "postgres pauses",
    "postgres stops for seconds",
    "postgres restarts",
    "postgres crashes",
    "postgres closes connections",
    "postgres lacks its standby",
    "postgres is read-only",
    "sidecar pauses",
    "sidecar stops for seconds",
    "sidecar crashes",
];

/// Injects the faults whose names contain one of the texts, or all without texts, for a time, and
/// waits until the last ones have healed.
pub(crate) async fn inject(
    cluster: &Cluster,
    recorder: &Recorder,
    seed: u64,
    selected: &[String],
    duration: Duration,
) {
    let until = Instant::now() + duration;
    let lane = |number: u64, names: &[&'static str]| {
        let is_selected = |name: &&&str| {
            selected.is_empty() || selected.iter().any(|text| name.contains(text.as_str()))
        };
        let names: Vec<&str> = names.iter().filter(is_selected).copied().collect();
        let random = Random::new(seed.wrapping_mul(7).wrapping_add(number));
        let lane = Lane {
            cluster,
            recorder,
            random,
        };
        lane.run(names, until)
    };
    tokio::join!(lane(0, &REDIS_FAULTS), lane(1, &OTHER_FAULTS));
}

/// A sequence of faults.
struct Lane<'a> {
    cluster: &'a Cluster,
    recorder: &'a Recorder,
    random: Random,
}

impl Lane<'_> {
    async fn run(mut self, names: Vec<&'static str>, until: Instant) {
        while Instant::now() < until && !names.is_empty() {
            self.wait(200, 2500).await;
            let name = names[self.random.below(names.len())];
            let sidecar = self.random.below(SIDECARS);
            let from = self.recorder.now();
            if name.starts_with("redis") {
                self.redis(name).await;
                self.record(name, None, from);
            } else if name.starts_with("connection") {
                self.connection(name, sidecar).await;
                self.record(name, Some(sidecar), from);
            } else if name.starts_with("postgres") {
                self.postgres(name).await;
                self.record(name, None, from);
            } else {
                self.sidecar(name, sidecar).await;
                self.record(name, Some(sidecar), from);
            }
        }
    }

    fn record(&self, name: &str, sidecar: Option<usize>, from: Moment) {
        let is_cut = name.starts_with("redis") || name.starts_with("connection");
        let cuts_redis =
            is_cut && !["redis is flushed", "redis scripts are flushed"].contains(&name);
        let fault = Fault {
            name: sidecar.map_or_else(|| name.to_owned(), |at| format!("{name} ({at})")),
            cuts_redis,
            cuts_postgres: name.starts_with("postgres"),
            sidecar,
            from: from.at,
            until: self.recorder.now().at,
        };
        eprintln!("{:.3?}..{:.3?} {}", fault.from, fault.until, fault.name);
        self.recorder.record_fault(fault);
    }

    async fn redis(&mut self, name: &str) {
        let cluster = self.cluster;
        let mut redis = cluster.redis().lock().await;
        let (inject, heal) = match name {
            "redis pauses" | "redis stops for seconds" => {
                redis.freeze();
                self.wait_as_named(name).await;
                redis.thaw();
                return;
            }
            "redis restarts empty" => {
                redis.remove_snapshot();
                redis.kill();
                self.wait(0, 1500).await;
                redis.run().await;
                return;
            }
            "redis restarts from a snapshot" => {
                redis.call(&["SAVE"]).await;
                self.wait(200, 3000).await;
                redis.kill();
                self.wait(0, 500).await;
                redis.run().await;
                redis.remove_snapshot();
                return;
            }
            "redis is full" | "redis evicts" => {
                let policy = ["allkeys-lru", "noeviction"][usize::from(name == "redis is full")];
                let set = ["CONFIG", "SET", "maxmemory-policy", policy];
                redis.call(&set).await;
                commands(name)
            }
            _ => commands(name),
        };
        redis.call(inject).await;
        if heal != ["PING"] {
            self.wait(50, 3000).await;
        }
        redis.call(heal).await;
    }

    async fn connection(&mut self, name: &str, sidecar: usize) {
        let cluster = self.cluster;
        let proxy = &cluster.proxies[sidecar];
        match name {
            "connection is closed" => proxy.close(),
            "connection is refused" => proxy.refuse(),
            "connection is silent" => proxy.silence(),
            "connection receives nothing" => proxy.silence_direction(Direction::Replies),
            "connection sends nothing" => proxy.silence_direction(Direction::Requests),
            "connection loses a response" => proxy.lose_response_to("EVALSHA"),
            "connection is held" => proxy.hold(),
            "connection is slow" => {
                let delay = self.random.between(10, 200);
                proxy.delay(Duration::from_millis(delay.unsigned_abs()));
            }
            other => unreachable!("{other}"),
        }
        if name != "connection is closed" {
            self.wait(50, 3000).await;
        }
        proxy.forward();
    }

    async fn postgres(&mut self, name: &str) {
        let cluster = self.cluster;
        let mut postgres = cluster.postgres.lock().await;
        let (inject, heal) = match name {
            "postgres pauses" | "postgres stops for seconds" => {
                postgres.freeze();
                self.wait_as_named(name).await;
                postgres.thaw();
                return;
            }
            "postgres restarts" | "postgres crashes" => {
                if name == "postgres crashes" {
                    postgres.kill();
                } else {
                    postgres.stop();
                }
                self.wait(0, 1500).await;
                postgres.run().await;
                return;
            }
            "postgres closes connections" => {
                postgres
                    .execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                         WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
                    )
                    .await;
                return;
            }
            "postgres lacks its standby" => (
                "ALTER SYSTEM SET synchronous_standby_names = 'missing'",
                "ALTER SYSTEM RESET synchronous_standby_names",
            ),
            "postgres is read-only" => (
                "ALTER SYSTEM SET default_transaction_read_only = on",
                "ALTER SYSTEM RESET default_transaction_read_only",
            ),
            other => unreachable!("{other}"),
        };
        let mut connection = postgres.connect().await;
        for statement in [inject, heal] {
            let reload = "SELECT pg_reload_conf()";
            for statement in [statement, reload] {
                // The server may have become read-only for this connection, too.
                let statement = sqlx::query(statement);
                statement.execute(&mut connection).await.unwrap();
            }
            if statement == inject {
                self.wait(500, 4000).await;
            }
        }
    }

    async fn sidecar(&mut self, name: &str, sidecar: usize) {
        let cluster = self.cluster;
        let mut member = cluster.members[sidecar].lock().await;
        if name == "sidecar crashes" {
            cluster.kill(sidecar, &mut member).await;
            self.wait(0, 1500).await;
            cluster.restart(&mut member).await;
        } else {
            member.signal("STOP");
            self.wait_as_named(name).await;
            member.signal("CONT");
        }
    }

    /// Waits for some seconds or for a pause of 50 to 300 ms.
    async fn wait_as_named(&mut self, name: &str) {
        if name.ends_with("for seconds") {
            self.wait(2000, 5000).await;
        } else {
            self.wait(50, 300).await;
        }
    }

    async fn wait(&mut self, shortest: i64, longest: i64) {
        let wait = self.random.between(shortest, longest);
        sleep(Duration::from_millis(wait.unsigned_abs())).await;
    }
}

/// Name and arguments of a command that is sent to Redis.
type Command = &'static [&'static str];

/// Commands that cause a fault of Redis and that end it.
fn commands(name: &str) -> (Command, Command) {
    match name {
        "redis is flushed" => (&["FLUSHALL"], &["PING"]),
        "redis scripts are flushed" => (&["SCRIPT", "FLUSH"], &["PING"]),
        "redis closes connections" => (&["CLIENT", "KILL", "TYPE", "normal"], &["PING"]),
        "redis is full" | "redis evicts" => (
            &["CONFIG", "SET", "maxmemory", "1048576"],
            &["CONFIG", "SET", "maxmemory", "0"],
        ),
        "redis denies writes" => (
            &["ACL", "SETUSER", "default", "-@write"],
            &["ACL", "SETUSER", "default", "+@all"],
        ),
        "redis denies everything" => (
            &["ACL", "SETUSER", "default", "-@all", "+acl"],
            &["ACL", "SETUSER", "default", "+@all"],
        ),
        "redis lacks replicas" => (
            &["CONFIG", "SET", "min-replicas-to-write", "1"],
            &["CONFIG", "SET", "min-replicas-to-write", "0"],
        ),
        "redis is a replica" => (
            &["REPLICAOF", "127.0.0.1", "1"],
            &["REPLICAOF", "NO", "ONE"],
        ),
        other => unreachable!("{other}"),
    }
}
