use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep},
};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::{Status, body::Body};

use crate::rpc::status;

/// Permit and tracker token of a call, which are released with the last byte of the response.
type CallPermit = (OwnedSemaphorePermit, TaskTrackerToken);

/// Body of a response. It ends at the call's deadline with `DEADLINE_EXCEEDED`, and a panic in
/// its producer ends it with `INTERNAL`, so that a client never treats it as complete.
pub(super) struct GuardedBody {
    inner: Body,
    deadline: Pin<Box<Sleep>>,
    /// `None` once the body has ended.
    permit: Option<CallPermit>,
}

impl GuardedBody {
    pub(super) fn new(inner: Body, deadline: Instant, permit: CallPermit) -> Self {
        Self {
            inner,
            deadline: Box::pin(tokio::time::sleep_until(deadline)),
            permit: Some(permit),
        }
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
            Ok(Poll::Pending) if self.deadline.as_mut().poll(cx).is_ready() => {
                self.end_with(&status::deadline_exceeded())
            }
            Ok(Poll::Pending) => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.permit.is_none() || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Unknown, since the deadline can end the body early.
        SizeHint::default()
    }
}
