//! OTLP collector over HTTP, which runs in the test's process.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    future::pending,
    io::Read as _,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Router,
    body::to_bytes,
    extract::{Request, State},
    http::{HeaderMap, StatusCode as HttpStatus},
};
pub use opentelemetry_proto::tonic::trace::v1::{span::SpanKind, status::StatusCode as SpanStatus};
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, KeyValue, any_value},
    metrics::v1::{self as metrics, metric::Data, number_data_point},
    resource::v1::Resource,
    trace::v1 as trace,
};
use prost::Message as _;
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

/// Reaction of the collector to a request, which it records in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Responds with 200.
    Accepts,
    /// Responds with 503.
    Rejects,
    /// Sends no response and keeps the connection.
    Hangs,
}

/// Collector that listens until it is dropped.
pub struct OtlpSink {
    address: SocketAddr,
    received: Received,
    server: JoinHandle<()>,
}

/// Received HTTP request, with its body decompressed.
#[derive(Clone, Debug)]
pub struct Sent {
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

pub type Attributes = BTreeMap<String, Value>;

/// Received span; ids are lower-case hexadecimal.
#[derive(Clone, Debug)]
pub struct Span {
    pub name: String,
    pub trace_id: String,
    pub id: String,
    /// Id of the parent span, empty for a root span.
    pub parent_id: String,
    pub kind: SpanKind,
    pub status: SpanStatus,
    pub attributes: Attributes,
    pub resource: Attributes,
}

/// Received data point of a metric.
#[derive(Clone, Debug)]
pub struct Point {
    pub metric: String,
    pub unit: String,
    pub attributes: Attributes,
    pub resource: Attributes,
    pub value: PointValue,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PointValue {
    Number(f64),
    Histogram { count: u64, bounds: Vec<f64> },
}

type Received = Arc<Mutex<Vec<Sent>>>;

impl OtlpSink {
    pub async fn start() -> Self {
        Self::start_as(Mode::Accepts).await
    }

    pub async fn start_as(mode: Mode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Received::default();
        let routes = Router::new()
            .fallback(receive)
            .with_state((mode, Arc::clone(&received)));
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self {
            address,
            received,
            server,
        }
    }

    /// Returns the endpoint to export to.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the requests received so far.
    pub fn sent(&self) -> Vec<Sent> {
        self.lock().clone()
    }

    /// Returns the number of requests to a path so far.
    pub fn count(&self, path: &str) -> usize {
        self.lock().iter().filter(|sent| sent.path == path).count()
    }

    /// Returns the spans received so far.
    pub fn spans(&self) -> Vec<Span> {
        let received = self.lock();
        let traces = received
            .iter()
            .filter(|sent| sent.path.ends_with("/v1/traces"));
        traces.flat_map(|sent| spans(&sent.body)).collect()
    }

