//! Recorded history: every call with its invocation and completion in real-time order, the faults,
//! and the final state of the store.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tonic::{Code, Status};

use crate::outcome;

/// A call that fails later can have reached a time limit of the store on a busy machine. The shortest is
/// the 900 ms to acquire a connection.
const SHORTEST_LIMIT: Duration = Duration::from_millis(500);

/// Index of a conversation in [`History::conversations`].
pub(crate) type ConversationIndex = usize;
/// Number of a logical save or removal. Retries with the same request id have the same number.
pub(crate) type WriteNumber = u32;

/// Point in real time. Ticks order events; the time since the start of the history measures delays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment {
    pub(crate) tick: u64,
    pub(crate) at: Duration,
}

/// One run of one sidecar: a restarted sidecar is another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) sidecar: usize,
    pub(crate) generation: u32,
}

/// Message as the checker sees it: the text names the save and the position in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Token {
    pub(crate) save: WriteNumber,
    pub(crate) index: u32,
}

impl Token {
    pub(crate) fn text(self) -> String {
        format!("save {} message {}", self.save, self.index)
    }

    /// Returns `None` for a text that no client of this history has sent.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (save, index) = text.strip_prefix("save ")?.split_once(" message ")?;
        Some(Self {
            save: save.parse().ok()?,
            index: index.parse().ok()?,
        })
    }
}

/// Message in a response or in the store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) seq: i64,
    pub(crate) token: Option<Token>,
}

impl fmt::Debug for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seq, token } = self;
        match token {
            Some(Token { save, index }) => write!(formatter, "{seq}={save}.{index}"),
            None => write!(formatter, "{seq}=?"),
        }
    }
}

/// Outcome of a write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome<T> {
    Acknowledged(T),
    /// The error guarantees that nothing was written.
    NotPerformed,
    /// The conversation does not exist, so that nothing was written.
    NotFound,
    /// The write may have been performed, or may be performed later.
    Unknown,
}

/// Consistency that a read requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consistency {
    Cached,
    /// CACHED read that must include every message up to `min_seq`.
    AtLeast(i64),
    Strong,
}

/// Outcome of a read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shown {
    Messages {
        /// `None` if the response has no `last_seq`.
        last_seq: Option<i64>,
        rows: Vec<Row>,
        /// Whether the recent window answered.
        from_window: bool,
    },
    /// `MIN_SEQ_NOT_REACHED`, with the number at which the conversation ends.
    EndsAt(i64),
    NotFound,
    Failed,
}

#[derive(Clone, Debug)]
pub(crate) enum Action {
    Save {
        save: WriteNumber,
        count: u32,
        outcome: Outcome<Vec<Row>>,
    },
    Truncate {
        removal: WriteNumber,
        after: i64,
        /// `last_seq` of the response.
        outcome: Outcome<i64>,
    },
    Delete {
        outcome: Outcome<()>,
    },
    Branch {
        at: i64,
        outcome: Outcome<ConversationIndex>,
    },
    Read {
        consistency: Consistency,
        /// Highest number of messages in the response.
        limit: usize,
        shown: Shown,
    },
    /// A read by a user who does not own the conversation.
    ForeignRead {
        shown: Shown,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) process: Process,
    pub(crate) conversation: ConversationIndex,
    pub(crate) invoked: Moment,
    pub(crate) completed: Moment,
    pub(crate) action: Action,
}

/// Fault and the time in which it was active.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) name: String,
    /// Whether the sidecars cannot write to Redis during the fault.
    pub(crate) cuts_redis: bool,
    /// Whether the sidecars cannot use PostgreSQL during the fault.
    pub(crate) cuts_postgres: bool,
    /// Affected sidecar; `None` for all.
    pub(crate) sidecar: Option<usize>,
    pub(crate) from: Duration,
    pub(crate) until: Duration,
}

impl Fault {
    pub(crate) fn affects(&self, process: Process) -> bool {
        self.sidecar
            .is_none_or(|sidecar| sidecar == process.sidecar)
    }
}

