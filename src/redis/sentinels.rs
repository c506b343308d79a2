//! The sentinels of a master: each is asked for the address of the master, and the answer with the
//! latest configuration counts.

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

/// Upper bound on sentinels that are asked, in addition to those of the configuration.
const MAX_DISCOVERED: usize = 8;

/// Sentinels that are configured, and those that they know.
pub(super) struct Sentinels {
    /// Configuration of the connection to the master, apart from its address.
    config: Config,
    /// Configuration of connections to sentinels, apart from their address.
    sentinel_config: Config,
    service: String,
    nodes: Vec<Sentinel>,
}

/// One sentinel, with its connection while that works.
struct Sentinel {
    server: Server,
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

impl MasterAddress {
    /// Number of the configuration, which increases with each failover; 0 if it is not permitted to
    /// read it.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    fn replaces(&self, former: &Self) -> bool {
        let is_other = self.server != former.server;
        self.epoch > former.epoch || (is_other && self.epoch == former.epoch)
    }
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
        let sentinel_config = Config {
            username: username.clone(),
            password: password.clone(),
            database: None,
            ..config.clone()
        };
        let sentinel = |server: &Server| Sentinel::new(server, &sentinel_config);
        Some(Self {
            service: service_name.clone(),
            nodes: hosts.iter().map(sentinel).collect(),
            config: config.clone(),
            sentinel_config,
        })
    }

    /// Adds the sentinels that the present ones know, so that they are asked when all that are
    /// configured have failed.
    pub(super) async fn discover(&mut self) {
        let questions = self.nodes.iter().map(|s| s.others(&self.service));
        let mut answers: FuturesUnordered<_> = questions.collect();
        let mut found = Vec::new();
        let collect = async {
            while let Some(answer) = answers.next().await {
                found.extend(answer.unwrap_or_default());
            }
        };
        let _ = timeout(FURTHER_ANSWERS_TIMEOUT, collect).await;
        drop(answers);
        let configured = self.config.server.hosts().len();
        for server in found {
            let is_full = self.nodes.len() >= configured + MAX_DISCOVERED;
            if !is_full && self.nodes.iter().all(|known| known.server != server) {
                let sentinel = Sentinel::new(&server, &self.sentinel_config);
                self.nodes.push(sentinel);
            }
        }
    }

    /// Returns the configuration of a connection to the master.
    pub(super) fn config_of(&self, master: &MasterAddress) -> Config {
        single(&self.config, &master.server)
    }

    /// Asks all sentinels for the address of the master.
    pub(super) async fn master(&self) -> Result<MasterAddress, Fault> {
        let questions = self.nodes.iter().map(|s| s.ask(&self.service));
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
            return Err(match fault {
                Fault::NoSentinel | Fault::UnknownMaster => fault,
                other => Fault::Sentinel(Box::new(other)),
            });
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

    /// Waits until the sentinels name another master than `current`, or the same one after a failover.
    pub(super) async fn other_master(&self, current: &MasterAddress) {
        loop {
            sleep(QUESTION_INTERVAL).await;
            if let Ok(latest) = self.master().await
                && latest.replaces(current)
            {
                return;
            }
        }
    }
}

impl Sentinel {
    fn new(server: &Server, config: &Config) -> Self {
        Self {
            server: server.clone(),
            config: single(config, server),
            connection: Mutex::default(),
        }
    }

    async fn ask(&self, service: &str) -> Result<MasterAddress, Fault> {
        let answer = self.answer(async |client| Box::pin(question(client, service)).await);
        answer.await?.ok_or(Fault::UnknownMaster)
    }

    async fn others(&self, service: &str) -> Result<Vec<Server>, Fault> {
        self.answer(async |client| {
            let reply = command(client, "SENTINELS", service).await?;
            Ok(servers(reply))
        })
        .await
    }

