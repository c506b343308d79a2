use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use super::{BadSetting, FrontArgs, in_range};
use crate::{access::UnixAllowed, transport::Address};

const DEFAULT_OPS_ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// Where the API is served, to whom, and how much of it.
#[derive(Clone, Debug)]
pub struct Front {
    /// Where to serve the API; TCP comes first.
    pub listen: Vec<Address>,
    /// Where to serve operators.
    pub ops: Ops,
    /// Which processes may call over Unix sockets.
    pub unix_allowed: UnixAllowed,
    /// The tokens that callers need.
    pub tokens_file: Option<PathBuf>,
    /// The most connections at once.
    pub max_connections: usize,
    /// The most calls at once.
    pub max_concurrent_calls: usize,
    /// The largest request, in bytes.
    pub max_request_bytes: usize,
}

/// The operations port.
#[derive(Clone, Copy, Debug)]
pub struct Ops {
    /// Where.
    pub addr: SocketAddr,
    /// Whether it was asked for. The default one is done without when its port
    /// is taken, so that a second sidecar starts on one machine.
    pub required: bool,
}

impl Front {
    pub(super) fn from_args(args: &FrontArgs) -> Result<Self, BadSetting> {
        let mut listen = args.listen_addr.clone();
        listen.sort_by_key(|address| matches!(address, Address::Unix(_)));
        let tokens_file = file(args.auth_tokens_file.as_deref());
        let is_open = tokens_file.is_none();
        if is_open && !args.insecure && listen.iter().any(Address::is_exposed) {
            return Err(BadSetting::new(
                "LISTEN_ADDR",
                "is not a loopback address: whoever reaches it could read and delete every \
                 conversation, since callers are not authenticated. Set AUTH_TOKENS_FILE, use \
                 127.0.0.1, or say --insecure if the network is trusted",
            ));
        }
        Ok(Self {
            listen,
            ops: Ops {
                addr: args.ops_addr.unwrap_or(DEFAULT_OPS_ADDR),
                required: args.ops_addr.is_some(),
            },
            unix_allowed: UnixAllowed {
                uids: args.unix_allowed_uids.clone(),
                gids: args.unix_allowed_gids.clone(),
            },
            tokens_file,
            max_connections: in_range(args.max_connections, 1..=100_000, "MAX_CONNECTIONS")?,
            max_concurrent_calls: in_range(
                args.max_concurrent_calls,
                1..=100_000,
                "MAX_CONCURRENT_CALLS",
            )?,
            max_request_bytes: args.max_request_bytes,
        })
    }
}

/// An empty path says nothing.
fn file(path: Option<&Path>) -> Option<PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty())
        .map(Path::to_owned)
}
