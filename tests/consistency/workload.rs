//! Concurrent clients of one round.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use test_support::{new_user, random::Random};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    clients::{Client, Turn},
    cluster::{Cluster, SIDECARS},
    history::{Consistency, Outcome, Recorder},
    targets::{Target, Targets},
};

/// Factor of the pauses between calls.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    Fast = 1,
    Moderate = 4,
}

/// Parameters of a workload.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) pace: Pace,
    /// Whether conversations are truncated, branched and deleted.
    pub(crate) has_removals: bool,
}

const WRITERS: usize = 6;
const READERS: usize = 6;
/// Conversations at the start of a round, and the highest number at the same time.
const CONVERSATIONS: usize = 12;
const MAX_CONVERSATIONS: usize = 18;
/// Attempts of a write with a request id.
const MAX_ATTEMPTS: usize = 12;
/// Time for which a deleted conversation is still read and written.
const AFTERMATH: Duration = Duration::from_secs(3);

/// Clients that call the sidecars until they are stopped.
pub(crate) struct Workload {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

struct Shared {
    cluster: Arc<Cluster>,
    recorder: Arc<Recorder>,
    targets: Targets,
    is_over: AtomicBool,
    pace: Pace,
}

impl Workload {
    /// Starts clients of new conversations.
    pub(crate) async fn start(
        cluster: &Arc<Cluster>,
        recorder: &Arc<Recorder>,
        plan: Plan,
    ) -> Self {
        let client = Client::new(cluster, recorder);
        let mut targets = Vec::new();
        for _ in 0..CONVERSATIONS {
            let target = client.create(&new_user(), || false).await;
            targets.push(Arc::new(target.unwrap()));
        }
        Self::start_on(cluster, recorder, plan, targets)
    }

    /// Starts clients of conversations that exist.
    pub(crate) fn start_on(
        cluster: &Arc<Cluster>,
        recorder: &Arc<Recorder>,
        plan: Plan,
        targets: Vec<Arc<Target>>,
    ) -> Self {
        let shared = Arc::new(Shared {
            cluster: Arc::clone(cluster),
            recorder: Arc::clone(recorder),
            targets: Targets::new(targets),
            is_over: AtomicBool::new(false),
            pace: plan.pace,
        });
        let mut clients = JoinSet::new();
        let random = |number: usize| {
            let number = u64::try_from(number).unwrap();
            Random::new(plan.seed.wrapping_mul(1000).wrapping_add(number))
        };
        for number in 0..WRITERS {
            let shared = Arc::clone(&shared);
            clients.spawn(shared.write(random(number), number % SIDECARS));
        }
        for number in 0..READERS {
            let shared = Arc::clone(&shared);
            clients.spawn(shared.read(random(100 + number)));
        }
        if plan.has_removals {
            clients.spawn(Arc::clone(&shared).change(random(200)));
            clients.spawn(Arc::clone(&shared).remove(random(201)));
        }
        Self { shared, clients }
    }

