use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::HeaderMap;
use opentelemetry::{
    Context, InstrumentationScope, KeyValue, StringValue,
    propagation::TextMapPropagator as _,
    trace::{SpanContext, SpanId, SpanKind, TraceContextExt as _, TraceFlags, TraceState},
};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{
        IdGenerator as _, RandomIdGenerator, Sampler, SamplingDecision, ShouldSample as _,
        SpanData, SpanEvents, SpanLinks, SpanProcessor,
    },
};

use crate::{
    call::{
        Call, CallDetails, CallKind, EndedSpans, NewCall, Run, Scope, Span, SpanDestination,
        SpanRecord, TracedCall,
    },
    instrumentation,
};

/// Settings for tracing calls.
#[derive(Clone, Copy, Debug)]
pub struct TracingConfig {
    /// Whether a call continues the trace in its caller's `traceparent` and
    /// `langsmith-trace`.
    pub follows_caller: bool,
    /// Whether the caller's `baggage` may choose the project in LangSmith.
    pub allows_caller_project: bool,
    /// Whether spans contain the text of messages.
    pub captures_content: bool,
}

/// Begins calls, and decides whether they are traced.
#[derive(Clone, Debug)]
pub struct CallTracer {
    config: TracingConfig,
    /// `None` if no traces are exported.
    exporter: Option<Arc<CallExporter>>,
}

impl CallTracer {
    /// Creates a tracer that exports no spans unless an exporter is given.
    pub(super) fn new(config: TracingConfig, exporter: Option<Arc<CallExporter>>) -> Self {
        Self { config, exporter }
    }

    /// Creates a tracer that exports no spans.
    pub fn without_exporter(config: TracingConfig) -> Self {
        Self::new(config, None)
    }

    /// Begins a call with its span. Whether it is traced is decided first: a call that is not
    /// sampled costs next to nothing.
    pub fn begin(
        &self,
        headers: &HeaderMap,
        method: &'static str,
        kind: CallKind,
        caller_name: Option<Arc<str>>,
    ) -> (Scope, Span) {
        let parent = self.parent(headers);
        let Some(exporter) = &self.exporter else {
            let new = NewCall {
                method,
                kind,
                caller_name,
                trace: parent.unwrap_or(SpanContext::NONE),
            };
            return (Call::untraced(new), Span::default());
        };
        let (trace, is_sampled) = exporter.sample(parent.as_ref(), method);
        let caller = caller_name.clone();
        let new = NewCall {
            method,
            kind,
            caller_name,
            trace,
        };
        if !is_sampled {
            return (Call::untraced(new), Span::default());
        }
        let follows_run = self.config.follows_caller;
        let traced = TracedCall {
            parent: parent.unwrap_or(SpanContext::NONE),
            caller_run: follows_run
                .then(|| Run::from_headers(headers, self.config.allows_caller_project))
                .flatten(),
            captures_content: self.config.captures_content,
            attributes: attributes(method, caller),
            destination: Arc::clone(exporter) as Arc<dyn SpanDestination>,
        };
        let (scope, span) = Call::traced(new, traced);
        exporter.add_open_call(scope.call());
        (scope, span)
    }

    /// Reads the span of the caller.
    fn parent(&self, headers: &HeaderMap) -> Option<SpanContext> {
        if !self.config.follows_caller || !headers.contains_key("traceparent") {
            return None;
        }
        let context = TraceContextPropagator::new()
            .extract_with_context(&Context::new(), &HeaderExtractor(headers));
        let parent = context.span().span_context().clone();
        parent.is_valid().then_some(parent)
    }
}

/// Number of attributes that the span of a call can get. The vector does not grow then.
const MAX_ATTRIBUTES: usize = 14;

fn attributes(method: &'static str, caller: Option<Arc<str>>) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(MAX_ATTRIBUTES);
    attributes.push(KeyValue::new("rpc.system.name", "grpc"));
    attributes.push(KeyValue::new("rpc.method", method));
    attributes.extend(caller.map(|name| KeyValue::new("enduser.id", name)));
    attributes
}

/// Passes the spans of calls to a processor, with the attributes that tools for observing agents
/// need.
#[derive(Debug)]
pub(super) struct CallExporter {
    sampler: Sampler,
    ids: RandomIdGenerator,
    scope: InstrumentationScope,
    processor: Box<dyn SpanProcessor>,
    /// Calls that have not ended, by the ids of their spans.
    open: Mutex<HashMap<SpanId, Weak<Call>>>,
    is_shut_down: AtomicBool,
}

impl CallExporter {
    pub(super) fn new(sampler: Sampler, processor: impl SpanProcessor + 'static) -> Arc<Self> {
        Arc::new(Self {
            sampler,
            ids: RandomIdGenerator::default(),
            scope: InstrumentationScope::builder(instrumentation::SCOPE).build(),
            processor: Box::new(processor),
            open: Mutex::default(),
            is_shut_down: AtomicBool::new(false),
        })
    }

