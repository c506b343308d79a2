use std::{net::SocketAddr, path::PathBuf, pin::Pin, sync::Arc};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Failure;
use crate::{
    access::{AccessPolicy, Tokens},
    config::Config,
    os_error,
    reload::{self, FileWatcher, Reloaded},
    transport::{Address, Connection, Listener, OpenConnections, Tls, incoming},
};

/// A running [`FileWatcher`] of any value.
type Watch = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Bound listeners of the API, and the access rules of their callers.
pub(super) struct Listeners {
    pub(super) access: Arc<AccessPolicy>,
    /// Bound addresses, where port 0 is replaced by the port that was selected.
    pub(super) addresses: Vec<Address>,
    bound: Vec<Listener>,
    tls: Option<Tls>,
    pub(super) connections: OpenConnections,
    watches: Vec<Watch>,
}

impl Listeners {
    /// Binds the configured addresses and loads tokens and certificates.
    pub(super) async fn open(config: &Config) -> Result<Self, Failure> {
        // Bound first, so that an address in use is reported before anything else.
        let mut listeners = Vec::with_capacity(config.server.listen.len());
        for address in &config.server.listen {
            listeners.push(bind("LISTEN_ADDR", address).await?);
        }
        let addresses = listeners.iter().map(Listener::address);
        let addresses = addresses.collect::<Result<_, _>>()?;
        let mut watches: Vec<Watch> = Vec::new();
        let tokens = config.auth.tokens_file.clone();
        let tokens = tokens.map(load_tokens).transpose()?;
        let tokens = tokens.map(|(tokens, watcher)| {
            watches.push(Box::pin(watcher.run()));
            tokens
        });
        let tls = config.auth.tls.clone().map(Tls::read).transpose()?;
        let tls = tls.map(|(tls, watcher)| {
            watches.push(Box::pin(watcher.run()));
            tls
        });
        Ok(Self {
            access: Arc::new(AccessPolicy::new(
                config.auth.unix_allowed.clone(),
                tokens,
                config.auth.operators.clone(),
                config.limits.caller_rate,
            )),
            addresses,
            bound: listeners,
            tls,
            connections: OpenConnections::with_metrics(config.limits.connections),
            watches,
        })
    }

    /// Accepts connections, and watches the files of tokens and certificates until `stop`.
    pub(super) fn into_connections(
        self,
        background: &TaskTracker,
        stop: &CancellationToken,
    ) -> impl tokio_stream::Stream<Item = Connection> + Send + use<> {
        for watch in self.watches {
            background.spawn(stop.clone().run_until_cancelled_owned(watch));
        }
        incoming(self.bound, self.tls, self.connections)
    }
}

fn load_tokens(file: PathBuf) -> Result<(Reloaded<Tokens>, FileWatcher<Tokens>), Failure> {
    let parse = |files: &[Vec<u8>]| Tokens::parse(files.concat().as_slice());
    let shown = file.display().to_string();
    let (tokens, watcher) = reload::load("AUTH_TOKENS_FILE", vec![file], parse)?;
    if tokens.current().is_empty() {
        // At startup, an empty file is more likely a mistake than a sidecar without callers.
        // When it is reloaded, it revokes the last token.
        return Err(format!("AUTH_TOKENS_FILE: {shown} contains no token").into());
    }
    Ok((tokens, watcher))
}

/// Binds the operations port.
pub(super) async fn bind_ops(address: SocketAddr) -> Result<Listener, Failure> {
    bind("OPS_ADDR", &Address::Tcp(address)).await
}

async fn bind(setting: &str, address: &Address) -> Result<Listener, Failure> {
    Listener::bind(address).await.map_err(|error| {
        let cause = os_error::describe(&error);
        format!("{setting}: cannot bind {address}: {cause}").into()
    })
}
