use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body};
use tracing::Span;

use super::call_outcome::CallOutcome;

/// Body of a response. Its producer is polled in the span of the call, which lasts until the
/// last message.
pub(super) struct ObservedBody {
    inner: Body,
    outcome: CallOutcome,
    span: Span,
    context: opentelemetry::Context,
}

impl ObservedBody {
    pub(super) fn new(
        inner: Body,
        outcome: CallOutcome,
        span: Span,
        context: opentelemetry::Context,
    ) -> Self {
        Self {
            inner,
            outcome,
            span,
            context,
        }
    }
}

impl http_body::Body for ObservedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let _context = this.context.clone().attach();
        let _entered = this.span.enter();
        let frame = std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.outcome.record_headers(trailers);
                }
            }
            Some(Err(status)) => this.outcome.record(status.code(), status.message()),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