    /// Returns the data points received so far, in order.
    pub fn points(&self) -> Vec<Point> {
        let received = self.lock();
        let metrics = received
            .iter()
            .filter(|sent| sent.path.ends_with("/v1/metrics"));
        metrics.flat_map(|sent| points(&sent.body)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Sent>> {
        self.received.lock().unwrap()
    }
}

impl Drop for OtlpSink {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Sent {
    /// Returns a header's text, empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Returns whether the body or the headers contain a text.
    pub fn contains(&self, text: &str) -> bool {
        let has_text = |bytes: &[u8]| {
            bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        };
        has_text(&self.body)
            || self
                .headers
                .values()
                .any(|value| has_text(value.as_bytes()))
    }
}

impl Span {
    /// Returns an attribute's text, empty when there is none.
    pub fn text(&self, key: &str) -> &str {
        self.attributes
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

async fn receive(State((mode, received)): State<(Mode, Received)>, request: Request) -> HttpStatus {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let sent = Sent {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        body: decompressed(&head.headers, &body),
        headers: head.headers,
    };
    received.lock().unwrap().push(sent);
    match mode {
        Mode::Accepts => HttpStatus::OK,
        Mode::Rejects => HttpStatus::SERVICE_UNAVAILABLE,
        Mode::Hangs => pending().await,
    }
}

fn decompressed(headers: &HeaderMap, body: &[u8]) -> Vec<u8> {
    match headers
        .get("content-encoding")
        .map(|value| value.to_str().unwrap())
    {
        None => body.to_vec(),
        Some("gzip") => {
            let mut whole = Vec::new();
            flate2::read::GzDecoder::new(body)
                .read_to_end(&mut whole)
                .unwrap();
            whole
        }
        Some(other) => panic!("unsupported content encoding {other}"),
    }
}

fn spans(body: &[u8]) -> Vec<Span> {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let mut found = Vec::new();
    for part in request.resource_spans {
        let resource = resource_attributes(part.resource);
        let spans = part.scope_spans.into_iter().flat_map(|scope| scope.spans);
        found.extend(spans.map(|span| as_span(span, &resource)));
    }
    found
}

fn as_span(span: trace::Span, resource: &Attributes) -> Span {
    let kind = span.kind();
    Span {
        kind,
        status: span
            .status
            .map_or(SpanStatus::Unset, |status| status.code()),
        name: span.name,
        trace_id: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent_id: hex(&span.parent_span_id),
        attributes: attributes(span.attributes),
        resource: resource.clone(),
    }
}

fn points(body: &[u8]) -> Vec<Point> {
    let request = ExportMetricsServiceRequest::decode(body).unwrap();
    let mut found = Vec::new();
    for part in request.resource_metrics {
        let resource = resource_attributes(part.resource);
        for metric in part
            .scope_metrics
            .into_iter()
            .flat_map(|scope| scope.metrics)
        {
            for (attributes, value) in values(metric.data) {
                found.push(Point {
                    metric: metric.name.clone(),
                    unit: metric.unit.clone(),
                    attributes,
                    resource: resource.clone(),
                    value,
                });
            }
        }
    }
    found
}

fn values(data: Option<Data>) -> Vec<(Attributes, PointValue)> {
    match data {
        Some(Data::Sum(sum)) => sum.data_points.into_iter().map(number).collect(),
        Some(Data::Gauge(gauge)) => gauge.data_points.into_iter().map(number).collect(),
        Some(Data::Histogram(histogram)) => histogram
            .data_points
            .into_iter()
            .map(|point| {
                let value = PointValue::Histogram {
                    count: point.count,
                    bounds: point.explicit_bounds,
                };
                (attributes(point.attributes), value)
            })
            .collect(),
        other => panic!("unknown kind of metric: {other:?}"),
    }
}

fn number(point: metrics::NumberDataPoint) -> (Attributes, PointValue) {
    #[expect(clippy::cast_precision_loss, reason = "the tests count to hundreds")]
    let value = match point.value {
        Some(number_data_point::Value::AsInt(value)) => value as f64,
        Some(number_data_point::Value::AsDouble(value)) => value,
        None => panic!("data point without a value"),
    };
    (attributes(point.attributes), PointValue::Number(value))
}

fn resource_attributes(resource: Option<Resource>) -> Attributes {
    attributes(resource.unwrap_or_default().attributes)
}

fn attributes(pairs: Vec<KeyValue>) -> Attributes {
    let count = pairs.len();
    let attributes: Attributes = pairs
        .into_iter()
        .map(|pair| (pair.key, json(pair.value)))
        .collect();
    assert_eq!(attributes.len(), count, "duplicate key: {attributes:?}");
    attributes
}

fn json(value: Option<AnyValue>) -> Value {
    match value.and_then(|value| value.value) {
        None => Value::Null,
        Some(any_value::Value::StringValue(text)) => text.into(),
        Some(any_value::Value::BoolValue(flag)) => flag.into(),
        Some(any_value::Value::IntValue(number)) => number.into(),
        Some(any_value::Value::DoubleValue(number)) => number.into(),
        Some(any_value::Value::BytesValue(bytes)) => hex(&bytes).into(),
        Some(any_value::Value::ArrayValue(array)) => array
            .values
            .into_iter()
            .map(|value| json(Some(value)))
            .collect(),
        Some(any_value::Value::KvlistValue(list)) => attributes(list.values)
            .into_iter()
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Some(other) => panic!("unknown kind of value: {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
