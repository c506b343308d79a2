#![expect(clippy::doc_markdown, reason = "these comments are the text of --help")]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::parse::{boolean, seconds};
use crate::transport::{Address, parse_tcp};

const DEFAULT_OPS_ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Server")]
pub(super) struct ServerArgs {
    /// Addresses of the API (gRPC and REST), separated by commas: an IP address (IPv6 in
    /// brackets) or localhost and port such as 127.0.0.1:50051, or a Unix socket such as
    /// unix:/run/memory.sock.
    /// Port 0 selects a free port. A Unix socket gets mode 0660 and replaces a socket that no
    /// process listens on.
    #[arg(
        long,
        env,
        global = true,
        default_value = "127.0.0.1:50051",
        value_delimiter = ',',
        value_name = "ADDRESSES"
    )]
    listen_addr: Vec<Address>,

    /// Address of the operations port: /livez, /readyz, /metrics and gRPC health, without TLS
    /// and authentication. If the default address is in use, the sidecar starts without the
    /// operations port. [default: 127.0.0.1:9464]
    #[arg(long, env, global = true, value_parser = ops_address, value_name = "ADDRESS:PORT")]
    ops_addr: Option<SocketAddr>,

    /// Serve the API description: gRPC reflection, and /openapi.json over REST.
    #[arg(
        long,
        env,
        global = true,
        default_value = "true",
        value_parser = boolean,
        action = clap::ArgAction::Set,
        value_name = "BOOL"
    )]
    reflection: bool,

    /// How long shutdown waits for calls in progress.
    #[arg(
        long,
        env,
        global = true,
        default_value = "20",
        value_parser = seconds,
        value_name = "SECONDS"
    )]
    drain_seconds: Duration,
}

/// Listeners and shutdown.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Addresses of the API; TCP addresses precede Unix sockets.
    pub listen: Vec<Address>,
    /// Operations port.
    pub ops: OpsConfig,
    /// Whether the API description is served: gRPC reflection and `/openapi.json`.
    pub reflection: bool,
    /// Upper bound on the time that shutdown waits for calls in progress.
    pub drain: Duration,
}

/// Address of the operations port.
#[derive(Clone, Copy, Debug)]
pub struct OpsConfig {
    /// Address and port to bind.
    pub addr: SocketAddr,
    /// Whether the address was configured. Without it, the sidecar starts even if the default
    /// port is in use, so that a second sidecar can run on one machine.
    pub is_required: bool,
}

impl ServerConfig {
    pub(super) fn from_args(args: ServerArgs) -> Self {
        let mut listen = args.listen_addr;
        listen.sort_by_key(|address| matches!(address, Address::Unix(_)));
        Self {
            listen,
            ops: OpsConfig {
                addr: args.ops_addr.unwrap_or(DEFAULT_OPS_ADDR),
                is_required: args.ops_addr.is_some(),
            },
            reflection: args.reflection,
            drain: args.drain_seconds,
        }
    }
}

fn ops_address(text: &str) -> Result<SocketAddr, &'static str> {
    parse_tcp(text).ok_or("must be an IP address and port such as 127.0.0.1:9464 or [::1]:9464")
}