    /// Stops the clients, and waits for their calls.
    pub(crate) async fn stop(self) -> Vec<Arc<Target>> {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.clients.join_all().await;
        self.shared.targets.all()
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// Waits between `shortest` and `longest` milliseconds, times the pace.
    async fn pause(&self, random: &mut Random, shortest: i64, longest: i64) {
        let pause = random.between(shortest, longest) * self.pace as i64;
        sleep(Duration::from_millis(pause.unsigned_abs())).await;
    }

    /// Waits as [`Self::pause`] does, and at any pace.
    async fn long_pause(&self, random: &mut Random, shortest: i64, longest: i64) {
        let pause = random.between(shortest, longest) * (self.pace as i64).max(1);
        sleep(Duration::from_millis(pause.unsigned_abs())).await;
    }

    fn client(&self) -> Client {
        Client::new(&self.cluster, &self.recorder)
    }

    /// Saves turns, and reads some of them at once.
    async fn write(self: Arc<Self>, mut random: Random, home: usize) {
        let client = self.client();
        while !self.is_over() {
            self.pause(&mut random, 10, 60).await;
            let target = self.targets.choose_to_save(&mut random);
            let turn = Turn {
                save: self.recorder.next_write(),
                count: [1, 1, 2, 2, 3][random.below(5)],
                has_request_id: !random.one_in(3),
                expected_last_seq: random.one_in(8).then(|| target.acknowledged()),
            };
            let mut sidecar = home;
            for _ in 0..MAX_ATTEMPTS {
                let outcome = client.save(sidecar, &target, turn).await;
                match outcome {
                    Outcome::Acknowledged(_) if random.one_in(3) => {
                        let consistency = Consistency::Cached;
                        client.history(sidecar, &target, consistency, 6).await;
                    }
                    Outcome::NotPerformed | Outcome::Unknown
                        if turn.has_request_id
                            && turn.expected_last_seq.is_none()
                            && !self.is_over() =>
                    {
                        self.pause(&mut random, 10, 300).await;
                        sidecar = random.below(SIDECARS);
                        continue;
                    }
                    _ => (),
                }
                break;
            }
        }
    }

    /// Reads in all ways.
    async fn read(self: Arc<Self>, mut random: Random) {
        let client = self.client();
        let mut sessions = Vec::new();
        while !self.is_over() {
            self.pause(&mut random, 3, 30).await;
            let target = self.targets.choose(&mut random);
            let sidecar = random.below(SIDECARS);
            match random.below(20) {
                0..9 => {
                    let limit = [1, 3, 6, 6, 10, 30][random.below(6)];
                    let consistency = Consistency::Cached;
                    client.history(sidecar, &target, consistency, limit).await;
                }
                9..12 => {
                    let consistency = Consistency::AtLeast(target.acknowledged());
                    client.history(sidecar, &target, consistency, 6).await;
                }
                12..14 => {
                    let limit = [6, 40, 1000][random.below(3)];
                    let consistency = Consistency::Strong;
                    client.history(sidecar, &target, consistency, limit).await;
                }
                14..16 => {
                    let page_size = [5, 40, 1000][random.below(3)];
                    client.list(sidecar, &target, page_size).await;
                }
                16..19 => {
                    let session = session_of(&mut sessions, &target.user);
                    client.begin_turn(sidecar, &target, session).await;
                }
                _ => client.foreign_history(sidecar, &target).await,
            }
        }
    }

    /// Truncates and branches.
    async fn change(self: Arc<Self>, mut random: Random) {
        let client = self.client();
        while !self.is_over() {
            self.long_pause(&mut random, 50, 400).await;
            let target = self.targets.choose(&mut random);
            let last_seq = target.acknowledged();
            if random.one_in(4) && last_seq > 0 && self.targets.len() < MAX_CONVERSATIONS {
                let at = random.between(1.max(last_seq - 10), last_seq);
                let sidecar = random.below(SIDECARS);
                if let Some(branch) = client.branch(sidecar, &target, at).await {
                    self.targets.add(branch);
                }
                continue;
            }
            let after = match random.below(12) {
                0 => 0,
                1 => last_seq,
                _ => random.between(0.max(last_seq - 8), last_seq),
            };
            let removal = self.recorder.next_write();
            for _ in 0..MAX_ATTEMPTS {
                let sidecar = random.below(SIDECARS);
                let outcome = client.truncate(sidecar, &target, removal, after).await;
                let is_final = matches!(outcome, Outcome::Acknowledged(_) | Outcome::NotFound);
                if is_final || self.is_over() {
                    break;
                }
                self.pause(&mut random, 10, 300).await;
            }
        }
    }

    /// Deletes conversations and creates new ones.
    async fn remove(self: Arc<Self>, mut random: Random) {
        let client = self.client();
        while !self.is_over() {
            self.long_pause(&mut random, 500, 2500).await;
            let target = self.targets.choose(&mut random);
            for _ in 0..MAX_ATTEMPTS {
                let outcome = client.delete(random.below(SIDECARS), &target).await;
                let is_final = matches!(outcome, Outcome::Acknowledged(()) | Outcome::NotFound);
                if is_final || self.is_over() {
                    break;
                }
                self.pause(&mut random, 10, 300).await;
            }
            let created = client.create(&new_user(), || self.is_over()).await;
            if let Some(created) = created {
                self.targets.add(created);
                sleep(AFTERMATH).await;
                self.targets.remove(&target);
            }
        }
    }
}

/// The session of a user, which is empty at first.
fn session_of<'a>(sessions: &'a mut Vec<(String, String)>, user: &str) -> &'a mut String {
    let at = sessions.iter().position(|(owner, _)| owner == user);
    let at = at.unwrap_or_else(|| {
        sessions.push((user.to_owned(), String::new()));
        sessions.len() - 1
    });
    &mut sessions[at].1
}
