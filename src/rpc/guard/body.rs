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

/// What a call holds until its last byte is on its way.
type Held = (OwnedSemaphorePermit, TaskTrackerToken);

/// The body of a call's answer: it ends at the deadline, and a panic in its
/// producer ends it with INTERNAL, never as if it had been complete.
pub(super) struct GuardedBody {
    inner: Body,
    deadline: Pin<Box<Sleep>>,
    held: Option<Held>,
}

impl GuardedBody {
    pub(super) fn new(inner: Body, deadline: Instant, held: Held) -> Self {
        Self {
            inner,
            deadline: Box::pin(tokio::time::sleep_until(deadline)),
            held: Some(held),
        }
    }

    fn end_with(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.held = None;
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
        if self.held.is_none() {
            return Poll::Ready(None);
        }
        let polled = catch_unwind(AssertUnwindSafe(|| {
            Pin::new(&mut self.inner).poll_frame(cx)
        }));
        match polled {
            Err(_) => self.end_with(&status::internal()),
            Ok(Poll::Ready(None)) => {
                self.held = None;
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
        self.held.is_none() || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Nothing is promised: the deadline may cut it short.
        SizeHint::default()
    }
}
