use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fred::{
    clients::{Client, WithOptions},
    error::{Error, ErrorKind},
    interfaces::{ClientLike, EventInterface as _},
    types::{
        CustomCommand, Value,
        config::{
            ConnectionConfig, Options, PerformanceConfig, ReconnectError, ReconnectPolicy, Server,
            TcpConfig, UnresponsiveConfig,
        },
    },
};
use tokio::{
    sync::{
        broadcast::{Receiver, error::TryRecvError},
        watch,
    },
    time::{Instant, sleep, timeout},
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tracing::Instrument as _;

use super::{
    ErrorReply, RedisError, RedisTarget, Reply, Script, cause, instruments::RedisInstruments,
    prepared_scripts::PreparedScripts,
};
use crate::log_throttle::LogThrottle;

/// Time limit for each of connecting, authenticating and disconnecting.
const CONNECTION_TIMEOUT: Duration = Duration::from_millis(500);
/// Time between two probes while the circuit breaker is open.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// Delay before the client is restarted after it has stopped.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// Duration of an outage before it is logged.
const OUTAGE_LOG_DELAY: Duration = Duration::from_secs(1);
/// Upper bound on calls that wait to be sent.
const MAX_QUEUED_CALLS: usize = 4_096;

/// Settings of the client.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Prefix of every key.
    pub key_prefix: String,
    /// Time limit for a call. A call that exceeds it opens the circuit breaker.
    pub call_timeout: Duration,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            key_prefix: String::new(),
            call_timeout: Duration::from_millis(40),
        }
    }
}

