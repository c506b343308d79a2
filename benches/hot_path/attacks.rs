//! Turns of a caller while others attack the sidecar.

mod connections;
mod reads;
mod writes;

use std::time::{Duration, Instant};

use conversation_memory::proto::Role;
use test_support::{
    new_user,
    raw_http2::{PING, PRIORITY, SETTINGS, encode},
    requests::{begin, message, save},
    sidecar::{Form, Memory, Sessions, Sidecar},
};
use tokio::{
    runtime::{Builder, Handle},
    task::JoinSet,
    time::sleep,
};
use tonic::Status;

use crate::compare::{heading, millis, row};

const INTERVAL: Duration = Duration::from_millis(100);

/// Number of live sessions of one user, if a setting permits them.
const SESSIONS: usize = 80_000;
const SESSIONS_SETTING: (&str, &str) = ("MAX_SESSIONS_PER_USER", "80000");

/// Attack that lasts until it is dropped.
#[derive(Clone, Copy)]
enum Attack {
    UnreadResponses,
    HalfSentChecks,
    HalfSentCalls,
    IdleConnections,
    /// Frames that begin no call, or that begin and cancel calls, over several connections.
    Frames(fn(u32) -> Vec<u8>),
    Searches,
    LargeSearches,
    SessionLists,
    Metrics,
    Overload,
    NewSessions,
    Imports,
    Branches,
}

const ATTACKS: [(&str, Attack); 17] = [
    ("1,024 unread histories of 3 MiB", Attack::UnreadResponses),
    ("102,400 half-sent health checks", Attack::HalfSentChecks),
    ("1,000 idle connections", Attack::IdleConnections),
    ("12 callers with expensive searches", Attack::Searches),
    ("4 callers search 100,000 messages", Attack::LargeSearches),
    ("64 callers with turns without a pause", Attack::Overload),
    (
        "300 connections with half-sent calls",
        Attack::HalfSentCalls,
    ),
    (
        "flood of pings",
        Attack::Frames(|_| encode(PING, 0, 0, &[7; 8]).to_vec()),
    ),
    (
        "flood of settings",
        Attack::Frames(|_| encode(SETTINGS, 0, 0, &[]).to_vec()),
    ),
    (
        "flood of priorities",
        Attack::Frames(|_| encode(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]).to_vec()),
    ),
    (
        "flood of empty data",
        Attack::Frames(connections::empty_data),
    ),
    (
        "flood of cancelled calls",
        Attack::Frames(connections::cancelled_call),
    ),
    ("16 callers of /metrics without a pause", Attack::Metrics),
    ("8 callers list 80,000 sessions", Attack::SessionLists),
    (
        "8 callers create up to 80,000 sessions",
        Attack::NewSessions,
    ),
    ("4 callers import 20,000 messages each", Attack::Imports),
    ("4 callers nest and delete 100 branches", Attack::Branches),
];

/// Measures the turns of one caller, one every 100 ms, during each attack, or during those whose names
/// contain the variable `ATTACK`, and those of an idle sidecar before and after each.
pub(crate) async fn attacks(rounds: usize) {
    let forms = [
        ("embedded", Form::embedded()),
        ("PostgreSQL + Redis", Form::servers()),
    ];
    let chosen = std::env::var("ATTACK").ok();
    // A thread of their own, so that the measured caller does not wait for the attackers.
    let mut builder = Builder::new_multi_thread();
    let attackers = builder.worker_threads(1).enable_all().build().unwrap();
    for (label, form) in &forms {
        let columns = ["median", "p99", "of idle p99", "failed", "peak RSS"];
        heading(&format!("attacks: turns, {label}"), &columns);
        let mut before = Turns::measure(form, None, rounds, attackers.handle()).await;
        before.print("idle", before.p99());
        for (name, attack) in ATTACKS {
            if chosen
                .as_deref()
                .is_some_and(|chosen| !name.contains(chosen))
            {
                continue;
            }
            let turns = Turns::measure(form, Some(attack), rounds, attackers.handle()).await;
            // The time of a commit to the disk varies from minute to minute.
            let after = Turns::measure(form, None, rounds, attackers.handle()).await;
            let idle = (before.p99() + after.p99()) / 2;
            turns.print(name, idle);
            after.print("idle", idle);
            before = after;
        }
    }
    attackers.shutdown_background();
}

