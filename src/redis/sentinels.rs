//! The sentinels of a master: each is asked for the address of the master, and the most recent
//! answer counts.

use std::time::Duration;

use fred::{
    clients::Client,
    error::Error,
    interfaces::ClientLike as _,
    types::{
        ClusterHash, CustomCommand, Value,
        config::{Config, Server, ServerConfig},
    },
};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{
    driver::{Driver, client},
    fault::Fault,
};
use crate::patience::with_patience;

/// Time limit for an answer, which includes connecting.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Time that is waited for further answers after the first one.
const FURTHER_ANSWERS_TIMEOUT: Duration = Duration::from_millis(100);
/// Time between two questions.
const QUESTION_INTERVAL: Duration = Duration::from_millis(500);

/// Sentinels that are configured.
pub(super) struct Sentinels {
    /// Configuration of the connection to the master, apart from its address.
    config: Config,
    service: String,
    sentinels: Vec<Sentinel>,
}

/// One sentinel, with its connection while that works.
struct Sentinel {
    config: Config,
    connection: Mutex<Option<(Client, Driver)>>,
}

/// Address of the master, according to a sentinel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MasterAddress {
    server: Server,
    /// Number of the configuration, which increases with each failover.
    epoch: u64,
}

impl Sentinels {
    /// Returns `None` for a single server or a cluster.
    pub(super) fn from_config(config: &Config) -> Option<Self> {
        let ServerConfig::Sentinel {
            hosts,
            service_name,
            username,
            password,
        } = &config.server
        else {
            return None;
        };
        let sentinel = |server: &Server| Sentinel {
            config: Config {
                username: username.clone(),
                password: password.clone(),
                database: None,
                ..single(config, server)
            },
            connection: Mutex::default(),
        };
        Some(Self {
            service: service_name.clone(),
            sentinels: hosts.iter().map(sentinel).collect(),
            config: config.clone(),
        })
    }

    /// Returns the configuration of a connection to the master.
    pub(super) fn config_of(&self, master: &MasterAddress) -> Config {
        single(&self.config, &master.server)
    }

    /// Asks all sentinels for the address of the master.
    pub(super) async fn master(&self) -> Result<MasterAddress, Fault> {
        let questions = self.sentinels.iter().map(|s| s.ask(&self.service));
        let mut answers: FuturesUnordered<_> = questions.collect();
        let (mut best, mut fault) = (None, Fault::Silent);
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(answer) => {
                    best = Some(answer);
                    break;
                }
                Err(other) => fault = other,
            }
        }
        let Some(mut best) = best else {
            return Err(fault);
        };
        // A sentinel that was separated from the others may not know of a failover.
        let further = async {
            while let Some(answer) = answers.next().await {
                if let Ok(answer) = answer
                    && answer.epoch > best.epoch
                {
                    best = answer;
                }
            }
        };
        let _ = timeout(FURTHER_ANSWERS_TIMEOUT, further).await;
        Ok(best)
    }

    /// Waits until the sentinels name another master than `current`.
    pub(super) async fn other_master(&self, current: &MasterAddress) {
        loop {
            sleep(QUESTION_INTERVAL).await;
            if let Ok(latest) = self.master().await
                && latest.server != current.server
                && latest.epoch >= current.epoch
            {
                return;
            }
        }
    }
}

impl Sentinel {
    async fn ask(&self, service: &str) -> Result<MasterAddress, Fault> {
        let mut connection = self.connection.lock().await;
        // A connection that does not answer is closed, also when this future is dropped.
        let (client, mut driver) = connection.take().unwrap_or_else(|| {
            let client = client(self.config.clone());
            let driver = Driver::start(&client);
            (client, driver)
        });
        let answer = tokio::select! {
            biased;
            fault = driver.ended() => return Err(fault),
            answer = with_patience(ANSWER_TIMEOUT, question(&client, service)) => answer,
        };
        let answer = answer.map_err(|_| Fault::Silent)?;
        let answer = answer.map_err(|error| Fault::of(&error))?;
        *connection = Some((client, driver));
        answer.ok_or(Fault::UnknownMaster)
    }
}

/// Asks a sentinel for the address of the master. `None` if it does not know a master of this name.
async fn question(client: &Client, service: &str) -> Result<Option<MasterAddress>, Error> {
    let command = |name: &'static str| {
        let command = CustomCommand::new_static("SENTINEL", ClusterHash::Random, false);
        let arguments = vec![Value::from_static_str(name), Value::from(service)];
        client.custom::<Value, _>(command, arguments)
    };
    // During a failover only the first command returns the new address.
    let (address, state) = tokio::join!(command("GET-MASTER-ADDR-BY-NAME"), command("MASTER"));
    let address = address?;
    if address.is_null() {
        return Ok(None);
    }
    let (host, port): (String, u16) = address.convert()?;
    // A sentinel may not permit the second command.
    let epoch = state.ok().and_then(config_epoch).unwrap_or_default();
    Ok(Some(MasterAddress {
        server: Server::new(host, port),
        epoch,
    }))
}

/// Returns the number of the configuration from the reply to `SENTINEL MASTER`, a list of names and
/// values.
fn config_epoch(state: Value) -> Option<u64> {
    let fields: Vec<String> = state.convert().ok()?;
    let name = fields.iter().position(|field| field == "config-epoch")?;
    fields.get(name + 1)?.parse().ok()
}

/// Returns the configuration of a connection to one server.
fn single(config: &Config, server: &Server) -> Config {
    Config {
        server: ServerConfig::Centralized {
            server: server.clone(),
        },
        ..config.clone()
    }
}
