use std::{
    fmt,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fred::{
    clients::{Client, WithOptions},
    error::{Error, ErrorKind},
    interfaces::{ClientLike, ClusterInterface as _},
    types::{
        ClusterHash, CustomCommand, Value,
        config::{ClusterDiscoveryPolicy, Config, Options, Server, ServerConfig},
    },
};
use futures_util::future::{join, try_join_all};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    ErrorReply, HashReply, RedisError, Reply, Script, cause,
    driver::{ClusterChanges, Driver, MAX_ATTEMPTS, client},
    fault::Fault,
    prepared_scripts::PreparedScripts,
    reply_value::{classify, reply},
    send_queue::SendQueue,
    server_identity::{ServerIdentity, ServerInfo},
};
use crate::patience::{Elapsed, with_patience};

/// Time limit for connecting to a server and identifying it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);
/// Time limit for connecting to all masters of a cluster, of which some may not respond.
const CLUSTER_OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Running time without any reply to an outstanding request after which a connection is replaced.
const SILENCE_LIMIT: Duration = Duration::from_secs(1);
/// Upper bound on the time in which a request is not replied to while others are.
const STARVATION_LIMIT: Duration = Duration::from_secs(10);

/// One connection to a server, or one to each master of a cluster.
///
/// It is never re-established. After a fault it is discarded and another one is opened, because the
/// address may belong to another server by then.
pub(super) struct Connection {
    client: Client,
    /// The client with the options of calls.
    calls: WithOptions<Client>,
    queue: SendQueue,
    scripts: PreparedScripts,
    /// Identity of the data, which is the value of `server` in scripts.
    identity: Arc<str>,
    servers: Servers,
    opened: Instant,
    /// Time of the last reply, in microseconds since `opened`.
    last_reply: AtomicU64,
    fault: watch::Sender<Option<Fault>>,
    /// Notified when the connection should be checked at once.
    pub(super) suspicion: Notify,
}

/// Servers of a connection, in the state that they had when it was opened.
enum Servers {
    Single(ServerInfo),
    Cluster(Vec<(Server, ServerInfo)>),
    /// The servers do not permit INFO, or do not identify themselves.
    Unidentified,
}

/// Connection that was opened, with what its supervisor needs.
pub(super) struct Opened {
    pub(super) connection: Arc<Connection>,
    /// Whether the configured server turned out to be a node of this cluster.
    pub(super) is_found_cluster: bool,
    pub(super) driver: Driver,
    pub(super) changes: ClusterChanges,
}

/// Why a call has failed.
pub(super) enum CallError {
    Failed(RedisError),
    /// No reply arrived in time. `is_silent` if no reply to any call has arrived since then.
    TimedOut {
        is_silent: bool,
    },
}

impl Connection {
    /// Connects to the servers and identifies them. Fails unless they are masters. The connection
    /// is closed when the driver is dropped. `configuration` is the number of the configuration in
    /// which sentinels name the server.
    pub(super) async fn open(config: Config, configuration: Option<u64>) -> Result<Opened, Fault> {
        let is_cluster = matches!(config.server, ServerConfig::Clustered { .. });
        let limit = if is_cluster {
            CLUSTER_OPEN_TIMEOUT
        } else {
            OPEN_TIMEOUT
        };
        let client = client(config.clone());
        let mut driver = Driver::start(&client);
        let identify = with_patience(limit, Servers::identify(&client));
        let (servers, changes) = tokio::select! {
            biased;
            fault = driver.ended() => return Err(fault),
            identified = identify => match identified {
                Ok(identified) => identified?,
                Err(_) if config.uses_tls() => return Err(Fault::TlsSilent),
                Err(_) => return Err(Fault::Silent),
            },
        };
        if !is_cluster && servers.are_of_cluster() && knows_other_nodes(&client).await {
            // The server alone serves only its own slots.
            drop(driver);
            let opened = Box::pin(Self::open(cluster_of(config), None)).await?;
            return Ok(Opened {
                is_found_cluster: true,
                ..opened
            });
        }
        let options = Options {
            max_attempts: Some(MAX_ATTEMPTS),
            fail_fast: true,
            ..Options::default()
        };
        // It is unknown whether the data of an unidentified server is that of the connection before.
        let identity = servers.reported_identity();
        let identity = identity.unwrap_or_else(ServerIdentity::random);
        let identity = match configuration {
            Some(configuration) => identity.within(configuration),
            None => identity,
        };
        let connection = Self {
            calls: client.with_options(&options),
            client,
            queue: SendQueue::new(),
            scripts: PreparedScripts::new(identity.as_str()),
            identity: identity.as_str().into(),
            servers,
            opened: Instant::now(),
            last_reply: AtomicU64::new(0),
            fault: watch::Sender::new(None),
            suspicion: Notify::new(),
        };
        Ok(Opened {
            connection: Arc::new(connection),
            is_found_cluster: false,
            driver,
            changes,
        })
    }

