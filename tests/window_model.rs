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
#![expect(clippy::expect_used, reason = "a test may fail")]

#[path = "support/redis_server.rs"]
mod redis_server;
#[path = "support/window.rs"]
mod window;

use std::{mem, sync::Arc};

use conversation_memory::{
    domain::{ConversationId, Message, UuidV7},
    recent::{
        Announced, Lease, Lookup, RecentWindow,
        redis::{RedisRecent, Scripts},
    },
    redis::{Redis, RedisSettings, RedisTarget, Script},
};
use futures_util::future::join_all;
use redis_server::{attached, own_prefix, shared_url};
use window::{LIMIT, TTL, conversation_id, message, owner, seqs};

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
            "drop() -- guard: an announcement that is gone drops the window" => ""
        when_a_window_is_read_while_a_write_is_announced:
            r#"return { "busy" } -- guard: nothing is read while a write is announced"# => ""
        when_a_window_starts_above_top:
            "is_beginning = is_beginning and reached < 1 -- guard: a cold window starts only below top" => ""
        when_a_fill_needs_no_lease:
            "allowed = allowed and id == ARGV[1] and tonumber(ends) > now -- guard: a fill needs its lease" => ""
        when_a_drop_does_not_say_that_there_were_messages:
            "raise_top(1)" => "true"
        when_a_gap_is_ignored:
            "drop() -- guard: a gap drops the window" => ""
        when_a_window_behind_a_replay_stays:
            "drop() -- guard: a window behind a replay is dropped" => ""
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
            evict: Script::new("redis.call('DEL', KEYS[1])"),
            end_lease: Script::new("redis.call('HDEL', KEYS[1], 'lease')"),
            expire: Script::new(
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

#[derive(Clone, Copy, Debug)]
enum Step {
    Announce(usize),
    AnnounceUnheard(usize),
    Append(usize),
    Truncate(usize),
    Replay(usize),
    Acknowledge(usize),
    Abort(usize),
    Crash(usize),
    Newest(usize),
    ReadStore(usize),
    Fill(usize),
    ExpireAnnouncements,
    EndLease,
    Evict,
}

/// The conversation at one moment.
#[derive(Clone, Debug, Default)]
struct State {
    last_seq: i64,
    messages: Vec<Message>,
}

/// What was committed, and as which state.
#[derive(Clone, Debug)]
struct Commit {
    state: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Append,
    Truncate,
    Replay,
}

#[derive(Debug)]
enum Writer {
    Idle,
    Announced(Announced),
    Committed(Announced, Commit),
}

#[derive(Debug)]
enum Reader {
    Idle,
    Missed(Option<Lease>),
    Read(Lease, usize),
}

struct World<'a> {
    sidecars: &'a Sidecars,
    id: ConversationId,
    key: String,
    /// Every state of the conversation in the store, the newest last.
    states: Vec<State>,
    /// The highest number that a writer was told of.
    acknowledged: i64,
    /// The numbers that removals took away, and those of them whose removal a
    /// writer was told of. Until then a read may show them or not.
    removed: Vec<i64>,
    removal_acknowledged: Vec<i64>,
    writers: [Writer; 2],
    readers: [Reader; 2],
    /// The commits that nobody was told of.
    crashed: Vec<Commit>,
    evictions: u16,
}

impl<'a> World<'a> {
    fn new(sidecars: &'a Sidecars) -> Self {
        let id = conversation_id();
        Self {
            sidecars,
            id,
            key: sidecars.redis.key(format!("history:{id}:recent")),
            states: vec![State::default()],
            acknowledged: 0,
            removed: Vec::new(),
            removal_acknowledged: Vec::new(),
            writers: [Writer::Idle, Writer::Idle],
            readers: [Reader::Idle, Reader::Idle],
            crashed: Vec::new(),
            evictions: 2,
        }
    }

    /// The steps that can be taken now, each with its weight.
    fn steps(&self) -> Vec<(Step, u16)> {
        let mut steps = vec![
            (Step::ExpireAnnouncements, 1),
            (Step::EndLease, 1),
            (Step::Evict, self.evictions.min(1)),
        ];
        for (i, writer) in self.writers.iter().enumerate() {
            match writer {
                Writer::Idle => {
                    steps.extend([(Step::Announce(i), 4), (Step::AnnounceUnheard(i), 1)]);
                }
                Writer::Announced(_) => {
                    // No more messages than a window shows, so that none scrolls out of it.
                    let room = self.current().last_seq < 10;
                    steps.extend([(Step::Append(i), 4 * u16::from(room)), (Step::Abort(i), 1)]);
                    if self.current().last_seq > 0 {
                        steps.push((Step::Truncate(i), 1));
                    }
                    if !self.crashed.is_empty() {
                        steps.push((Step::Replay(i), 2));
                    }
                }
                Writer::Committed(..) => {
                    steps.extend([(Step::Acknowledge(i), 4), (Step::Crash(i), 1)]);
                }
            }
        }
        for (i, reader) in self.readers.iter().enumerate() {
            steps.push(match reader {
                Reader::Idle => (Step::Newest(i), 4),
                Reader::Missed(_) => (Step::ReadStore(i), 4),
                Reader::Read(..) => (Step::Fill(i), 3),
            });
        }
        steps
    }

