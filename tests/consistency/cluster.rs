//! Servers and sidecars of a scenario.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use conversation_memory::proto::{Role, SessionState, Source};
use futures_util::future::join_all;
use test_support::{
    eventually, new_user,
    ports::free_address,
    postgres_server::PostgresServer,
    redis_server::RedisServer,
    requests::{begin, history, message, save},
    sidecar::{Form, Memory, Sidecar},
    tcp_proxy::TcpProxy,
};
use tokio::sync::Mutex;

use crate::history::Process;

/// Number of sidecars that share the two servers.
pub(crate) const SIDECARS: usize = 3;

/// Time in which every sidecar must work after the last fault, also on a busy machine.
const RECOVERY_LIMIT: Duration = Duration::from_secs(100);
/// Lines of a sidecar's log that are printed if it does not recover.
const LOG_TAIL: usize = 40;

/// A sidecar that can be restarted, on the same address.
pub(crate) struct Member {
    form: Form,
    pub(crate) address: SocketAddr,
    /// Operations port of the present process.
    pub(crate) operations: SocketAddr,
    sidecar: Option<Sidecar>,
}

impl Member {
    async fn start(form: Form) -> Self {
        let address = free_address();
        let mut settings = SETTINGS.to_vec();
        let listen = address.to_string();
        settings.push(("LISTEN_ADDR", &listen));
        let mut sidecar = Sidecar::start_with(&form, &settings).await;
        Self {
            form,
            address,
            operations: sidecar.operations().await,
            sidecar: Some(sidecar),
        }
    }

    async fn kill(&mut self) {
        if let Some(sidecar) = self.sidecar.take() {
            sidecar.kill().await;
        }
    }

    /// Starts the sidecar again. PostgreSQL may be unavailable: the sidecar serves when it can.
    async fn restart(&mut self) {
        let address = self.address.to_string();
        let mut settings = SETTINGS.to_vec();
        settings.push(("LISTEN_ADDR", &address));
        let mut sidecar = Sidecar::launch(&self.form, &settings);
        self.operations = sidecar.operations().await;
        self.sidecar = Some(sidecar);
    }

    pub(crate) fn id(&self) -> u32 {
        self.sidecar.as_ref().expect("the sidecar runs").id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let sidecar = self.sidecar.as_ref();
        sidecar.expect("the sidecar runs").signal(name);
    }
}

/// Estimated token counts need no tables.
const SETTINGS: [(&str, &str); 1] = [("TOKEN_ENCODING", "none")];

/// Sidecars on one PostgreSQL and one Redis, each with its own proxy in front of Redis.
pub(crate) struct Cluster {
    pub(crate) postgres: Mutex<PostgresServer>,
    /// `None` if the scenario has other Redis servers.
    redis: Option<Mutex<RedisServer>>,
    pub(crate) proxies: Vec<TcpProxy>,
    pub(crate) members: Vec<Mutex<Member>>,
    addresses: Vec<SocketAddr>,
    generations: [AtomicU32; SIDECARS],
    pub(crate) database_url: String,
}

impl Cluster {
    /// Starts a cluster whose connections to Redis pass through proxies.
    pub(crate) async fn start() -> Self {
        Self::start_with(true).await
    }

    /// Starts a cluster without proxies, whose processes have precedence on a busy machine. Returns
    /// whether the machine allows that.
    pub(crate) async fn start_undisturbed() -> (Self, bool) {
        let cluster = Self::start_with(false).await;
        let mut is_allowed = cluster.redis().lock().await.prioritize();
        is_allowed &= cluster.postgres.lock().await.prioritize();
        for member in &cluster.members {
            let member = member.lock().await;
            is_allowed &= member.sidecar.as_ref().is_some_and(Sidecar::prioritize);
        }
        (cluster, is_allowed)
    }

    /// Starts sidecars with a Redis that the scenario has started.
    pub(crate) async fn start_on(redis_url: &str) -> Self {
        let postgres = PostgresServer::start().await;
        Self::start_members(postgres, redis_url, None, false).await
    }

    async fn start_with(has_proxies: bool) -> Self {
        let (postgres, redis) = tokio::join!(PostgresServer::start(), RedisServer::start(&[]));
        let redis_url = redis.url();
        Self::start_members(postgres, &redis_url, Some(redis), has_proxies).await
    }

