//! Timing of calls in alternating order, and tables of the results.

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

/// Number of rounds before the measurement, in which connections are opened and
/// statements are planned.
const WARM_UP: usize = 20;

/// Call that is repeated.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    /// Health check, which measures gRPC alone.
    Health,
    Begin(BeginTurnRequest),
    History(GetHistoryRequest),
    Save(SaveMessagesRequest),
    Branch(BranchConversationRequest),
}

impl Call {
    /// Creates a save of a question and an answer.
    pub(crate) fn save(conversation: &str) -> Self {
        let text = "A sentence as people write them to an assistant. ".repeat(4);
        Self::Save(save(conversation, turn(&text, &text)))
    }
}

/// Client that repeats a call.
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

    /// Counts only responses from `source`.
    pub(crate) fn from(mut self, source: Source) -> Self {
        self.source = Some(source);
        self
    }

    /// Deletes a key from Redis before each call.
    pub(crate) fn without_key(mut self, redis_url: &str, key: String) -> Self {
        self.evicted = Some((redis_url.to_owned(), key));
        self
    }

    /// Makes the call and returns its duration. None if the response is not counted.
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
                let response = self.memory.begin_turn(request).await.unwrap();
                Some(response.into_inner().source())
            }
            Call::History(request) => {
                let response = self.memory.get_history(request).await.unwrap();
                Some(response.into_inner().source())
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
        let duration = start.elapsed();
        (self.source.is_none() || self.source == source).then_some(duration)
    }

    /// Makes a call that may fail, and returns its duration and status code.
    pub(crate) async fn time_with_code(&mut self) -> (Duration, Code) {
        let call = self.call.clone();
        let start = Instant::now();
        let code = match call {
            Call::Health => panic!("health checks are not expected to fail"),
            Call::Begin(request) => code(self.memory.begin_turn(request).await),
            Call::History(request) => code(self.memory.get_history(request).await),
            Call::Save(request) => code(self.memory.save_messages(request).await),
            Call::Branch(request) => code(self.memory.branch_conversation(request).await),
        };
        (start.elapsed(), code)
    }
}

fn code<T>(result: Result<T, tonic::Status>) -> Code {
    result.map_or_else(|status| status.code(), |_| Code::Ok)
}

/// Durations of calls.
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
        let median = sorted.get(sorted.len() / 2);
        *median.expect("no response was counted")
    }

    pub(crate) fn max(&self) -> Duration {
        self.times.iter().max().copied().unwrap_or_default()
    }

    /// Ratio of the medians.
    pub(crate) fn ratio(&self, base: &Self) -> String {
        let ratio = self.median().as_secs_f64() / base.median().as_secs_f64();
        format!("{ratio:.2}")
    }

    /// Number of responses that were not counted. Empty if there are none.
    pub(crate) fn remark(&self) -> String {
        if self.uncounted == 0 {
            return String::new();
        }
        let all = self.uncounted + self.times.len();
        format!("{} of {all} not counted", self.uncounted)
    }
}

/// Times calls in alternating order, so that the order favors none of the callers.
pub(crate) async fn alternate<const N: usize>(
    rounds: usize,
    mut callers: [Caller; N],
) -> [Times; N] {
    let mut times = [const { Times::new() }; N];
    for round in 0..WARM_UP + rounds {
        for step in 0..N {
            let index = if round % 2 == 0 { step } else { N - 1 - step };
            let time = callers[index].time().await;
            if round >= WARM_UP {
                times[index].add(time);
            }
        }
    }
    times
}

/// Prints the heading of a table.
pub(crate) fn heading(title: &str, columns: &[&str]) {
    println!();
    row(title, columns);
}

/// Prints a row of a table.
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

/// Formats a difference in milliseconds.
pub(crate) fn difference(time: Duration, base: Duration) -> String {
    let difference = (time.as_secs_f64() - base.as_secs_f64()) * 1e3;
    format!("{difference:+.2} ms")
}

pub(crate) fn millis(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1e3)
}
