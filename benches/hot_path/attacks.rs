//! Turns of a caller while others attack the sidecar.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use conversation_memory::proto::{GetHistoryRequest, Role, SearchMessagesRequest};
use test_support::{
    new_user,
    raw_http2::{
        DATA, HEADERS, LARGE_WINDOW, NO_WINDOW, PING, PRIORITY, RST_STREAM, RawConnection,
        SETTINGS, announced, encode, preface, request_head,
    },
    requests::{begin, history, message, new_conversation, save},
    sidecar::{Form, Sidecar},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::{Builder, Handle},
    task::JoinSet,
    time::sleep,
};

use crate::compare::{heading, millis, row};

const INTERVAL: Duration = Duration::from_millis(100);
/// Most concurrent calls that a connection permits.
const CALLS: usize = 1024;
const GET_HISTORY: &str = "/conversation_memory.v1.ConversationMemory/GetHistory";
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// Attack that lasts until it is dropped.
#[derive(Clone, Copy)]
enum Attack {
    None,
    UnreadResponses,
    HalfSentChecks,
    IdleConnections,
    Searches,
    Overload,
    HalfSentCalls,
    /// Frames that begin no call, or that begin and cancel calls, over several connections.
    Frames(fn(u32) -> Vec<u8>),
    Metrics,
}

const ATTACKS: [(&str, Attack); 13] = [
    ("none", Attack::None),
    ("1,024 unread histories of 3 MiB", Attack::UnreadResponses),
    ("102,400 half-sent health checks", Attack::HalfSentChecks),
    ("1,000 idle connections", Attack::IdleConnections),
    ("12 callers with expensive searches", Attack::Searches),
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
    ("flood of empty data", Attack::Frames(empty_data)),
    ("flood of cancelled calls", Attack::Frames(cancelled_call)),
    ("16 callers of /metrics without a pause", Attack::Metrics),
];

/// Measures the turns of one caller, one every 100 ms, during each attack, or during those whose names
/// contain the variable `ATTACK`.
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
        let mut idle = Duration::ZERO;
        for (name, attack) in ATTACKS {
            let is_chosen = chosen.as_deref().is_none_or(|chosen| name.contains(chosen));
            if !is_chosen && !matches!(attack, Attack::None) {
                continue;
            }
            let mut sidecar = Sidecar::start(form).await;
            let mut attack_tasks = attack.start(&mut sidecar, attackers.handle()).await;
            let (mut times, failed) = turns(&sidecar, rounds).await;
            attack_tasks.shutdown().await;
            times.sort_unstable();
            let (median, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
            if matches!(attack, Attack::None) {
                idle = p99;
            }
            let ratio = p99.as_secs_f64() / idle.as_secs_f64();
            row(
                name,
                &[
                    millis(median),
                    millis(p99),
                    format!("{ratio:.1}"),
                    failed.to_string(),
                    format!("{} MiB", sidecar.peak_kib() >> 10),
                ],
            );
        }
    }
    attackers.shutdown_background();
}

/// Performs turns, and returns their times and the number of failed ones.
async fn turns(sidecar: &Sidecar, rounds: usize) -> (Vec<Duration>, usize) {
    let mut memory = sidecar.memory();
    let user = new_user();
    let (mut times, mut failed) = (Vec::with_capacity(rounds), 0);
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
        if turn.await.is_err() {
            failed += 1;
        }
        times.push(start.elapsed());
        sleep(INTERVAL).await;
    }
    (times, failed)
}

