#![expect(clippy::doc_markdown, reason = "these comments are the text of --help")]

use std::path::PathBuf;

use super::{
    InvalidSetting,
    parse::{boolean, integer, non_empty_path},
};
use crate::{
    access::{Operator, UnixAllowList},
    transport::{Address, TlsFiles},
};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Authentication")]
pub(super) struct AuthArgs {
    /// File of bearer tokens, one `name:hash` per line, where the hash is the SHA-256 of the
    /// token in hexadecimal digits. Callers send `authorization: Bearer <token>`. With this
    /// setting, every call except gRPC health requires a token, unless it arrives over a Unix
    /// socket and UNIX_ALLOWED_UIDS or UNIX_ALLOWED_GIDS is set. The file is reloaded when it
    /// changes.
    #[arg(long, env, global = true, value_name = "FILE")]
    auth_tokens_file: Option<PathBuf>,

    /// TLS certificate of the TCP addresses in LISTEN_ADDR, in PEM, followed by its
    /// intermediate certificates. The certificate and its key are reloaded for new connections
    /// when they change. Unix sockets and OPS_ADDR do not use TLS.
    #[arg(long, env, global = true, value_name = "FILE")]
    tls_cert_file: Option<PathBuf>,

    /// Private key of TLS_CERT_FILE, in PEM.
    #[arg(long, env, global = true, value_name = "FILE")]
    tls_key_file: Option<PathBuf>,

    /// CA certificates for client certificates, in PEM. A TCP client without a certificate
    /// signed by one of them cannot connect, not even for health checks. If AUTH_TOKENS_FILE is
    /// set as well, callers need both a certificate and a token.
    #[arg(long, env, global = true, value_name = "FILE")]
    tls_client_ca_file: Option<PathBuf>,

    /// User ids whose processes may call over Unix sockets, separated by commas. Processes of
    /// other users receive PERMISSION_DENIED. Without this setting and UNIX_ALLOWED_GIDS, every
    /// process that can open the socket may call.
    #[arg(
        long,
        env,
        global = true,
        value_delimiter = ',',
        value_parser = integer(0..=u32::MAX),
        value_name = "UIDS"
    )]
    unix_allowed_uids: Vec<u32>,

    /// Group ids whose processes may also call over Unix sockets, separated by commas. Only the
    /// primary group of a process counts.
    #[arg(
        long,
        env,
        global = true,
        value_delimiter = ',',
        value_parser = integer(0..=u32::MAX),
        value_name = "GIDS"
    )]
    unix_allowed_gids: Vec<u32>,

    /// Require user_id in every request that names a conversation or a session, so that a
    /// request cannot read or change the data of another user by mistake.
    #[arg(
        long,
        env,
        global = true,
        default_value = "false",
        value_parser = boolean,
        action = clap::ArgAction::Set,
        value_name = "BOOL"
    )]
    require_user_id: bool,

    /// Names of the callers that may also call the methods for operators, such as
    /// TransferConversation; separated by commas. A name is that of a token, that in a client
    /// certificate, or uid: and the user id of a process, as in log lines (caller); * stands for
    /// every caller, also without authentication. If unset, nobody may call them.
    #[arg(long, env, global = true, value_delimiter = ',', value_name = "NAMES")]
    operators: Vec<Operator>,

    /// Allow LISTEN_ADDR to be a non-loopback address without authentication. Everyone who can
    /// reach the address can then read and delete every conversation.
    #[arg(long, env, global = true, value_parser = boolean)]
    pub(super) insecure: bool,
}

/// Authentication and authorization of callers.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// File of bearer tokens; `None` requires no token.
    pub tokens_file: Option<PathBuf>,
    /// TLS of the TCP listeners; `None` serves plaintext.
    pub tls: Option<TlsFiles>,
    /// Processes that may call over Unix sockets.
    pub unix_allowed: UnixAllowList,
    /// Whether a request that names a conversation or a session must contain the user id.
    pub require_user_id: bool,
    /// Callers that may call the methods for operators.
    pub operators: Vec<Operator>,
}

impl AuthConfig {
    pub(super) fn from_args(args: &AuthArgs) -> Result<Self, InvalidSetting> {
        Ok(Self {
            tokens_file: non_empty_path(args.auth_tokens_file.as_deref()),
            tls: tls(args)?,
            unix_allowed: UnixAllowList {
                uids: args.unix_allowed_uids.clone(),
                gids: args.unix_allowed_gids.clone(),
            },
            require_user_id: args.require_user_id,
            operators: args.operators.clone(),
        })
    }

    /// Whether TCP callers must present a client certificate.
    pub fn requires_client_certificate(&self) -> bool {
        self.tls
            .as_ref()
            .is_some_and(|files| files.client_ca.is_some())
    }

    /// Whether TCP callers need neither a token nor a client certificate.
    pub fn allows_anonymous_tcp(&self) -> bool {
        self.tokens_file.is_none() && !self.requires_client_certificate()
    }

    /// Rejects listeners that other machines can reach without authentication.
    pub(super) fn check_exposure(&self, listen: &[Address]) -> Result<(), InvalidSetting> {
        match listen.iter().find(|address| address.is_exposed()) {
            Some(address) if self.allows_anonymous_tcp() => Err(InvalidSetting::value(
                "LISTEN_ADDR",
                &address.to_string(),
                "callers of a non-loopback address must be authenticated, because they can read \
                 and delete every conversation. Set AUTH_TOKENS_FILE or TLS_CLIENT_CA_FILE, use \
                 127.0.0.1, or set INSECURE=true if the network is trusted",
            )),
            _ => Ok(()),
        }
    }
}

fn tls(args: &AuthArgs) -> Result<Option<TlsFiles>, InvalidSetting> {
    let client_ca = non_empty_path(args.tls_client_ca_file.as_deref());
    match (
        non_empty_path(args.tls_cert_file.as_deref()),
        non_empty_path(args.tls_key_file.as_deref()),
    ) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles {
            certificate,
            key,
            client_ca,
        })),
        (None, Some(_)) => Err(InvalidSetting::new(
            "TLS_CERT_FILE",
            "must be set if TLS_KEY_FILE is set",
        )),
        (Some(_), None) => Err(InvalidSetting::new(
            "TLS_KEY_FILE",
            "must be set if TLS_CERT_FILE is set",
        )),
        (None, None) if client_ca.is_some() => Err(InvalidSetting::new(
            "TLS_CLIENT_CA_FILE",
            "requires TLS_CERT_FILE and TLS_KEY_FILE",
        )),
        (None, None) => Ok(None),
    }
}