    /// Exports the spans of all calls, also of those that have not ended, and stops.
    pub(super) fn shutdown(&self, timeout: Duration) -> OTelSdkResult {
        let open: Vec<_> = self.open().values().filter_map(Weak::upgrade).collect();
        for call in open {
            call.flush();
        }
        self.is_shut_down.store(true, Ordering::Relaxed);
        self.processor.shutdown_with_timeout(timeout)
    }

    /// Creates the context of a call's span, and decides whether the call is traced.
    fn sample(&self, parent: Option<&SpanContext>, method: &str) -> (SpanContext, bool) {
        let trace = parent.map_or_else(|| self.ids.new_trace_id(), SpanContext::trace_id);
        let context = parent.map(|parent| Context::new().with_remote_span_context(parent.clone()));
        let sampled = self.sampler.should_sample(
            context.as_ref(),
            trace,
            method,
            &SpanKind::Server,
            &[],
            &[],
        );
        let is_sampled = sampled.decision == SamplingDecision::RecordAndSample;
        let flags = parent.map_or(TraceFlags::default(), SpanContext::trace_flags);
        let flags = flags.with_sampled(is_sampled);
        let id = self.ids.new_span_id();
        let span = SpanContext::new(trace, id, flags, false, sampled.trace_state);
        (span, is_sampled)
    }

    fn add_open_call(&self, call: &Arc<Call>) {
        let id = call.trace().span_id();
        self.open().insert(id, Arc::downgrade(call));
    }

    fn open(&self) -> MutexGuard<'_, HashMap<SpanId, Weak<Call>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SpanDestination for CallExporter {
    fn new_span_id(&self) -> SpanId {
        self.ids.new_span_id()
    }

    fn export(&self, call: &Call, ended: EndedSpans) {
        let EndedSpans {
            spans,
            mut events,
            details,
            is_end,
        } = ended;
        if is_end {
            self.open().remove(&call.trace().span_id());
        }
        if self.is_shut_down.load(Ordering::Relaxed) {
            return;
        }
        let conversation = details
            .conversation
            .map(|id| StringValue::from(Arc::<str>::from(id.to_string())));
        for mut span in spans {
            add_common_attributes(&mut span.attributes, call, conversation.as_ref());
            if span.is_root {
                add_root_attributes(&mut span.attributes, call, &details);
            }
            let mut of_span = SpanEvents::default();
            if !events.is_empty() {
                let (own, others) = events.into_iter().partition(|(id, _)| *id == span.id);
                events = others;
                let own: Vec<(SpanId, _)> = own;
                of_span.events = own.into_iter().map(|(_, event)| event).collect();
            }
            self.processor.on_end(self.data(call, span, of_span));
        }
    }
}

impl CallExporter {
    fn data(&self, call: &Call, span: SpanRecord, events: SpanEvents) -> SpanData {
        let trace = call.trace();
        let context = SpanContext::new(
            trace.trace_id(),
            span.id,
            trace.trace_flags(),
            false,
            TraceState::clone(trace.trace_state()),
        );
        SpanData {
            span_context: context,
            parent_span_id: span.parent,
            parent_span_is_remote: span.is_root && call.is_parent_remote(),
            span_kind: span.kind,
            name: span.name,
            start_time: span.start,
            end_time: span.end,
            attributes: span.attributes,
            dropped_attributes_count: 0,
            events,
            links: SpanLinks::default(),
            status: span.status,
            instrumentation_scope: self.scope.clone(),
        }
    }
}

/// Adds the attributes of every span of a call. Each tool for observing agents expects the
/// conversation under a different key, on every span that it should find.
/// `langsmith.metadata.session_id` must not be among them, because LangSmith would group
/// threads by it.
fn add_common_attributes(
    attributes: &mut Vec<KeyValue>,
    call: &Call,
    conversation: Option<&StringValue>,
) {
    const KEYS: [&str; 4] = [
        "langsmith.metadata.conversation_id",
        "langsmith.metadata.thread_id",
        "session.id",
        "gen_ai.conversation.id",
    ];
    if let Some(id) = conversation {
        attributes.extend(KEYS.map(|key| KeyValue::new(key, id.clone())));
    }
    attributes.push(KeyValue::new("langsmith.span.kind", call.kind().run));
}

/// Adds the attributes of the call's span only, so that an operation is counted once.
fn add_root_attributes(attributes: &mut Vec<KeyValue>, call: &Call, details: &CallDetails) {
    let text = |key, text: &Option<String>| text.clone().map(|text| KeyValue::new(key, text));
    let operation = call.kind().operation;
    attributes.extend(operation.map(|name| KeyValue::new("gen_ai.operation.name", name)));
    attributes.extend(text("input.value", &details.input));
    attributes.extend(text("output.value", &details.output));
}
