//! Observability: logs, traces and metrics.
//!
//! Other modules log with `tracing`, measure with OpenTelemetry's API, and record spans in their
//! [`call`](crate::call); this one decides where the output is sent. Spans exist only for calls
//! that are sampled: for others they cost next to nothing.

mod call_tracer;
mod export;
mod logs;
mod metrics;
pub mod observed;
mod otlp;
mod process_metrics;
mod span_events;
#[cfg(test)]
pub(crate) mod testing;

use std::{
    fmt,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use opentelemetry::global;
use opentelemetry_sdk::{Resource, error::OTelSdkError, metrics::SdkMeterProvider};

use self::call_tracer::CallExporter;
pub use self::{
    call_tracer::{CallTracer, TracingConfig},
    export::ExportError,
    logs::InvalidLogFilter,
    metrics::PrometheusMetrics,
};
use crate::config::{Export, LangSmithUnused, LogFormat, TelemetryConfig};

/// Time limit for exporting the last spans and metrics, after the drain.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(3);

/// Error of starting telemetry.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log filter is invalid.
    #[error(transparent)]
    Filter(#[from] InvalidLogFilter),
    /// An exporter cannot be created.
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// Providers of traces and metrics, from start to [`Telemetry::shutdown`].
pub struct Telemetry {
    spans: Option<Arc<CallExporter>>,
    meter: SdkMeterProvider,
    prometheus: PrometheusMetrics,
    tracing: TracingConfig,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

/// Starts to log to standard error, without traces and metrics.
///
/// # Errors
///
/// Fails if the filter is invalid, or if telemetry was started before.
pub fn log_only(format: LogFormat, filter: &str) -> Result<(), InvalidLogFilter> {
    logs::init(format, filter, false)
}

impl Telemetry {
    /// Starts logs, metrics and, if configured, exports. Must be called outside of a
    /// runtime, because the exporters block, and before instruments are created.
    ///
    /// # Errors
    ///
    /// Fails if the filter is invalid or an exporter cannot be created.
    pub fn start(
        format: LogFormat,
        filter: &str,
        config: &TelemetryConfig,
    ) -> Result<Self, StartError> {
        let resource = Resource::builder()
            .with_detector(Box::new(export::ServiceDetector))
            .build();
        let spans = match &config.traces {
            Some(export) => Some(export::spans(export, config.sampling, &resource)?),
            None => None,
        };
        let (meter, prometheus) = metrics::start(config.metrics.as_ref(), resource)?;
        logs::init(format, filter, spans.is_some())?;
        global::set_meter_provider(meter.clone());
        log_destinations(config);
        Ok(Self {
            tracing: TracingConfig {
                follows_caller: config.follows_caller,
                allows_caller_project: config.allows_caller_project,
                captures_content: config.captures_content,
            },
            spans,
            meter,
            prometheus,
        })
    }

    /// Begins calls, and traces them if traces are exported.
    pub fn tracer(&self) -> CallTracer {
        CallTracer::new(self.tracing, self.spans.clone())
    }

    /// Metrics to be scraped.
    pub fn prometheus(&self) -> PrometheusMetrics {
        self.prometheus.clone()
    }

    /// Exports the last spans and metrics, for at most [`FLUSH_LIMIT`]. Must be called
    /// after the runtime was shut down, so that no span is created later.
    pub fn shutdown(self) {
        // Both senders are dropped when both exports are done.
        let (done, both_done) = mpsc::channel::<()>();
        let (spans, meter) = (self.spans, self.meter);
        let also_done = done.clone();
        thread::spawn(move || {
            if let Some(spans) = spans
                && let Err(error) = spans.shutdown(FLUSH_LIMIT)
            {
                tracing::warn!(cause = describe(&error), "cannot export the last traces");
            }
            drop(done);
        });
        thread::spawn(move || {
            if let Err(error) = meter.shutdown_with_timeout(FLUSH_LIMIT) {
                tracing::warn!(cause = describe(&error), "cannot push the last metrics");
            }
            drop(also_done);
        });
        // The library does not observe its time limit for metrics.
        if both_done.recv_timeout(FLUSH_LIMIT) == Err(RecvTimeoutError::Timeout) {
            let limit = FLUSH_LIMIT.as_secs();
            tracing::warn!("the last traces or metrics were not exported within {limit} s");
        }
    }
}

/// Describes an error of a shutdown. The library's own text contains the `Debug`
/// output of nested errors; the exporters have logged those.
fn describe(error: &OTelSdkError) -> &'static str {
    match error {
        OTelSdkError::AlreadyShutdown => "already shut down",
        OTelSdkError::Timeout(_) => "time limit exceeded",
        OTelSdkError::InternalFailure(_) => "the export failed",
    }
}

/// Logs where traces and metrics are exported to.
fn log_destinations(config: &TelemetryConfig) {
    if let Some(Export {
        url, selected_by, ..
    }) = &config.traces
    {
        tracing::info!(%url, setting = selected_by, "exporting traces");
    }
    if let Some(Export {
        url, selected_by, ..
    }) = &config.metrics
    {
        tracing::info!(%url, setting = selected_by, "pushing metrics");
    }
    match config.langsmith_unused {
        Some(LangSmithUnused::Overridden) => tracing::info!(
            "LANGSMITH_API_KEY is not used: OTEL_* or LANGSMITH_TRACING takes precedence"
        ),
        Some(LangSmithUnused::MissingKey) => tracing::warn!(
            "LANGSMITH_TRACING is true, but no traces are exported: set LANGSMITH_API_KEY"
        ),
        None => {}
    }
    if config.captures_content && config.traces.is_some() {
        tracing::warn!("traces contain message content: content capture is enabled");
    }
}
