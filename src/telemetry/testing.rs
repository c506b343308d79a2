//! A tracer that stores the spans that it would export, for tests.

use std::{
    future::{Future, ready},
    sync::{Arc, Mutex, MutexGuard},
};

use opentelemetry::trace::TracerProvider as _;
pub(crate) use opentelemetry_sdk::trace::SpanData;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracerProvider, SimpleSpanProcessor, SpanExporter},
};
use tracing_subscriber::{Registry, layer::SubscriberExt as _};

use super::{call_span_processor::CallSpanProcessor, logs};

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

/// Creates a subscriber that processes spans as the program does, and exports them
/// to the returned list.
pub(crate) fn subscriber() -> (ExportedSpans, impl tracing::Subscriber) {
    let exported = ExportedSpans::default();
    let processor = CallSpanProcessor::new(SimpleSpanProcessor::new(exported.clone()));
    let provider = SdkTracerProvider::builder()
        .with_span_processor(processor)
        .build();
    let subscriber = Registry::default().with(logs::spans(provider.tracer("test")));
    (exported, subscriber)
}
