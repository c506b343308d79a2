use std::time::Instant;

use http::HeaderMap;
use opentelemetry::{Context, KeyValue, metrics::Histogram, trace};
use tonic::{Code, Status};
use tracing::{Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::rpc::{method::Method, status};

/// The end of a call, told once: when its status is seen or, when nobody waited
/// for that, when it is dropped.
pub(super) struct Ending {
    method: &'static Method,
    span: Span,
    context: Context,
    durations: Histogram<f64>,
    started: Instant,
    has_ended: bool,
}

impl Ending {
    pub(super) fn new(
        method: &'static Method,
        span: Span,
        context: Context,
        durations: Histogram<f64>,
    ) -> Self {
        Self {
            method,
            span,
            context,
            durations,
            started: Instant::now(),
            has_ended: false,
        }
    }

    /// Looks for the status in headers or trailers.
    pub(super) fn saw(&mut self, headers: &HeaderMap) {
        if let Some(status) = Status::from_header_map(headers) {
            self.with(status.code(), status.message());
        }
    }

    pub(super) fn with(&mut self, code: Code, message: &str) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        let name = status::name(code);
        let mut attributes = vec![
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.method", std::sync::Arc::clone(&self.method.name)),
            KeyValue::new("rpc.response.status_code", name),
        ];
        self.span.set_attribute("rpc.response.status_code", name);
        if is_failure(code) {
            attributes.push(KeyValue::new("error.type", name));
            self.span.set_attribute("error.type", name);
            self.span
                .set_status(trace::Status::error(message.to_owned()));
        }
        let duration = self.started.elapsed().as_secs_f64();
        self.durations.record(duration, &attributes);
        if tracing::enabled!(Level::DEBUG) {
            // The line says which call it was.
            let _context = self.context.clone().attach();
            tracing::debug!(code = name, duration, "call ended");
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.with(Code::Cancelled, "");
    }
}

/// The codes that are the server's fault, as the conventions have them.
fn is_failure(code: Code) -> bool {
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