    async fn start_members(
        postgres: PostgresServer,
        redis_url: &str,
        redis: Option<RedisServer>,
        has_proxies: bool,
    ) -> Self {
        let mut proxies = Vec::new();
        let mut members = Vec::new();
        for _ in 0..SIDECARS {
            let mut form = Form::Servers {
                database_url: postgres.url(),
                redis_url: redis_url.to_owned(),
            };
            if has_proxies && let Some(redis) = &redis {
                let proxy = TcpProxy::start(([127, 0, 0, 1], redis.port()).into()).await;
                form = Form::Servers {
                    database_url: postgres.url(),
                    redis_url: format!("redis://{}/0", proxy.address()),
                };
                proxies.push(proxy);
            }
            members.push(Member::start(form).await);
        }
        Self {
            generations: Default::default(),
            addresses: members.iter().map(|member| member.address).collect(),
            database_url: postgres.url(),
            postgres: Mutex::new(postgres),
            redis: redis.map(Mutex::new),
            proxies,
            members: members.into_iter().map(Mutex::new).collect(),
        }
    }

    /// Process ids of the sidecars.
    pub(crate) async fn process_ids(&self) -> Vec<u32> {
        let members = self.members.iter();
        join_all(members.map(async |member| member.lock().await.id())).await
    }

    /// The only Redis.
    pub(crate) fn redis(&self) -> &Mutex<RedisServer> {
        self.redis.as_ref().expect("the cluster has one Redis")
    }

    /// The present process of a sidecar.
    pub(crate) fn process(&self, sidecar: usize) -> Process {
        Process {
            sidecar,
            generation: self.generations[sidecar].load(Ordering::SeqCst),
        }
    }

    pub(crate) async fn kill(&self, sidecar: usize, member: &mut Member) {
        member.kill().await;
        self.generations[sidecar].fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) async fn restart(&self, member: &mut Member) {
        member.restart().await;
    }

    /// Client of one sidecar, which connects again after a restart.
    pub(crate) fn client(&self, sidecar: usize) -> Memory {
        let endpoint = format!("http://{}", self.addresses[sidecar]);
        let endpoint = tonic::transport::Endpoint::try_from(endpoint).unwrap();
        let endpoint = endpoint.connect_timeout(Duration::from_secs(1));
        Memory::new(endpoint.connect_lazy())
    }

    /// Waits until every sidecar saves, reads from windows and has sessions again.
    pub(crate) async fn recovers(&self) {
        let recovery = join_all((0..SIDECARS).map(|sidecar| self.member_recovers(sidecar)));
        if tokio::time::timeout(RECOVERY_LIMIT, recovery).await.is_ok() {
            return;
        }
        self.print_logs().await;
        panic!("a sidecar has not recovered within {RECOVERY_LIMIT:?}");
    }

    /// Prints the ends of the sidecars' logs.
    pub(crate) async fn print_logs(&self) {
        for (number, member) in self.members.iter().enumerate() {
            let member = member.lock().await;
            let log = member
                .sidecar
                .as_ref()
                .map(Sidecar::log)
                .unwrap_or_default();
            for line in &log[log.len().saturating_sub(LOG_TAIL)..] {
                eprintln!("sidecar {number}: {line}");
            }
        }
    }

    async fn member_recovers(&self, sidecar: usize) {
        let mut memory = self.client(sidecar);
        let user = new_user();
        let mut turn = begin(&user);
        eventually("a turn has a session", async || {
            let Ok(begun) = memory.begin_turn(turn.clone()).await else {
                return false;
            };
            let begun = begun.into_inner();
            turn.conversation_id = begun.conversation.as_ref().unwrap().id.clone();
            begun.session_state() != SessionState::Unavailable
        })
        .await;
        let conversation = turn.conversation_id;
        eventually("a save is acknowledged", async || {
            let request = save(&conversation, vec![message(Role::User, "recovered")]);
            memory.save_messages(request).await.is_ok()
        })
        .await;
        eventually("a history comes from its window", async || {
            let read = memory.get_history(history(&conversation)).await;
            read.is_ok_and(|read| read.into_inner().source() == Source::Cache)
        })
        .await;
    }
}
