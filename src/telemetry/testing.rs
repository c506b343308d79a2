//! A tracer that keeps what it would export, for tests.

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

use super::{logs, stamp::Stamp};

/// The spans that were exported.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exported(Arc<Mutex<Vec<SpanData>>>);

impl Exported {
    pub(crate) fn spans(&self) -> MutexGuard<'_, Vec<SpanData>> {
        self.0.lock().unwrap()
    }
}

impl SpanExporter for Exported {
    fn export(&self, batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        self.spans().extend(batch);
        ready(Ok(()))
    }
}

/// Where spans go as they do in the program, but for the exporter.
pub(crate) fn subscriber() -> (Exported, impl tracing::Subscriber) {
    let exported = Exported::default();
    let stamp = Stamp::new(SimpleSpanProcessor::new(exported.clone()));
    let provider = SdkTracerProvider::builder()
        .with_span_processor(stamp)
        .build();
    let subscriber = Registry::default().with(logs::spans(provider.tracer("test")));
    (exported, subscriber)
}
