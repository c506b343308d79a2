//! What is told about the service: logs, traces and metrics.
//!
//! The rooms say what happens in the terms of `tracing` and of OpenTelemetry's
//! API; here is where it goes. Traces exist only where they are exported:
//! otherwise their spans are disabled and cost nothing.

pub mod call;
mod export;
mod langsmith;
mod logs;
mod metrics;
pub mod observed;
mod pending;
mod stamp;
#[cfg(test)]
pub(crate) mod testing;

use std::{
    fmt,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use opentelemetry::{global, trace::TracerProvider as _};
use opentelemetry_sdk::{Resource, metrics::SdkMeterProvider, trace::SdkTracerProvider};

use self::call::Tracing;
pub use self::{export::ExportError, logs::BadFilter, metrics::Page};
use crate::{
    config::{Export, LogFormat, TelemetryConfig},
    instrumentation,
};

/// How long the end may take to hand over what was not exported yet, on top of
/// the drain.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(3);

/// Why telemetry cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log filter cannot be read.
    #[error(transparent)]
    Filter(#[from] BadFilter),
    /// An exporter cannot be made.
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// What was started, until [`Telemetry::shutdown`].
pub struct Telemetry {
    tracer: Option<SdkTracerProvider>,
    meter: SdkMeterProvider,
    page: Page,
    tracing: Tracing,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

/// Begins to log, to standard error, and nothing else.
pub fn log_only(format: LogFormat, filter: &str) -> Result<(), BadFilter> {
    logs::init(format, filter, None)
}

impl Telemetry {
    /// Begins to log, to count and, where it is configured, to export. Call it
    /// outside of a runtime and before anything that counts is made.
    pub fn start(
        format: LogFormat,
        filter: &str,
        config: &TelemetryConfig,
    ) -> Result<Self, StartError> {
        let resource = Resource::builder()
            .with_detector(Box::new(export::ServiceName))
            .build();
        let tracer = match &config.traces {
            Some(export) => Some(export::tracer(export, config.sampling, resource.clone())?),
            None => None,
        };
        let (meter, page) = metrics::start(config.metrics.as_ref(), resource)?;
        logs::init(
            format,
            filter,
            tracer
                .as_ref()
                .map(|provider| provider.tracer(instrumentation::SCOPE)),
        )?;
        global::set_meter_provider(meter.clone());
        say(config);
        Ok(Self {
            tracing: Tracing {
                is_exported: tracer.is_some(),
                follows_caller: config.follows_caller,
                captures_content: config.captures_content,
            },
            tracer,
            meter,
            page,
        })
    }

    /// How calls are to be traced.
    pub fn tracing(&self) -> Tracing {
        self.tracing
    }

    /// The metrics, for whoever scrapes them.
    pub fn page(&self) -> Page {
        self.page.clone()
    }

    /// Exports what is left, for at most [`FLUSH_LIMIT`]. Call it when the
    /// runtime has gone.
    pub fn shutdown(self) {
        let (done, both_done) = mpsc::channel::<()>();
        let (tracer, meter) = (self.tracer, self.meter);
        let also_done = done.clone();
        thread::spawn(move || {
            if let Some(tracer) = tracer
                && let Err(error) = tracer.shutdown_with_timeout(FLUSH_LIMIT)
            {
                tracing::warn!(%error, "the last traces were not all exported");
            }
            drop(done);
        });
        thread::spawn(move || {
            if let Err(error) = meter.shutdown_with_timeout(FLUSH_LIMIT) {
                tracing::warn!(%error, "the last metrics were not pushed");
            }
            drop(also_done);
        });
        // The library does not keep to its limit for metrics.
        if both_done.recv_timeout(FLUSH_LIMIT) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the last traces or metrics were not exported in time");
        }
    }
}

/// Says where things go.
fn say(config: &TelemetryConfig) {
    let said = |what: &str, export: &Option<Export>| {
        if let Some(Export { url, because, .. }) = export {
            tracing::info!(%url, because, "{what}");
        }
    };
    said("traces: exported", &config.traces);
    said("metrics: pushed", &config.metrics);
    if config.passes_over_langsmith {
        tracing::info!("LANGSMITH_* is not used: OTEL_* or LANGSMITH_TRACING says otherwise");
    }
    if config.captures_content && config.traces.is_some() {
        tracing::warn!("traces show what is said: content capture is on");
    }
}
