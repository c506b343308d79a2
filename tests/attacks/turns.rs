//! The unrelated caller, whose turns must succeed during an attack.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use conversation_memory::proto::{BeginTurnRequest, Role};
use test_support::{
    completes, new_user,
    requests::{message, save},
    sidecar::{Memory, Sidecar},
    within_progress,
};
use tokio::task::JoinHandle;
use tonic::{Request, Status};

/// Interval of the turns.
const INTERVAL: Duration = Duration::from_millis(100);
/// Time limit of a call of the unrelated caller, far above what a turn takes on a busy machine.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Number of turns that an attack must outlast.
const FEWEST_TURNS: usize = 10;
/// Limit on the resident memory of the process.
const MOST_MEMORY_KIB: u64 = 256 << 10;

/// Turns of the unrelated caller.
pub(crate) struct Turns {
    is_stopped: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    task: JoinHandle<Vec<Status>>,
}

/// How the unrelated caller connects.
#[derive(Clone, Copy, Default)]
pub(crate) struct Access {
    pub(crate) token: Option<&'static str>,
    /// Whether each turn has a connection of its own.
    pub(crate) reconnects: bool,
}

impl Turns {
    /// Starts the turns, and waits for the first ones.
    pub(crate) async fn start(sidecar: &Sidecar, access: Access) -> Self {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        let (stopped, counted) = (Arc::clone(&is_stopped), Arc::clone(&count));
        let channel = sidecar.channel();
        let address = format!("http://{}", sidecar.address);
        let task = tokio::spawn(async move {
            let user = new_user();
            let mut memory = Memory::new(channel);
            let mut failures = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                if access.reconnects {
                    let endpoint = tonic::transport::Endpoint::try_from(address.clone());
                    memory = Memory::new(endpoint.unwrap().connect_lazy());
                }
                let mut performed = turn(&mut memory, &user, access.token).await;
                if access.reconnects && performed.as_ref().is_err_and(is_disconnected) {
                    // Clients connect again when a connection is closed before its first call.
                    performed = turn(&mut memory, &user, access.token).await;
                }
                failures.extend(performed.err());
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(INTERVAL).await;
            }
            failures
        });
        let turns = Self {
            is_stopped,
            count,
            task,
        };
        turns.pass(2).await;
        turns
    }

    /// Waits until a number of further turns has ended.
    pub(crate) async fn pass(&self, turns: usize) {
        let end = self.count.load(Ordering::Relaxed) + turns;
        let count = async || self.count.load(Ordering::Relaxed);
        within_progress("the unrelated caller performs turns", count, |count| {
            *count >= end
        })
        .await;
    }

    /// Ends the turns, and fails if a call has failed or the process has taken too much memory.
    pub(crate) async fn finish(self, sidecar: &Sidecar) {
        self.pass(FEWEST_TURNS).await;
        self.is_stopped.store(true, Ordering::Relaxed);
        let failures = completes("the turns end", self.task).await.unwrap();
        let count = self.count.load(Ordering::Relaxed);
        let peak = sidecar.peak_kib();
        eprintln!(
            "{count} turns, {} failed, {} MiB",
            failures.len(),
            peak >> 10
        );
        assert!(
            failures.is_empty(),
            "{} of {count} turns failed; the first: {:?}",
            failures.len(),
            failures[0]
        );
        assert!(
            peak < MOST_MEMORY_KIB,
            "the process has taken {} MiB of memory",
            peak >> 10
        );
    }
}

/// Whether the connection was closed, which is not a reply of the sidecar.
fn is_disconnected(failure: &Status) -> bool {
    std::error::Error::source(failure).is_some()
}

/// Begins and saves one turn.
async fn turn(memory: &mut Memory, user: &str, token: Option<&str>) -> Result<(), Status> {
    let begin = BeginTurnRequest {
        user_id: user.to_owned(),
        ..BeginTurnRequest::default()
    };
    let begun = memory.begin_turn(with_access(begin, token)).await?;
    let conversation = begun.into_inner().conversation.unwrap().id;
    let messages = vec![
        message(Role::User, "What is our vacation policy?"),
        message(Role::Assistant, "25 days a year."),
    ];
    let save = save(&conversation, messages);
    memory.save_messages(with_access(save, token)).await?;
    Ok(())
}

/// Adds a time limit and a token to a request.
pub(crate) fn with_access<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}
