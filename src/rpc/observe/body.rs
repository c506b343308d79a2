use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body};

use super::call_outcome::CallOutcome;

/// Body of a response. Its producer is polled in the scope of the call, whose span lasts until the
/// last message.
pub(super) struct ObservedBody {
    inner: Body,
    outcome: CallOutcome,
}

impl ObservedBody {
    pub(super) fn new(inner: Body, outcome: CallOutcome) -> Self {
        Self { inner, outcome }
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
        let scope = this.outcome.scope();
        let polled = scope.run_sync(|| Pin::new(&mut this.inner).poll_frame(cx));
        let frame = std::task::ready!(polled);
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
