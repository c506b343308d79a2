//! Model of one conversation with its writers, readers and failures.

use std::mem;

use bytes::Bytes;
use conversation_memory::{
    domain::{ConversationId, Message, UserId},
    recent::{Claim, EncodedMessage, Lookup, RecentWindow},
};

use crate::sidecar::{Announced, Lease, Read, Sidecar};
use test_support::window::{LIMIT, conversation_id, message, seqs};

/// Windows that a model uses, and what can happen to them.
pub(crate) trait Windows {
    fn sidecar(&self, index: usize) -> &Sidecar;

    /// Windows of a sidecar that cannot reach them. `None` if that is impossible.
    fn disconnected(&self) -> Option<&dyn RecentWindow>;

    /// Whether the windows can return to saved data.
    fn can_go_back(&self) -> bool;

    /// Lets the deadlines of all announced writes pass.
    async fn expire_announcements(&self, id: ConversationId);

    async fn end_lease(&self, id: ConversationId);

    async fn evict(&self, id: ConversationId);

    /// Returns the data of a window; empty if there is none.
    async fn save(&self, id: ConversationId) -> Bytes;

    /// Returns to saved data, with another identity.
    async fn go_back(&self, id: ConversationId, saved: Bytes);

    /// Describes all that is stored of a conversation.
    async fn state(&self, id: ConversationId) -> String;
}

/// Step of a writer or reader, given by its index, or a failure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Announce(usize),
    AnnounceDisconnected(usize),
    Append(usize),
    Truncate(usize),
    Replay(usize),
    Acknowledge(usize),
    Abort(usize),
    Crash(usize),
    Newest(usize),
    ReadStore(usize),
    Fill(usize),
    /// A reader reads the store, whatever the window contains.
    ReadStrong,
    ExpireAnnouncements,
    EndLease,
    Evict,
    /// A sidecar reads for a caller who claims to be the owner.
    ReadForeign(usize),
    /// A sidecar writes for a caller who claims to be the owner.
    WriteForeign(usize),
    /// Redis saves its data.
    Snapshot,
    /// Redis returns to the saved data, with another identity.
    Rewind,
}

/// State of the conversation in the store.
#[derive(Clone, Debug, Default)]
struct State {
    last_seq: i64,
    messages: Vec<Message>,
}

/// Commit, with the index of the state that it created.
#[derive(Clone, Debug)]
struct Commit {
    state: usize,
    kind: CommitKind,
}

#[derive(Clone, Copy, Debug)]
enum CommitKind {
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
    /// Has read the state with this index from the store.
    Read(Lease, usize),
}

pub(crate) struct Model<'a, W> {
    windows: &'a W,
    id: ConversationId,
    /// All states of the conversation, the current one last.
    states: Vec<State>,
    /// Highest acknowledged sequence number.
    acknowledged: i64,
    /// Highest sequence number that a read of the store has returned while every commit was announced.
    seen: i64,
    /// Whether commits may not be announced, because announcements could be lost or not be made.
    is_disturbed: bool,
    /// Sequence numbers of removed messages. Until the removal is acknowledged, a
    /// read may contain them or not.
    removed: Vec<i64>,
    /// Sequence numbers of messages whose removal was acknowledged.
    removal_acknowledged: Vec<i64>,
    writers: [Writer; 2],
    readers: [Reader; 2],
    /// Commits whose writer crashed before it was acknowledged.
    crashed: Vec<Commit>,
    /// Number of evictions that may still happen.
    evictions: u16,
    /// Data of the window that Redis saved; empty if there was no window.
    snapshot: Option<Bytes>,
}

impl<'a, W: Windows> Model<'a, W> {
    pub(crate) fn new(windows: &'a W) -> Self {
        Self {
            windows,
            id: conversation_id(),
            states: vec![State::default()],
            acknowledged: 0,
            seen: 0,
            is_disturbed: false,
            removed: Vec::new(),
            removal_acknowledged: Vec::new(),
            writers: [Writer::Idle, Writer::Idle],
            readers: [Reader::Idle, Reader::Idle],
            crashed: Vec::new(),
            evictions: 2,
            snapshot: None,
        }
    }