    /// Returns the answer to a question. A connection on which there is none in time is closed,
    /// also when the future is dropped.
    async fn answer<T>(
        &self,
        question: impl AsyncFnOnce(&Client) -> Result<T, Error>,
    ) -> Result<T, Fault> {
        let mut connection = self.connection.lock().await;
        let (client, mut driver) = connection.take().unwrap_or_else(|| {
            let client = client(self.config.clone());
            let driver = Driver::start(&client);
            (client, driver)
        });
        let answer = tokio::select! {
            biased;
            fault = driver.ended() => return Err(fault),
            answer = with_patience(ANSWER_TIMEOUT, question(&client)) => answer,
        };
        let answer = answer.map_err(|_| Fault::Silent)?;
        let answer = answer.map_err(|error| match error.details() {
            // Any server but a sentinel replies so.
            details if details.starts_with("ERR unknown command") => Fault::NoSentinel,
            _ => Fault::of(&error),
        })?;
        *connection = Some((client, driver));
        Ok(answer)
    }
}

/// Asks a sentinel for the address of the master. `None` if it does not know a master of this name.
async fn question(client: &Client, service: &str) -> Result<Option<MasterAddress>, Error> {
    // During a failover only the first command returns the new address.
    let (address, state) = tokio::join!(
        command(client, "GET-MASTER-ADDR-BY-NAME", service),
        command(client, "MASTER", service)
    );
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

async fn command(client: &Client, name: &'static str, service: &str) -> Result<Value, Error> {
    let command = CustomCommand::new_static("SENTINEL", ClusterHash::Random, false);
    let arguments = vec![Value::from_static_str(name), Value::from(service)];
    client.custom(command, arguments).await
}

/// Returns the addresses from the reply to `SENTINEL SENTINELS`, a list of lists of names and values.
fn servers(reply: Value) -> Vec<Server> {
    let address = |fields: Vec<String>| {
        Some(Server::new(
            value_of(&fields, "ip")?,
            value_of(&fields, "port")?.parse().ok()?,
        ))
    };
    let sentinels: Vec<Vec<String>> = reply.convert().unwrap_or_default();
    sentinels.into_iter().filter_map(address).collect()
}

/// Returns the number of the configuration from the reply to `SENTINEL MASTER`, a list of names and
/// values.
fn config_epoch(state: Value) -> Option<u64> {
    let fields: Vec<String> = state.convert().ok()?;
    value_of(&fields, "config-epoch")?.parse().ok()
}

/// Returns the value that follows a name in a list of names and values.
fn value_of<'a>(fields: &'a [String], name: &str) -> Option<&'a str> {
    let at = fields.iter().position(|field| field == name)?;
    fields.get(at + 1).map(String::as_str)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn list(fields: &[&'static str]) -> Value {
        Value::Array(fields.iter().copied().map(Value::from_static_str).collect())
    }

    #[test]
    fn the_number_of_the_configuration_is_a_named_field() {
        let fields = ["name", "main", "config-epoch", "12", "quorum", "1"];
        assert_eq!(config_epoch(list(&fields)), Some(12));
        assert_eq!(config_epoch(list(&["config-epoch"])), None);
        assert_eq!(config_epoch(Value::Integer(1)), None);
    }

    #[test]
    fn a_later_configuration_replaces_an_earlier_one_also_of_the_same_master() {
        let named = |port, epoch| MasterAddress {
            server: Server::new("10.0.0.2", port),
            epoch,
        };
        let current = named(6379, 2);
        assert!(named(6379, 3).replaces(&current) && named(6380, 3).replaces(&current));
        assert!(named(6380, 2).replaces(&current));
        assert!(!named(6379, 2).replaces(&current) && !named(6380, 1).replaces(&current));
    }

    #[test]
    fn addresses_of_other_sentinels_are_named_fields() {
        let known = list(&["name", "1f", "ip", "10.0.0.2", "port", "26379"]);
        let invalid = list(&["name", "2f", "ip", "10.0.0.3", "port", "none"]);
        assert_eq!(
            servers(Value::Array(vec![known, invalid])),
            [Server::new("10.0.0.2", 26379)]
        );
        assert_eq!(servers(Value::Null), []);
    }
}
