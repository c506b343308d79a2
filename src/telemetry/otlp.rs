//! Export of spans over OTLP. The library's exporter sends the requests; their bodies are encoded
//! here, directly from the spans: the library would copy each key and value of them first, which
//! takes several times as long.

use std::{
    io::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use flate2::{Compression, write::GzEncoder};
use http::header::CONTENT_ENCODING;
use opentelemetry::{
    Value,
    trace::{Event, SpanId, SpanKind, Status},
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter as SdkSpanExporter},
};
use protobuf_wire::{put_bytes, put_fixed32, put_fixed64, put_message, put_varint};

/// Number of bytes for which an encoded span is expected to have room.
const SPAN_BYTES: usize = 1 << 10;

/// Flag of a span for which it is known whether its parent is in another process, and the flag that
/// it is.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Body of the request that is sent next.
#[derive(Clone, Debug, Default)]
pub(super) struct NextBody(Arc<Mutex<Bytes>>);

impl NextBody {
    fn set(&self, body: Vec<u8>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = body.into();
    }

    fn get(&self) -> Bytes {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        body.clone()
    }
}

/// Exporter that encodes spans and lets the library send the request, with its headers, compression
/// and retries. Its client replaces the library's body, which contains no spans.
#[derive(Debug)]
pub(super) struct OtlpExporter {
    sender: SpanExporter,
    body: NextBody,
    /// The encoded resource.
    resource: Vec<u8>,
}

impl OtlpExporter {
    /// Creates an exporter. The client of `sender` sends `body`.
    pub(super) fn new(sender: SpanExporter, body: NextBody) -> Self {
        Self {
            sender,
            body,
            resource: Vec::new(),
        }
    }
}

impl SdkSpanExporter for OtlpExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.body.set(encode(&self.resource, &batch));
        drop(batch);
        self.sender.export(Vec::new()).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.sender.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.sender.shutdown()
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.sender.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource.clear();
        put_message(&mut self.resource, 1, |out| {
            for (key, value) in resource {
                put_attribute(out, 1, key.as_str(), value);
            }
        });
        self.sender.set_resource(resource);
    }
}

/// Client that sends the encoded spans in place of the library's body.
#[derive(Debug)]
pub(super) struct BodyClient<C> {
    client: C,
    body: NextBody,
}

impl<C> BodyClient<C> {
    pub(super) fn new(client: C, body: NextBody) -> Self {
        Self { client, body }
    }
}

#[async_trait]
impl<C: HttpClient> HttpClient for BodyClient<C> {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let body = self.body.get();
        let encoding = request.headers().get(CONTENT_ENCODING);
        *request.body_mut() = if encoding.is_some_and(|encoding| encoding == "gzip") {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&body)?;
            encoder.finish()?.into()
        } else {
            body
        };
        self.client.send_bytes(request).await
    }
}

/// Encodes an `ExportTraceServiceRequest`. All spans have the same instrumentation scope.
fn encode(resource: &[u8], spans: &[SpanData]) -> Vec<u8> {
    let mut out = Vec::with_capacity(SPAN_BYTES * (spans.len() + 1));
    put_message(&mut out, 1, |out| {
        out.extend_from_slice(resource);
        put_message(out, 2, |out| {
            if let Some(span) = spans.first() {
                let name = span.instrumentation_scope.name();
                put_message(out, 1, |out| put_bytes(out, 1, name.as_bytes()));
            }
            for span in spans {
                put_message(out, 2, |out| put_span(out, span));
            }
        });
    });
    out
}

fn put_span(out: &mut Vec<u8>, span: &SpanData) {
    let context = &span.span_context;
    put_bytes(out, 1, &context.trace_id().to_bytes());
    put_bytes(out, 2, &context.span_id().to_bytes());
    let state = context.trace_state().header();
    if !state.is_empty() {
        put_bytes(out, 3, state.as_bytes());
    }
    if span.parent_span_id != SpanId::INVALID {
        put_bytes(out, 4, &span.parent_span_id.to_bytes());
    }
    put_bytes(out, 5, span.name.as_bytes());
    put_varint(out, 6, kind(&span.span_kind));
    put_fixed64(out, 7, nanoseconds(span.start_time));
    put_fixed64(out, 8, nanoseconds(span.end_time));
    for attribute in &span.attributes {
        put_attribute(out, 9, attribute.key.as_str(), &attribute.value);
    }
    for event in span.events.iter() {
        put_message(out, 11, |out| put_event(out, event));
    }
    put_message(out, 15, |out| put_status(out, &span.status));
    let remote = if span.parent_span_is_remote {
        HAS_IS_REMOTE | IS_REMOTE
    } else {
        HAS_IS_REMOTE
    };
    put_fixed32(out, 16, remote | u32::from(context.trace_flags().to_u8()));
}

