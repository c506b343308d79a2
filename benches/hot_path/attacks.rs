//! Turns of a caller while others attack the sidecar.

use std::time::{Duration, Instant};

use conversation_memory::proto::{GetHistoryRequest, Role, SearchMessagesRequest};
use test_support::{
    new_user,
    raw_http2::{DATA, LARGE_WINDOW, NO_WINDOW, RawConnection, announced},
    requests::{begin, history, message, new_conversation, save},
    sidecar::{Form, Sidecar},
};
use tokio::{task::JoinSet, time::sleep};

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
}

const ATTACKS: [(&str, Attack); 5] = [
    ("none", Attack::None),
    ("1,024 unread histories of 3 MiB", Attack::UnreadResponses),
    ("102,400 half-sent health checks", Attack::HalfSentChecks),
    ("1,000 idle connections", Attack::IdleConnections),
    ("12 callers with expensive searches", Attack::Searches),
];

/// Measures the turns of one caller, one every 100 ms, during each attack.
pub(crate) async fn attacks(rounds: usize) {
    let forms = [
        ("embedded", Form::embedded()),
        ("PostgreSQL + Redis", Form::servers()),
    ];
    for (label, form) in &forms {
        let columns = ["median", "p99", "of idle p99", "failed", "peak RSS"];
        heading(&format!("attacks: turns, {label}"), &columns);
        let mut idle = Duration::ZERO;
        for (name, attack) in ATTACKS {
            let sidecar = Sidecar::start(form).await;
            let attackers = attack.start(&sidecar).await;
            let (mut times, failed) = turns(&sidecar, rounds).await;
            drop(attackers);
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
    async fn start(self, sidecar: &Sidecar) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
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
        }
        tasks
    }
}

/// Keeps connections open, and opens and uses each again when the server has closed it.
fn hold(
    tasks: &mut JoinSet<()>,
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
async fn search(tasks: &mut JoinSet<()>, sidecar: &Sidecar) {
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
