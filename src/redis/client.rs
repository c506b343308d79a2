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

use super::{RedisError, RedisTarget, Refusal, Reply, Script, cause, observed::Observer};
use crate::log_throttle::LogThrottle;

/// How long to connect, log in and say goodbye may take.
const CONNECTION_TIMEOUT: Duration = Duration::from_millis(500);
/// How long to wait between two questions whether Redis is back.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// How long to wait before the client is started again, should it have ended.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// How long Redis may be away before that is worth a line in the log.
const GRACE: Duration = Duration::from_secs(1);
/// How many calls may wait to be sent.
const QUEUE: usize = 4_096;

/// What can be chosen about the client.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// What every key begins with.
    pub key_prefix: String,
    /// How long a call may take before Redis counts as away.
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

/// A connection to Redis, shared by its clones.
#[derive(Clone, Debug)]
pub struct Redis(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: WithOptions<Client>,
    settings: RedisSettings,
    available: watch::Sender<bool>,
    outage_log: LogThrottle,
    observer: Observer,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Redis {
    /// Begins to connect, and goes on until [`Self::shutdown`]. Until Redis has
    /// answered for the first time it is unavailable.
    pub fn connect(target: RedisTarget, settings: RedisSettings) -> Self {
        let options = Options {
            max_attempts: Some(1),
            timeout: Some(settings.call_timeout),
            fail_fast: true,
            ..Options::default()
        };
        let available = watch::Sender::new(false);
        let redis = Self(Arc::new(Inner {
            observer: Observer::new(&target, available.subscribe()),
            client: client(target, settings.call_timeout).with_options(&options),
            settings,
            available,
            outage_log: LogThrottle::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }));
        redis.spawn(run_client(redis.clone()));
        redis.spawn(probe(redis.clone()));
        redis
    }

    /// A key's full name.
    pub fn key(&self, name: impl std::fmt::Display) -> String {
        format!("{}{name}", self.0.settings.key_prefix)
    }

    /// Whether calls are being sent. False from a call that failed until Redis
    /// answers again.
    pub fn is_available(&self) -> bool {
        *self.0.available.borrow()
    }

    /// Waits until Redis answers.
    pub async fn available(&self) {
        // The sender lives in self, so this cannot fail.
        let _ = self.0.available.subscribe().wait_for(|up| *up).await;
    }

    /// Runs a script on one key, in one round trip when Redis knows the script.
    pub async fn run(
        &self,
        script: &Script,
        key: &str,
        args: &[Bytes],
    ) -> Result<Reply, RedisError> {
        let observed = self.0.observer.begin(script);
        let call = self.evaluate(script, key, args);
        let result = call.instrument(observed.span()).await;
        observed.end(&result);
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
        let known = self.send("EVALSHA", script.sha1(), key, args).await;
        if known == Err(RedisError::Refused(Refusal::NoScript)) {
            return self.send("EVAL", script.source(), key, args).await;
        }
        known
    }

    /// Runs a task until it ends or the client is shut down.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.0.stop.clone();
        self.0.tasks.spawn(stop.run_until_cancelled_owned(task));
    }

    /// Ends the tasks and the connection, within a second. Calls after it fail.
    pub async fn shutdown(&self) {
        // The goodbye cannot be trusted to end when Redis is frozen.
        let _ = timeout(CONNECTION_TIMEOUT, self.0.client.quit()).await;
        self.0.stop.cancel();
        self.0.tasks.close();
        let _ = timeout(CONNECTION_TIMEOUT, self.0.tasks.wait()).await;
        self.0.available.send_replace(false);
    }

    /// Sends a script by its name or its source. The library's own functions
    /// for it ignore the options, among them the time-out.
    async fn send(
        &self,
        command: &'static str,
        script: &str,
        key: &str,
        args: &[Bytes],
    ) -> Result<Reply, RedisError> {
        let mut values = Vec::with_capacity(3 + args.len());
        values.push(Value::from(script));
        values.push(Value::from(1));
        values.push(Value::from(key));
        values.extend(args.iter().cloned().map(Value::Bytes));
        // Said outright, because the library would take the script's name for
        // the key that chooses a cluster's node.
        let command = CustomCommand::new_static(command, key, false);
        match self.0.client.custom::<Value, _>(command, values).await {
            Ok(value) => reply(value),
            Err(error) => {
                let error = classify(&error);
                if error == RedisError::Unanswered {
                    self.trip();
                }
                Err(error)
            }
        }
    }

    /// Opens the breaker.
    fn trip(&self) {
        if self.0.available.send_if_modified(std::mem::take) {
            self.0.observer.outage();
        }
    }

    async fn answers(&self) -> bool {
        self.0.client.ping::<Value>(None).await.is_ok()
    }
}

