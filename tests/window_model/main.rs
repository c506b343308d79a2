//! Model test of the recent window: random interleavings of two sidecars with two
//! writers and two readers, crashes, evictions, early expiry of announcements, a
//! sidecar without a connection to Redis, callers who are not the owner, and a Redis
//! that goes back to an earlier state. The scripts and Redis are real; the store is a
//! list. The window in the process is tested by the same model.
//!
//! The invariant: a read contains every save that was acknowledged before the read
//! began, without gaps, and no message whose removal was acknowledged before. As long as
//! no announcement was lost, it also contains every save that an earlier read has returned. The
//! test also shows that every guard in the scripts is necessary: without it, a
//! violation of the invariant is found.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod in_process;
mod model;
mod previous;
mod sidecar;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use conversation_memory::{
    domain::{ConversationId, UuidV7},
    recent::{
        RecentWindow,
        redis::{HitCondition, RedisRecent, WindowScripts},
    },
    redis::{Redis, RedisSettings, RedisTarget, Reply, Script},
};
use futures_util::future::join_all;
use model::{Model, Windows};
use previous::PreviousSidecar;
use sidecar::Sidecar;
use test_support::redis_server::{connect_and_wait, shared_url, unique_prefix};
use test_support::window::{TTL, trust};

/// Number of choices in a run.
const CHOICES: usize = 40;
/// Number of concurrent runs.
const CONCURRENT_RUNS: u64 = 32;
/// Number of runs without a violation that the scripts must pass. The runs are the
/// same every time.
const RUNS: u64 = 2_000;
/// Number of runs with a sidecar of the version before.
const MIXED_RUNS: u64 = 1_000;
/// Number of runs within which a missing guard must cause a violation.
const RUNS_WITHOUT_GUARD: u64 = 12_000;

#[tokio::test]
async fn reads_contain_every_acknowledged_save() {
    let sidecars = Sidecars::start(WindowScripts::default()).await;
    sidecars.expect_no_violation(RUNS).await;
}

#[tokio::test]
async fn reads_contain_every_save_that_a_sidecar_of_either_version_acknowledged() {
    for index in 0..2 {
        let mut sidecars = Sidecars::start(WindowScripts::default()).await;
        let previous = PreviousSidecar::new(sidecars.redis.clone());
        sidecars.connected[index] = Sidecar::Previous(Box::new(previous));
        sidecars.expect_no_violation(MIXED_RUNS / 2).await;
    }
}

macro_rules! without_guards {
    ($($name:ident: $guard:literal => $replacement:literal)*) => {
        $(#[tokio::test]
        async fn $name() {
            super::expect_violation($guard, $replacement).await;
        })*
    };
}

mod a_violation_is_found {
    without_guards! {
        when_an_announcement_keeps_the_lease:
            r#"redis.call("HDEL", key, "lease") -- guard: an announcement ends the lease"# => ""
        when_a_drop_keeps_the_lease:
            r#"removed[#removed + 1] = "lease" -- guard: a drop ends the lease"# => ""
        when_a_missing_announcement_is_ignored:
            r#"reason = "unannounced" -- guard: a missing announcement drops the window"# => ""
        when_a_window_is_read_while_a_write_is_announced:
            r#"return reply("busy") -- guard: no read while a write is announced"# => ""
        when_a_window_starts_above_top:
            "is_beginning = is_beginning and top < 1 -- guard: a cold window starts only below top" => ""
        when_a_fill_requires_no_lease:
            "allowed = allowed and id == ARGV[2] .. \"@\" .. epoch and tonumber(expiry) > clock() -- guard: a fill requires its lease" => ""
        when_a_lease_of_another_epoch_fills:
            "allowed = allowed and id == ARGV[2] .. \"@\" .. epoch and tonumber(expiry) > clock() -- guard: a fill requires its lease" => "allowed = allowed and id:match('^[^@]+') == ARGV[2] and tonumber(expiry) > clock()"
        when_a_drop_does_not_raise_top:
            "raise_top(1)" => "true"
        when_a_gap_is_ignored:
            r#"reason = "gap" -- guard: a gap drops the window"# => ""
        when_a_window_of_another_epoch_is_read:
            r#"fault = "other_epoch" -- guard: a window belongs to one epoch"# => ""
        when_an_announcement_of_another_epoch_publishes:
            r#"return "p:" .. id .. " " .. epoch -- guard: an announcement belongs to one epoch"# => r#"return "p:" .. id"#
        when_another_user_reaches_the_window:
            r#"return reply("owner_unknown") -- guard: only the owner reaches the window"# => ""
        when_a_window_behind_a_replay_is_kept:
            "drop(reason) -- guard: a window behind a replay is dropped" => ""
    }
}