/// Connection to Redis, shared by its clones.
#[derive(Clone, Debug)]
pub struct Redis(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: WithOptions<Client>,
    settings: RedisSettings,
    /// False while the circuit breaker is open.
    available: watch::Sender<bool>,
    /// Number of the present connection.
    connection: watch::Sender<Option<u64>>,
    scripts: PreparedScripts,
    outage_log: LogThrottle,
    instruments: RedisInstruments,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Redis {
    /// Starts to connect in the background, and reconnects until
    /// [`Self::shutdown`]. Calls fail with [`RedisError::Unavailable`] until the
    /// first reply.
    pub fn connect(target: RedisTarget, settings: RedisSettings) -> Self {
        let options = Options {
            max_attempts: Some(1),
            timeout: Some(settings.call_timeout),
            fail_fast: true,
            ..Options::default()
        };
        let available = watch::Sender::new(false);
        let redis = Self(Arc::new(Inner {
            instruments: RedisInstruments::new(&target, available.subscribe()),
            client: client(target, settings.call_timeout).with_options(&options),
            settings,
            available,
            connection: watch::Sender::new(None),
            scripts: PreparedScripts::new("unknown"),
            outage_log: LogThrottle::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }));
        redis.spawn(run_client(redis.clone()));
        redis.spawn(probe(redis.clone()));
        redis
    }

    /// Returns the full name of a key, with the configured prefix.
    pub fn key(&self, name: impl std::fmt::Display) -> String {
        format!("{}{name}", self.0.settings.key_prefix)
    }

    /// Whether the circuit breaker is closed, so that calls are sent.
    pub fn is_available(&self) -> bool {
        *self.0.available.borrow()
    }

    /// Waits until the circuit breaker is closed.
    pub async fn wait_until_available(&self) {
        // The sender is a field of self, so this cannot fail.
        let _ = self.0.available.subscribe().wait_for(|up| *up).await;
    }

    /// Returns the number of the present connection, or `None` while calls are not sent. The
    /// number changes when the connection is replaced and when Redis was unavailable in between,
    /// so that with the same number no call of this client has failed to be sent.
    pub fn connection(&self) -> Option<u64> {
        *self.0.connection.borrow()
    }

    /// Waits until [`Self::connection`] is no longer `seen`, and returns it.
    pub async fn connection_changed(&self, seen: Option<u64>) -> Option<u64> {
        let mut connection = self.0.connection.subscribe();
        // The sender is a field of self, so this cannot fail.
        let changed = connection.wait_for(|now| *now != seen).await;
        changed.map_or(None, |now| *now)
    }

    /// Runs a script on one key, in one round trip if Redis has cached the script.
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
        let call = self.evaluate(script, key, args);
        let result = call.instrument(recorder.span()).await;
        recorder.finish(&result);
        result
    }

    async fn evaluate(
        &self,
        script: &Script,
        key: &str,
        args: &[Bytes],
    ) -> Result<Reply, RedisError> {
        if !self.is_available() {
            return Err(RedisError::Unavailable);
        }
        let script = self.0.scripts.get(script);
        let result = self.send("EVALSHA", script.sha1, key, args).await;
        if result == Err(RedisError::ErrorReply(ErrorReply::UnknownScript)) {
            return self.send("EVAL", script.source, key, args).await;
        }
        result
    }

    /// Spawns a task that is cancelled when the client is shut down.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.0.stop.clone();
        self.0.tasks.spawn(stop.run_until_cancelled_owned(task));
    }

    /// Stops the tasks and closes the connection, within a second. Later calls
    /// fail with [`RedisError::Unavailable`].
    pub async fn shutdown(&self) {
        // QUIT does not return while Redis is frozen.
        let _ = timeout(CONNECTION_TIMEOUT, self.0.client.quit()).await;
        self.0.stop.cancel();
        self.0.tasks.close();
        let _ = timeout(CONNECTION_TIMEOUT, self.0.tasks.wait()).await;
        self.0.available.send_replace(false);
    }

    /// Sends a script by its digest or its source. The library's own functions
    /// for scripts ignore the options, among them the timeout.
    async fn send(
        &self,
        command: &'static str,
        script: Bytes,
        key: &str,
        args: &[Bytes],
    ) -> Result<Reply, RedisError> {
        let mut values = Vec::with_capacity(3 + args.len());
        values.push(Value::Bytes(script));
        values.push(Value::from(1));
        values.push(Value::from(key));
        values.extend(args.iter().cloned().map(Value::Bytes));
        // The key is passed explicitly: the library would route by the first
        // argument, which is the script.
        let command = CustomCommand::new_static(command, key, false);
        match self.0.client.custom::<Value, _>(command, values).await {
            Ok(value) => reply(value),
            Err(error) => {
                let error = classify(&error);
                if error == RedisError::NoReply {
                    self.open_circuit();
                }
                Err(error)
            }
        }
    }

    /// Opens the circuit breaker.
    fn open_circuit(&self) {
        if self.0.available.send_if_modified(std::mem::take) {
            self.0.connection.send_replace(None);
            self.0.instruments.count_outage();
        }
    }

    async fn replies_to_ping(&self) -> bool {
        self.0.client.ping::<Value>(None).await.is_ok()
    }
}

/// Restarts the client whenever it stops. It reconnects by itself, and stops only
/// on a reply that it regards as a configuration error, which a failover can cure.
async fn run_client(redis: Redis) {
    loop {
        // Aborts the library's task when this one is dropped.
        let client = AbortOnDropHandle::new(redis.0.client.connect());
        // QUIT at shutdown ends the client with `Canceled`, which is no failure.
        if let Ok(Err(error)) = client.await
            && *error.kind() != ErrorKind::Canceled
        {
            let cause = cause::describe(&error);
            tracing::warn!(cause, "the Redis client stopped; restarting it");
        }
        sleep(RESTART_DELAY).await;
    }
}

/// Probes Redis while the circuit breaker is open and closes it on the first reply, so that no
/// call is delayed by the probe.
async fn probe(redis: Redis) {
    let mut available = redis.0.available.subscribe();
    let mut number = 0;
    while available.wait_for(|up| !*up).await.is_ok() {
        let (started, mut is_logged) = (Instant::now(), false);
        let mut errors = redis.0.client.error_rx();
        while !redis.replies_to_ping().await {
            if !is_logged
                && started.elapsed() >= OUTAGE_LOG_DELAY
                && redis.0.outage_log.should_log()
            {
                is_logged = true;
                let cause = last_cause(&mut errors);
                tracing::warn!(cause, "Redis is unavailable; continuing without it");
            }
            sleep(PROBE_INTERVAL).await;
        }
        if is_logged {
            tracing::info!("Redis is available again");
        }
        number += 1;
        redis.0.connection.send_replace(Some(number));
        redis.0.available.send_replace(true);
    }
}

