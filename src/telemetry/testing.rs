//! A tracer that stores the spans that it would export, for tests.

use std::{
    future::{Future, ready},
    sync::{Arc, Mutex, MutexGuard},
};

pub(crate) use opentelemetry_sdk::trace::SpanData;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{Sampler, SimpleSpanProcessor, SpanExporter},
};

use super::{CallTracer, TracingConfig, call_tracer::CallExporter};

/// Spans that were exported.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExportedSpans(Arc<Mutex<Vec<SpanData>>>);

impl ExportedSpans {
    pub(crate) fn spans(&self) -> MutexGuard<'_, Vec<SpanData>> {
        self.0.lock().unwrap()
    }
}

impl SpanExporter for ExportedSpans {
    fn export(&self, batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        self.spans().extend(batch);
        ready(Ok(()))
    }
}

/// Creates a tracer that exports all spans to the returned list.
pub(crate) fn tracer(config: TracingConfig) -> (ExportedSpans, CallTracer) {
    let exported = ExportedSpans::default();
    let processor = SimpleSpanProcessor::new(exported.clone());
    let exporter = CallExporter::new(Sampler::AlwaysOn, processor);
    (exported, CallTracer::new(config, Some(exporter)))
}
