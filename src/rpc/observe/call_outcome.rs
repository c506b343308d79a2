use std::time::Instant;

use http::HeaderMap;
use opentelemetry::{KeyValue, metrics::Histogram};
use tonic::{Code, Status};
use tracing::Level;

use crate::{
    call::{Scope, Span},
    rpc::{method::Method, status},
};

/// Recorder of a call's outcome in its span and in metrics. It records once: when the status is
/// known or, if the caller cancels before that, when the recorder is dropped.
pub(super) struct CallOutcome {
    method: &'static Method,
    span: Span,
    scope: Scope,
    durations: Histogram<f64>,
    started: Instant,
    is_recorded: bool,
}

impl CallOutcome {
    pub(super) fn new(
        method: &'static Method,
        span: Span,
        scope: Scope,
        durations: Histogram<f64>,
    ) -> Self {
        Self {
            method,
            span,
            scope,
            durations,
            started: Instant::now(),
            is_recorded: false,
        }
    }

    /// Scope of the call.
    pub(super) fn scope(&self) -> Scope {
        self.scope.clone()
    }

    /// Records the status in headers or trailers, if there is one.
    pub(super) fn record_headers(&mut self, headers: &HeaderMap) {
        if let Some(status) = Status::from_header_map(headers) {
            self.record(status.code(), status.message());
        }
    }

    pub(super) fn record(&mut self, code: Code, message: &str) {
        if std::mem::replace(&mut self.is_recorded, true) {
            return;
        }
        let name = status::code_name(code);
        let attributes = [
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.method", self.method.name()),
            KeyValue::new("rpc.response.status_code", name),
            KeyValue::new("error.type", name),
        ];
        // The error is the last attribute, and omitted if there is none.
        let count = attributes.len() - usize::from(!is_server_error(code));
        self.span.set_attribute("rpc.response.status_code", name);
        if is_server_error(code) {
            self.span.set_attribute("error.type", name);
            self.span.set_error(|| message.to_owned());
        }
        let duration = self.started.elapsed().as_secs_f64();
        self.durations.record(duration, &attributes[..count]);
        if tracing::enabled!(Level::DEBUG) {
            // The scope adds the call's ids to the log line.
            self.scope()
                .run_sync(|| tracing::debug!(code = name, duration, "call ended"));
        }
    }
}

impl Drop for CallOutcome {
    fn drop(&mut self) {
        self.record(Code::Cancelled, "");
    }
}

/// Whether the semantic conventions count a code as an error of the server.
fn is_server_error(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}
