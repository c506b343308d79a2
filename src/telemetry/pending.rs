use std::sync::{MutexGuard, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry_sdk::trace::{SpanData, SpanProcessor};

use super::call::{About, Call};

/// How many spans of a call wait for its end. A call that has more is stamped
/// with what is known of it by then.
const MAX_PENDING: usize = 512;

/// The spans of a call that have ended. They wait for the call's end, because
/// only then it is certain what the call was about.
#[derive(Debug, Default)]
pub(super) struct Pending {
    spans: Vec<SpanData>,
    has_ended: bool,
}

impl Call {
    /// Takes a span that has ended, with its LangSmith attributes, and hands on
    /// what needs not wait any longer.
    pub(super) fn collect(&self, span: SpanData, is_root: bool, next: &impl SpanProcessor) {
        let ready = {
            let mut pending = self.pending();
            pending.has_ended |= is_root;
            pending.spans.push(span);
            // What goes on after the call, a write whose caller has left say,
            // waits for nothing.
            if pending.has_ended || pending.spans.len() >= MAX_PENDING {
                std::mem::take(&mut pending.spans)
            } else {
                Vec::new()
            }
        };
        self.hand_on(ready, is_root, next);
    }

    /// Hands on what waits for a call that will not end.
    pub(super) fn give_up(&self, next: &impl SpanProcessor) {
        let spans = std::mem::take(&mut self.pending().spans);
        self.hand_on(spans, false, next);
    }

    fn hand_on(&self, spans: Vec<SpanData>, root_is_last: bool, next: &impl SpanProcessor) {
        if spans.is_empty() {
            return;
        }
        let about = self.about().clone();
        let last = spans.len() - 1;
        for (index, mut span) in spans.into_iter().enumerate() {
            span.attributes.extend(self.stamp(&about));
            if root_is_last && index == last {
                span.attributes.extend(self.of_root(&about));
            }
            next.on_end(span);
        }
    }

    /// What every span of the call carries. Tools that watch agents each look
    /// for the conversation under another key, on every span that they are to
    /// find. `langsmith.metadata.session_id` must not be among them: LangSmith
    /// would take it for the thread.
    fn stamp(&self, about: &About) -> impl Iterator<Item = KeyValue> + use<> {
        const KEYS: [&str; 4] = [
            "langsmith.metadata.conversation_id",
            "langsmith.metadata.thread_id",
            "session.id",
            "gen_ai.conversation.id",
        ];
        let conversation = about.conversation.map(|id| id.to_string());
        let keys = conversation
            .into_iter()
            .flat_map(|id| KEYS.map(|key| KeyValue::new(key, id.clone())));
        keys.chain([KeyValue::new("langsmith.span.kind", self.kind.run)])
    }

    /// What only the call's own span carries: an operation is counted once.
    fn of_root(&self, about: &About) -> impl Iterator<Item = KeyValue> + use<> {
        let text = |key, text: &Option<String>| text.clone().map(|text| KeyValue::new(key, text));
        let operation = self.kind.operation;
        operation
            .map(|name| KeyValue::new("gen_ai.operation.name", name))
            .into_iter()
            .chain(text("input.value", &about.input))
            .chain(text("output.value", &about.output))
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
