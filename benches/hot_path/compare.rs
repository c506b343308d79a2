//! Calls that are timed in turns, and a table of what came out.

use std::time::{Duration, Instant};

use conversation_memory::proto::{
    BeginTurnRequest, BranchConversationRequest, GetHistoryRequest, SaveMessagesRequest, Source,
};
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use test_support::{
    redis_server,
    requests::{save, turn},
    sidecar::{Memory, Sidecar},
};

/// Rounds that are not counted: connections open and statements are planned.
const WARM_UP: usize = 20;

/// A call that is made again and again.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    /// No call on the memory, but one on gRPC.
    Health,
    Begin(BeginTurnRequest),
    History(GetHistoryRequest),
    Save(SaveMessagesRequest),
    Branch(BranchConversationRequest),
}

impl Call {
    /// Saves a question and an answer.
    pub(crate) fn save(conversation: &str) -> Self {
        let text = "A sentence as people write them to an assistant. ".repeat(4);
        Self::Save(save(conversation, turn(&text, &text)))
    }
}

/// Who makes a call.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    memory: Memory,
    health: HealthClient<Channel>,
    call: Call,
    source: Option<Source>,
    evicted: Option<(String, String)>,
}

impl Caller {
    pub(crate) fn new(sidecar: &Sidecar, call: Call) -> Self {
        Self {
            memory: sidecar.memory(),
            health: HealthClient::new(sidecar.channel()),
            call,
            source: None,
            evicted: None,
        }
    }

    /// Counts only answers that came from there.
    pub(crate) fn from(mut self, source: Source) -> Self {
        self.source = Some(source);
        self
    }

    /// Removes this key from Redis before each call.
    pub(crate) fn without_key(mut self, redis_url: &str, key: String) -> Self {
        self.evicted = Some((redis_url.to_owned(), key));
        self
    }

    /// Makes the call. None when the answer does not count.
    pub(crate) async fn time(&mut self) -> Option<Duration> {
        if let Some((url, key)) = &self.evicted {
            redis_server::call(url, &["DEL", key]).await.unwrap();
        }
        let call = self.call.clone();
        let start = Instant::now();
        let source = match call {
            Call::Health => {
                let request = HealthCheckRequest::default();
                self.health.check(request).await.unwrap();
                None
            }
            Call::Begin(request) => {
                let answer = self.memory.begin_turn(request).await.unwrap();
                Some(answer.into_inner().source())
            }
            Call::History(request) => {
                let answer = self.memory.get_history(request).await.unwrap();
                Some(answer.into_inner().source())
            }
            Call::Save(request) => {
                self.memory.save_messages(request).await.unwrap();
                None
            }
            Call::Branch(request) => {
                self.memory.branch_conversation(request).await.unwrap();
                None
            }
        };
        let took = start.elapsed();
        (self.source.is_none() || self.source == source).then_some(took)
    }

    /// Makes a call that is to be refused, and gives the code.
    pub(crate) async fn time_refusal(&mut self) -> (Duration, Code) {
        let call = self.call.clone();
        let start = Instant::now();
        let code = match call {
            Call::Health => panic!("health is never refused"),
            Call::Begin(request) => code(self.memory.begin_turn(request).await),
            Call::History(request) => code(self.memory.get_history(request).await),
            Call::Save(request) => code(self.memory.save_messages(request).await),
            Call::Branch(request) => code(self.memory.branch_conversation(request).await),
        };
        (start.elapsed(), code)
    }
}

fn code<T>(answer: Result<T, tonic::Status>) -> Code {
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

/// How long calls took.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    times: Vec<Duration>,
    uncounted: usize,
}

impl Times {
    pub(crate) const fn new() -> Self {
        Self {
            times: Vec::new(),
            uncounted: 0,
        }
    }

    pub(crate) fn add(&mut self, time: Option<Duration>) {
        match time {
            Some(time) => self.times.push(time),
            None => self.uncounted += 1,
        }
    }

    pub(crate) fn median(&self) -> Duration {
        let mut sorted = self.times.clone();
        sorted.sort_unstable();
        let answer = sorted.get(sorted.len() / 2);
        *answer.expect("not one answer counted")
    }

    pub(crate) fn max(&self) -> Duration {
        self.times.iter().max().copied().unwrap_or_default()
    }

    /// The median as a multiple of another one.
    pub(crate) fn ratio(&self, base: &Self) -> String {
        let ratio = self.median().as_secs_f64() / base.median().as_secs_f64();
        format!("{ratio:.2}")
    }

    /// How many answers did not count, if any.
    pub(crate) fn remark(&self) -> String {
        if self.uncounted == 0 {
            return String::new();
        }
        let all = self.uncounted + self.times.len();
        format!("{} of {all} not counted", self.uncounted)
    }
}

/// Lets the callers call in turns, and then in reverse, so that none profits
/// from its place.
pub(crate) async fn in_turns<const N: usize>(
    rounds: usize,
    mut callers: [Caller; N],
) -> [Times; N] {
    let mut times = [const { Times::new() }; N];
    for round in 0..WARM_UP + rounds {
        for step in 0..N {
            let at = if round % 2 == 0 { step } else { N - 1 - step };
            let time = callers[at].time().await;
            if round >= WARM_UP {
                times[at].add(time);
            }
        }
    }
    times
}

/// Begins a table.
pub(crate) fn heading(title: &str, columns: &[&str]) {
    println!();
    row(title, columns);
}

/// A line of a table.
pub(crate) fn row(label: &str, cells: &[impl AsRef<str>]) {
    use std::fmt::Write as _;
    let mut line = format!("{label:<46}");
    for cell in cells {
        let _ = write!(line, " {:>13}", cell.as_ref());
    }
    println!("{}", line.trim_end());
}

pub(crate) fn micros(time: Duration) -> String {
    format!("{} µs", time.as_micros())
}

/// A difference in milliseconds.
pub(crate) fn extra(time: Duration, base: Duration) -> String {
    let extra = (time.as_secs_f64() - base.as_secs_f64()) * 1e3;
    format!("{extra:+.2} ms")
}

pub(crate) fn millis(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1e3)
}
