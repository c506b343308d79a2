//! Instruments of the Redis client: a span and a duration for each call, the
//! number of outages, and whether the circuit breaker is closed.

use std::{borrow::Cow, sync::Arc, time::Instant};

use opentelemetry::{
    KeyValue, Value,
    metrics::{Counter, Histogram, Meter},
    trace::SpanKind,
};
use tokio::sync::watch;

use super::{RedisError, RedisTarget, Script, write_refusals::WriteRefusals};
use crate::{call::Span, instrumentation};

/// Operation name of every script. It is the same when the script's source has to
/// be sent with EVAL.
const SCRIPT: &str = "EVALSHA";
/// `error.type` of a call whose future was dropped.
const CANCELLED: &str = "cancelled";

/// Instruments of one client, and the server attributes of its spans.
#[derive(Debug)]
pub(super) struct RedisInstruments {
    duration: Histogram<f64>,
    outages: Counter<u64>,
    /// Attributes of the server in spans.
    server: Vec<KeyValue>,
}

impl RedisInstruments {
    /// Creates the instruments. The gauge reports whether there is an available connection, until
    /// its sender is dropped.
    pub(super) fn new<T: Send + Sync + 'static>(
        target: &RedisTarget,
        available: watch::Receiver<Option<T>>,
        refusals: Arc<WriteRefusals>,
    ) -> Self {
        let meter = instrumentation::meter();
        observe_availability(&meter, available, refusals);
        let outages = meter
            .u64_counter("conversation_memory.redis.outages")
            .with_unit("{outage}")
            .with_description("Times that Redis became unavailable.")
            .build();
        instrumentation::export_zero(&outages, &[]);
        Self {
            duration: meter
                .f64_histogram("db.client.operation.duration")
                .with_unit("s")
                .with_description("Duration of database client operations.")
                .build(),
            outages,
            server: server_attributes(target),
        }
    }

    /// Counts that the circuit breaker opened.
    pub(super) fn count_outage(&self) {
        self.outages.add(1, &[]);
    }

    /// Starts a call of a script. It is recorded when the recorder is dropped.
    pub(super) fn start_call(&self, script: &Script) -> CallRecorder<'_> {
        self.start(SCRIPT, Some(script.name()))
    }

    /// Starts a command, like [`Self::start_call`].
    pub(super) fn start_command(&self, operation: &'static str) -> CallRecorder<'_> {
        self.start(operation, None)
    }

    fn start(&self, operation: &'static str, script: Option<&'static str>) -> CallRecorder<'_> {
        CallRecorder {
            duration: &self.duration,
            operation,
            script,
            started: Instant::now(),
            span: self.span(operation, script),
            error: Some(CANCELLED),
        }
    }

    /// Starts the span of a call, if it belongs to a call that is traced: background tasks do not.
    fn span(&self, operation: &'static str, script: Option<&'static str>) -> Span {
        Span::start(SpanKind::Client, || {
            let mut attributes = Vec::with_capacity(MAX_ATTRIBUTES);
            attributes.push(KeyValue::new("db.operation.name", operation));
            attributes.extend(script.map(|name| KeyValue::new("db.stored_procedure.name", name)));
            attributes.extend_from_slice(&self.server);
            let name = script.map_or(Cow::Borrowed(operation), |script| {
                format!("{operation} {script}").into()
            });
            (name, attributes)
        })
    }
}

/// Number of attributes that a span can get. The vector does not grow then.
const MAX_ATTRIBUTES: usize = 12;

fn server_attributes(target: &RedisTarget) -> Vec<KeyValue> {
    let mut attributes = vec![KeyValue::new("db.system.name", "redis")];
    let shared = |text: &str| Value::from(Arc::<str>::from(text));
    if let Some(number) = target.database() {
        let number = shared(&number.to_string());
        attributes.push(KeyValue::new("db.namespace", number));
    }
    if let Some((host, port)) = target.single_server() {
        attributes.push(KeyValue::new("server.address", shared(host)));
        attributes.push(KeyValue::new("server.port", i64::from(port)));
    }
    attributes
}

/// Records a call when it is dropped, so that cancelled calls are recorded too.
pub(super) struct CallRecorder<'a> {
    duration: &'a Histogram<f64>,
    operation: &'static str,
    script: Option<&'static str>,
    started: Instant,
    span: Span,
    error: Option<&'static str>,
}

impl CallRecorder<'_> {
    /// Ends the call with its result.
    pub(super) fn finish<T>(mut self, result: &Result<T, RedisError>) {
        self.error = result.as_ref().err().map(|error| error.kind());
    }
}

impl Drop for CallRecorder<'_> {
    fn drop(&mut self) {
        let optional = [
            ("db.stored_procedure.name", self.script),
            ("error.type", self.error),
        ];
        let mut attributes = Vec::with_capacity(4);
        attributes.push(KeyValue::new("db.system.name", "redis"));
        attributes.push(KeyValue::new("db.operation.name", self.operation));
        let present = optional.into_iter();
        attributes.extend(present.filter_map(|(name, value)| Some(KeyValue::new(name, value?))));
        self.duration
            .record(self.started.elapsed().as_secs_f64(), &attributes);
        if let Some(error) = self.error {
            self.span.set_attribute("error.type", error);
            self.span.set_error(|| "");
        }
    }
}

fn observe_availability<T: Send + Sync + 'static>(
    meter: &Meter,
    available: watch::Receiver<Option<T>>,
    refusals: Arc<WriteRefusals>,
) {
    meter
        .u64_observable_gauge("conversation_memory.redis.available")
        .with_description(
            "1 while Redis is available, 0 while calls are served without it or Redis refuses writes.",
        )
        .with_callback(move |observer| {
            // An error means that the client was dropped.
            if available.has_changed().is_ok() {
                let is_usable = available.borrow().is_some() && !refusals.are_recent();
                observer.observe(u64::from(is_usable), &[]);
            }
        })
        .build();
}
