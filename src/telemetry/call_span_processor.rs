use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use opentelemetry::{
    Context,
    trace::{Span as _, SpanId, TraceContextExt as _},
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanProcessor},
};

use super::{call::Call, langsmith::Run};

/// Adds the conversation to every span of a call, wherever the span is created.
///
/// The call of a span is found in the context in which the span starts. A span that has ended
/// is kept until the call ends, because a span can end before the call's conversation is known.
/// Then all spans receive the same attributes and are passed to the next processor.
#[derive(Debug)]
pub(super) struct CallSpanProcessor<P> {
    next: P,
    open: Mutex<HashMap<SpanId, OpenSpan>>,
}

/// Span of a call that has not ended.
#[derive(Debug)]
struct OpenSpan {
    call: Arc<Call>,
    /// Whether it is the root span of the call.
    is_root: bool,
    /// LangSmith run of the span. `None` if the caller does not use LangSmith's SDK.
    run: Option<Run>,
}

impl<P: SpanProcessor> CallSpanProcessor<P> {
    pub(super) fn new(next: P) -> Self {
        Self {
            next,
            open: Mutex::default(),
        }
    }

    fn open_spans(&self) -> MutexGuard<'_, HashMap<SpanId, OpenSpan>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates the LangSmith run of a span that starts: a child of its parent's run, or of the
    /// caller's run.
    fn child_run(&self, call: &Call, parent: SpanId, span: &Span) -> Option<Run> {
        let caller = call.caller_run.as_ref()?;
        let start = span.exported_data()?.start_time;
        let (trace, id) = (
            span.span_context().trace_id(),
            span.span_context().span_id(),
        );
        let open = self.open_spans();
        let parent = open.get(&parent).and_then(|parent| parent.run.as_ref());
        Some(parent.unwrap_or(caller).child(trace, id, start))
    }

    fn flush_open_calls(&self) {
        let calls: Vec<_> = self
            .open_spans()
            .values()
            .map(|span| Arc::clone(&span.call))
            .collect();
        for call in calls {
            call.flush(&self.next);
        }
    }
}

impl<P: SpanProcessor> SpanProcessor for CallSpanProcessor<P> {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        self.next.on_start(span, cx);
        let Some(call) = Call::from_context(cx) else {
            return;
        };
        let parent = cx.span().span_context().clone();
        let open = OpenSpan {
            call: Arc::clone(call),
            is_root: parent.is_remote() || !parent.is_valid(),
            run: self.child_run(call, parent.span_id(), span),
        };
        self.open_spans()
            .insert(span.span_context().span_id(), open);
    }

    fn on_end(&self, mut span: SpanData) {
        let open = self.open_spans().remove(&span.span_context.span_id());
        let Some(OpenSpan { call, is_root, run }) = open else {
            return self.next.on_end(span);
        };
        span.attributes
            .extend(run.into_iter().flat_map(Run::attributes));
        call.add_ended_span(span, is_root, &self.next);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.next.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.flush_open_calls();
        self.next.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.next.set_resource(resource);
    }
}
