#![expect(clippy::doc_markdown, reason = "these comments are the text of --help")]
#![allow(rustdoc::bare_urls, reason = "these comments are the text of --help")]

use crate::access::{HostName, WebOrigin};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Web pages")]
pub(super) struct WebArgs {
    /// Host names and IP addresses, without a port, by which callers may address the API, in
    /// addition to localhost and other names of loopback; separated by commas. Requests for other
    /// hosts receive the HTTP status 421. If unset, this applies to connections over loopback
    /// only, where it prevents access by web pages whose name resolves to 127.0.0.1. If set, it
    /// applies to all TCP connections. A proxy or client that sets the host (authority) must be
    /// listed. On OPS_ADDR it applies to connections over loopback.
    #[arg(long, env, global = true, value_delimiter = ',', value_name = "HOSTS")]
    allowed_hosts: Vec<HostName>,

    /// Origins of web pages that may call the API over REST, such as https://app.example.com,
    /// separated by commas. Requests of other pages that would change something are rejected,
    /// and browsers do not let other pages read responses.
    #[arg(
        long,
        env,
        global = true,
        value_delimiter = ',',
        value_name = "ORIGINS"
    )]
    cors_allowed_origins: Vec<WebOrigin>,
}

/// Hosts and web pages that the API is served to.
#[derive(Clone, Debug)]
pub struct WebConfig {
    /// Hosts by which callers may address the API, in addition to the names of loopback.
    pub allowed_hosts: Vec<HostName>,
    /// Origins of the pages that may call the API.
    pub allowed_origins: Vec<WebOrigin>,
}

impl WebConfig {
    pub(super) fn from_args(args: WebArgs) -> Self {
        Self {
            allowed_hosts: args.allowed_hosts,
            allowed_origins: args.cors_allowed_origins,
        }
    }
}