    /// Whether the servers have reported an identity.
    pub(super) fn is_identified(&self) -> bool {
        !matches!(self.servers, Servers::Unidentified)
    }

    /// Number of masters of the cluster.
    pub(super) fn masters(&self) -> usize {
        match &self.servers {
            Servers::Cluster(masters) => masters.len(),
            Servers::Single(_) | Servers::Unidentified => 1,
        }
    }

    /// Runs a script. `limit` applies to each command that is sent.
    pub(super) async fn run(
        &self,
        script: &Script,
        key: &str,
        args: &[Bytes],
        limit: Duration,
    ) -> Result<Reply, CallError> {
        let script = self.scripts.get(script);
        let result = self.send("EVALSHA", script.sha1, key, args, limit).await;
        match result {
            Err(CallError::Failed(RedisError::ErrorReply(ErrorReply::UnknownScript))) => {
                // Boxed, because this is rare and its future large.
                Box::pin(async {
                    // The script must not be loaded into a server with another history.
                    self.verify_within(limit).await?;
                    self.send("EVAL", script.source, key, args, limit).await
                })
                .await
            }
            result => result,
        }
    }

    /// Sends a script by its digest or its source. The library's own functions
    /// for scripts ignore the options.
    async fn send(
        &self,
        command: &'static str,
        script: Bytes,
        key: &str,
        args: &[Bytes],
        limit: Duration,
    ) -> Result<Reply, CallError> {
        let mut values = Vec::with_capacity(3 + args.len());
        values.push(Value::Bytes(script));
        values.push(Value::from(1));
        values.push(Value::from(key));
        values.extend(args.iter().cloned().map(Value::Bytes));
        let call = self.command(command, key, values);
        let result = self.wait(limit, self.queue.call(call)).await?;
        let received = self.receive(result).and_then(reply);
        received.map_err(CallError::Failed)
    }

    /// Resets the TTL of a hash, and reads all of its fields.
    pub(super) async fn read_hash(
        &self,
        key: &str,
        ttl: &Bytes,
        limit: Duration,
    ) -> Result<HashReply, CallError> {
        let renewal = vec![Value::from(key), Value::Bytes(ttl.clone())];
        let renewal = self.command("PEXPIRE", key, renewal);
        let read = self.command("HGETALL", key, vec![Value::from(key)]);
        // In this order: the server that replies to the read has accepted a write before it, so that
        // it is no replica.
        let call = self.queue.call(join(renewal, read));
        let (renewed, fields) = self.wait(limit, call).await?;
        let renewed = self.receive(renewed).and_then(reply);
        let fields = self.receive(fields).and_then(reply);
        renewed.map_err(CallError::Failed)?;
        Ok(HashReply {
            fields: fields.map_err(CallError::Failed)?,
            server: Arc::clone(&self.identity),
        })
    }

    /// Runs a script once, by its digest or its source, without its first line.
    pub(super) async fn evaluate(
        &self,
        command: &'static str,
        script: Bytes,
        key: &str,
    ) -> Result<Value, Error> {
        let values = vec![Value::Bytes(script), Value::from(1), Value::from(key)];
        let call = self.command(command, key, values);
        let result = with_patience(OPEN_TIMEOUT, call).await;
        result.unwrap_or_else(|Elapsed| Err(Error::new(ErrorKind::Timeout, "no reply in time")))
    }

