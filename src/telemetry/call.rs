//! What is known of the call that is being served.
//!
//! It travels in the OpenTelemetry context, beside the current span, and so
//! reaches whatever is done for the call without being handed on: the stores'
//! decorators say here which conversation the call is about, its spans and log
//! lines read it here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderMap;
use opentelemetry::{
    Context,
    propagation::TextMapPropagator as _,
    trace::{SpanContext, TraceContextExt as _},
};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;

use super::{langsmith::Run, pending::Pending};
use crate::domain::ConversationId;

/// The most bytes of a request's or an answer's text that a span shows.
const MAX_CONTENT: usize = 64 << 10;

/// How calls are traced.
#[derive(Clone, Copy, Debug)]
pub struct Tracing {
    /// Whether spans go anywhere.
    pub is_exported: bool,
    /// Whether the caller's `traceparent` and `langsmith-trace` are followed.
    pub follows_caller: bool,
    /// Whether spans show what was said.
    pub captures_content: bool,
}

/// How a call shows in the tools that watch agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// LangSmith's kind of run: retriever, tool or chain.
    pub run: &'static str,
    /// `gen_ai.operation.name`, where there is a name for it.
    pub operation: Option<&'static str>,
}

/// A call that is being served.
#[derive(Debug)]
pub struct Call {
    method: Arc<str>,
    pub(super) kind: Kind,
    /// What the caller is called.
    name: Option<Arc<str>>,
    /// The run that the caller is in, on LangSmith's own SDK.
    pub(super) caller: Option<Run>,
    captures_content: bool,
    about: Mutex<About>,
    pub(super) pending: Mutex<Pending>,
}

/// What a call turned out to be about.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    pub(super) conversation: Option<ConversationId>,
    pub(super) input: Option<String>,
    pub(super) output: Option<String>,
}

impl Call {
    /// The context to serve a call in: what its caller says of itself, and what
    /// will be known of the call.
    pub fn context(
        headers: &HeaderMap,
        method: Arc<str>,
        kind: Kind,
        tracing: Tracing,
        name: Option<&str>,
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
            name: name.map(Arc::from),
            caller: follows_run.then(|| Run::of_caller(headers)).flatten(),
            captures_content: tracing.is_exported && tracing.captures_content,
            about: Mutex::default(),
            pending: Mutex::default(),
        }))
    }

    pub(super) fn of(context: &Context) -> Option<&Arc<Self>> {
        context.get::<Arc<Self>>()
    }

    pub(super) fn about(&self) -> MutexGuard<'_, About> {
        self.about.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that the current call is about a conversation. The last word counts: a
/// turn can begin on a session's conversation, find it deleted and begin another.
pub fn is_about(conversation: ConversationId) {
    on_current(|call| call.about().conversation = Some(conversation));
}

/// The same, unless another conversation was named.
pub fn is_perhaps_about(conversation: Option<ConversationId>) {
    if let Some(id) = conversation {
        on_current(|call| {
            call.about().conversation.get_or_insert(id);
        });
    }
}

/// Shows what the caller said, if spans are to show it.
pub fn capture_input(text: impl FnOnce() -> String) {
    on_current(|call| {
        if call.captures_content {
            call.about().input = Some(cut(text()));
        }
    });
}

/// Shows what the caller was answered, if spans are to show it.
pub fn capture_output(text: impl FnOnce() -> String) {
    on_current(|call| {
        if call.captures_content {
            call.about().output = Some(cut(text()));
        }
    });
}

/// What a log line says.
pub(super) struct ForLog {
    pub(super) method: Option<Arc<str>>,
    pub(super) span: Option<SpanContext>,
    pub(super) conversation: Option<ConversationId>,
    pub(super) caller: Option<Arc<str>>,
}

/// What a log line says of the call that it is written in.
pub(super) fn for_log() -> ForLog {
    Context::map_current(|cx| {
        let span = cx.span().span_context().clone();
        let call = Call::of(cx);
        ForLog {
            method: call.map(|call| Arc::clone(&call.method)),
            span: span.is_valid().then_some(span),
            conversation: call.and_then(|call| call.about().conversation),
            caller: call.and_then(|call| call.name.clone()),
        }
    })
}

fn on_current(note: impl FnOnce(&Call)) {
    Context::map_current(|cx| {
        if let Some(call) = Call::of(cx) {
            note(call);
        }
    });
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_CONTENT {
        text.truncate(text.floor_char_boundary(MAX_CONTENT));
        text.push('…');
    }
    text
}