/// Keeps the client going. It reconnects by itself, and ends only on an answer
/// that it takes for a wrong configuration, which a failover can cure.
async fn run_client(redis: Redis) {
    loop {
        // The library's own task must end with this one.
        let client = AbortOnDropHandle::new(redis.0.client.connect());
        if let Ok(Err(error)) = client.await {
            let cause = cause::describe(&error);
            tracing::warn!(cause, "the Redis client stopped; restarting it");
        }
        sleep(RESTART_DELAY).await;
    }
}

/// Asks Redis, while the breaker is open, until it answers; then closes the
/// breaker. So no caller pays for finding out.
async fn probe(redis: Redis) {
    let mut state = redis.0.available.subscribe();
    while state.wait_for(|up| !*up).await.is_ok() {
        let (since, mut said) = (Instant::now(), false);
        let mut errors = redis.0.client.error_rx();
        while !redis.answers().await {
            if !said && since.elapsed() >= GRACE && redis.0.outage_log.should_log() {
                said = true;
                let cause = newest(&mut errors);
                tracing::warn!(cause, "Redis is unavailable; continuing without it");
            }
            sleep(PROBE_INTERVAL).await;
        }
        if said {
            tracing::info!("Redis is available again");
        }
        redis.0.available.send_replace(true);
    }
}

/// Why connecting failed last, if it did.
fn newest(errors: &mut Receiver<(Error, Option<Server>)>) -> Option<String> {
    let mut newest = None;
    loop {
        match errors.try_recv() {
            Ok((error, _)) => newest = Some(cause::describe(&error)),
            Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => return newest,
        }
    }
}

fn client(target: RedisTarget, call_timeout: Duration) -> Client {
    let mut config = target.0;
    // With it, one failed first connection would be the last.
    config.fail_fast = false;
    let performance = PerformanceConfig {
        default_command_timeout: call_timeout,
        ..PerformanceConfig::default()
    };
    let connection = ConnectionConfig {
        connection_timeout: CONNECTION_TIMEOUT,
        internal_command_timeout: CONNECTION_TIMEOUT,
        max_command_attempts: 1,
        max_command_buffer_len: QUEUE,
        unresponsive: UnresponsiveConfig {
            max_timeout: Some(Duration::from_secs(1)),
            interval: Duration::from_millis(200),
        },
        tcp: TcpConfig {
            nodelay: Some(true),
            ..TcpConfig::default()
        },
        // After a failover the same address can lead to another server.
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

/// Tells what Redis said from what the library says.
fn classify(error: &Error) -> RedisError {
    match error.kind() {
        ErrorKind::Timeout
        | ErrorKind::IO
        | ErrorKind::Canceled
        | ErrorKind::Routing
        | ErrorKind::Backpressure
        | ErrorKind::Protocol => return RedisError::Unanswered,
        ErrorKind::Parse => return RedisError::Unexpected,
        _ => {}
    }
    RedisError::Refused(match cause::error_code(error) {
        "" => return RedisError::Unanswered,
        "OOM" => Refusal::OutOfMemory,
        "READONLY" => Refusal::ReadOnly,
        "LOADING" => Refusal::Loading,
        "WRONGTYPE" => Refusal::WrongType,
        "NOSCRIPT" => Refusal::NoScript,
        "NOAUTH" | "WRONGPASS" | "NOPERM" => Refusal::Auth,
        _ => Refusal::Other,
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
        _ => return Err(RedisError::Unexpected),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_no_outage() {
        let reply = |text: &'static str| classify(&Error::new(ErrorKind::Unknown, text));
        assert_eq!(
            reply("OOM command not allowed when used memory > 'maxmemory'."),
            RedisError::Refused(Refusal::OutOfMemory)
        );
        assert_eq!(
            reply("ERR user_script:1: secret"),
            RedisError::Refused(Refusal::Other)
        );
        assert_eq!(reply("Client is not initialized."), RedisError::Unanswered);
        assert_eq!(
            classify(&Error::new(ErrorKind::Timeout, "Request timed out.")),
            RedisError::Unanswered
        );
    }
}
