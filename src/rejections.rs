//! Counts and logs what the limits of the program reject, so that operators see which limit was
//! exceeded and which setting changes it.
//!
//! The counter is a global of the process, because errors of all modules are converted to statuses
//! without any state.

use std::sync::OnceLock;

use opentelemetry::{KeyValue, metrics::Counter};

use crate::{instrumentation, log_throttle::LogThrottle};

static REJECTIONS: OnceLock<Counter<u64>> = OnceLock::new();
static LOG: LogThrottle = LogThrottle::new();

/// Limit beyond which a request is rejected, a connection closed, or a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Calls per second of one caller.
    CallerRate,
    /// Number of calls that are served at the same time.
    ConcurrentCalls,
    /// Duration of a call, unless its caller has set a shorter deadline.
    CallTime,
    /// Number of connections that are open at the same time.
    Connections,
    /// Time in which a peer must accept responses.
    UnreadResponses,
    /// Bytes of a request.
    RequestBytes,
    /// Bytes of all requests in progress.
    PendingRequestBytes,
    /// Bytes of all responses that callers have not read.
    PendingResponseBytes,
    /// Values or elements of a request.
    RequestElements,
    /// Bytes of a text.
    ContentBytes,
    /// Number of bytes of one metadata object.
    MetadataBytes,
    /// Bytes of the data of a binary part.
    BlobBytes,
    /// Live sessions of a user.
    SessionsPerUser,
    /// Number and bytes of the sessions in the memory of the process.
    SessionMemory,
    /// Number of searches that are executed at the same time.
    Searches,
    /// Duration of a search.
    SearchTime,
    /// Concurrent exports and imports.
    Transfers,
    /// Concurrent writes, including those whose callers no longer wait.
    Writes,
    /// Saves that wait for those before.
    WaitingSaves,
    /// Concurrent reads of messages from the store.
    Reads,
    /// Number of branches between a conversation and its root.
    BranchDepth,
    /// Concurrent health checks and calls of reflection.
    Probes,
    /// Number of bytes of a health check.
    ProbeBytes,
    /// Number of callers that watch the health state at the same time.
    HealthWatches,
    /// Hosts by which callers may address the server.
    Hosts,
    /// Origins of pages that may call.
    Origins,
}

/// Creates the counter, and exports it as 0 for each limit.
pub fn export_metric() {
    let counter = REJECTIONS.get_or_init(|| {
        instrumentation::meter()
            .u64_counter("conversation_memory.rejections")
            .with_unit("{rejection}")
            .with_description(
                "Requests that limits have rejected, and connections and sessions that they have \
                 ended, by limit.",
            )
            .build()
    });
    for limit in Limit::ALL {
        instrumentation::export_zero(counter, &[limit.attribute()]);
    }
}

impl Limit {
    /// The limits in the order of their declaration.
    pub const ALL: [Self; 26] = [
        Self::CallerRate,
        Self::ConcurrentCalls,
        Self::CallTime,
        Self::Connections,
        Self::UnreadResponses,
        Self::RequestBytes,
        Self::PendingRequestBytes,
        Self::PendingResponseBytes,
        Self::RequestElements,
        Self::ContentBytes,
        Self::MetadataBytes,
        Self::BlobBytes,
        Self::SessionsPerUser,
        Self::SessionMemory,
        Self::Searches,
        Self::SearchTime,
        Self::Transfers,
        Self::Writes,
        Self::WaitingSaves,
        Self::Reads,
        Self::BranchDepth,
        Self::Probes,
        Self::ProbeBytes,
        Self::HealthWatches,
        Self::Hosts,
        Self::Origins,
    ];

