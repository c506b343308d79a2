use std::sync::{MutexGuard, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry_sdk::trace::{SpanData, SpanProcessor};

use super::call::{Call, CallDetails};

/// Upper bound on the ended spans of a call that are kept until the call ends. When it is
/// reached, they are exported with the details that are known then.
const MAX_PENDING: usize = 512;

/// Ended spans of a call. They are kept until the call ends, because its conversation is
/// certain only then.
#[derive(Debug, Default)]
pub(super) struct PendingSpans {
    spans: Vec<SpanData>,
    has_ended: bool,
}

impl Call {
    /// Adds a span that has ended, with its LangSmith attributes, and passes the spans that
    /// need not be kept any longer to `next`.
    pub(super) fn add_ended_span(&self, span: SpanData, is_root: bool, next: &impl SpanProcessor) {
        let ready = {
            let mut pending = self.pending();
            pending.has_ended |= is_root;
            pending.spans.push(span);
            // After the end of the call, spans are exported at once: for example those of a
            // write that continues after its caller has cancelled.
            if pending.has_ended || pending.spans.len() >= MAX_PENDING {
                std::mem::take(&mut pending.spans)
            } else {
                Vec::new()
            }
        };
        self.export_spans(ready, is_root, next);
    }

    /// Passes the kept spans of a call that will not end to `next`.
    pub(super) fn flush(&self, next: &impl SpanProcessor) {
        let spans = std::mem::take(&mut self.pending().spans);
        self.export_spans(spans, false, next);
    }

    fn export_spans(&self, spans: Vec<SpanData>, is_root_last: bool, next: &impl SpanProcessor) {
        if spans.is_empty() {
            return;
        }
        let details = self.details().clone();
        let last = spans.len() - 1;
        for (index, mut span) in spans.into_iter().enumerate() {
            span.attributes.extend(self.common_attributes(&details));
            if is_root_last && index == last {
                span.attributes.extend(self.root_attributes(&details));
            }
            next.on_end(span);
        }
    }

    /// Attributes of every span of the call. Each tool for observing agents expects the
    /// conversation under a different key, on every span that it should find.
    /// `langsmith.metadata.session_id` must not be among them, because LangSmith would group
    /// threads by it.
    fn common_attributes(&self, details: &CallDetails) -> impl Iterator<Item = KeyValue> + use<> {
        const KEYS: [&str; 4] = [
            "langsmith.metadata.conversation_id",
            "langsmith.metadata.thread_id",
            "session.id",
            "gen_ai.conversation.id",
        ];
        let conversation = details.conversation.map(|id| id.to_string());
        let keys = conversation
            .into_iter()
            .flat_map(|id| KEYS.map(|key| KeyValue::new(key, id.clone())));
        keys.chain([KeyValue::new("langsmith.span.kind", self.kind.run)])
    }

    /// Attributes of the call's root span only, so that an operation is counted
    /// once.
    fn root_attributes(&self, details: &CallDetails) -> impl Iterator<Item = KeyValue> + use<> {
        let text = |key, text: &Option<String>| text.clone().map(|text| KeyValue::new(key, text));
        let operation = self.kind.operation;
        operation
            .map(|name| KeyValue::new("gen_ai.operation.name", name))
            .into_iter()
            .chain(text("input.value", &details.input))
            .chain(text("output.value", &details.output))
    }

    fn pending(&self) -> MutexGuard<'_, PendingSpans> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
