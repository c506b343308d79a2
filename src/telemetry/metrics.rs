use opentelemetry_sdk::{
    Resource,
    metrics::{Aggregation, Instrument, PeriodicReader, SdkMeterProvider, Stream},
};
use prometheus::{Encoder as _, Registry, TextEncoder};

use super::{
    export::{self, ExportError},
    process_metrics,
};
use crate::config::Export;

/// Bucket boundaries in seconds of the semantic conventions for RPC.
const CALL_SECONDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
/// Bucket boundaries in seconds of the semantic conventions for databases.
const DATABASE_SECONDS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// Metrics in the text format of Prometheus.
#[derive(Clone, Debug)]
pub struct PrometheusMetrics(Registry);

impl PrometheusMetrics {
    /// Media type of [`Self::encode`].
    pub const MEDIA_TYPE: &str = prometheus::TEXT_FORMAT;

    /// Encodes the current values.
    ///
    /// # Errors
    ///
    /// Fails if a metric cannot be encoded.
    pub fn encode(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.0.gather(), &mut text)?;
        Ok(text)
    }
}

/// Creates a meter provider whose metrics can be scraped and, if `push` is given, are pushed.
pub(super) fn start(
    push: Option<&Export>,
    resource: Resource,
) -> Result<(SdkMeterProvider, PrometheusMetrics), ExportError> {
    let registry = Registry::new();
    process_metrics::register(&registry).map_err(ExportError::other)?;
    let scraped = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false)
        .build()
        .map_err(ExportError::other)?;
    let mut provider = SdkMeterProvider::builder()
        .with_resource(resource)
        .with_view(buckets)
        .with_reader(scraped);
    if let Some(push) = push {
        provider = provider.with_reader(PeriodicReader::builder(export::metrics(push)?).build());
    }
    Ok((provider.build(), PrometheusMetrics(registry)))
}

/// Sets the buckets of histograms in seconds: the library's defaults are meant for
/// milliseconds.
fn buckets(instrument: &Instrument) -> Option<Stream> {
    let boundaries = match (instrument.name(), instrument.unit()) {
        (name, "s") if name.starts_with("db.client.") => DATABASE_SECONDS.to_vec(),
        (_, "s") => CALL_SECONDS.to_vec(),
        _ => return None,
    };
    Stream::builder()
        .with_aggregation(Aggregation::ExplicitBucketHistogram {
            boundaries,
            record_min_max: false,
        })
        .build()
        .ok()
}