/// Conversation in the store at the end.
#[derive(Clone, Debug)]
pub(crate) struct StoredConversation {
    pub(crate) conversation: ConversationIndex,
    pub(crate) last_seq: i64,
    pub(crate) rows: Vec<Row>,
}

/// State of the store at the end of a history, read in one transaction.
#[derive(Clone, Debug, Default)]
pub(crate) struct FinalState {
    pub(crate) moment: Moment,
    pub(crate) conversations: Vec<StoredConversation>,
    /// Performed removals, each with the number at which its conversation ended.
    pub(crate) removals: Vec<(WriteNumber, i64)>,
}

/// Recorded history of one round.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// Ids of the conversations.
    pub(crate) conversations: Vec<String>,
    pub(crate) calls: Vec<Call>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) final_state: FinalState,
    /// Number of failed calls by code and message without numbers.
    pub(crate) failures: BTreeMap<String, usize>,
    /// Calls that were UNAVAILABLE sooner than any time limit of the store.
    pub(crate) prompt_failures: Vec<String>,
    /// Number of turns that began without a session.
    pub(crate) turns_without_session: usize,
    /// Responses and errors that no fault may cause.
    pub(crate) unexpected: Vec<String>,
}

/// Records the calls of concurrent clients.
#[derive(Debug)]
pub(crate) struct Recorder {
    started: Instant,
    ticks: AtomicU64,
    writes: AtomicU64,
    history: Mutex<History>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            ticks: AtomicU64::new(1),
            writes: AtomicU64::new(1),
            history: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> Moment {
        let tick = self.ticks.fetch_add(1, Ordering::SeqCst);
        let at = self.started.elapsed();
        Moment { tick, at }
    }

    pub(crate) fn next_write(&self) -> WriteNumber {
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        WriteNumber::try_from(number).unwrap()
    }

    pub(crate) fn add_conversation(&self, id: String) -> ConversationIndex {
        let mut history = self.history.lock().unwrap();
        history.conversations.push(id);
        history.conversations.len() - 1
    }

    /// Records a call that was invoked at `invoked` and completes now.
    pub(crate) fn record(
        &self,
        process: Process,
        conversation: ConversationIndex,
        invoked: Moment,
        action: Action,
    ) {
        let completed = self.now();
        let call = Call {
            process,
            conversation,
            invoked,
            completed,
            action,
        };
        self.history.lock().unwrap().calls.push(call);
    }

    pub(crate) fn record_fault(&self, fault: Fault) {
        self.history.lock().unwrap().faults.push(fault);
    }

    /// Counts a call that has failed after a time.
    pub(crate) fn count_failure(&self, status: &Status, duration: Duration) {
        let message = status
            .message()
            .replace(|letter: char| letter.is_ascii_digit(), "");
        let text = format!("{:?}: {message}", status.code());
        if outcome::is_unexpected(status) {
            self.record_unexpected(&text);
        }
        let mut history = self.history.lock().unwrap();
        if status.code() == Code::Unavailable && duration < SHORTEST_LIMIT {
            history
                .prompt_failures
                .push(format!("{duration:?}: {text}"));
        }
        *history.failures.entry(text).or_default() += 1;
    }

    /// Records a response or an error that no fault may cause.
    pub(crate) fn record_unexpected(&self, text: &str) {
        let at = self.started.elapsed();
        let mut history = self.history.lock().unwrap();
        history.unexpected.push(format!("{at:.3?}: {text}"));
    }

    pub(crate) fn count_turn_without_session(&self) {
        self.history.lock().unwrap().turns_without_session += 1;
    }

    pub(crate) fn calls(&self) -> usize {
        self.history.lock().unwrap().calls.len()
    }

    /// Returns the history so far.
    pub(crate) fn history(&self) -> History {
        self.history.lock().unwrap().clone()
    }

    /// Takes the history of the round. Conversations of later rounds are new ones.
    pub(crate) fn take(&self) -> History {
        std::mem::take(&mut self.history.lock().unwrap())
    }
}
