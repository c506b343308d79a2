#![expect(clippy::doc_markdown, reason = "these comments are the text of --help")]

use std::{num::NonZeroU32, time::Duration};

use super::{
    InvalidSetting,
    parse::{integer, seconds},
};
use crate::domain::Limits;

/// The largest size that a setting may have. A gRPC message has a length of 32 bits.
const MAX_BYTES: usize = u32::MAX as usize;

/// The largest size of a part with binary data, unless it is set.
const DEFAULT_BLOB_BYTES: usize = 8 << 20;

/// The size of all requests in progress, unless it is set.
const DEFAULT_PENDING_REQUEST_BYTES: usize = 64 << 20;

/// The least size of all responses that callers have not read. A response has up to 4 MiB, and as JSON
/// more.
const MIN_PENDING_RESPONSE_BYTES: usize = 16 << 20;

/// The part of a request that remains for everything but the binary data of one part.
const BYTES_BESIDE_BLOB: usize = 64 << 10;

#[derive(Debug, clap::Args)]
#[expect(
    clippy::struct_field_names,
    reason = "fields are named like their settings"
)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// Maximum number of open connections over TCP, and as many over Unix sockets. TLS handshakes
    /// in progress count. A further connection replaces the longest inactive one, or is closed if none
    /// is inactive. A quarter is reserved for connections on which a call was accepted. More than about
    /// 900 need a higher limit on open files than the usual 1024.
    #[arg(
        long,
        env,
        global = true,
        default_value = "900",
        value_parser = integer(1..=100_000_usize),
        value_name = "NUMBER"
    )]
    max_connections: usize,

    /// Maximum number of concurrent calls. Further calls receive RESOURCE_EXHAUSTED. A quarter is
    /// reserved for callers that have fewer than their share, so that one caller cannot make others wait.
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
        default_value = "12582912",
        value_parser = integer(1..=MAX_BYTES),
        value_name = "BYTES"
    )]
    max_request_bytes: usize,

    /// Maximum size of all requests in progress together. Further requests receive
    /// RESOURCE_EXHAUSTED. At least twice MAX_REQUEST_BYTES, since a quarter is reserved for callers
    /// that use less than their share. If it is not set, it is raised to that. [default: 67108864]
    #[arg(long, env, global = true, value_parser = integer(1..=MAX_BYTES), value_name = "BYTES")]
    max_pending_request_bytes: Option<usize>,

    /// Maximum size of all responses together that callers have not read. Further calls with a
    /// response of more than 8 KiB receive RESOURCE_EXHAUSTED. At least 16 MiB. A quarter is reserved for callers that
    /// use less than their share.
    #[arg(
        long,
        env,
        global = true,
        default_value = "33554432",
        value_parser = integer(MIN_PENDING_RESPONSE_BYTES..=MAX_BYTES),
        value_name = "BYTES"
    )]
    max_pending_response_bytes: usize,

    /// Maximum size of the binary data of a part of a message. Must be at least 64 KiB less than
    /// MAX_REQUEST_BYTES; in JSON the data takes a third more. If it is not set, it is lowered to
    /// that. 0 rejects binary data. [default: 8388608]
    #[arg(long, env, global = true, value_parser = integer(0..=MAX_BYTES), value_name = "BYTES")]
    max_blob_bytes: Option<usize>,

    /// Maximum size of the text of a message, a context or the value of an item.
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
    /// Upper bound on the size of all requests in progress, in bytes.
    pub pending_request_bytes: usize,
    /// Upper bound on the size of all responses that callers have not read, in bytes.
    pub pending_response_bytes: usize,
    /// Upper bounds on the size of content, metadata and binary data.
    pub content: Limits,
}

impl LimitConfig {
    pub(super) fn from_args(args: &LimitArgs) -> Result<Self, InvalidSetting> {
        Ok(Self {
            connections: args.max_connections,
            concurrent_calls: args.max_concurrent_calls,
            caller_rate: NonZeroU32::new(args.max_caller_rate),
            call_time: args.max_call_seconds,
            request_bytes: args.max_request_bytes,
            pending_request_bytes: pending_request_bytes(args)?,
            pending_response_bytes: args.max_pending_response_bytes,
            content: Limits {
                content_bytes: args.max_content_bytes,
                metadata_bytes: args.max_metadata_bytes,
                blob_bytes: blob_bytes(args)?,
            },
        })
    }
}

/// Returns the upper bound on the requests in progress. A default allows for larger requests.
fn pending_request_bytes(args: &LimitArgs) -> Result<usize, InvalidSetting> {
    let min = args.max_request_bytes.saturating_mul(2);
    match args.max_pending_request_bytes {
        None => Ok(DEFAULT_PENDING_REQUEST_BYTES.max(min)),
        Some(bytes) if bytes >= min => Ok(bytes),
        Some(bytes) => Err(InvalidSetting::value(
            "MAX_PENDING_REQUEST_BYTES",
            &bytes.to_string(),
            format_args!(
                "must be at least {min}, which is twice MAX_REQUEST_BYTES. Raise it or lower \
                 MAX_REQUEST_BYTES"
            ),
        )),
    }
}

/// Returns the upper bound on binary data. A default does not invalidate a lower upper bound on
/// requests, which may have been set before binary data was supported.
fn blob_bytes(args: &LimitArgs) -> Result<usize, InvalidSetting> {
    let max = args.max_request_bytes.saturating_sub(BYTES_BESIDE_BLOB);
    match args.max_blob_bytes {
        None => Ok(DEFAULT_BLOB_BYTES.min(max)),
        Some(bytes) if bytes <= max => Ok(bytes),
        Some(bytes) => Err(InvalidSetting::value(
            "MAX_BLOB_BYTES",
            &bytes.to_string(),
            format_args!(
                "must be at most {max}, which is 64 KiB less than MAX_REQUEST_BYTES. Lower it or \
                 raise MAX_REQUEST_BYTES"
            ),
        )),
    }
}