    /// Creates the future of a command, which sends it when it is first polled.
    fn command(
        &self,
        name: &'static str,
        key: &str,
        values: Vec<Value>,
    ) -> impl Future<Output = Result<Value, Error>> + Send + use<> {
        // The key is passed explicitly: the library would route scripts by the first
        // argument, which is the script.
        let command = CustomCommand::new_static(name, key, false);
        let calls = self.calls.clone();
        async move { calls.custom(command, values).await }
    }

    /// Waits for the result of a call.
    async fn wait<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = T>,
    ) -> Result<T, CallError> {
        let sent = self.now();
        let result = with_patience(limit, call).await;
        result.map_err(|Elapsed| CallError::TimedOut {
            is_silent: self.last_reply.load(Ordering::Relaxed) < sent,
        })
    }

    /// Records that a reply was received, and the fault that an error reply reveals.
    fn receive<T>(&self, result: Result<T, Error>) -> Result<T, RedisError> {
        let error = match result {
            Ok(value) => {
                self.last_reply.store(self.now(), Ordering::Relaxed);
                return Ok(value);
            }
            Err(error) => classify(&error),
        };
        if let RedisError::ErrorReply(reply) = error {
            self.last_reply.store(self.now(), Ordering::Relaxed);
            if reply.is_fault_of_connection() {
                self.report(Fault::ErrorReply(reply));
            }
        }
        Err(error)
    }

    async fn verify_within(&self, limit: Duration) -> Result<(), CallError> {
        match with_patience(limit, Box::pin(self.verify())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(fault)) => {
                self.report(fault);
                Err(CallError::Failed(RedisError::Unavailable))
            }
            Err(Elapsed) => Err(CallError::TimedOut { is_silent: false }),
        }
    }

    /// Verifies that the servers reply and that their data is still that of the masters to which
    /// the connection was opened. Waits while replies to other calls arrive.
    pub(super) async fn check(&self) -> Result<(), Fault> {
        let mut verify = pin!(self.verify());
        let began = Instant::now();
        loop {
            let last_reply = self.last_reply.load(Ordering::Relaxed);
            if let Ok(verified) = with_patience(SILENCE_LIMIT, &mut verify).await {
                return verified;
            }
            // In a cluster, the replies may be those of other nodes.
            let is_silent = matches!(self.servers, Servers::Cluster(_))
                || self.last_reply.load(Ordering::Relaxed) == last_reply;
            if is_silent || began.elapsed() > STARVATION_LIMIT {
                return Err(Fault::Silent);
            }
        }
    }

    async fn verify(&self) -> Result<(), Fault> {
        let verify = async |node, info: &ServerInfo| {
            let later = info_of(&self.client, node, Some("replication")).await?;
            require_master(&later)?;
            if info.is_continued_by(&later) {
                Ok(())
            } else {
                Err(Fault::OtherHistory)
            }
        };
        match &self.servers {
            Servers::Single(info) => verify(None, info).await?,
            Servers::Cluster(masters) => {
                if !masters
                    .iter()
                    .map(|(node, _)| node)
                    .eq(&nodes(&self.client))
                {
                    return Err(Fault::OtherHistory);
                }
                let each = masters.iter().map(|(node, info)| verify(Some(node), info));
                try_join_all(each).await?;
            }
            Servers::Unidentified => ping(&self.client).await?,
        }
        self.last_reply.store(self.now(), Ordering::Relaxed);
        Ok(())
    }

    /// Requests that the connection is replaced.
    fn report(&self, fault: Fault) {
        self.fault.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(fault);
            is_first
        });
    }

    /// Waits until a fault was reported.
    pub(super) async fn reported_fault(&self) -> Fault {
        let mut fault = self.fault.subscribe();
        // The sender is a field of self, so this cannot fail.
        let reported = fault.wait_for(Option::is_some).await.map(|f| f.clone());
        reported.ok().flatten().unwrap_or(Fault::Silent)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Servers {
    /// Reads the state of the servers, once the client is connected, and follows changes from then
    /// on.
    async fn identify(client: &Client) -> Result<(Self, ClusterChanges), Fault> {
        // When the first reply has arrived, the nodes are known, and that they were connected to is
        // no change.
        ping(client).await?;
        let changes = ClusterChanges::of(client);
        let servers = if client.is_clustered() {
            let nodes = nodes(client);
            let infos = nodes.iter().map(|node| info_of(client, Some(node), None));
            permitted(try_join_all(infos).await)?
                .map(|infos| Self::Cluster(nodes.into_iter().zip(infos).collect()))
        } else {
            permitted(info_of(client, None, None).await)?.map(Self::Single)
        };
        if let Some(servers) = servers.filter(|servers| servers.reported_identity().is_some()) {
            return Ok((servers, changes));
        }
        Ok((Self::Unidentified, changes))
    }

    /// Whether this is a single server that is a node of a cluster.
    fn are_of_cluster(&self) -> bool {
        matches!(self, Self::Single(info) if info.is_cluster_node)
    }

    /// Returns the identity of the data. `None` if a server does not report its own.
    fn reported_identity(&self) -> Option<ServerIdentity> {
        match self {
            Self::Single(info) => info.identity(),
            Self::Cluster(masters) => {
                let each = masters.iter().map(|(_, info)| info.identity());
                let each: Option<Vec<_>> = each.collect();
                each.map(|masters| ServerIdentity::of_cluster(&masters))
            }
            Self::Unidentified => None,
        }
    }
}

/// Whether a node of a cluster knows others. One that does not serves all slots itself, and does not
/// know under which address it is reached.
async fn knows_other_nodes(client: &Client) -> bool {
    match with_patience(OPEN_TIMEOUT, client.cluster_info::<String>()).await {
        Ok(Ok(info)) => info.lines().all(|line| line != "cluster_known_nodes:1"),
        _ => true,
    }
}

/// Returns the configuration of the cluster to which a configured server belongs.
fn cluster_of(config: Config) -> Config {
    let hosts = config.server.hosts();
    Config {
        server: ServerConfig::Clustered {
            hosts,
            policy: ClusterDiscoveryPolicy::default(),
        },
        ..config
    }
}

/// Returns the masters of the cluster in order. Empty for a single server.
fn nodes(client: &Client) -> Vec<Server> {
    let routing = client.cached_cluster_state();
    routing.map_or_else(Vec::new, |routing| routing.unique_primary_nodes())
}

async fn ping(client: &Client) -> Result<(), Fault> {
    let pong = client.ping::<Value>(None).await;
    pong.map(drop).map_err(|error| Fault::of(&error))
}

/// Reads a section of INFO of a node. Fails unless the node is a master that has loaded its data.
async fn info_of(
    client: &Client,
    node: Option<&Server>,
    section: Option<&'static str>,
) -> Result<ServerInfo, Fault> {
    let options = Options {
        cluster_node: node.cloned(),
        ..Options::default()
    };
    let client = client.with_options(&options);
    let command = CustomCommand::new_static("INFO", ClusterHash::Random, false);
    let sections = section.into_iter().map(Value::from_static_str).collect();
    let reply: Result<String, Error> = client.custom(command, sections).await;
    let info = ServerInfo::parse(&reply.map_err(|error| Fault::of(&error))?);
    require_master(&info)?;
    Ok(info)
}

fn require_master(info: &ServerInfo) -> Result<(), Fault> {
    if info.is_loading {
        return Err(Fault::Loading);
    }
    if info.is_sentinel {
        return Err(Fault::IsSentinel);
    }
    if !info.is_master {
        return Err(Fault::Replica);
    }
    Ok(())
}

/// Returns `None` if the server does not permit or know a command.
fn permitted<T>(result: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(
            Fault::Denied(_) | Fault::ErrorReply(ErrorReply::NotAuthorized | ErrorReply::Other),
        ) => Ok(None),
        Err(fault) => Err(fault),
    }
}

impl Fault {
    /// Returns the fault that an error of the library stands for.
    pub(super) fn of(error: &Error) -> Self {
        match classify(error) {
            RedisError::ErrorReply(_) if cause::error_code(error) == "NOPERM" => {
                Self::Denied(cause::describe(error))
            }
            RedisError::ErrorReply(reply) => Self::ErrorReply(reply),
            _ => Self::Failed(cause::describe(error)),
        }
    }
}
