//! The call that is being served, with the data that its spans and log lines need.
//!
//! It is stored in the OpenTelemetry context, next to the current span, so that all code that
//! runs for the call can access it without passing it as an argument: the decorators of the
//! storage traits set the conversation of the call here, and its spans and log lines read it
//! here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderMap;
use opentelemetry::{
    Context,
    propagation::TextMapPropagator as _,
    trace::{SpanContext, TraceContextExt as _},
};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;

use super::{langsmith::Run, pending_spans::PendingSpans};
use crate::domain::ConversationId;

/// Upper bound on the bytes of input, and of output, in a span.
const MAX_CONTENT: usize = 64 << 10;

/// Settings for tracing calls.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a setting of its own"
)]
pub struct TracingConfig {
    /// Whether spans are exported.
    pub is_exported: bool,
    /// Whether a call continues the trace in its caller's `traceparent` and
    /// `langsmith-trace`.
    pub follows_caller: bool,
    /// Whether the caller's `baggage` may choose the project in LangSmith.
    pub allows_caller_project: bool,
    /// Whether spans contain the text of messages.
    pub captures_content: bool,
}

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
    method: Arc<str>,
    pub(super) kind: CallKind,
    /// Name of the authenticated caller.
    caller_name: Option<Arc<str>>,
    /// LangSmith run of the caller. `None` if the caller does not use LangSmith's SDK.
    pub(super) caller_run: Option<Run>,
    captures_content: bool,
    details: Mutex<CallDetails>,
    pub(super) pending: Mutex<PendingSpans>,
}

/// Data that become known while a call is served.
#[derive(Clone, Debug, Default)]
pub(super) struct CallDetails {
    pub(super) conversation: Option<ConversationId>,
    pub(super) input: Option<String>,
    pub(super) output: Option<String>,
}

impl Call {
    /// Creates the context in which a call is served: the caller's trace context
    /// and the call.
    pub fn context(
        headers: &HeaderMap,
        method: Arc<str>,
        kind: CallKind,
        tracing: TracingConfig,
        caller_name: Option<&str>,
    ) -> Context {
        let caller = if tracing.follows_caller {
            TraceContextPropagator::new()
                .extract_with_context(&Context::new(), &HeaderExtractor(headers))
        } else {
            Context::new()
        };
        let follows_run = tracing.is_exported && tracing.follows_caller;
        caller.with_value(Arc::new(Self {
            method,
            kind,
            caller_name: caller_name.map(Arc::from),
            caller_run: follows_run
                .then(|| Run::from_headers(headers, tracing.allows_caller_project))
                .flatten(),
            captures_content: tracing.is_exported && tracing.captures_content,
            details: Mutex::default(),
            pending: Mutex::default(),
        }))
    }

    pub(super) fn from_context(context: &Context) -> Option<&Arc<Self>> {
        context.get::<Arc<Self>>()
    }

    pub(super) fn details(&self) -> MutexGuard<'_, CallDetails> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
pub(super) struct LogContext {
    pub(super) method: Option<Arc<str>>,
    pub(super) span: Option<SpanContext>,
    pub(super) conversation: Option<ConversationId>,
    pub(super) caller: Option<Arc<str>>,
}

/// Returns the fields of the current call for a log line.
pub(super) fn log_context() -> LogContext {
    Context::map_current(|cx| {
        let span = cx.span().span_context().clone();
        let call = Call::from_context(cx);
        LogContext {
            method: call.map(|call| Arc::clone(&call.method)),
            span: span.is_valid().then_some(span),
            conversation: call.and_then(|call| call.details().conversation),
            caller: call.and_then(|call| call.caller_name.clone()),
        }
    })
}

fn with_current(record: impl FnOnce(&Call)) {
    Context::map_current(|cx| {
        if let Some(call) = Call::from_context(cx) {
            record(call);
        }
    });
}

fn truncate(mut text: String) -> String {
    if text.len() > MAX_CONTENT {
        text.truncate(text.floor_char_boundary(MAX_CONTENT));
        text.push('…');
    }
    text
}