    /// Takes a step and tells what came of it; an error is a violation.
    async fn take(&mut self, step: Step) -> Result<String, String> {
        match step {
            Step::Announce(i) => {
                let announced = self.sidecars.live[i].announce(self.id, LIMIT).await;
                self.writers[i] = Writer::Announced(announced);
            }
            Step::AnnounceUnheard(i) => {
                let announced = self.sidecars.cut_off.announce(self.id, LIMIT).await;
                self.writers[i] = Writer::Announced(announced);
            }
            Step::Append(i) => self.commit(i, Kind::Append),
            Step::Truncate(i) => self.commit(i, Kind::Truncate),
            Step::Replay(i) => self.commit(i, Kind::Replay),
            Step::Acknowledge(i) => self.acknowledge(i).await,
            Step::Abort(i) => {
                if let Writer::Announced(announced) = self.take_writer(i) {
                    self.sidecars.live[i].abort(announced).await;
                }
            }
            Step::Crash(i) => {
                if let Writer::Committed(_, commit) = self.take_writer(i) {
                    self.crashed.push(commit);
                }
            }
            Step::Newest(i) => return self.newest(i).await,
            Step::ReadStore(i) => {
                let reader = mem::replace(&mut self.readers[i], Reader::Idle);
                if let Reader::Missed(Some(lease)) = reader {
                    self.readers[i] = Reader::Read(lease, self.states.len() - 1);
                }
            }
            Step::Fill(i) => self.fill(i).await,
            Step::ExpireAnnouncements => self.env(&self.sidecars.expire).await,
            Step::EndLease => self.env(&self.sidecars.end_lease).await,
            Step::Evict => {
                self.evictions -= 1;
                self.env(&self.sidecars.evict).await;
            }
        }
        let State { last_seq, messages } = self.current();
        Ok(format!("the store has {:?} of {last_seq}", seqs(messages)))
    }

    fn commit(&mut self, i: usize, kind: Kind) {
        let Writer::Announced(announced) = self.take_writer(i) else {
            return;
        };
        let mut state = self.current().clone();
        let commit = match kind {
            Kind::Append => {
                state.last_seq += 1;
                state.messages.push(message(self.id, state.last_seq));
                self.states.push(state);
                Commit {
                    state: self.states.len() - 1,
                    kind,
                }
            }
            Kind::Truncate => {
                let taken = state.messages.pop();
                self.removed.extend(taken.map(|taken| taken.seq));
                self.states.push(state);
                Commit {
                    state: self.states.len() - 1,
                    kind,
                }
            }
            Kind::Replay => {
                let first = self.crashed.remove(0);
                let kind = match first.kind {
                    Kind::Append => Kind::Replay,
                    other => other,
                };
                Commit { kind, ..first }
            }
        };
        self.writers[i] = Writer::Committed(announced, commit);
    }

    async fn acknowledge(&mut self, i: usize) {
        let Writer::Committed(announced, commit) = self.take_writer(i) else {
            return;
        };
        let recent = &self.sidecars.live[i];
        let state = &self.states[commit.state];
        match commit.kind {
            Kind::Append => {
                let saved = &state.messages[state.messages.len() - 1..];
                recent.publish(announced, &owner(), saved).await;
            }
            Kind::Truncate => recent.retire(announced).await,
            Kind::Replay => recent.publish_replay(announced, state.last_seq).await,
        }
        self.acknowledged = self.acknowledged.max(state.last_seq);
        if matches!(commit.kind, Kind::Truncate) {
            let taken = self.states[commit.state - 1].messages.last();
            self.removal_acknowledged
                .extend(taken.map(|taken| taken.seq));
        }
    }

    async fn newest(&mut self, i: usize) -> Result<String, String> {
        match self.sidecars.live[i].newest(self.id, 10, 0).await {
            Lookup::Hit(window) => {
                let shown = seqs(&window.messages);
                let outcome = format!("{shown:?} of {}", window.last_seq);
                let kept = (1..=window.last_seq).filter(|seq| !self.removed.contains(seq));
                let is_right = window.last_seq >= self.acknowledged
                    && window.last_seq <= self.current().last_seq
                    && kept.into_iter().all(|seq| shown.contains(&seq))
                    && !self
                        .removal_acknowledged
                        .iter()
                        .any(|seq| shown.contains(seq))
                    && window
                        .messages
                        .iter()
                        .all(|m| *m == message(self.id, m.seq));
                if is_right { Ok(outcome) } else { Err(outcome) }
            }
            Lookup::Miss(lease) => {
                let outcome = format!("miss, lease: {}", lease.is_some());
                self.readers[i] = Reader::Missed(lease);
                Ok(outcome)
            }
            other => Ok(format!("{other:?}")),
        }
    }

    async fn fill(&mut self, i: usize) {
        if let Reader::Read(lease, state) = mem::replace(&mut self.readers[i], Reader::Idle) {
            let (last_seq, messages) = self.states[state].newest();
            let whole = messages.len() == self.states[state].messages.len();
            let recent = &self.sidecars.live[i];
            recent
                .fill(lease, &owner(), last_seq, messages, whole)
                .await;
        }
    }

    async fn env(&self, script: &Script) {
        self.sidecars
            .redis
            .run(script, &self.key, &[])
            .await
            .unwrap();
    }

    fn take_writer(&mut self, i: usize) -> Writer {
        mem::replace(&mut self.writers[i], Writer::Idle)
    }

    fn current(&self) -> &State {
        self.states.last().expect("there is a first state")
    }
}

impl State {
    fn newest(&self) -> (i64, &[Message]) {
        let from = self.messages.len().saturating_sub(10);
        (self.last_seq, &self.messages[from..])
    }
}
