//! The call that is being served, with the data that its spans and log lines need.
//!
//! It is stored in a task-local [`Scope`], so that all code that runs for the call can access it
//! without passing it as an argument: the decorators of the storage traits set the conversation of
//! the call here, and its spans and log lines read it here. Spans are collected in their call and
//! exported together when it ends.

mod langsmith;
mod span;
mod spans;

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use futures_util::future::Either;
use opentelemetry::{
    KeyValue,
    trace::{SpanContext, SpanId, TraceId},
};

use self::spans::CallSpans;
pub use self::{
    langsmith::Run,
    span::{Span, SpanRecord},
    spans::{EndedSpans, SpanDestination, add_event},
};
use crate::domain::ConversationId;

tokio::task_local! {
    static CURRENT: Scope;
}

/// Upper bound on the bytes of input, and of output, in a span.
const MAX_CONTENT: usize = 64 << 10;

/// Classification of a method for tools that observe agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallKind {
    /// Kind of run in LangSmith: retriever, tool or chain.
    pub run: &'static str,
    /// `gen_ai.operation.name`. `None` if the conventions define no name.
    pub operation: Option<&'static str>,
}

/// Call that is being served.
#[derive(Debug)]
pub struct Call {
    method: &'static str,
    kind: CallKind,
    /// Name of the authenticated caller.
    caller_name: Option<Arc<str>>,
    captures_content: bool,
    details: Mutex<CallDetails>,
    /// Span of the call if it is traced, otherwise that of the caller, which log lines contain.
    trace: SpanContext,
    /// `None` unless the spans of the call are exported.
    spans: Option<CallSpans>,
}

/// Properties of a call when it begins.
#[derive(Debug)]
pub struct NewCall {
    /// Name of the method.
    pub method: &'static str,
    /// Classification of the method.
    pub kind: CallKind,
    /// Name of the authenticated caller.
    pub caller_name: Option<Arc<str>>,
    /// Span of the call, or of the caller if the call has none.
    pub trace: SpanContext,
}

/// Properties of a call whose spans are exported.
#[derive(Debug)]
pub struct TracedCall {
    /// Span of the caller; invalid if there is none.
    pub parent: SpanContext,
    /// LangSmith run of the caller. `None` if the caller does not use LangSmith's SDK.
    pub caller_run: Option<Run>,
    /// Whether spans contain the text of messages.
    pub captures_content: bool,
    /// Attributes of the call's span that are known when it begins.
    pub attributes: Vec<KeyValue>,
    /// Where the spans are exported to.
    pub destination: Arc<dyn SpanDestination>,
}

/// Data that become known while a call is served.
#[derive(Clone, Debug, Default)]
pub struct CallDetails {
    /// Conversation of the call.
    pub conversation: Option<ConversationId>,
    /// Text of the request.
    pub input: Option<String>,
    /// Text of the response.
    pub output: Option<String>,
}

/// A call, and the span in it that work belongs to.
#[derive(Clone, Debug)]
pub struct Scope {
    call: Arc<Call>,
    span: SpanId,
}

impl Call {
    /// Begins a call without spans.
    pub fn untraced(new: NewCall) -> Scope {
        let span = new.trace.span_id();
        let call = Arc::new(Self::new(new, false, None));
        Scope { call, span }
    }

    /// Begins a call whose spans are exported, with the span of the call.
    pub fn traced(new: NewCall, traced: TracedCall) -> (Scope, Span) {
        let TracedCall {
            parent,
            caller_run,
            captures_content,
            attributes,
            destination,
        } = traced;
        let id = new.trace.span_id();
        let spans = CallSpans::new(parent, caller_run, destination);
        let call = Arc::new(Self::new(new, captures_content, Some(spans)));
        let scope = Scope { call, span: id };
        let span = Span::of_call(&scope, attributes);
        (scope, span)
    }

    fn new(new: NewCall, captures_content: bool, spans: Option<CallSpans>) -> Self {
        Self {
            method: new.method,
            kind: new.kind,
            caller_name: new.caller_name,
            captures_content,
            details: Mutex::default(),
            trace: new.trace,
            spans,
        }
    }

    /// Classification of the call's method.
    pub fn kind(&self) -> CallKind {
        self.kind
    }

    /// Context of the call's span.
    pub fn trace(&self) -> &SpanContext {
        &self.trace
    }

    fn details(&self) -> MutexGuard<'_, CallDetails> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scope {
    /// Scope of the current work. `None` outside of calls.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// Call of the scope.
    pub fn call(&self) -> &Arc<Call> {
        &self.call
    }

    /// Runs `work` in the scope.
    pub fn run<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, work)
    }

    /// Runs a function in the scope.
    pub fn run_sync<T>(self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, work)
    }
}

/// Runs `work` in a scope, if there is one.
pub fn run_in<F: Future>(scope: Option<Scope>, work: F) -> impl Future<Output = F::Output> {
    match scope {
        Some(scope) => Either::Left(scope.run(work)),
        None => Either::Right(work),
    }
}

/// Makes work that is spawned on another task belong to the current call.
pub fn inherit<F: Future>(work: F) -> impl Future<Output = F::Output> {
    run_in(Scope::current(), work)
}

/// Sets the conversation of the current call. The last value that was set is exported: a turn
/// can find that the conversation of its session was deleted, and create a new one.
pub fn set_conversation(conversation: ConversationId) {
    with_current(|call| call.details().conversation = Some(conversation));
}

/// Sets the conversation of the current call unless one is set already.
pub fn set_conversation_if_unset(conversation: Option<ConversationId>) {
    if let Some(id) = conversation {
        with_current(|call| {
            call.details().conversation.get_or_insert(id);
        });
    }
}

/// Records the text of the request for the span of the current call, if content
/// capture is enabled.
pub fn capture_input(text: impl FnOnce() -> String) {
    with_current(|call| {
        if call.captures_content {
            call.details().input = Some(truncate(text()));
        }
    });
}

/// Records the text of the response for the span of the current call, if content
/// capture is enabled.
pub fn capture_output(text: impl FnOnce() -> String) {
    with_current(|call| {
        if call.captures_content {
            call.details().output = Some(truncate(text()));
        }
    });
}

/// Fields of the current call for a log line.
#[derive(Debug, Default)]
pub struct LogContext {
    /// Name of the method.
    pub method: Option<&'static str>,
    /// Trace, and the span in it that the current work belongs to.
    pub span: Option<(TraceId, SpanId)>,
    /// Conversation of the call.
    pub conversation: Option<ConversationId>,
    /// Name of the authenticated caller.
    pub caller: Option<Arc<str>>,
}

/// Returns the fields of the current call for a log line.
pub fn log_context() -> LogContext {
    let fields = CURRENT.try_with(|Scope { call, span }| LogContext {
        method: Some(call.method),
        span: call
            .trace
            .is_valid()
            .then(|| (call.trace.trace_id(), *span)),
        conversation: call.details().conversation,
        caller: call.caller_name.clone(),
    });
    fields.unwrap_or_default()
}

/// Time at which a span begins or ends, or a line is logged.
#[expect(
    clippy::disallowed_methods,
    reason = "the times of spans are those of the process, whichever clock its data uses"
)]
pub fn now() -> SystemTime {
    SystemTime::now()
}

fn with_current(record: impl FnOnce(&Call)) {
    // An error means that the work belongs to no call.
    let _ = CURRENT.try_with(|scope| record(&scope.call));
}

fn truncate(mut text: String) -> String {
    if text.len() > MAX_CONTENT {
        text.truncate(text.floor_char_boundary(MAX_CONTENT));
        text.push('…');
    }
    text
}
