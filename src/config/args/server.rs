#![expect(clippy::doc_markdown, reason = "these comments are the text of --help")]

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use crate::transport::Address;

/// Where the API is served, to whom, and how much of it.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// Where to serve the API, over gRPC and REST: addresses such as 127.0.0.1:50051 (IPv6
    /// ones in brackets) or unix:/run/memory.sock, several separated by commas. Port 0 takes
    /// a free one. A Unix socket gets mode 0660 and takes the place of one that was left behind.
    #[arg(
        long,
        env,
        global = true,
        default_value = "127.0.0.1:50051",
        value_delimiter = ',',
        value_name = "ADDRESSES"
    )]
    pub(in crate::config) listen_addr: Vec<Address>,

    /// Where to serve operators: /livez, /readyz, /metrics and gRPC health [default: 127.0.0.1:9464]
    #[arg(long, env, global = true, value_name = "ADDRESS:PORT")]
    pub(in crate::config) ops_addr: Option<SocketAddr>,

    /// A file of the tokens that callers send as `authorization: Bearer <token>`: lines
    /// `name:hash`, with the SHA-256 of a token in hexadecimal digits. It is read again when
    /// it changes. Everything but health then needs one, except over a Unix socket for which
    /// there is a list.
    #[arg(
        long,
        env,
        global = true,
        value_name = "FILE",
        help_heading = "Who may call"
    )]
    pub(in crate::config) auth_tokens_file: Option<PathBuf>,

    /// The certificate of LISTEN_ADDR's ports, in PEM, followed by those between it and its
    /// root. It is read again when it changes, like its key, for the connections that follow.
    /// Unix sockets and OPS_ADDR have no TLS.
    #[arg(
        long,
        env,
        global = true,
        value_name = "FILE",
        help_heading = "Who may call"
    )]
    pub(in crate::config) tls_cert_file: Option<PathBuf>,

    /// The certificate's key, in PEM.
    #[arg(
        long,
        env,
        global = true,
        value_name = "FILE",
        help_heading = "Who may call"
    )]
    pub(in crate::config) tls_key_file: Option<PathBuf>,

    /// Certificates in PEM, by one of which a caller's own must be signed. A caller without
    /// gets no connection, to health neither. One that has a certificate needs a token all
    /// the same where there are tokens.
    #[arg(
        long,
        env,
        global = true,
        value_name = "FILE",
        help_heading = "Who may call"
    )]
    pub(in crate::config) tls_client_ca_file: Option<PathBuf>,

    /// Tell callers of the services: gRPC reflection, and /openapi.json over REST.
    #[arg(long, env, global = true, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "Who may call")]
    pub(in crate::config) reflection: bool,

    /// Ask for user_id in each request that names a conversation or a session, so that none
    /// is read or changed for another user than the one that is meant.
    #[arg(long, env, global = true, default_value_t = false, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "Who may call")]
    pub(in crate::config) require_user_id: bool,

    /// Start although whoever reaches a port of LISTEN_ADDR beyond loopback can read and
    /// delete every conversation, because callers need neither token nor certificate.
    #[arg(long, env, global = true, help_heading = "Who may call")]
    pub(in crate::config) insecure: bool,

    /// The users whose processes may call over a Unix socket, as numbers separated by
    /// commas. Those of others are answered PERMISSION_DENIED. With neither this nor
    /// UNIX_ALLOWED_GIDS, all that may open the socket.
    #[arg(
        long,
        env,
        global = true,
        value_delimiter = ',',
        value_name = "UIDS",
        help_heading = "Who may call"
    )]
    pub(in crate::config) unix_allowed_uids: Vec<u32>,

    /// The groups whose processes may call over a Unix socket too. A process's primary group
    /// counts, supplementary ones do not.
    #[arg(
        long,
        env,
        global = true,
        value_delimiter = ',',
        value_name = "GIDS",
        help_heading = "Who may call"
    )]
    pub(in crate::config) unix_allowed_gids: Vec<u32>,

    /// The most connections at once; those beyond are closed. Handshakes under way count.
    /// More than about 900 need a higher limit on open files than the usual 1024.
    #[arg(
        long,
        env,
        global = true,
        default_value_t = 900,
        value_name = "NUMBER",
        help_heading = "Limits"
    )]
    pub(in crate::config) max_connections: usize,

    /// The most calls of one caller in a second, by the name of its token or certificate or
    /// by the user of its process; all others are one caller. Those beyond are answered
    /// RESOURCE_EXHAUSTED, and told when to try again. 0 is no limit. Health is not counted.
    #[arg(
        long,
        env,
        global = true,
        default_value_t = 0,
        value_name = "NUMBER",
        help_heading = "Limits"
    )]
    pub(in crate::config) max_caller_rate: u32,

    /// The most calls at once; those beyond are answered RESOURCE_EXHAUSTED.
    #[arg(
        long,
        env,
        global = true,
        default_value_t = 1024,
        value_name = "NUMBER",
        help_heading = "Limits"
    )]
    pub(in crate::config) max_concurrent_calls: usize,

    /// The largest request.
    #[arg(
        long,
        env,
        global = true,
        default_value_t = 4 << 20,
        value_name = "BYTES",
        help_heading = "Limits"
    )]
    pub(in crate::config) max_request_bytes: usize,
}