/// Returns the cause of the most recent connection error. `None` if there was none.
fn last_cause(errors: &mut Receiver<(Error, Option<Server>)>) -> Option<String> {
    let mut last = None;
    loop {
        match errors.try_recv() {
            Ok((error, _)) => last = Some(error),
            Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => {
                return last.as_ref().map(cause::describe);
            }
        }
    }
}

fn client(target: RedisTarget, call_timeout: Duration) -> Client {
    let mut config = target.0;
    // With `fail_fast` the client would stop after one failed first connection.
    config.fail_fast = false;
    let performance = PerformanceConfig {
        default_command_timeout: call_timeout,
        ..PerformanceConfig::default()
    };
    let connection = ConnectionConfig {
        connection_timeout: CONNECTION_TIMEOUT,
        internal_command_timeout: CONNECTION_TIMEOUT,
        max_command_attempts: 1,
        max_command_buffer_len: MAX_QUEUED_CALLS,
        unresponsive: UnresponsiveConfig {
            max_timeout: Some(Duration::from_secs(1)),
            interval: Duration::from_millis(200),
        },
        tcp: TcpConfig {
            nodelay: Some(true),
            ..TcpConfig::default()
        },
        // After a failover the same address can belong to another server.
        reconnect_errors: vec![
            ReconnectError::Loading,
            ReconnectError::ReadOnly,
            ReconnectError::ClusterDown,
            ReconnectError::MasterDown,
        ],
        ..ConnectionConfig::default()
    };
    let policy = ReconnectPolicy::new_exponential(0, 50, 1_000, 2);
    Client::new(config, Some(performance), Some(connection), Some(policy))
}

/// Distinguishes error replies from failures of the connection.
fn classify(error: &Error) -> RedisError {
    match error.kind() {
        ErrorKind::Timeout
        | ErrorKind::IO
        | ErrorKind::Canceled
        | ErrorKind::Routing
        | ErrorKind::Backpressure
        | ErrorKind::Protocol => return RedisError::NoReply,
        ErrorKind::Parse => return RedisError::UnexpectedReply,
        _ => {}
    }
    RedisError::ErrorReply(match cause::error_code(error) {
        "" => return RedisError::NoReply,
        "OOM" => ErrorReply::OutOfMemory,
        "READONLY" => ErrorReply::ReadOnly,
        "LOADING" => ErrorReply::Loading,
        "WRONGTYPE" => ErrorReply::WrongType,
        "NOSCRIPT" => ErrorReply::UnknownScript,
        "NOAUTH" | "WRONGPASS" | "NOPERM" => ErrorReply::NotAuthorized,
        _ => ErrorReply::Other,
    })
}

fn reply(value: Value) -> Result<Reply, RedisError> {
    Ok(match value {
        Value::Null => Reply::Nil,
        Value::Integer(number) => Reply::Integer(number),
        Value::String(text) => Reply::Bytes(text.into_inner()),
        Value::Bytes(bytes) => Reply::Bytes(bytes),
        Value::Array(values) => {
            Reply::List(values.into_iter().map(reply).collect::<Result<_, _>>()?)
        }
        _ => return Err(RedisError::UnexpectedReply),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_replies_are_distinguished_from_connection_failures() {
        let reply = |text: &'static str| classify(&Error::new(ErrorKind::Unknown, text));
        assert_eq!(
            reply("OOM command not allowed when used memory > 'maxmemory'."),
            RedisError::ErrorReply(ErrorReply::OutOfMemory)
        );
        assert_eq!(
            reply("ERR user_script:1: secret"),
            RedisError::ErrorReply(ErrorReply::Other)
        );
        assert_eq!(reply("Client is not initialized."), RedisError::NoReply);
        assert_eq!(
            classify(&Error::new(ErrorKind::Timeout, "Request timed out.")),
            RedisError::NoReply
        );
    }
}