fn kind(kind: &SpanKind) -> u64 {
    match kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn put_event(out: &mut Vec<u8>, event: &Event) {
    put_fixed64(out, 1, nanoseconds(event.timestamp));
    put_bytes(out, 2, event.name.as_bytes());
    for attribute in &event.attributes {
        put_attribute(out, 3, attribute.key.as_str(), &attribute.value);
    }
}

fn put_status(out: &mut Vec<u8>, status: &Status) {
    match status {
        Status::Unset => {}
        Status::Ok => put_varint(out, 3, 1),
        Status::Error { description } => {
            put_bytes(out, 2, description.as_bytes());
            put_varint(out, 3, 2);
        }
    }
}

fn put_attribute(out: &mut Vec<u8>, number: u32, key: &str, value: &Value) {
    put_message(out, number, |out| {
        put_bytes(out, 1, key.as_bytes());
        put_message(out, 2, |out| put_value(out, value));
    });
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Bool(value) => put_varint(out, 2, u64::from(*value)),
        Value::I64(value) => put_varint(out, 3, value.cast_unsigned()),
        Value::F64(value) => put_fixed64(out, 4, value.to_bits()),
        // No span of this program has lists. Those of a resource are texts, too.
        value => put_bytes(out, 1, value.as_str().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::{
        InstrumentationScope, KeyValue,
        trace::{SpanContext, TraceFlags, TraceId, TraceState},
    };
    use opentelemetry_proto::{
        tonic as proto,
        transform::{common::tonic as common, trace::tonic as trace},
    };
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};
    use prost::Message as _;

    use super::*;

    fn span(id: u64, parent: u64, kind: SpanKind, status: Status) -> SpanData {
        let state = match parent {
            0 => "a=b,c=d".parse().unwrap(),
            _ => TraceState::default(),
        };
        let mut events = SpanEvents::default();
        let attributes = vec![KeyValue::new("level", "WARN")];
        events.events = vec![Event::new("line", UNIX_EPOCH, attributes, 0)];
        SpanData {
            span_context: SpanContext::new(
                TraceId::from(u128::MAX / 3),
                SpanId::from(id),
                TraceFlags::SAMPLED,
                false,
                state,
            ),
            parent_span_id: SpanId::from(parent),
            parent_span_is_remote: parent % 2 == 1,
            span_kind: kind,
            name: "GetHistory".into(),
            start_time: UNIX_EPOCH + Duration::from_nanos(1_800_000_000_123_456_789),
            end_time: UNIX_EPOCH + Duration::from_nanos(1_800_000_000_223_456_789),
            attributes: vec![
                KeyValue::new("text", "x".repeat(40 * usize::try_from(id).unwrap())),
                KeyValue::new("empty", ""),
                KeyValue::new("number", -5),
                KeyValue::new("flag", true),
                KeyValue::new("ratio", 0.5),
            ],
            dropped_attributes_count: 0,
            events,
            links: SpanLinks::default(),
            status,
            instrumentation_scope: InstrumentationScope::builder("scope").build(),
        }
    }

    #[test]
    fn encodes_what_the_library_encodes() {
        let spans = vec![
            span(1, 0, SpanKind::Server, Status::Unset),
            span(7, 1, SpanKind::Client, Status::error("unavailable")),
            span(900, 4, SpanKind::Internal, Status::Ok),
        ];
        let resource = Resource::builder_empty()
            .with_attribute(KeyValue::new("service.name", "memory"))
            .build();
        let mut encoded = Vec::new();
        put_message(&mut encoded, 1, |out| {
            put_attribute(out, 1, "service.name", &Value::from("memory"));
        });
        let read = proto::collector::trace::v1::ExportTraceServiceRequest::decode(&*encode(
            &encoded, &spans,
        ))
        .unwrap();
        let resource = common::ResourceAttributesWithSchema::from(&resource);
        let expected = trace::group_spans_by_resource_and_scope(spans, &resource);
        assert_eq!(read.resource_spans, expected);
    }
}