    /// Steps that are possible now, with their weights.
    pub(crate) fn steps(&self) -> Vec<(Step, u16)> {
        let mut steps = vec![
            (Step::ReadStrong, 1),
            (Step::ExpireAnnouncements, 1),
            (Step::EndLease, 1),
            (Step::Evict, self.evictions.min(1)),
        ];
        if self.windows.can_go_back() {
            let can_rewind = u16::from(self.snapshot.is_some());
            steps.extend([(Step::Snapshot, 2), (Step::Rewind, 2 * can_rewind)]);
        }
        steps.extend([(Step::ReadForeign(0), 1), (Step::WriteForeign(1), 1)]);
        let can_disconnect = u16::from(self.windows.disconnected().is_some());
        for (i, writer) in self.writers.iter().enumerate() {
            match writer {
                Writer::Idle => {
                    steps.extend([
                        (Step::Announce(i), 4),
                        (Step::AnnounceDisconnected(i), can_disconnect),
                    ]);
                }
                Writer::Announced(_) => {
                    // At most as many messages as a window holds, so that none is trimmed.
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

    /// Takes a step and describes its outcome. An error is a violation.
    pub(crate) async fn take(&mut self, step: Step) -> Result<String, String> {
        self.is_disturbed |= matches!(
            step,
            Step::AnnounceDisconnected(_) | Step::ExpireAnnouncements | Step::Evict | Step::Rewind
        );
        match step {
            Step::Announce(i) => {
                let announced = self.windows.sidecar(i).announce(self.id).await;
                self.writers[i] = Writer::Announced(announced);
            }
            Step::AnnounceDisconnected(i) => {
                let disconnected = self.windows.disconnected().unwrap();
                let announcement = disconnected.announce(self.id, Claim::Unclaimed, LIMIT);
                let announcement = announcement.await.unwrap();
                self.writers[i] = Writer::Announced(Announced::Present(announcement));
            }
            Step::Append(i) => self.commit(i, CommitKind::Append),
            Step::Truncate(i) => self.commit(i, CommitKind::Truncate),
            Step::Replay(i) => self.commit(i, CommitKind::Replay),
            Step::Acknowledge(i) => self.acknowledge(i).await,
            Step::Abort(i) => {
                if let Writer::Announced(announcement) = self.take_writer(i) {
                    let sidecar = self.windows.sidecar(i);
                    sidecar.abort(self.id, announcement).await;
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
            Step::ReadStrong => {
                if !self.is_disturbed {
                    self.seen = self.current().last_seq;
                }
            }
            Step::ExpireAnnouncements => {
                self.windows.expire_announcements(self.id).await;
            }
            Step::EndLease => {
                self.windows.end_lease(self.id).await;
            }
            Step::Evict => {
                self.evictions -= 1;
                self.windows.evict(self.id).await;
            }
            Step::ReadForeign(i) | Step::WriteForeign(i) => return self.foreign(step, i).await,
            Step::Snapshot => {
                self.snapshot = Some(self.windows.save(self.id).await);
            }
            Step::Rewind => {
                let saved = self.snapshot.take().unwrap_or_default();
                self.windows.go_back(self.id, saved).await;
            }
        }
        let State { last_seq, messages } = self.current();
        Ok(format!(
            "the store contains {:?} of {last_seq}",
            seqs(messages)
        ))
    }

    fn commit(&mut self, i: usize, kind: CommitKind) {
        let Writer::Announced(announcement) = self.take_writer(i) else {
            return;
        };
        let mut state = self.current().clone();
        let commit = match kind {
            CommitKind::Append => {
                state.last_seq += 1;
                state.messages.push(message(self.id, state.last_seq));
                self.states.push(state);
                Commit {
                    state: self.states.len() - 1,
                    kind,
                }
            }
            CommitKind::Truncate => {
                let removed = state.messages.pop();
                self.removed.extend(removed.map(|removed| removed.seq));
                self.states.push(state);
                Commit {
                    state: self.states.len() - 1,
                    kind,
                }
            }
            CommitKind::Replay => {
                let first = self.crashed.remove(0);
                let kind = match first.kind {
                    CommitKind::Append => CommitKind::Replay,
                    other => other,
                };
                Commit { kind, ..first }
            }
        };
        self.writers[i] = Writer::Committed(announcement, commit);
    }

    async fn acknowledge(&mut self, i: usize) {
        let Writer::Committed(announcement, commit) = self.take_writer(i) else {
            return;
        };
        let recent = self.windows.sidecar(i);
        let state = &self.states[commit.state];
        match commit.kind {
            CommitKind::Append => {
                let saved = &state.messages[state.messages.len() - 1..];
                recent.publish(self.id, announcement, saved).await;
            }
            CommitKind::Truncate => recent.retire(self.id, announcement).await,
            CommitKind::Replay => {
                let last_seq = state.last_seq;
                recent.publish_replay(self.id, announcement, last_seq).await;
            }
        }
        self.acknowledged = self.acknowledged.max(state.last_seq);
        if matches!(commit.kind, CommitKind::Truncate) {
            let removed = self.states[commit.state - 1].messages.last();
            self.removal_acknowledged
                .extend(removed.map(|removed| removed.seq));
        }
    }

    /// Takes a step of a caller who is not the owner, which must change nothing.
    async fn foreign(&self, step: Step, i: usize) -> Result<String, String> {
        let Some(recent) = self.windows.sidecar(i).present() else {
            return Ok("skipped".to_owned());
        };
        let other = UserId::parse("bob").unwrap();
        let claim = Claim::Unconfirmed(&other);
        let before = self.windows.state(self.id).await;
        let is_rejected = if matches!(step, Step::WriteForeign(_)) {
            recent.announce(self.id, claim, LIMIT).await.is_none()
        } else {
            let lookup = recent.newest(self.id, claim, 10, 0).await;
            matches!(lookup, Lookup::OwnerUnknown)
        };
        if is_rejected && self.windows.state(self.id).await == before {
            Ok("rejected".to_owned())
        } else {
            Err("another user's call was not rejected, or changed the window".to_owned())
        }
    }

    async fn newest(&mut self, i: usize) -> Result<String, String> {
        match self.windows.sidecar(i).newest(self.id).await {
            Read::Hit {
                last_seq,
                seqs: read,
                encoded,
            } => {
                let outcome = format!("{read:?} of {last_seq}");
                let mut remaining = (1..=last_seq).filter(|seq| !self.removed.contains(seq));
                let is_valid = last_seq >= self.acknowledged.max(self.seen)
                    && last_seq <= self.current().last_seq
                    && remaining.all(|seq| read.contains(&seq))
                    && !self
                        .removal_acknowledged
                        .iter()
                        .any(|seq| read.contains(seq))
                    && encoded
                        .iter()
                        .all(|m| *m == EncodedMessage::encode(&message(self.id, m.seq)));
                if is_valid { Ok(outcome) } else { Err(outcome) }
            }
            Read::Miss(lease) => {
                let outcome = format!("miss, lease: {}", lease.is_some());
                self.readers[i] = Reader::Missed(lease);
                Ok(outcome)
            }
            Read::Other(outcome) => Ok(outcome),
        }
    }

    async fn fill(&mut self, i: usize) {
        if let Reader::Read(lease, state) = mem::replace(&mut self.readers[i], Reader::Idle) {
            let (last_seq, messages) = self.states[state].newest();
            let whole = messages.len() == self.states[state].messages.len();
            let recent = self.windows.sidecar(i);
            recent
                .fill(self.id, lease, (last_seq, messages, whole))
                .await;
        }
    }

    fn take_writer(&mut self, i: usize) -> Writer {
        mem::replace(&mut self.writers[i], Writer::Idle)
    }

    fn current(&self) -> &State {
        self.states.last().expect("there is an initial state")
    }
}

impl State {
    fn newest(&self) -> (i64, &[Message]) {
        let from = self.messages.len().saturating_sub(10);
        (self.last_seq, &self.messages[from..])
    }
}