/// Turns of one caller.
struct Turns {
    /// Their times in ascending order.
    times: Vec<Duration>,
    failures: Vec<Status>,
    peak_kib: u64,
}

impl Turns {
    /// Starts a sidecar, and performs turns during an attack.
    async fn measure(form: &Form, attack: Option<Attack>, rounds: usize, runtime: &Handle) -> Self {
        let mut sidecar = Sidecar::start_with(form, attack.map_or(&[], Attack::settings)).await;
        let mut attackers = Attackers {
            set: JoinSet::new(),
            runtime: runtime.clone(),
        };
        if let Some(attack) = attack {
            attack.start(&mut attackers, &mut sidecar).await;
        }
        let (mut times, failures) = perform(&sidecar, rounds).await;
        if let Some(ended) = attackers.set.try_join_next() {
            panic!("an attacker has ended: {ended:?}");
        }
        attackers.set.shutdown().await;
        times.sort_unstable();
        Self {
            times,
            failures,
            peak_kib: sidecar.peak_kib(),
        }
    }

    fn p99(&self) -> Duration {
        self.times[self.times.len() * 99 / 100]
    }

    fn print(&self, name: &str, idle: Duration) {
        let p99 = self.p99();
        row(
            name,
            &[
                millis(self.times[self.times.len() / 2]),
                millis(p99),
                format!("{:.1}", p99.as_secs_f64() / idle.as_secs_f64()),
                self.failures.len().to_string(),
                format!("{} MiB", self.peak_kib >> 10),
            ],
        );
        if let Some(failure) = self.failures.first() {
            println!("the first failure: {failure}");
        }
    }
}

/// Performs turns, and returns their times and the errors of failed ones.
async fn perform(sidecar: &Sidecar, rounds: usize) -> (Vec<Duration>, Vec<Status>) {
    let mut memory = sidecar.memory();
    let user = new_user();
    let (mut times, mut failures) = (Vec::with_capacity(rounds), Vec::new());
    for _ in 0..rounds {
        let start = Instant::now();
        let turn = async {
            let begun = memory.begin_turn(begin(&user)).await?.into_inner();
            let id = begun.conversation.unwrap_or_default().id;
            let messages = vec![
                message(Role::User, "a question"),
                message(Role::Assistant, "an answer"),
            ];
            memory.save_messages(save(&id, messages)).await
        };
        failures.extend(turn.await.err());
        times.push(start.elapsed());
        sleep(INTERVAL).await;
    }
    (times, failures)
}

impl Attack {
    /// Settings of the attacked sidecar.
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::SessionLists | Self::NewSessions => &[SESSIONS_SETTING],
            _ => &[],
        }
    }

    async fn start(self, attackers: &mut Attackers, sidecar: &mut Sidecar) {
        match self {
            Self::UnreadResponses => connections::unread_responses(attackers, sidecar).await,
            Self::HalfSentChecks => connections::half_sent_checks(attackers, sidecar),
            Self::HalfSentCalls => connections::half_sent_calls(attackers, sidecar),
            Self::IdleConnections => connections::idle(attackers, sidecar),
            Self::Frames(frames) => connections::flood(attackers, sidecar.address, frames),
            Self::Searches => reads::search(attackers, sidecar).await,
            Self::LargeSearches => reads::search_many_messages(attackers, sidecar).await,
            Self::SessionLists => reads::list_sessions(attackers, sidecar, SESSIONS).await,
            Self::Metrics => reads::scrape(attackers, sidecar.operations().await),
            Self::Overload => writes::overload(attackers, sidecar),
            Self::NewSessions => writes::keep_creating_sessions(attackers, sidecar),
            Self::Imports => writes::import_files(attackers, sidecar),
            Self::Branches => writes::nest_branches(attackers, sidecar).await,
        }
    }
}

/// Tasks on the runtime of the attackers.
struct Attackers {
    set: JoinSet<()>,
    runtime: Handle,
}

impl Attackers {
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.set.spawn_on(task, &self.runtime);
    }

    /// Client whose connection belongs to the runtime of the attackers, too.
    fn memory(&self, sidecar: &Sidecar) -> Memory {
        let _context = self.runtime.enter();
        sidecar.memory()
    }

    /// Client of sessions, like [`Self::memory`].
    fn sessions(&self, sidecar: &Sidecar) -> Sessions {
        let _context = self.runtime.enter();
        sidecar.sessions()
    }
}
