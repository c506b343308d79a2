//! Opens connections, checks the present one, and replaces it after a fault.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use fred::types::config::Config;
use tokio::time::{Instant, sleep};

use super::{
    RedisTarget,
    client::Shared,
    connection::{Connection, Opened},
    driver::ClusterChange,
    fault::Fault,
    sentinels::{MasterAddress, Sentinels},
};
use crate::{log_throttle::LogThrottle, patience::with_patience};

/// Time between two checks of a connection on which every call is replied to.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Delay before the second attempt to open a connection. It doubles with each further attempt.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(25);
/// Upper bound on the delay between two attempts.
const MAX_RETRY_DELAY: Duration = Duration::from_millis(500);
/// Duration of a connection after which the next one is opened without a delay.
const STABLE_AFTER: Duration = Duration::from_secs(1);
/// Time limit for the check of the user's permissions.
const PERMISSIONS_LIMIT: Duration = Duration::from_millis(500);
/// Duration of an outage before it is logged.
const OUTAGE_LOG_DELAY: Duration = Duration::from_secs(1);

/// Task that owns the connection.
pub(super) struct Supervisor {
    shared: Arc<Shared>,
    config: Config,
    /// The configured servers, for the log.
    servers: String,
    sentinels: Option<Sentinels>,
    /// Attempts since the last stable connection.
    attempts: u32,
    outage: Outage,
}

/// State of the log lines about outages.
#[derive(Default)]
struct Outage {
    since: Option<Instant>,
    is_logged: bool,
    log: LogThrottle,
    unidentified_log: LogThrottle,
    is_cluster_logged: bool,
}

impl Supervisor {
    pub(super) fn new(shared: Arc<Shared>, config: Config) -> Self {
        Self {
            shared,
            sentinels: Sentinels::from_config(&config),
            servers: RedisTarget(config.clone()).to_string(),
            config,
            attempts: 0,
            outage: Outage::default(),
        }
    }

    /// Keeps a connection open until the task is cancelled.
    pub(super) async fn run(mut self) {
        self.outage.since = Some(Instant::now());
        loop {
            self.delay_attempt().await;
            let fault = match self.open().await {
                Ok((opened, master)) => self.supervise(opened, master.as_ref()).await,
                Err(fault) => fault,
            };
            let setting = self.shared.setting();
            self.outage.log_fault(&fault, setting, &self.servers);
        }
    }

    /// Waits before an attempt, longer after each failed one. The delay is random, so that the
    /// clients of a server that has restarted do not connect at the same time.
    async fn delay_attempt(&mut self) {
        if let Some(exponent) = self.attempts.checked_sub(1) {
            let delay = MIN_RETRY_DELAY * 2u32.pow(exponent.min(8));
            let delay = delay.min(MAX_RETRY_DELAY);
            let random = u32::try_from(RandomState::new().hash_one(0) % 512).unwrap_or(0);
            sleep(delay / 2 + delay * random / 1024).await;
        }
        self.attempts += 1;
    }

    async fn open(&self) -> Result<(Opened, Option<MasterAddress>), Fault> {
        let Some(sentinels) = &self.sentinels else {
            return Ok((Connection::open(self.config.clone(), None).await?, None));
        };
        let master = sentinels.master().await?;
        let opening = Connection::open(sentinels.config_of(&master), Some(master.epoch()));
        // The master may have stopped to respond, and its replica be promoted in the meantime.
        tokio::select! {
            biased;
            opened = opening => Ok((opened?, Some(master))),
            () = sentinels.other_master(&master) => Err(Fault::OtherMaster),
        }
    }

