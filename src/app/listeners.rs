use std::{net::SocketAddr, path::PathBuf, pin::Pin, sync::Arc};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Failure;
use crate::{
    access::{AccessPolicy, Tokens},
    config::ServerConfig,
    transport::{Address, Connection, ConnectionLimit, Listener, Tls, incoming},
    watched::{self, Watched, Watcher},
};

/// The watch over a file.
type Watching = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where callers come in, and who is let in.
pub(super) struct Listeners {
    pub(super) access: Arc<AccessPolicy>,
    /// Where it is, with the ports that were free.
    pub(super) addresses: Vec<Address>,
    bound: Vec<Listener>,
    tls: Option<Tls>,
    connections: ConnectionLimit,
    watchers: Vec<Watching>,
}

impl Listeners {
    /// Listens, and reads the files that say who is let in.
    pub(super) async fn open(server: &ServerConfig) -> Result<Self, Failure> {
        // Bound first, so that a port that is taken is the first thing to be said.
        let mut listeners = Vec::with_capacity(server.listen.len());
        for address in &server.listen {
            listeners.push(bind("LISTEN_ADDR", address).await?);
        }
        let addresses = listeners.iter().map(Listener::address);
        let addresses = addresses.collect::<Result<_, _>>()?;
        let mut watchers: Vec<Watching> = Vec::new();
        let tokens = server.tokens_file.clone().map(read_tokens).transpose()?;
        let tokens = tokens.map(|(tokens, watcher)| {
            watchers.push(Box::pin(watcher.run()));
            tokens
        });
        let tls = server.tls.clone().map(Tls::read).transpose()?;
        let tls = tls.map(|(tls, watcher)| {
            watchers.push(Box::pin(watcher.run()));
            tls
        });
        Ok(Self {
            access: Arc::new(AccessPolicy::new(
                server.unix_allowed.clone(),
                tokens,
                server.max_caller_rate,
            )),
            addresses,
            bound: listeners,
            tls,
            connections: ConnectionLimit::with_metrics(server.max_connections),
            watchers,
        })
    }

    /// The connections that are made, while its files are looked at until `stop`.
    pub(super) fn connections(
        self,
        background: &TaskTracker,
        stop: &CancellationToken,
    ) -> impl tokio_stream::Stream<Item = std::io::Result<Connection>> + Send + use<> {
        for watcher in self.watchers {
            background.spawn(stop.clone().run_until_cancelled_owned(watcher));
        }
        incoming(self.bound, self.tls, self.connections)
    }
}

fn read_tokens(file: PathBuf) -> Result<(Watched<Tokens>, Watcher<Tokens>), Failure> {
    let parse = |files: &[Vec<u8>]| Tokens::parse(files.concat().as_slice());
    let (tokens, watcher) = watched::read("AUTH_TOKENS_FILE", vec![file], parse)?;
    if tokens.current().is_empty() {
        // More likely a file that got lost than a sidecar for nobody. Later on it is how
        // the last caller's right ends.
        return Err("AUTH_TOKENS_FILE: it has no token".into());
    }
    Ok((tokens, watcher))
}

/// Listens at the operations port.
pub(super) async fn bind_ops(address: SocketAddr) -> Result<Listener, Failure> {
    bind("OPS_ADDR", &Address::Tcp(address)).await
}

async fn bind(setting: &str, address: &Address) -> Result<Listener, Failure> {
    Listener::bind(address)
        .await
        .map_err(|error| format!("{setting} {address} cannot be listened on: {error}").into())
}
