//! One conversation, its writers, readers and mishaps, for `tests/window_model.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

use std::mem;

use conversation_memory::{
    domain::{ConversationId, Message},
    recent::{Announced, Lease, Lookup, RecentWindow},
    redis::Script,
};

use crate::Sidecars;
use test_support::window::{LIMIT, conversation_id, message, owner, seqs};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
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

pub(crate) struct World<'a> {
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
    pub(crate) fn new(sidecars: &'a Sidecars) -> Self {
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
    pub(crate) fn steps(&self) -> Vec<(Step, u16)> {
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
    pub(crate) async fn take(&mut self, step: Step) -> Result<String, String> {
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
