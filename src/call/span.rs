use std::{borrow::Cow, future::Future, sync::Arc, time::SystemTime};

use futures_util::future::Either;
use opentelemetry::{
    KeyValue, Value,
    trace::{SpanId, SpanKind, Status},
};

use super::{CURRENT, Call, Scope, now};

/// A span in progress. It ends when it is dropped. If the call is not traced, or there is no call,
/// it is empty and costs next to nothing.
#[derive(Debug, Default)]
pub struct Span(Option<Box<OpenSpan>>);

#[derive(Debug)]
struct OpenSpan {
    call: Arc<Call>,
    record: SpanRecord,
}

/// A span as it is exported.
#[derive(Debug)]
pub struct SpanRecord {
    /// Id of the span.
    pub id: SpanId,
    /// Id of the parent; invalid for the first span of a trace.
    pub parent: SpanId,
    /// Whether it is the span of the call.
    pub is_root: bool,
    /// Name of the span.
    pub name: Cow<'static, str>,
    /// Kind of the span.
    pub kind: SpanKind,
    /// When the span began.
    pub start: SystemTime,
    /// When the span ended.
    pub end: SystemTime,
    /// Attributes of the span alone. Those of all spans of the call are added when it is exported.
    pub attributes: Vec<KeyValue>,
    /// Status of the span.
    pub status: Status,
}

impl Span {
    /// Starts a span below the current one, if the current work belongs to a call that is traced.
    /// Only then, `describe` is called, which returns the name and the attributes.
    pub fn start<N: Into<Cow<'static, str>>>(
        kind: SpanKind,
        describe: impl FnOnce() -> (N, Vec<KeyValue>),
    ) -> Self {
        let started = CURRENT.try_with(|Scope { call, span: parent }| {
            let spans = call.spans.as_ref()?;
            let (name, attributes) = describe();
            let (id, start) = spans.begin(call, *parent);
            Some(Self::open(
                call,
                SpanRecord {
                    id,
                    parent: *parent,
                    is_root: false,
                    name: name.into(),
                    kind,
                    start,
                    end: start,
                    attributes,
                    status: Status::Unset,
                },
            ))
        });
        started.ok().flatten().unwrap_or_default()
    }

    /// Starts the span of a use case below the current span.
    pub fn of_use_case(name: &'static str) -> Self {
        Self::start(SpanKind::Internal, || (name, Vec::new()))
    }

    /// Starts the span of a call.
    pub(super) fn of_call(scope: &Scope, attributes: Vec<KeyValue>) -> Self {
        let Scope { call, span: id } = scope;
        let Some(spans) = &call.spans else {
            return Self::default();
        };
        let start = spans.begin_call(call, *id);
        Self::open(
            call,
            SpanRecord {
                id: *id,
                parent: spans.parent(),
                is_root: true,
                name: call.method.into(),
                kind: SpanKind::Server,
                start,
                end: start,
                attributes,
                status: Status::Unset,
            },
        )
    }

    fn open(call: &Arc<Call>, record: SpanRecord) -> Self {
        Self(Some(Box::new(OpenSpan {
            call: Arc::clone(call),
            record,
        })))
    }

    /// Adds an attribute.
    pub fn set_attribute(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.0 {
            span.record.attributes.push(KeyValue::new(key, value));
        }
    }

    /// Sets the status to an error with a description. `describe` is called only if the span is
    /// exported.
    pub fn set_error<D: Into<Cow<'static, str>>>(&mut self, describe: impl FnOnce() -> D) {
        if let Some(span) = &mut self.0 {
            span.record.status = Status::error(describe());
        }
    }

    /// Scope of the work in the span: that of the current work if the span is empty.
    pub fn scope(&self) -> Option<Scope> {
        match &self.0 {
            Some(span) => Some(Scope {
                call: Arc::clone(&span.call),
                span: span.record.id,
            }),
            None => Scope::current(),
        }
    }

    /// Runs `work` in the span.
    pub fn run<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        match &self.0 {
            Some(span) => Either::Left(CURRENT.scope(
                Scope {
                    call: Arc::clone(&span.call),
                    span: span.record.id,
                },
                work,
            )),
            None => Either::Right(work),
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(span) = self.0.take() {
            let OpenSpan { call, mut record } = *span;
            record.end = now();
            call.end_span(record);
        }
    }
}
