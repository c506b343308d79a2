//! The recent window under every interleaving that chance finds: two sidecars,
//! two writers, two readers, crashes, evictions, announcements that expire
//! early, sidecars that Redis does not hear. The scripts and the Redis are real,
//! the store is a list.
//!
//! What must hold: a read shows every save that was acknowledged before the read
//! began, without a hole, and nothing of what a removal acknowledged before it
//! took away. And what makes it hold: without any one of the scripts' guards a
//! violation is found.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod world;

use std::sync::Arc;

use conversation_memory::{
    domain::UuidV7,
    recent::redis::{RedisRecent, Scripts},
    redis::{Redis, RedisSettings, RedisTarget, Script},
};
use futures_util::future::join_all;
use test_support::redis_server::{attached, own_prefix, shared_url};
use test_support::window::TTL;
use world::World;

/// How many choices a run makes, and how many runs go on at once.
const CHOICES: usize = 40;
const AT_ONCE: u64 = 32;
/// How many runs the whole scripts must stand, and within how many each hole
/// must show. The runs are the same every time.
const RUNS: u64 = 4_000;
const RUNS_TO_FIND_A_HOLE: u64 = 12_000;

#[tokio::test]
async fn no_read_misses_what_was_acknowledged() {
    let sidecars = Sidecars::start(Scripts::default()).await;
    if let Some(choices) = sidecars.violation(RUNS).await {
        let choices = sidecars.shrink(choices).await;
        let trace = sidecars.run(&choices).await.unwrap_err();
        panic!("a violation:\n{}", trace.join("\n"));
    }
}

macro_rules! holes {
    ($($name:ident: $guard:literal => $hole:literal)*) => {
        $(#[tokio::test]
        async fn $name() {
            super::expect_violation($guard, $hole).await;
        })*
    };
}

mod without_a_guard_a_violation_is_found {
    holes! {
        when_an_announcement_leaves_the_lease:
            r#"redis.call("HDEL", key, "lease") -- guard: an announcement ends the lease"# => ""
        when_a_drop_leaves_the_lease:
            r#"doomed[#doomed + 1] = "lease" -- guard: a drop ends the lease"# => ""
        when_a_lost_announcement_is_ignored:
            "drop(unfit) -- guard: an announcement that is gone drops the window" => ""
        when_a_window_is_read_while_a_write_is_announced:
            r#"return answer("busy") -- guard: nothing is read while a write is announced"# => ""
        when_a_window_starts_above_top:
            "is_beginning = is_beginning and reached < 1 -- guard: a cold window starts only below top" => ""
        when_a_fill_needs_no_lease:
            "allowed = allowed and id == ARGV[1] and tonumber(ends) > now -- guard: a fill needs its lease" => ""
        when_a_drop_does_not_say_that_there_were_messages:
            "raise_top(1)" => "true"
        when_a_gap_is_ignored:
            r#"drop("gap") -- guard: a gap drops the window"# => ""
        when_a_window_behind_a_replay_stays:
            "drop(unfit) -- guard: a window behind a replay is dropped" => ""
    }
}

async fn expect_violation(guard: &str, hole: &str) {
    let mut found = false;
    let scripts = Scripts::default().edited(|source| {
        found |= source.contains(guard);
        source.replace(guard, hole)
    });
    assert!(found, "no script has the guard");
    let sidecars = Sidecars::start(scripts).await;
    let violation = sidecars.violation(RUNS_TO_FIND_A_HOLE).await;
    assert!(violation.is_some(), "no violation was found");
}

/// Two sidecars on one Redis, and one that Redis does not hear.
struct Sidecars {
    live: [RedisRecent; 2],
    cut_off: RedisRecent,
    redis: Redis,
    evict: Script,
    end_lease: Script,
    expire: Script,
}

impl Sidecars {
    async fn start(scripts: Scripts) -> Self {
        let (url, prefix) = (shared_url(), own_prefix());
        let redis = attached(&url, &prefix).await;
        let other = attached(&url, &prefix).await;
        let nowhere = RedisTarget::from_url("redis://127.0.0.1:1").unwrap();
        let nowhere = Redis::connect(nowhere, RedisSettings::default());
        let recent = |redis: &Redis| {
            RedisRecent::with_scripts(redis.clone(), Arc::new(UuidV7), TTL, 10, scripts.clone())
        };
        Self {
            live: [recent(&redis), recent(&other)],
            cut_off: recent(&nowhere),
            redis,
            evict: Script::new("evict", "redis.call('DEL', KEYS[1])"),
            end_lease: Script::new("end_lease", "redis.call('HDEL', KEYS[1], 'lease')"),
            expire: Script::new(
                "expire",
                "for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
                   if field:sub(1, 2) == 'p:' then redis.call('HSET', KEYS[1], field, 1) end
                 end",
            ),
        }
    }

    /// The choices that lead to a violation, if any of the runs finds one.
    async fn violation(&self, runs: u64) -> Option<Vec<u16>> {
        for batch in 0..runs.div_ceil(AT_ONCE) {
            let seeds = batch * AT_ONCE..(batch + 1) * AT_ONCE;
            let found = join_all(seeds.map(async |seed| {
                let choices = choices(seed);
                self.run(&choices).await.is_err().then_some(choices)
            }));
            if let Some(choices) = found.await.into_iter().flatten().next() {
                return Some(choices);
            }
        }
        None
    }

    /// Leaves out what the violation does not need.
    async fn shrink(&self, mut choices: Vec<u16>) -> Vec<u16> {
        let mut at = 0;
        while at < choices.len() {
            let mut fewer = choices.clone();
            fewer.remove(at);
            if self.run(&fewer).await.is_err() {
                choices = fewer;
            } else {
                at += 1;
            }
        }
        choices
    }

    /// Takes the steps that the choices choose. An error is the trace of a violation.
    async fn run(&self, choices: &[u16]) -> Result<(), Vec<String>> {
        let mut world = World::new(self);
        let mut trace = Vec::new();
        for choice in choices {
            let steps = world.steps();
            let total: u16 = steps.iter().map(|(_, weight)| weight).sum();
            let mut rest = choice % total;
            let chosen = steps.iter().find(|(_, weight)| {
                let hit = rest < *weight;
                rest = rest.saturating_sub(*weight);
                hit
            });
            let step = chosen.unwrap().0;
            let outcome = world.take(step).await;
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
}

/// The choices of a run: a small generator (splitmix64) makes them repeatable.
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
