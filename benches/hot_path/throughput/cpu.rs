//! CPU time of servers, as the kernel's scheduler counts it.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{Connection as _, PgConnection};
use test_support::{
    redis_server,
    sidecar::{Form, Sidecar},
};

/// Processes whose CPU time is measured: a server under load, and the servers behind it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Processes {
    pub(super) server: Option<u32>,
    /// PostgreSQL's first process, whose children serve the connections.
    pub(super) postgres: Option<u32>,
    pub(super) redis: Option<u32>,
}

/// CPU time of each of the processes, in a period or for a call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// The caller's process, if it reports its time.
    pub(super) client: Duration,
    pub(super) server: Duration,
    pub(super) postgres: Duration,
    pub(super) redis: Duration,
}

impl Usage {
    /// Adds another usage, multiplied by `factor`.
    pub(super) fn add(&mut self, other: Self, factor: f64) {
        self.client += other.client.mul_f64(factor);
        self.server += other.server.mul_f64(factor);
        self.postgres += other.postgres.mul_f64(factor);
        self.redis += other.redis.mul_f64(factor);
    }

    /// Returns the time of all processes.
    pub(super) fn total(&self) -> Duration {
        self.client + self.server + self.postgres + self.redis
    }

    /// Divides the usage by a number of calls.
    pub(super) fn per_call(self, calls: usize) -> Self {
        let mut usage = Self::default();
        #[expect(clippy::cast_precision_loss, reason = "a few million calls at most")]
        usage.add(self, 1.0 / calls.max(1) as f64);
        usage
    }
}

/// CPU times at one moment.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    server: Threads,
    postgres: Threads,
    redis: Threads,
    /// Time of PostgreSQL's processes that have ended.
    ended: Duration,
}

/// Times of running threads by their folder in `/proc`.
type Threads = HashMap<PathBuf, Duration>;

impl Processes {
    /// The processes of a sidecar and of its servers.
    pub(super) fn of(sidecar: &Sidecar, servers: Self) -> Self {
        Self {
            server: Some(sidecar.id()),
            ..servers
        }
    }

    /// Finds PostgreSQL and Redis, if they run on this machine.
    pub(super) async fn servers(form: &Form) -> Self {
        let Form::Servers {
            database_url,
            redis_url,
        } = form
        else {
            return Self::default();
        };
        let mut connection = PgConnection::connect(database_url).await.unwrap();
        let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        let postgres = u32::try_from(backend).ok().filter(|id| is(*id, "postgres"));
        let info = redis_server::call(redis_url, &["INFO", "server"])
            .await
            .unwrap();
        let redis = info
            .lines()
            .find_map(|line| line.strip_prefix("process_id:"));
        let redis = redis.and_then(|id| id.trim().parse().ok());
        Self {
            server: None,
            postgres: postgres.and_then(parent),
            redis: redis.filter(|id| is(*id, "redis-server")),
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let postgres = self.postgres.into_iter().flat_map(|id| {
            let children = processes().filter(move |child| parent(*child) == Some(id));
            std::iter::once(id).chain(children)
        });
        Snapshot {
            server: threads(self.server),
            postgres: threads(postgres),
            redis: threads(self.redis),
            ended: self.postgres.map_or(Duration::ZERO, ended_children),
        }
    }
}

impl Snapshot {
    /// Returns the time between two moments. That of threads which ended in between is left out,
    /// unless they were processes of PostgreSQL.
    pub(super) fn since(&self, earlier: &Self) -> Usage {
        let between = |later: &Threads, earlier: &Threads| -> Duration {
            let times = later.iter().map(|(thread, time)| {
                let before = earlier.get(thread).copied().unwrap_or_default();
                time.saturating_sub(before)
            });
            times.sum()
        };
        let ended = earlier.postgres.iter().filter_map(|(thread, time)| {
            let has_ended = !self.postgres.contains_key(thread);
            has_ended.then_some(*time)
        });
        let ended_since = self.ended.saturating_sub(earlier.ended);
        Usage {
            client: Duration::ZERO,
            server: between(&self.server, &earlier.server),
            postgres: between(&self.postgres, &earlier.postgres)
                + ended_since.saturating_sub(ended.sum()),
            redis: between(&self.redis, &earlier.redis),
        }
    }
}

/// Reads the times of all threads of processes.
fn threads(processes: impl IntoIterator<Item = u32>) -> Threads {
    let folders = processes
        .into_iter()
        .filter_map(|id| fs::read_dir(format!("/proc/{id}/task")).ok());
    let threads = folders.flatten().flatten().map(|thread| thread.path());
    threads
        .filter_map(|thread| running_time(&thread).map(|time| (thread, time)))
        .collect()
}

fn running_time(thread: &Path) -> Option<Duration> {
    let statistics = fs::read_to_string(thread.join("schedstat")).ok()?;
    let running = statistics.split_whitespace().next()?;
    running.parse().ok().map(Duration::from_nanos)
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Returns the fields of a process after its name, which may contain spaces.
fn fields(id: u32) -> Option<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    let numbers = fields.split_whitespace().map(str::parse::<u64>);
    Some(numbers.map(Result::unwrap_or_default).collect())
}

fn parent(id: u32) -> Option<u32> {
    let fields = fields(id)?;
    u32::try_from(fields[1]).ok()
}

/// Returns the time of the children of a process that have ended, which the kernel gives in
/// hundredths of a second.
fn ended_children(id: u32) -> Duration {
    let ticks = fields(id).map_or(0, |fields| fields[13] + fields[14]);
    Duration::from_millis(10 * ticks)
}

fn is(id: u32, name: &str) -> bool {
    let found = fs::read_to_string(format!("/proc/{id}/comm"));
    found.is_ok_and(|found| found.trim() == name)
}
