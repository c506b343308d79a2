use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use opentelemetry::trace::{Event, SpanContext, SpanId};

use super::{CURRENT, Call, CallDetails, Run, Scope, SpanRecord, now};

/// Upper bound on the ended spans of a call that are kept until the call ends. When it is
/// reached, they are exported with the details that are known then.
const MAX_PENDING: usize = 512;

/// Upper bound on the log lines of a call that are added to its spans.
const MAX_EVENTS: usize = 128;

/// Destination of the spans of calls.
pub trait SpanDestination: fmt::Debug + Send + Sync {
    /// Generates the id of a span.
    fn new_span_id(&self) -> SpanId;

    /// Exports spans of a call that have ended.
    fn export(&self, call: &Call, spans: EndedSpans);
}

/// Spans of a call that are exported together.
#[derive(Debug)]
pub struct EndedSpans {
    /// The spans, in the order in which they have ended.
    pub spans: Vec<SpanRecord>,
    /// Log lines, each with the span that it belongs to.
    pub events: Vec<(SpanId, Event)>,
    /// What is known about the call.
    pub details: CallDetails,
    /// Whether the call has ended with the last span.
    pub is_end: bool,
}

/// Spans of a call. They are kept until the call ends, because its conversation is certain only
/// then.
#[derive(Debug)]
pub(super) struct CallSpans {
    parent: SpanContext,
    /// LangSmith run of the caller, and those of the spans. Without the first there are no others.
    caller_run: Option<Run>,
    runs: Mutex<Vec<(SpanId, Run)>>,
    destination: Arc<dyn SpanDestination>,
    pending: Mutex<PendingSpans>,
}

#[derive(Debug, Default)]
struct PendingSpans {
    spans: Vec<SpanRecord>,
    events: Vec<(SpanId, Event)>,
    has_ended: bool,
}

impl CallSpans {
    pub(super) fn new(
        parent: SpanContext,
        caller_run: Option<Run>,
        destination: Arc<dyn SpanDestination>,
    ) -> Self {
        Self {
            parent,
            caller_run,
            runs: Mutex::default(),
            destination,
            pending: Mutex::default(),
        }
    }

    /// Id of the caller's span.
    pub(super) fn parent(&self) -> SpanId {
        self.parent.span_id()
    }

    /// Begins the span of the call, and returns its start.
    pub(super) fn begin_call(&self, call: &Call, id: SpanId) -> SystemTime {
        let start = now();
        self.begin_run(call, id, SpanId::INVALID, start);
        start
    }

    /// Begins a span of the call, and returns its id and start.
    pub(super) fn begin(&self, call: &Call, parent: SpanId) -> (SpanId, SystemTime) {
        let (id, start) = (self.destination.new_span_id(), now());
        self.begin_run(call, id, parent, start);
        (id, start)
    }

    /// Creates the LangSmith run of a span: a child of its parent's run, or of the caller's run.
    fn begin_run(&self, call: &Call, id: SpanId, parent: SpanId, start: SystemTime) {
        let Some(caller) = &self.caller_run else {
            return;
        };
        let mut runs = self.runs();
        let found = runs.iter().find(|(span, _)| *span == parent);
        let parent = found.map_or(caller, |(_, run)| run);
        let run = parent.child(call.trace.trace_id(), id, start);
        runs.push((id, run));
    }

    fn runs(&self) -> MutexGuard<'_, Vec<(SpanId, Run)>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> MutexGuard<'_, PendingSpans> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exports spans unless there are none.
    fn export(&self, call: &Call, pending: PendingSpans, is_end: bool) {
        if pending.spans.is_empty() {
            return;
        }
        let mut spans = pending.spans;
        if self.caller_run.is_some() {
            let mut runs = self.runs();
            for span in &mut spans {
                if let Some((_, run)) = runs.iter().find(|(id, _)| *id == span.id) {
                    span.attributes.extend(run.attributes());
                }
            }
            // A call can have any number of spans. Those that end after the call need their
            // parents' runs.
            if !is_end {
                runs.retain(|(id, _)| spans.iter().all(|span| span.id != *id));
            }
        }
        let ended = EndedSpans {
            spans,
            events: pending.events,
            details: call.details().clone(),
            is_end,
        };
        self.destination.export(call, ended);
    }
}

impl Call {
    /// Whether the parent of the call's span is in another process.
    pub fn is_parent_remote(&self) -> bool {
        let spans = self.spans.as_ref();
        spans.is_some_and(|spans| spans.parent.is_valid())
    }

    /// Adds a span that has ended, and exports the spans that need not be kept any longer.
    pub(super) fn end_span(&self, span: SpanRecord) {
        let Some(spans) = &self.spans else {
            return;
        };
        let is_end = span.is_root;
        let ready = {
            let mut pending = spans.pending();
            pending.has_ended |= is_end;
            pending.spans.push(span);
            // After the end of the call, spans are exported at once: for example those of a
            // write that continues after its caller has cancelled.
            let is_ready = pending.has_ended || pending.spans.len() >= MAX_PENDING;
            is_ready.then(|| pending.take())
        };
        if let Some(ready) = ready {
            spans.export(self, ready, is_end);
        }
    }

    /// Exports the kept spans of a call that will not end.
    pub fn flush(&self) {
        if let Some(spans) = &self.spans {
            let ready = spans.pending().take();
            spans.export(self, ready, false);
        }
    }
}

impl PendingSpans {
    fn take(&mut self) -> Self {
        Self {
            spans: std::mem::take(&mut self.spans),
            events: std::mem::take(&mut self.events),
            has_ended: self.has_ended,
        }
    }
}

/// Adds a log line to the current span, if that is exported. Only then, `event` is called.
pub fn add_event(event: impl FnOnce() -> Event) {
    // An error means that the work belongs to no call.
    let _ = CURRENT.try_with(|Scope { call, span }| {
        let Some(spans) = &call.spans else {
            return;
        };
        let event = event();
        let mut pending = spans.pending();
        if pending.events.len() < MAX_EVENTS {
            pending.events.push((*span, event));
        }
    });
}
