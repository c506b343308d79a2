use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    ErrorReply, RedisError, RedisTarget, Reply, Script,
    connection::{CallError, Connection},
    instruments::RedisInstruments,
    permissions,
    supervisor::Supervisor,
    write_refusals::WriteRefusals,
};
use crate::log_throttle::LogThrottle;

/// Time limit for ending the tasks.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

/// Settings of the client.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Name of the setting with the address, for the log.
    pub setting: &'static str,
    /// Prefix of every key.
    pub key_prefix: String,
    /// Time limit for a call, in which only time counts that the process ran. If nothing is
    /// received from Redis until then, the circuit breaker opens.
    pub call_timeout: Duration,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            setting: "REDIS_URL",
            key_prefix: String::new(),
            call_timeout: Duration::from_millis(40),
        }
    }
}

/// Fields of a hash, with the server that they were read from.
#[derive(Clone, Debug)]
pub struct HashReply {
    /// Names and values by turns.
    pub fields: Reply,
    /// Identity of the server's replication history, which is the value of `server` in scripts.
    pub server: Arc<str>,
}

/// Connection to Redis, shared by its clones.
#[derive(Clone, Debug)]
pub struct Redis(Arc<Shared>);

/// State that the calls and the supervisor share.
#[derive(Debug)]
pub(super) struct Shared {
    settings: RedisSettings,
    /// The connection, while the circuit breaker is closed.
    available: watch::Sender<Option<Available>>,
    /// Number of times that a connection became available.
    periods: AtomicU64,
    refusals: Arc<WriteRefusals>,
    refusal_log: LogThrottle,
    /// Notified when a call was denied.
    denied: Notify,
    permissions_log: LogThrottle,
    instruments: RedisInstruments,
    write_probe: Script,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Connection that calls are sent on.
#[derive(Clone, Debug)]
pub(super) struct Available {
    /// Number of this period.
    number: u64,
    connection: Arc<Connection>,
}

impl Redis {
    /// Starts to connect in the background, and reconnects until
    /// [`Self::shutdown`]. Calls fail with [`RedisError::Unavailable`] until the
    /// first reply.
    pub fn connect(target: RedisTarget, settings: RedisSettings) -> Self {
        let available = watch::Sender::new(None);
        let refusals = Arc::<WriteRefusals>::default();
        let shared = Arc::new(Shared {
            instruments: RedisInstruments::new(
                &target,
                available.subscribe(),
                Arc::clone(&refusals),
            ),
            settings,
            available,
            periods: AtomicU64::new(0),
            refusals,
            refusal_log: LogThrottle::new(),
            denied: Notify::new(),
            permissions_log: LogThrottle::new(),
            write_probe: Script::new("write_probe", include_str!("write_probe.lua")),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        let redis = Self(Arc::clone(&shared));
        redis.spawn(Supervisor::new(shared, target.0).run());
        redis
    }

    /// Returns the full name of a key, with the configured prefix.
    pub fn key(&self, name: impl std::fmt::Display) -> String {
        self.0.key(name)
    }

    /// Whether the circuit breaker is closed, so that calls are sent.
    pub fn is_available(&self) -> bool {
        self.0.available.borrow().is_some()
    }

    /// Waits until the circuit breaker is closed.
    pub async fn wait_until_available(&self) {
        // The sender is a field of self, so this cannot fail.
        let _ = self.0.available.subscribe().wait_for(Option::is_some).await;
    }

    /// Returns the number of the present connection, or `None` while calls are not sent. The
    /// number changes when the connection is replaced and when Redis was unavailable in between,
    /// so that with the same number no call of this client has failed to be sent.
    pub fn connection(&self) -> Option<u64> {
        number(self.0.available.borrow().as_ref())
    }

    /// Waits until [`Self::connection`] is no longer `seen`, and returns it.
    pub async fn connection_changed(&self, seen: Option<u64>) -> Option<u64> {
        let mut available = self.0.available.subscribe();
        // The sender is a field of self, so this cannot fail.
        let changed = available.wait_for(|now| number(now.as_ref()) != seen).await;
        changed.map_or(None, |now| number(now.as_ref()))
    }

    /// Runs a script on one key, in one round trip if Redis has cached the script. The script can
    /// read the variable `server`, the identity of the server's replication history.
    ///
    /// # Errors
    ///
    /// [`RedisError::Unavailable`] means that nothing was sent;
    /// [`RedisError::NoReply`] that the script may have been or may still be
    /// executed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not undo the call: a script that was sent may be
    /// executed.
    pub async fn run(
        &self,
        script: &Script,
        key: &str,
        args: &[Bytes],
    ) -> Result<Reply, RedisError> {
        let recorder = self.0.instruments.start_call(script);
        let limit = self.0.settings.call_timeout;
        let call = self
            .0
            .call(async |connection: &Connection| connection.run(script, key, args, limit).await);
        let result = call.await;
        recorder.finish(&result);
        result
    }

    /// Reads all fields of a hash, and resets its TTL in milliseconds, in one round trip. The server is
    /// a master.
    ///
    /// # Errors
    ///
    /// Fails like [`Self::run`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not undo the call.
    pub async fn read_hash(&self, key: &str, ttl: &Bytes) -> Result<HashReply, RedisError> {
        let recorder = self.0.instruments.start_command("HGETALL");
        let limit = self.0.settings.call_timeout;
        let call = self
            .0
            .call(async |connection: &Connection| connection.read_hash(key, ttl, limit).await);
        let result = call.await;
        recorder.finish(&result);
        result
    }

    /// Spawns a task that is cancelled when the client is shut down.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.0.stop.clone();
        self.0.tasks.spawn(stop.run_until_cancelled_owned(task));
    }

    /// Stops the tasks and closes the connection. Later calls fail with
    /// [`RedisError::Unavailable`].
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        let _ = timeout(SHUTDOWN_TIMEOUT, self.0.tasks.wait()).await;
        self.0.available.send_replace(None);
    }
}

impl Shared {
    /// Name of the setting with the address of Redis.
    pub(super) fn setting(&self) -> &'static str {
        self.settings.setting
    }

