use std::{
    any::Any,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::{Status, body::Body};

use crate::rpc::status;

/// What a call holds until the last byte of the response: its permit, and the token by which a
/// shutdown waits for it.
pub(super) type CallPermit = Arc<dyn Any + Send + Sync>;

/// Body of a response. It ends at the call's deadline with `DEADLINE_EXCEEDED`, and a panic in
/// its producer ends it with `INTERNAL`, so that a client never treats it as complete.
pub(super) struct GuardedBody {
    inner: Body,
    /// The first frame, if it has been produced already.
    first: Option<Frame<Bytes>>,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Creates the status at the deadline.
    expired: fn() -> Status,
    /// `None` once the body has ended.
    permit: Option<CallPermit>,
}

impl GuardedBody {
    /// Creates a body that ends at `deadline`, if there is one, with the status of `expired`.
    pub(super) fn new(
        inner: Body,
        deadline: Option<Instant>,
        permit: CallPermit,
        expired: fn() -> Status,
    ) -> Self {
        Self {
            inner,
            first: None,
            deadline: deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline))),
            expired,
            permit: Some(permit),
        }
    }

    /// Produces the first frame, which is the only message of a response that is not a stream, and
    /// returns its number of bytes.
    pub(super) fn prefetch(&mut self) -> usize {
        let frame = poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).now_or_never();
        if let Some(Some(Ok(frame))) = frame {
            self.first = Some(frame);
        }
        let data = self.first.as_ref().and_then(Frame::data_ref);
        data.map_or(0, Bytes::len)
    }

    fn end_with(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.permit = None;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(
            status
                .add_header(&mut trailers)
                .map(|()| Frame::trailers(trailers)),
        ))
    }
}

impl http_body::Body for GuardedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if self.permit.is_none() {
            return Poll::Ready(None);
        }
        let polled = catch_unwind(AssertUnwindSafe(|| {
            Pin::new(&mut self.inner).poll_frame(cx)
        }));
        match polled {
            Err(_) => self.end_with(&status::internal()),
            Ok(Poll::Ready(None)) => {
                self.permit = None;
                Poll::Ready(None)
            }
            Ok(Poll::Ready(frame)) => Poll::Ready(frame),
            Ok(Poll::Pending) => {
                let deadline = self.deadline.as_mut();
                if deadline.is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
                    let expired = (self.expired)();
                    return self.end_with(&expired);
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && (self.permit.is_none() || self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        // Unknown, since the deadline can end the body early.
        SizeHint::default()
    }
}