macro_rules! without_conditions {
    ($($name:ident: $condition:ident)*) => {
        $(#[tokio::test]
        async fn $name() {
            let scripts = WindowScripts::default().without(HitCondition::$condition);
            super::expect_violation_with(scripts).await;
        })*
    };
}

mod a_violation_is_found_in_reads_without_a_script {
    use super::*;

    without_conditions! {
        when_writes_may_be_announced: NoAnnouncement
        when_windows_of_another_epoch_are_read: SameEpoch
        when_other_users_may_read: SameOwner
    }
}

async fn expect_violation(guard: &str, replacement: &str) {
    let mut found = false;
    let scripts = WindowScripts::default().with_edited_sources(|source| {
        found |= source.contains(guard);
        source.replace(guard, replacement)
    });
    assert!(found, "no script contains the guard");
    expect_violation_with(scripts).await;
}

async fn expect_violation_with(scripts: WindowScripts) {
    let sidecars = Sidecars::start(scripts).await;
    let violation = sidecars.find_violation(RUNS_WITHOUT_GUARD).await;
    assert!(violation.is_some(), "no violation was found");
}

/// Creates a script for which the identity of the server changes when a run goes back to an earlier
/// state.
fn scripts_of_model(name: &'static str, source: &str) -> Script {
    Script::new(name, with_identity_of_model(source))
}

