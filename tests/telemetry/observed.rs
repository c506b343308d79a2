//! A sidecar that exports to a collector of the test's own, calls whose traces
//! can be told apart, and what every trace must look like.

use std::collections::BTreeSet;

use conversation_memory::proto::Source;
use tonic::{Request, metadata::AsciiMetadataValue};

use test_support::{
    eventually, new_user,
    otlp_sink::{OtlpSink, Sent, Span, SpanKind},
    requests::{history, new_conversation},
    sidecar::{Form, Memory, Sidecar},
};

/// A sidecar and the collector that it exports to.
pub(crate) struct Observed {
    pub(crate) form: Form,
    pub(crate) sidecar: Sidecar,
    pub(crate) sink: OtlpSink,
}

impl Observed {
    /// Starts one that exports as `OTEL_EXPORTER_OTLP_ENDPOINT` says.
    pub(crate) async fn start(form: Form) -> Self {
        Self::start_with(form, &[]).await
    }

    /// The same with further settings.
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

    /// A client of the sidecar, attached to Redis where it has one.
    pub(crate) async fn memory(&self) -> Memory {
        let mut memory = self.sidecar.memory();
        if let Form::Servers { .. } = self.form {
            attached(&mut memory).await;
        }
        memory
    }

    /// Stops the sidecar in order, after which nothing more can arrive.
    pub(crate) async fn stop(mut self) -> Exported {
        stop(&mut self.sidecar).await;
        Exported {
            spans: self.sink.spans(),
            sent: self.sink.sent(),
            log: self.sidecar.log(),
        }
    }
}

/// Waits until histories come from Redis: a sidecar serves before it is attached.
pub(crate) async fn attached(memory: &mut Memory) {
    let conversation = new_conversation(memory, &new_user()).await;
    eventually("histories come from Redis", async || {
        let read = memory.get_history(history(&conversation)).await;
        read.unwrap().into_inner().source() == Source::Cache
    })
    .await;
}

/// Ends a sidecar as Kubernetes does, and sees that it ends well.
pub(crate) async fn stop(sidecar: &mut Sidecar) {
    sidecar.signal("TERM");
    let status = sidecar.ended().await;
    assert!(status.success(), "{status}: {:#?}", sidecar.log());
}

/// All that a sidecar ever exported, and its log.
pub(crate) struct Exported {
    pub(crate) spans: Vec<Span>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) log: Vec<String>,
}

impl Exported {
    /// The spans of a call, of which there is at least the server's.
    pub(crate) fn of(&self, trace: &Trace) -> Call {
        let spans = self.spans.iter().filter(|span| span.trace_id == trace.id);
        let spans: Vec<Span> = spans.cloned().collect();
        let server = spans.iter().find(|span| span.kind == SpanKind::Server);
        let server = server.unwrap_or_else(|| panic!("no server span in {:#?}", self.spans));
        assert_eq!(server.parent_id, trace.parent_id);
        Call {
            server: server.clone(),
            spans,
        }
    }
}

/// The spans of one call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) server: Span,
    pub(crate) spans: Vec<Span>,
}

/// What says of which conversation a span is.
pub(crate) const CONVERSATION_KEYS: [&str; 4] = [
    "langsmith.metadata.conversation_id",
    "langsmith.metadata.thread_id",
    "session.id",
    "gen_ai.conversation.id",
];

impl Call {
    /// A server's span with all that is below it.
    pub(crate) fn below(server: &Span, all: &[Span]) -> Self {
        let mut call = Self {
            server: server.clone(),
            spans: vec![server.clone()],
        };
        let mut at = 0;
        while let Some(parent) = call.spans.get(at).map(|span| span.id.clone()) {
            let children = all.iter().filter(|span| span.parent_id == parent);
            call.spans.extend(children.cloned());
            at += 1;
        }
        call
    }

    /// The use case: the server span's only child.
    pub(crate) fn use_case(&self) -> &Span {
        let [use_case] = self.children(&self.server)[..] else {
            panic!("one use case is expected: {self:#?}");
        };
        assert_eq!(use_case.kind, SpanKind::Internal, "{use_case:#?}");
        use_case
    }

    pub(crate) fn children(&self, parent: &Span) -> Vec<&Span> {
        let spans = self.spans.iter();
        spans.filter(|span| span.parent_id == parent.id).collect()
    }

    /// The calls to Redis and to the store, by the database's name.
    pub(crate) fn databases(&self) -> BTreeSet<&str> {
        let clients = self
            .spans
            .iter()
            .filter(|span| span.kind == SpanKind::Client);
        clients.map(|span| span.text("db.system.name")).collect()
    }

    /// Sees that all spans are below the server's, and that there is a use case
    /// with something below it.
    pub(crate) fn assert_is_a_tree(&self) {
        let ids: BTreeSet<&str> = self.spans.iter().map(|span| span.id.as_str()).collect();
        assert_eq!(ids.len(), self.spans.len(), "an id twice: {self:#?}");
        for span in &self.spans {
            let is_server = span.id == self.server.id;
            assert_eq!(span.kind == SpanKind::Server, is_server, "{self:#?}");
            assert!(
                is_server || ids.contains(span.parent_id.as_str()),
                "{span:#?}"
            );
        }
        assert!(!self.children(self.use_case()).is_empty(), "{self:#?}");
    }

    /// Sees that every span says whose it is, and none groups threads by
    /// anything else.
    pub(crate) fn assert_is_of(&self, conversation: &str) {
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

/// The trace of a caller who makes one call.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    pub(crate) id: String,
    pub(crate) parent_id: String,
}

/// A request within a trace of its own, that the caller samples.
pub(crate) fn traced<T>(message: T) -> (Trace, Request<T>) {
    traced_with_flags(message, "01")
}

/// The same with the flags of `traceparent`.
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

/// A value of metadata; any byte that HTTP allows.
pub(crate) fn ascii(value: impl AsRef<[u8]>) -> AsciiMetadataValue {
    AsciiMetadataValue::try_from(value.as_ref()).unwrap()
}
