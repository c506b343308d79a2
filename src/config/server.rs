use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use super::{BadSetting, ServerArgs, in_range};
use crate::{
    access::UnixAllowList,
    transport::{Address, TlsFiles},
};

const DEFAULT_OPS_ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// Where the API is served, to whom, and how much of it.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to serve the API; TCP comes first.
    pub listen: Vec<Address>,
    /// Where to serve operators.
    pub ops: Ops,
    /// Which processes may call over Unix sockets.
    pub unix_allowed: UnixAllowList,
    /// The tokens that callers need.
    pub tokens_file: Option<PathBuf>,
    /// TLS on the ports.
    pub tls: Option<TlsFiles>,
    /// Whether callers are told of the services.
    pub reflection: bool,
    /// Whether a request that names a conversation or a session must say whose it is.
    pub require_user_id: bool,
    /// The most connections at once.
    pub max_connections: usize,
    /// The most calls of one caller in a second.
    pub max_caller_rate: Option<NonZeroU32>,
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

impl ServerConfig {
    pub(super) fn from_args(args: &ServerArgs) -> Result<Self, BadSetting> {
        let mut listen = args.listen_addr.clone();
        listen.sort_by_key(|address| matches!(address, Address::Unix(_)));
        let server = Self {
            listen,
            ops: Ops {
                addr: args.ops_addr.unwrap_or(DEFAULT_OPS_ADDR),
                required: args.ops_addr.is_some(),
            },
            unix_allowed: UnixAllowList {
                uids: args.unix_allowed_uids.clone(),
                gids: args.unix_allowed_gids.clone(),
            },
            tokens_file: file(args.auth_tokens_file.as_deref()),
            tls: tls(args)?,
            reflection: args.reflection,
            require_user_id: args.require_user_id,
            max_connections: in_range(args.max_connections, 1..=100_000, "MAX_CONNECTIONS")?,
            max_caller_rate: NonZeroU32::new(in_range(
                args.max_caller_rate,
                0..=1_000_000,
                "MAX_CALLER_RATE",
            )?),
            max_concurrent_calls: in_range(
                args.max_concurrent_calls,
                1..=100_000,
                "MAX_CONCURRENT_CALLS",
            )?,
            max_request_bytes: args.max_request_bytes,
        };
        if server.takes_anybody() && !args.insecure && server.listen.iter().any(Address::is_exposed)
        {
            return Err(BadSetting::new(
                "LISTEN_ADDR",
                "is not a loopback address: whoever reaches it could read and delete every \
                 conversation, since callers are not authenticated. Set AUTH_TOKENS_FILE or \
                 TLS_CLIENT_CA_FILE, use 127.0.0.1, or say --insecure if the network is trusted",
            ));
        }
        Ok(server)
    }

    /// Whether callers on the ports have to show a certificate.
    pub fn asks_for_certificates(&self) -> bool {
        self.tls
            .as_ref()
            .is_some_and(|files| files.client_ca.is_some())
    }

    /// Whether the ports take calls from just anybody.
    pub fn takes_anybody(&self) -> bool {
        self.tokens_file.is_none() && !self.asks_for_certificates()
    }
}

fn tls(args: &ServerArgs) -> Result<Option<TlsFiles>, BadSetting> {
    let client_ca = file(args.tls_client_ca_file.as_deref());
    match (
        file(args.tls_cert_file.as_deref()),
        file(args.tls_key_file.as_deref()),
    ) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles {
            certificate,
            key,
            client_ca,
        })),
        (None, Some(_)) => Err(BadSetting::new(
            "TLS_CERT_FILE",
            "is missing beside its key",
        )),
        (Some(_), None) => Err(BadSetting::new(
            "TLS_KEY_FILE",
            "is missing beside TLS_CERT_FILE",
        )),
        (None, None) if client_ca.is_some() => Err(BadSetting::new(
            "TLS_CLIENT_CA_FILE",
            "needs TLS_CERT_FILE and TLS_KEY_FILE",
        )),
        (None, None) => Ok(None),
    }
}

/// An empty path says nothing.
pub(super) fn file(path: Option<&Path>) -> Option<PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty())
        .map(Path::to_owned)
}
