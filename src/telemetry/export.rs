use async_trait::async_trait;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT},
};
use opentelemetry::KeyValue;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    MetricExporter, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::{
    Resource,
    resource::{EnvResourceDetector, ResourceDetector, SdkProvidedResourceDetector},
    trace::{BatchSpanProcessor, Sampler, SdkTracerProvider},
};
use reqwest::{blocking::Client, redirect::Policy};

use super::stamp::Stamp;
use crate::{
    authorities::{BadAuthorities, tls_trusting},
    config::{Export, Sampling, Secret},
};

/// The service's name unless `OTEL_SERVICE_NAME` gives another.
const SERVICE: &str = "conversation-memory";

/// Why an exporter cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file of certificates is not one.
    #[error("OTEL_EXPORTER_OTLP_CERTIFICATE: {0}")]
    Certificates(#[from] BadAuthorities),
    /// The rest.
    #[error("the exporter cannot be made: {0}")]
    Other(String),
}

impl ExportError {
    #[expect(clippy::needless_pass_by_value, reason = "it is made for map_err")]
    pub(super) fn other(error: impl ToString) -> Self {
        Self::Other(error.to_string())
    }
}

/// The service's name and version, unless the environment gives others. Of two
/// names `OTEL_SERVICE_NAME` counts; alone, the library would take the one in
/// `OTEL_RESOURCE_ATTRIBUTES`.
pub(super) struct ServiceName;

impl ResourceDetector for ServiceName {
    fn detect(&self) -> Resource {
        let given = SdkProvidedResourceDetector.detect();
        let name = given
            .get(&"service.name".into())
            // The library's own default says that the name is not known.
            .filter(|name| !name.as_str().starts_with("unknown_service"));
        let version = EnvResourceDetector::new()
            .detect()
            .get(&"service.version".into());
        let version = version.unwrap_or_else(|| env!("CARGO_PKG_VERSION").into());
        Resource::builder_empty()
            .with_service_name(name.unwrap_or_else(|| SERVICE.into()))
            .with_attribute(KeyValue::new("service.version", version))
            .build()
    }
}

/// Exports in batches, from a thread of its own: spans never wait for a
/// collector, and those that find the queue full are dropped.
pub(super) fn tracer(
    export: &Export,
    sampling: Sampling,
    resource: Resource,
) -> Result<SdkTracerProvider, ExportError> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(&export.url)
        .with_timeout(export.timeout)
        .with_protocol(Protocol::HttpBinary);
    let client = client(export)?;
    let exporter = if export.headers.is_empty() {
        exporter.with_http_client(client)
    } else {
        exporter.with_http_client(Own::new(client, &export.headers)?)
    };
    let exporter = exporter.build().map_err(ExportError::other)?;
    let stamp = Stamp::new(BatchSpanProcessor::builder(exporter).build());
    Ok(SdkTracerProvider::builder()
        .with_span_processor(stamp)
        .with_sampler(sampler(sampling))
        .with_resource(resource)
        .build())
}

fn sampler(sampling: Sampling) -> Sampler {
    let own = Sampler::TraceIdRatioBased(sampling.ratio);
    if sampling.follows_parent {
        Sampler::ParentBased(Box::new(own))
    } else {
        own
    }
}

pub(super) fn metrics(export: &Export) -> Result<MetricExporter, ExportError> {
    MetricExporter::builder()
        .with_http()
        .with_http_client(client(export)?)
        .with_endpoint(&export.url)
        .with_timeout(export.timeout)
        .with_protocol(Protocol::HttpBinary)
        .build()
        .map_err(ExportError::other)
}

/// Sends with the headers of one destination. The library adds those of
/// `OTEL_EXPORTER_OTLP_HEADERS` wherever it sends to, and lets them win: another
/// one's credentials.
#[derive(Debug)]
struct Own {
    client: Client,
    headers: HeaderMap,
}

impl Own {
    /// What says how the body is to be read.
    const KEPT: [HeaderName; 3] = [CONTENT_TYPE, CONTENT_ENCODING, USER_AGENT];

    fn new(client: Client, headers: &[(&'static str, Secret)]) -> Result<Self, ExportError> {
        let mut own = HeaderMap::new();
        for (name, value) in headers {
            let mut value = HeaderValue::from_str(value.expose()).map_err(ExportError::other)?;
            value.set_sensitive(true);
            own.insert(*name, value);
        }
        Ok(Self {
            client,
            headers: own,
        })
    }
}

#[async_trait]
impl HttpClient for Own {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut headers = self.headers.clone();
        for name in Self::KEPT {
            if let Some(value) = request.headers_mut().remove(&name) {
                headers.insert(name, value);
            }
        }
        *request.headers_mut() = headers;
        self.client.send_bytes(request).await
    }
}

/// A client with certificates of its own: images without any are common. It
/// blocks, since the exporters' threads have no runtime.
fn client(export: &Export) -> Result<Client, ExportError> {
    let tls = tls_trusting(export.certificates.as_deref())?;
    Client::builder()
        .tls_backend_preconfigured(tls)
        .timeout(export.timeout)
        // What was sent to one place is not to be sent to another.
        .redirect(Policy::none())
        .build()
        .map_err(ExportError::other)
}
