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

/// Puts the conversation on every span of a call, whoever made the span.
///
/// A span finds its call in the context that it starts in. When it has ended it
/// waits until the call has, since a span can end before the call's conversation
/// is known: then all go on with the same stamp.
#[derive(Debug)]
pub(super) struct Stamp<P> {
    next: P,
    live: Mutex<HashMap<SpanId, Live>>,
}

/// A span of a call, while it lasts.
#[derive(Debug)]
struct Live {
    call: Arc<Call>,
    /// Whether it is the call's first.
    is_root: bool,
    run: Option<Run>,
}

impl<P: SpanProcessor> Stamp<P> {
    pub(super) fn new(next: P) -> Self {
        Self {
            next,
            live: Mutex::default(),
        }
    }

    fn live(&self) -> MutexGuard<'_, HashMap<SpanId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run of a span that starts: below its parent's, or else the caller's.
    fn run(&self, call: &Call, parent: SpanId, span: &Span) -> Option<Run> {
        let caller = call.caller.as_ref()?;
        let start = span.exported_data()?.start_time;
        let (trace, id) = (
            span.span_context().trace_id(),
            span.span_context().span_id(),
        );
        let live = self.live();
        let above = live.get(&parent).and_then(|parent| parent.run.as_ref());
        Some(above.unwrap_or(caller).child(trace, id, start))
    }

    fn give_up(&self) {
        let calls: Vec<_> = self
            .live()
            .values()
            .map(|live| Arc::clone(&live.call))
            .collect();
        for call in calls {
            call.give_up(&self.next);
        }
    }
}

impl<P: SpanProcessor> SpanProcessor for Stamp<P> {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        self.next.on_start(span, cx);
        let Some(call) = Call::of(cx) else {
            return;
        };
        let parent = cx.span().span_context().clone();
        let live = Live {
            call: Arc::clone(call),
            is_root: parent.is_remote() || !parent.is_valid(),
            run: self.run(call, parent.span_id(), span),
        };
        self.live().insert(span.span_context().span_id(), live);
    }

    fn on_end(&self, mut span: SpanData) {
        let live = self.live().remove(&span.span_context.span_id());
        let Some(Live { call, is_root, run }) = live else {
            return self.next.on_end(span);
        };
        span.attributes
            .extend(run.into_iter().flat_map(Run::attributes));
        call.collect(span, is_root, &self.next);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.next.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.give_up();
        self.next.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.next.set_resource(resource);
    }
}
