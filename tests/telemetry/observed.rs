//! A sidecar that exports to a collector in the test, calls with known traces, and
//! assertions about traces.

use std::collections::BTreeSet;

use conversation_memory::proto::Source;
use tonic::{Request, metadata::AsciiMetadataValue};

use test_support::{
    eventually, new_user,
    otlp_sink::{OtlpSink, Sent, Span, SpanKind},
    requests::{history, new_conversation},
    sidecar::{Form, Memory, Sidecar},
};

/// Sidecar with the collector that it exports to.
pub(crate) struct ObservedSidecar {
    pub(crate) form: Form,
    pub(crate) sidecar: Sidecar,
    pub(crate) sink: OtlpSink,
}

impl ObservedSidecar {
    /// Starts a sidecar with `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub(crate) async fn start(form: Form) -> Self {
        Self::start_with(form, &[]).await
    }

    /// Starts a sidecar with further settings.
    pub(crate) async fn start_with(form: Form, settings: &[(&str, &str)]) -> Self {
        let sink = OtlpSink::start().await;
        let url = sink.url();
        let mut all = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str())];
        all.extend(settings);
        let sidecar = Sidecar::start_with(&form, &all).await;
        Self {
            form,
            sidecar,
            sink,
        }
    }

    /// Creates a client, and waits until the sidecar is connected to Redis if it has
    /// one.
    pub(crate) async fn memory(&self) -> Memory {
        let mut memory = self.sidecar.memory();
        if let Form::Servers { .. } = self.form {
            wait_for_redis(&mut memory).await;
        }
        memory
    }

    /// Shuts the sidecar down and returns everything that it exported.
    pub(crate) async fn stop(mut self) -> ExportedTelemetry {
        stop(&mut self.sidecar).await;
        ExportedTelemetry {
            spans: self.sink.spans(),
            sent: self.sink.sent(),
            log: self.sidecar.log(),
        }
    }
}

/// Waits until histories are read from Redis: a sidecar serves before it is connected.
pub(crate) async fn wait_for_redis(memory: &mut Memory) {
    let conversation = new_conversation(memory, &new_user()).await;
    eventually("histories are read from Redis", async || {
        let read = memory.get_history(history(&conversation)).await;
        read.unwrap().into_inner().source() == Source::Cache
    })
    .await;
}

/// Stops a sidecar as Kubernetes does, and asserts that it exits with 0.
pub(crate) async fn stop(sidecar: &mut Sidecar) {
    sidecar.signal("TERM");
    let status = sidecar.ended().await;
    assert!(status.success(), "{status}: {:#?}", sidecar.log());
}

/// Everything that a sidecar exported, and its log.
pub(crate) struct ExportedTelemetry {
    pub(crate) spans: Vec<Span>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) log: Vec<String>,
}

impl ExportedTelemetry {
    /// Returns the spans of a call, and asserts that there is a server span.
    pub(crate) fn call(&self, trace: &Trace) -> CallSpans {
        let spans = self.spans.iter().filter(|span| span.trace_id == trace.id);
        let spans: Vec<Span> = spans.cloned().collect();
        let server = spans.iter().find(|span| span.kind == SpanKind::Server);
        let server = server.unwrap_or_else(|| panic!("no server span in {:#?}", self.spans));
        assert_eq!(server.parent_id, trace.parent_id);
        CallSpans {
            server: server.clone(),
            spans,
        }
    }
}

/// Spans of one call.
#[derive(Debug)]
pub(crate) struct CallSpans {
    pub(crate) server: Span,
    pub(crate) spans: Vec<Span>,
}

/// Attributes that contain the conversation of a span.
pub(crate) const CONVERSATION_KEYS: [&str; 4] = [
    "langsmith.metadata.conversation_id",
    "langsmith.metadata.thread_id",
    "session.id",
    "gen_ai.conversation.id",
];

impl CallSpans {
    /// Returns a server span with its descendants.
    pub(crate) fn with_descendants(server: &Span, all: &[Span]) -> Self {
        let mut call = Self {
            server: server.clone(),
            spans: vec![server.clone()],
        };
        let mut index = 0;
        while let Some(parent) = call.spans.get(index).map(|span| span.id.clone()) {
            let children = all.iter().filter(|span| span.parent_id == parent);
            call.spans.extend(children.cloned());
            index += 1;
        }
        call
    }

    /// Span of the use case, the server span's only child.
    pub(crate) fn use_case(&self) -> &Span {
        let [use_case] = self.children(&self.server)[..] else {
            panic!("expected one use case: {self:#?}");
        };
        assert_eq!(use_case.kind, SpanKind::Internal, "{use_case:#?}");
        use_case
    }

    pub(crate) fn children(&self, parent: &Span) -> Vec<&Span> {
        let spans = self.spans.iter();
        spans.filter(|span| span.parent_id == parent.id).collect()
    }

    /// Names of the databases that were called.
    pub(crate) fn databases(&self) -> BTreeSet<&str> {
        let clients = self
            .spans
            .iter()
            .filter(|span| span.kind == SpanKind::Client);
        clients.map(|span| span.text("db.system.name")).collect()
    }

    /// Asserts that all spans are descendants of the server span, and that there is a use case. It has no
    /// children if a window in the process answers.
    pub(crate) fn assert_is_a_tree(&self) {
        let ids: BTreeSet<&str> = self.spans.iter().map(|span| span.id.as_str()).collect();
        assert_eq!(ids.len(), self.spans.len(), "duplicate id: {self:#?}");
        for span in &self.spans {
            let is_server = span.id == self.server.id;
            assert_eq!(span.kind == SpanKind::Server, is_server, "{self:#?}");
            assert!(
                is_server || ids.contains(span.parent_id.as_str()),
                "{span:#?}"
            );
        }
        self.use_case();
    }

    /// Asserts that every span contains the conversation.
    pub(crate) fn assert_conversation(&self, conversation: &str) {
        for span in &self.spans {
            for key in CONVERSATION_KEYS {
                assert_eq!(span.text(key), conversation, "{key}: {span:#?}");
            }
        }
    }

    pub(crate) fn assert_on_every_span(&self, key: &str, value: &str) {
        for span in &self.spans {
            assert_eq!(span.text(key), value, "{key}: {span:#?}");
        }
    }
}

/// Trace context of a caller that makes one call.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    pub(crate) id: String,
    pub(crate) parent_id: String,
}

/// Creates a request in a new trace that the caller samples.
pub(crate) fn traced<T>(message: T) -> (Trace, Request<T>) {
    traced_with_flags(message, "01")
}

/// Creates a request in a new trace with the given flags of `traceparent`.
pub(crate) fn traced_with_flags<T>(message: T, flags: &str) -> (Trace, Request<T>) {
    let trace = Trace {
        id: uuid::Uuid::now_v7().simple().to_string(),
        parent_id: uuid::Uuid::now_v7().simple().to_string()[16..].to_owned(),
    };
    let header = format!("00-{}-{}-{flags}", trace.id, trace.parent_id);
    let mut request = Request::new(message);
    request.metadata_mut().insert("traceparent", ascii(&header));
    (trace, request)
}

/// Creates a metadata value from any bytes that HTTP allows.
pub(crate) fn ascii(value: impl AsRef<[u8]>) -> AsciiMetadataValue {
    AsciiMetadataValue::try_from(value.as_ref()).unwrap()
}