impl Attack {
    async fn start(self, sidecar: &mut Sidecar, attackers: &Handle) -> JoinSet<()> {
        let mut tasks = Attackers {
            set: JoinSet::new(),
            runtime: attackers.clone(),
        };
        match self {
            Self::None => {}
            Self::UnreadResponses => {
                let id = large_conversation(sidecar).await;
                hold(&mut tasks, sidecar, 1, NO_WINDOW, move |connection| {
                    let request = GetHistoryRequest {
                        limit: 10,
                        ..history(&id)
                    };
                    for _ in 0..CALLS {
                        connection.call(GET_HISTORY, None, &request);
                    }
                });
            }
            Self::HalfSentChecks => hold(&mut tasks, sidecar, 100, LARGE_WINDOW, |connection| {
                for _ in 0..CALLS {
                    let stream = connection.begin_call(CHECK, None);
                    connection.frame(DATA, 0, stream, &announced(100));
                }
            }),
            Self::IdleConnections => hold(&mut tasks, sidecar, 1000, LARGE_WINDOW, |_| {}),
            Self::Searches => search(&mut tasks, sidecar).await,
            Self::Overload => overload(&mut tasks, sidecar),
            Self::HalfSentCalls => hold(&mut tasks, sidecar, 300, LARGE_WINDOW, |connection| {
                for _ in 0..CALLS / 100 {
                    let stream = connection.begin_call(GET_HISTORY, None);
                    connection.frame(DATA, 0, stream, &announced(100));
                }
            }),
            Self::Frames(frames) => flood(&mut tasks, sidecar.address, frames),
            Self::Metrics => scrape(&mut tasks, sidecar.operations().await),
        }
        tasks.set
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
}

/// Keeps connections open, and opens and uses each again when the server has closed it.
fn hold(
    tasks: &mut Attackers,
    sidecar: &Sidecar,
    connections: usize,
    window: u32,
    act: impl Fn(&mut RawConnection) + Clone + Send + 'static,
) {
    for _ in 0..connections {
        let (address, act) = (sidecar.address, act.clone());
        tasks.spawn(async move {
            loop {
                let mut connection = RawConnection::open(address, window).await.read();
                act(&mut connection);
                while !connection.is_closed() {
                    sleep(INTERVAL).await;
                }
            }
        });
    }
}

async fn large_conversation(sidecar: &Sidecar) -> String {
    let mut memory = sidecar.memory();
    let id = new_conversation(&mut memory, &new_user()).await;
    for _ in 0..3 {
        let text = "x".repeat((1 << 20) - 1024);
        let save = save(&id, vec![message(Role::User, &text)]);
        memory.save_messages(save).await.unwrap();
    }
    id
}

/// Searches texts of 16 KiB that consist of the words of the query.
async fn search(tasks: &mut Attackers, sidecar: &Sidecar) {
    let mut memory = sidecar.memory();
    let user = new_user();
    let id = new_conversation(&mut memory, &user).await;
    let letters: Vec<_> = ('a'..='z').map(String::from).collect();
    let query = letters.join(" ");
    let text = format!("{query} ").repeat((16 << 10) / 52);
    for _ in 0..4 {
        let save = save(&id, vec![message(Role::User, &text); 25]);
        memory.save_messages(save).await.unwrap();
    }
    for _ in 0..12 {
        let (mut memory, user, query) = (sidecar.memory(), user.clone(), query.clone());
        tasks.spawn(async move {
            loop {
                let search = SearchMessagesRequest {
                    user_id: user.clone(),
                    query: query.clone(),
                    ..SearchMessagesRequest::default()
                };
                // Rejected searches are repeated, too.
                let _ = memory.search_messages(search).await;
                sleep(Duration::from_millis(1)).await;
            }
        });
    }
}

/// Performs turns without a pause.
fn overload(tasks: &mut Attackers, sidecar: &Sidecar) {
    let memory = sidecar.memory();
    for _ in 0..64 {
        let (mut memory, user) = (memory.clone(), new_user());
        tasks.spawn(async move {
            loop {
                // Rejected calls are repeated, too.
                let Ok(begun) = memory.begin_turn(begin(&user)).await else {
                    continue;
                };
                let id = begun.into_inner().conversation.unwrap_or_default().id;
                let request = save(&id, vec![message(Role::User, "a question")]);
                let _ = memory.save_messages(request).await;
            }
        });
    }
}

/// Number of frames that are written at once.
const FRAMES: u32 = 1000;

/// Writes frames over four connections as fast as the server reads them.
fn flood(tasks: &mut Attackers, address: SocketAddr, frames: fn(u32) -> Vec<u8>) {
    for _ in 0..4 {
        tasks.spawn(async move {
            loop {
                let stream = TcpStream::connect(address).await.unwrap();
                let (mut reader, mut writer) = stream.into_split();
                let reading = async {
                    let mut buffer = vec![0; 64 << 10];
                    while reader.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
                };
                let writing = async {
                    let mut written = writer.write_all(&preface(LARGE_WINDOW)).await;
                    let mut first = 0;
                    while written.is_ok() {
                        let batch: Vec<u8> = (first..first + FRAMES).flat_map(frames).collect();
                        first += FRAMES;
                        written = writer.write_all(&batch).await;
                    }
                };
                tokio::join!(reading, writing);
            }
        });
    }
}

/// Empty data of a call that begins with the first frame.
fn empty_data(number: u32) -> Vec<u8> {
    match number {
        0 => encode(HEADERS, 4, 1, &request_head(GET_HISTORY, None)).to_vec(),
        _ => encode(DATA, 0, 1, &[]).to_vec(),
    }
}

/// A call and its cancellation.
fn cancelled_call(number: u32) -> Vec<u8> {
    let stream = 2 * number + 1;
    let mut frames = encode(HEADERS, 4, stream, &request_head(GET_HISTORY, None));
    frames.extend_from_slice(&encode(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    frames.to_vec()
}

/// Reads the metrics without a pause.
fn scrape(tasks: &mut Attackers, address: SocketAddr) {
    for _ in 0..16 {
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let mut buffer = vec![0; 64 << 10];
            let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n";
            while stream.write_all(request).await.is_ok() {
                if stream.read(&mut buffer).await.is_ok_and(|read| read == 0) {
                    stream = TcpStream::connect(address).await.unwrap();
                }
            }
        });
    }
}
