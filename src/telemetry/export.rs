use std::sync::Arc;

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
    trace::{BatchSpanProcessor, Sampler, SpanProcessor as _},
};
use reqwest::{blocking::Client, redirect::Policy};

use super::{
    call_tracer::CallExporter,
    otlp::{BodyClient, NextBody, OtlpExporter},
};
use crate::{
    authorities::{CaFileError, client_config},
    config::{Export, Sampling, Secret},
};

/// Default of `OTEL_SERVICE_NAME`.
const DEFAULT_SERVICE_NAME: &str = "conversation-memory";

/// Error of creating an exporter.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file of certificates cannot be used.
    #[error("OTEL_EXPORTER_OTLP_CERTIFICATE: {0}")]
    Certificates(#[from] CaFileError),
    /// Any other error.
    #[error("cannot create the exporter: {0}")]
    Other(String),
}

impl ExportError {
    #[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
    pub(super) fn other(error: impl ToString) -> Self {
        Self::Other(error.to_string())
    }
}

/// Detects the service's name and version in the environment, and supplies defaults for both.
/// `OTEL_SERVICE_NAME` takes precedence over `OTEL_RESOURCE_ATTRIBUTES`, which the library
/// alone would prefer.
pub(super) struct ServiceDetector;

impl ResourceDetector for ServiceDetector {
    fn detect(&self) -> Resource {
        let given = SdkProvidedResourceDetector.detect();
        let name = given
            .get(&"service.name".into())
            // The library's default for a service without a name.
            .filter(|name| !name.as_str().starts_with("unknown_service"));
        let version = EnvResourceDetector::new()
            .detect()
            .get(&"service.version".into());
        let version = version.unwrap_or_else(|| env!("CARGO_PKG_VERSION").into());
        Resource::builder_empty()
            .with_service_name(name.unwrap_or_else(|| DEFAULT_SERVICE_NAME.into()))
            .with_attribute(KeyValue::new("service.version", version))
            .build()
    }
}

/// Creates an exporter of spans that sends batches on a dedicated thread: calls never
/// wait for a collector, and spans are dropped while the queue is full.
pub(super) fn spans(
    export: &Export,
    sampling: Sampling,
    resource: &Resource,
) -> Result<Arc<CallExporter>, ExportError> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(&export.url)
        .with_timeout(export.timeout)
        .with_protocol(Protocol::HttpBinary);
    let (client, body) = (client(export)?, NextBody::default());
    let exporter = if export.headers.is_empty() {
        exporter.with_http_client(BodyClient::new(client, body.clone()))
    } else {
        let client = DestinationClient::new(client, &export.headers)?;
        exporter.with_http_client(BodyClient::new(client, body.clone()))
    };
    let exporter = exporter.build().map_err(ExportError::other)?;
    let mut processor = BatchSpanProcessor::builder(OtlpExporter::new(exporter, body)).build();
    processor.set_resource(resource);
    Ok(CallExporter::new(sampler(sampling), processor))
}

fn sampler(sampling: Sampling) -> Sampler {
    let own = Sampler::TraceIdRatioBased(sampling.ratio);
    if sampling.follows_parent {
        Sampler::ParentBased(Box::new(own))
    } else {
        own
    }
}

/// Creates an exporter that pushes metrics.
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

/// HTTP client that sends only the headers of its destination. The library adds the headers of
/// `OTEL_EXPORTER_OTLP_HEADERS` to every request with a higher precedence, which would send the
/// credentials of another destination.
#[derive(Debug)]
struct DestinationClient {
    client: Client,
    headers: HeaderMap,
}

impl DestinationClient {
    /// Headers of a request that describe its body and are sent unchanged.
    const BODY_HEADERS: [HeaderName; 3] = [CONTENT_TYPE, CONTENT_ENCODING, USER_AGENT];

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
impl HttpClient for DestinationClient {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut headers = self.headers.clone();
        for name in Self::BODY_HEADERS {
            if let Some(value) = request.headers_mut().remove(&name) {
                headers.insert(name, value);
            }
        }
        *request.headers_mut() = headers;
        self.client.send_bytes(request).await
    }
}

/// Creates an HTTP client with compiled-in CA certificates, because images without CA
/// certificates are common. It is blocking, because the exporters' threads have no runtime.
fn client(export: &Export) -> Result<Client, ExportError> {
    let tls = client_config(export.certificates.as_deref())?;
    Client::builder()
        .tls_backend_preconfigured(tls)
        .timeout(export.timeout)
        // A redirect would send the credentials to another server.
        .redirect(Policy::none())
        .build()
        .map_err(ExportError::other)
}