    /// Name of the limit in metrics and logs: that of its setting if it has one.
    pub fn name(self) -> &'static str {
        match self {
            Self::CallerRate => "MAX_CALLER_RATE",
            Self::ConcurrentCalls => "MAX_CONCURRENT_CALLS",
            Self::CallTime => "MAX_CALL_SECONDS",
            Self::Connections => "MAX_CONNECTIONS",
            Self::UnreadResponses => "unread_responses",
            Self::RequestBytes => "MAX_REQUEST_BYTES",
            Self::PendingRequestBytes => "MAX_PENDING_REQUEST_BYTES",
            Self::PendingResponseBytes => "MAX_PENDING_RESPONSE_BYTES",
            Self::RequestElements => "request_elements",
            Self::ContentBytes => "MAX_CONTENT_BYTES",
            Self::MetadataBytes => "MAX_METADATA_BYTES",
            Self::BlobBytes => "MAX_BLOB_BYTES",
            Self::SessionsPerUser => "MAX_SESSIONS_PER_USER",
            Self::SessionMemory => "session_memory",
            Self::Searches => "searches",
            Self::SearchTime => "search_time",
            Self::Transfers => "transfers",
            Self::Writes => "writes",
            Self::WaitingSaves => "waiting_saves",
            Self::Reads => "reads",
            Self::BranchDepth => "branch_depth",
            Self::Probes => "probes",
            Self::ProbeBytes => "probe_bytes",
            Self::HealthWatches => "health_watches",
            Self::Hosts => "ALLOWED_HOSTS",
            Self::Origins => "CORS_ALLOWED_ORIGINS",
        }
    }

    /// What operators can change.
    fn advice(self) -> &'static str {
        match self {
            Self::CallerRate => "raise MAX_CALLER_RATE, or let the caller make fewer calls",
            Self::ConcurrentCalls => {
                "raise MAX_CONCURRENT_CALLS, or let callers make fewer calls at once"
            }
            Self::CallTime => "raise MAX_CALL_SECONDS, or find out why the store is slow",
            Self::Connections => {
                "raise MAX_CONNECTIONS, or let clients keep one connection each instead of opening \
                 many"
            }
            Self::UnreadResponses => "let callers read their responses, or cancel their calls",
            Self::RequestBytes => "raise MAX_REQUEST_BYTES, or let callers split their requests",
            Self::PendingRequestBytes => {
                "raise MAX_PENDING_REQUEST_BYTES, or let callers send less at once"
            }
            Self::PendingResponseBytes => {
                "raise MAX_PENDING_RESPONSE_BYTES, or let callers read sooner or request less"
            }
            Self::RequestElements => "let callers split their requests",
            Self::ContentBytes => "raise MAX_CONTENT_BYTES, or let callers split their texts",
            Self::MetadataBytes => "raise MAX_METADATA_BYTES, or let callers store less metadata",
            Self::BlobBytes => {
                "raise MAX_BLOB_BYTES, or let callers store data elsewhere and save its URI"
            }
            Self::SessionsPerUser => {
                "raise MAX_SESSIONS_PER_USER, or let agents continue and end their sessions"
            }
            Self::SessionMemory => "configure Redis, or lower SESSION_TTL_MINUTES",
            Self::Searches | Self::Transfers => {
                "let callers make fewer at once; with PostgreSQL, raise POSTGRES_MAX_CONNECTIONS"
            }
            Self::SearchTime => "let callers restrict searches to a conversation or to rarer words",
            Self::WaitingSaves => {
                "let callers save less at once, or find out why the store is slow"
            }
            Self::Writes => {
                "raise MAX_CONCURRENT_CALLS, or find out why writes of the store are slow"
            }
            Self::Reads => "let callers read less at once, or find out why the store is slow",
            Self::BranchDepth => "let callers branch at earlier messages",
            Self::ProbeBytes => "let clients check the health of a service by its name",
            Self::Probes | Self::HealthWatches => "let fewer clients check the health at once",
            Self::Hosts => "add the host to ALLOWED_HOSTS if callers may use it",
            Self::Origins => "add the origin to CORS_ALLOWED_ORIGINS if its pages may call",
        }
    }

    /// Counts a rejection that the caller logs.
    pub fn count_rejection(self) {
        self.count(1);
    }

    /// Counts a rejection, and logs the limit and the setting that changes it, once a minute.
    pub fn record_rejection(self) {
        self.record_rejections(1);
    }

    /// Like [`Self::record_rejection`], for a number that can be 0.
    pub fn record_rejections(self, number: u64) {
        if number == 0 {
            return;
        }
        self.count(number);
        if let Some(suppressed) = LOG.admit(self.name()) {
            let (limit, advice) = (self.name(), self.advice());
            let suppressed = suppressed.count();
            tracing::warn!(limit, advice, suppressed, "a limit was exceeded");
        }
    }

    fn count(self, number: u64) {
        if let Some(counter) = REJECTIONS.get() {
            counter.add(number, &[self.attribute()]);
        }
    }

    fn attribute(self) -> KeyValue {
        KeyValue::new("limit", self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_limit_is_listed_once_and_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Limit::ALL.map(Limit::name).into();
        assert_eq!(names.len(), Limit::ALL.len());
        assert_eq!(Limit::ALL.len(), Limit::Origins as usize + 1);
    }

    #[test]
    fn the_advice_names_the_setting() {
        for limit in Limit::ALL {
            let name = limit.name();
            let is_setting = name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
            assert!(!is_setting || limit.advice().contains(name), "{limit:?}");
        }
    }
}
