#![expect(clippy::doc_markdown, reason = "these comments are the text of --help")]

use std::{num::NonZeroU32, time::Duration};

use super::parse::{integer, seconds};
use crate::domain::Limits;

/// The largest size that a setting may have. A gRPC message has a length of 32 bits.
const MAX_BYTES: usize = u32::MAX as usize;

#[derive(Debug, clap::Args)]
#[expect(
    clippy::struct_field_names,
    reason = "fields are named like their settings"
)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// Maximum number of open connections over TCP, and as many over Unix sockets. TLS handshakes
    /// in progress count. Further connections are closed. More than about 900 need a higher limit
    /// on open files than the usual 1024.
    #[arg(
        long,
        env,
        global = true,
        default_value = "900",
        value_parser = integer(1..=100_000_usize),
        value_name = "NUMBER"
    )]
    max_connections: usize,

    /// Maximum number of concurrent calls. Further calls receive RESOURCE_EXHAUSTED.
    #[arg(
        long,
        env,
        global = true,
        default_value = "1024",
        value_parser = integer(1..=100_000_usize),
        value_name = "NUMBER"
    )]
    max_concurrent_calls: usize,

    /// Maximum number of calls per second and caller. A caller is the name of a token or
    /// certificate, or the user of a process; all others count as one caller. Further calls
    /// receive RESOURCE_EXHAUSTED with RetryInfo. 0 disables the limit. Health checks do not count.
    #[arg(
        long,
        env,
        global = true,
        default_value = "0",
        value_parser = integer(0..=1_000_000_u32),
        value_name = "NUMBER"
    )]
    max_caller_rate: u32,

    /// Maximum duration of a call. Callers may set a shorter deadline.
    #[arg(
        long,
        env,
        global = true,
        default_value = "60",
        value_parser = seconds,
        value_name = "SECONDS"
    )]
    max_call_seconds: Duration,

    /// Maximum size of a request.
    #[arg(
        long,
        env,
        global = true,
        default_value = "4194304",
        value_parser = integer(1..=MAX_BYTES),
        value_name = "BYTES"
    )]
    max_request_bytes: usize,

    /// Maximum size of the text of a message or a context.
    #[arg(
        long,
        env,
        global = true,
        default_value = "1048576",
        value_parser = integer(0..=MAX_BYTES),
        value_name = "BYTES"
    )]
    max_content_bytes: usize,

    /// Maximum size of metadata as JSON.
    #[arg(
        long,
        env,
        global = true,
        default_value = "65536",
        value_parser = integer(0..=MAX_BYTES),
        value_name = "BYTES"
    )]
    max_metadata_bytes: usize,
}

/// Limits on connections, calls and request sizes.
#[derive(Clone, Copy, Debug)]
pub struct LimitConfig {
    /// Upper bound on open connections, over TCP and as many over Unix sockets.
    pub connections: usize,
    /// Upper bound on concurrent calls.
    pub concurrent_calls: usize,
    /// Upper bound on calls per second and caller; `None` disables the limit.
    pub caller_rate: Option<NonZeroU32>,
    /// Upper bound on the duration of a call.
    pub call_time: Duration,
    /// Upper bound on the size of a request, in bytes.
    pub request_bytes: usize,
    /// Upper bounds on the size of content and metadata.
    pub content: Limits,
}

impl LimitConfig {
    pub(super) fn from_args(args: &LimitArgs) -> Self {
        Self {
            connections: args.max_connections,
            concurrent_calls: args.max_concurrent_calls,
            caller_rate: NonZeroU32::new(args.max_caller_rate),
            call_time: args.max_call_seconds,
            request_bytes: args.max_request_bytes,
            content: Limits {
                content_bytes: args.max_content_bytes,
                metadata_bytes: args.max_metadata_bytes,
                blob_bytes: Limits::default().blob_bytes,
            },
        }
    }
}