fn with_identity_of_model(source: &str) -> String {
    let identity = r#"(redis.call("GET", KEYS[1] .. ":server") or "0") .. "/""#;
    source.replace(r#"server .. "/""#, identity)
}

/// Identities of the server in each run, the number of times that it went back.
#[derive(Clone, Debug, Default)]
struct Servers(Arc<Mutex<HashMap<ConversationId, u64>>>);

impl Servers {
    fn advance(&self, run: ConversationId) {
        *self.0.lock().unwrap().entry(run).or_default() += 1;
    }

    fn of(&self, run: ConversationId) -> String {
        let servers = self.0.lock().unwrap();
        servers.get(&run).copied().unwrap_or_default().to_string()
    }
}

/// Two sidecars that share a Redis, and one without a connection to it.
struct Sidecars {
    connected: [Sidecar; 2],
    servers: Servers,
    disconnected: RedisRecent,
    redis: Redis,
    evict: Script,
    end_lease: Script,
    expire: Script,
    snapshot: Script,
    state: Script,
    rewind: Script,
}

impl Sidecars {
    async fn start(scripts: WindowScripts) -> Self {
        let servers = Servers::default();
        let of_runs = servers.clone();
        let scripts = scripts
            .with_edited_sources(with_identity_of_model)
            .with_server_of(move |run| of_runs.of(run));
        let (url, prefix) = (shared_url(), unique_prefix());
        let redis = connect_and_wait(&url, &prefix).await;
        let other = connect_and_wait(&url, &prefix).await;
        let nowhere = RedisTarget::from_url("redis://127.0.0.1:1").unwrap();
        let nowhere = Redis::connect(nowhere, RedisSettings::default());
        let recent = |redis: &Redis| {
            let history = Arc::new(Bytes::new);
            let ids = Arc::new(UuidV7);
            let recent =
                RedisRecent::with_scripts(redis.clone(), ids, TTL, 10, history, scripts.clone());
            trust(&recent);
            recent
        };
        Self {
            connected: [&redis, &other].map(|redis| Sidecar::Present(Arc::new(recent(redis)))),
            servers,
            disconnected: recent(&nowhere),
            redis,
            evict: Script::new("evict", "redis.call('DEL', KEYS[1])"),
            end_lease: Script::new("end_lease", "redis.call('HDEL', KEYS[1], 'lease')"),
            // The fields in order, because a hash has no order of its own, and the expiry.
            state: Script::new(
                "state",
                "local fields = redis.call('HGETALL', KEYS[1])
                 local pairs = {}
                 for i = 1, #fields, 2 do pairs[#pairs + 1] = fields[i] .. '=' .. fields[i + 1] end
                 table.sort(pairs)
                 local time = redis.call('TIME')
                 local expiry = redis.call('PTTL', KEYS[1])
                 if expiry >= 0 then expiry = expiry + time[1] * 1000 + math.floor(time[2] / 1000) end
                 pairs[#pairs + 1] = string.format('%.0f', expiry / 1000)
                 return table.concat(pairs, ' ')",
            ),
            snapshot: Script::new("snapshot", "return redis.call('DUMP', KEYS[1])"),
            rewind: Script::new(
                "rewind",
                "redis.call('INCR', KEYS[1] .. ':server')
                 redis.call('DEL', KEYS[1])
                 if ARGV[1] ~= '' then redis.call('RESTORE', KEYS[1], 0, ARGV[1]) end",
            ),
            expire: Script::new(
                "expire",
                "for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
                   if field:sub(1, 2) == 'p:' then redis.call('HSET', KEYS[1], field, 1) end
                 end",
            ),
        }
    }

    async fn expect_no_violation(&self, runs: u64) {
        if let Some(choices) = self.find_violation(runs).await {
            let choices = self.shrink(choices).await;
            let trace = run(self, &choices).await.unwrap_err();
            panic!("a violation:\n{}", trace.join("\n"));
        }
    }

    /// Finds a run that violates the invariant and returns its choices.
    async fn find_violation(&self, runs: u64) -> Option<Vec<u16>> {
        for batch in 0..runs.div_ceil(CONCURRENT_RUNS) {
            let seeds = batch * CONCURRENT_RUNS..(batch + 1) * CONCURRENT_RUNS;
            let found = join_all(seeds.map(async |seed| {
                let choices = choices(seed);
                run(self, &choices).await.is_err().then_some(choices)
            }));
            if let Some(choices) = found.await.into_iter().flatten().next() {
                return Some(choices);
            }
        }
        None
    }

    /// Removes the choices that are not needed for the violation.
    async fn shrink(&self, mut choices: Vec<u16>) -> Vec<u16> {
        let mut index = 0;
        while index < choices.len() {
            let mut fewer = choices.clone();
            fewer.remove(index);
            if run(self, &fewer).await.is_err() {
                choices = fewer;
            } else {
                index += 1;
            }
        }
        choices
    }

    async fn run(&self, script: &Script, id: ConversationId, args: &[Bytes]) -> Reply {
        let key = self.redis.key(format!("history:{id}:recent"));
        self.redis.run(script, &key, args).await.unwrap()
    }
}

impl Windows for Sidecars {
    fn sidecar(&self, index: usize) -> &Sidecar {
        &self.connected[index]
    }

    fn disconnected(&self) -> Option<&dyn RecentWindow> {
        Some(&self.disconnected)
    }

    fn can_go_back(&self) -> bool {
        true
    }

    async fn expire_announcements(&self, id: ConversationId) {
        self.run(&self.expire, id, &[]).await;
    }

    async fn end_lease(&self, id: ConversationId) {
        self.run(&self.end_lease, id, &[]).await;
    }

    async fn evict(&self, id: ConversationId) {
        self.run(&self.evict, id, &[]).await;
    }

    async fn save(&self, id: ConversationId) -> Bytes {
        match self.run(&self.snapshot, id, &[]).await {
            Reply::Bytes(saved) => saved,
            _ => Bytes::new(),
        }
    }

    async fn go_back(&self, id: ConversationId, saved: Bytes) {
        self.run(&self.rewind, id, &[saved]).await;
        self.servers.advance(id);
    }

    async fn state(&self, id: ConversationId) -> String {
        format!("{:?}", self.run(&self.state, id, &[]).await)
    }
}

/// Takes the steps that `choices` select. An error is the trace of a violation.
async fn run<W: Windows>(windows: &W, choices: &[u16]) -> Result<(), Vec<String>> {
    let mut model = Model::new(windows);
    let mut trace = Vec::new();
    for choice in choices {
        let steps = model.steps();
        let total: u16 = steps.iter().map(|(_, weight)| weight).sum();
        let mut rest = choice % total;
        let chosen = steps.iter().find(|(_, weight)| {
            let hit = rest < *weight;
            rest = rest.saturating_sub(*weight);
            hit
        });
        let step = chosen.unwrap().0;
        let outcome = model.take(step).await;
        trace.push(format!(
            "{step:?}: {}",
            outcome.as_ref().unwrap_or_else(|e| e)
        ));
        if outcome.is_err() {
            return Err(trace);
        }
    }
    Ok(())
}

/// Choices of a run. They are repeatable, by the generator splitmix64.
fn choices(seed: u64) -> Vec<u16> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) & 0x7fff) as u16
    };
    std::iter::repeat_with(next).take(CHOICES).collect()
}
