//! What operators are told of Redis: a span and a duration for each call, and
//! whether it answers.

use std::time::Instant;

use opentelemetry::{
    Context, KeyValue,
    metrics::{Counter, Histogram, Meter},
    trace::TraceContextExt as _,
};
use tokio::sync::watch;
use tracing::{Span, field::Empty};

use super::{RedisError, RedisTarget, Script};
use crate::instrumentation;

/// What a call is named after, also when the script's source has to be sent.
const OPERATION: &str = "EVALSHA";
/// What a call that its caller gave up ends with.
const CANCELLED: &str = "cancelled";

/// The instruments of one client, and what its spans say of the server.
#[derive(Debug)]
pub(super) struct Observer {
    duration: Histogram<f64>,
    outages: Counter<u64>,
    host: Option<String>,
    port: Option<u16>,
    database: Option<String>,
}

impl Observer {
    /// Makes the instruments. `available` is what the gauge shows; once its
    /// sender is gone, the gauge shows nothing.
    pub(super) fn new(target: &RedisTarget, available: watch::Receiver<bool>) -> Self {
        let meter = instrumentation::meter();
        observe_availability(&meter, available);
        Self {
            duration: meter
                .f64_histogram("db.client.operation.duration")
                .with_unit("s")
                .with_description("Duration of database client operations.")
                .build(),
            outages: meter
                .u64_counter("conversation_memory.redis.outages")
                .with_unit("{outage}")
                .with_description("How often Redis stopped answering.")
                .build(),
            host: target.server().map(|(host, _)| host.to_owned()),
            port: target.server().map(|(_, port)| port),
            database: target.database().map(|number| number.to_string()),
        }
    }

    /// Counts that Redis stopped answering.
    pub(super) fn outage(&self) {
        self.outages.add(1, &[]);
    }

    /// Begins a call. It is recorded when it is dropped.
    pub(super) fn begin(&self, script: &Script) -> Observed<'_> {
        Observed {
            duration: &self.duration,
            script: script.name(),
            started: Instant::now(),
            span: self.span(script.name()),
            error: Some(CANCELLED),
        }
    }

    /// Only what a caller waits for is part of a trace. At this level the span
    /// costs nothing where nobody traces.
    fn span(&self, script: &'static str) -> Span {
        if !Context::map_current(Context::has_active_span) {
            return Span::none();
        }
        tracing::debug_span!(
            "redis",
            otel.name = %format_args!("{OPERATION} {script}"),
            otel.kind = "client",
            otel.status_code = Empty,
            db.system.name = "redis",
            db.operation.name = OPERATION,
            db.stored_procedure.name = script,
            db.namespace = self.database.as_deref(),
            server.address = self.host.as_deref(),
            server.port = self.port,
            error.type = Empty,
        )
    }
}

/// A call that is under way. However it ends it is recorded, also when its caller
/// no longer waits.
pub(super) struct Observed<'a> {
    duration: &'a Histogram<f64>,
    script: &'static str,
    started: Instant,
    span: Span,
    error: Option<&'static str>,
}

impl Observed<'_> {
    /// The call's span, for what it does to be done in.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Ends the call.
    pub(super) fn end<T>(mut self, result: &Result<T, RedisError>) {
        self.error = result.as_ref().err().map(|error| error.kind());
    }
}

impl Drop for Observed<'_> {
    fn drop(&mut self) {
        let attributes = [
            KeyValue::new("db.system.name", "redis"),
            KeyValue::new("db.operation.name", OPERATION),
            KeyValue::new("db.stored_procedure.name", self.script),
            KeyValue::new("error.type", self.error.unwrap_or_default()),
        ];
        // The error comes last, and is left out where there is none.
        let told = attributes.len() - usize::from(self.error.is_none());
        self.duration
            .record(self.started.elapsed().as_secs_f64(), &attributes[..told]);
        if let Some(error) = self.error {
            self.span.record("error.type", error);
            self.span.record("otel.status_code", "ERROR");
        }
    }
}

fn observe_availability(meter: &Meter, available: watch::Receiver<bool>) {
    meter
        .u64_observable_gauge("conversation_memory.redis.available")
        .with_description("1 while Redis answers, 0 while calls go on without it.")
        .with_callback(move |observer| {
            // It fails when the client is gone.
            if available.has_changed().is_ok() {
                observer.observe(u64::from(*available.borrow()), &[]);
            }
        })
        .build();
}