    /// Uses a connection until it has a fault.
    async fn supervise(&mut self, opened: Opened, master: Option<&MasterAddress>) -> Fault {
        let Opened {
            connection,
            is_found_cluster,
            mut driver,
            mut changes,
        } = opened;
        self.outage.end(&connection);
        if is_found_cluster {
            self.outage.log_cluster(&connection);
        }
        self.report_permissions(&connection).await;
        self.shared.make_available(&connection);
        if let Some(sentinels) = &mut self.sentinels {
            sentinels.discover().await;
        }
        let began = Instant::now();
        let fault = tokio::select! {
            biased;
            fault = driver.ended() => fault,
            fault = connection.reported_fault() => fault,
            fault = Self::follow_cluster(&connection, &mut changes) => fault,
            fault = Self::follow_sentinels(self.sentinels.as_ref(), master) => fault,
            fault = self.check_regularly(&connection) => fault,
            fault = self.check_permissions(&connection) => fault,
        };
        self.shared.disconnect();
        self.outage.since = Some(Instant::now());
        if began.elapsed() >= STABLE_AFTER {
            self.attempts = 0;
        }
        fault
    }

    /// Makes the connection available after each check. Checks are made regularly, and when a call
    /// has remained without a reply.
    async fn check_regularly(&self, connection: &Arc<Connection>) -> Fault {
        loop {
            tokio::select! {
                () = sleep(CHECK_INTERVAL) => {}
                () = connection.suspicion.notified() => {}
            }
            if let Err(fault) = connection.check().await {
                return fault;
            }
            self.shared.make_available(connection);
            self.shared.probe_refused_writes(connection).await;
        }
    }

    /// Logs the permissions that the user lacks, after calls were denied.
    async fn check_permissions(&self, connection: &Arc<Connection>) -> Fault {
        loop {
            self.shared.permission_denied().await;
            sleep(CHECK_INTERVAL).await;
            self.report_permissions(connection).await;
        }
    }

    async fn report_permissions(&self, connection: &Arc<Connection>) {
        // Boxed, because this is rare and its future large.
        let report = Box::pin(self.shared.report_missing_permissions(connection));
        // If Redis does not reply, the regular checks notice it.
        let _ = with_patience(PERMISSIONS_LIMIT, report).await;
    }

    async fn follow_cluster(
        connection: &Connection,
        changes: &mut super::driver::ClusterChanges,
    ) -> Fault {
        loop {
            match changes.next().await {
                ClusterChange::Slots => connection.suspicion.notify_one(),
                ClusterChange::Nodes => return Fault::OtherHistory,
            }
        }
    }

    async fn follow_sentinels(
        sentinels: Option<&Sentinels>,
        master: Option<&MasterAddress>,
    ) -> Fault {
        if let (Some(sentinels), Some(master)) = (sentinels, master) {
            sentinels.other_master(master).await;
            return Fault::OtherMaster;
        }
        std::future::pending().await
    }
}

impl Outage {
    fn log_fault(&mut self, fault: &Fault, setting: &str, servers: &str) {
        let is_long = self
            .since
            .is_some_and(|since| since.elapsed() >= OUTAGE_LOG_DELAY);
        let cause = fault.to_string();
        if is_long && let Some(suppressed) = self.log.admit(&cause) {
            self.is_logged = true;
            let suppressed = suppressed.count();
            tracing::warn!(
                setting,
                servers,
                cause,
                suppressed,
                "Redis is unavailable; continuing without it"
            );
        }
    }

    fn log_cluster(&mut self, connection: &Connection) {
        if !std::mem::replace(&mut self.is_cluster_logged, true) {
            tracing::info!(
                masters = connection.masters(),
                "the configured Redis is a node of a cluster: using the whole cluster"
            );
        }
    }

    fn end(&mut self, connection: &Connection) {
        self.since = None;
        if std::mem::take(&mut self.is_logged) {
            tracing::info!("Redis is available again");
        }
        if !connection.is_identified() && self.unidentified_log.should_log() {
            tracing::warn!(
                "Redis does not report run_id: recent windows are lost whenever the connection is \
                 replaced, and not shared with other sidecars; the user of Redis needs the permission +info"
            );
        }
    }
}