    fn key(&self, name: impl std::fmt::Display) -> String {
        format!("{}{name}", self.settings.key_prefix)
    }

    /// Makes a call on the present connection.
    async fn call<T>(
        &self,
        call: impl AsyncFnOnce(&Connection) -> Result<T, CallError>,
    ) -> Result<T, RedisError> {
        let Some(available) = self.available.borrow().clone() else {
            return Err(RedisError::Unavailable);
        };
        let error = match call(&*available.connection).await {
            Ok(reply) => return Ok(reply),
            Err(CallError::TimedOut { is_silent }) => {
                if is_silent {
                    self.open_circuit(&available);
                }
                return Err(RedisError::NoReply);
            }
            Err(CallError::Failed(error)) => error,
        };
        match error {
            RedisError::NoReply => self.open_circuit(&available),
            RedisError::ErrorReply(reply) => {
                if reply.is_fault_of_connection() {
                    self.open_circuit(&available);
                }
                if reply.is_refused_write() {
                    self.record_refusal(reply);
                }
            }
            RedisError::Unavailable | RedisError::UnexpectedReply => {}
        }
        Err(error)
    }

    fn record_refusal(&self, reply: ErrorReply) {
        self.refusals.record();
        if reply == ErrorReply::NotAuthorized {
            self.denied.notify_one();
        }
        let cause = reply.to_string();
        if let Some(suppressed) = self.refusal_log.admit(&cause) {
            let suppressed = suppressed.count();
            tracing::warn!(
                cause,
                suppressed,
                "Redis refuses writes; continuing without it"
            );
        }
    }

    /// Opens the circuit breaker, unless a later period has begun. The connection is checked at
    /// once, so that the first reply closes it.
    fn open_circuit(&self, failed: &Available) {
        let is_present = |available: &mut Option<Available>| {
            let is_present = number(available.as_ref()) == Some(failed.number);
            if is_present {
                *available = None;
            }
            is_present
        };
        if self.available.send_if_modified(is_present) {
            self.instruments.count_outage();
            failed.connection.suspicion.notify_one();
        }
    }

    /// Closes the circuit breaker, after a reply on this connection.
    pub(super) fn make_available(&self, connection: &Arc<Connection>) {
        self.available.send_if_modified(|available| {
            if available.is_some() {
                return false;
            }
            *available = Some(Available {
                number: self.periods.fetch_add(1, Ordering::Relaxed),
                connection: Arc::clone(connection),
            });
            true
        });
    }

    /// Makes calls fail until another connection is available.
    pub(super) fn disconnect(&self) {
        if self.available.send_replace(None).is_some() {
            self.instruments.count_outage();
        }
    }

    /// Waits until a call was denied.
    pub(super) async fn permission_denied(&self) {
        self.denied.notified().await;
    }

    /// Logs which permissions the user lacks.
    pub(super) async fn report_missing_permissions(&self, connection: &Connection) {
        let missing = permissions::missing(connection, &self.settings.key_prefix).await;
        if missing.is_empty() {
            return;
        }
        self.refusals.record();
        // They can be granted at any time.
        self.denied.notify_one();
        let missing = missing.join(" ");
        if self.permissions_log.admit(&missing).is_some() {
            tracing::warn!(
                missing,
                "the user of Redis lacks permissions; grant them with ACL SETUSER"
            );
        }
    }

    /// While writes are refused, finds out whether they still are.
    pub(super) async fn probe_refused_writes(&self, connection: &Connection) {
        if !self.refusals.are_recent() {
            return;
        }
        let (key, limit) = (self.key("write-probe"), self.settings.call_timeout);
        let written = connection.run(&self.write_probe, &key, &[], limit).await;
        if let Err(CallError::Failed(RedisError::ErrorReply(reply))) = written
            && reply.is_refused_write()
        {
            self.record_refusal(reply);
        }
    }
}

fn number(available: Option<&Available>) -> Option<u64> {
    available.map(|available| available.number)
}
