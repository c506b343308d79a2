use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body};
use tracing::Span;

use super::ending::Ending;

/// The body of a call's answer. What produces it works in the call's span, which
/// lasts until the last message.
pub(super) struct ObservedBody {
    inner: Body,
    ending: Ending,
    span: Span,
    context: opentelemetry::Context,
}

impl ObservedBody {
    pub(super) fn new(
        inner: Body,
        ending: Ending,
        span: Span,
        context: opentelemetry::Context,
    ) -> Self {
        Self {
            inner,
            ending,
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
                    this.ending.saw(trailers);
                }
            }
            Some(Err(status)) => this.ending.with(status.code(), status.message()),
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
