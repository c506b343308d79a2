//! Bodies of requests and responses that count the bytes of their exchange.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body};

use super::exchange::{Exchange, UNCOUNTED_BYTES};
use crate::{fairness::Permits, patience::running_time};

/// Size of the pieces in which a response is passed to the connection, in bytes. The connection
/// takes the next piece when the peer accepts bytes, so that at most one piece of a response that
/// is not read remains after its end.
const PIECE_BYTES: usize = 32 << 10;

/// Time in which the next bytes of a request must arrive while the server waits for them.
const MAX_REQUEST_STALL: Duration = Duration::from_secs(10);

/// Reason for which a request is not received completely.
#[derive(Clone, Copy, Debug)]
pub enum RequestFailure {
    /// The bytes of all requests exceed their budget.
    TooManyBytes {
        /// Number of bytes that the budget permits.
        max: usize,
    },
    /// No further bytes have arrived in time.
    Stalled {
        /// Time for which none have arrived.
        limit: Duration,
    },
    /// Other requests needed what this one held before it was complete.
    Displaced,
}

/// Creates the error of a request that is not received completely.
pub type RequestRejection = fn(RequestFailure) -> Status;

/// Body of a request. It fails if the requests in progress exceed their budget, or if its peer does
/// not send it.
pub(super) struct ReceivedBody<B> {
    inner: B,
    exchange: Exchange,
    received: usize,
    /// Time at which the wait for the next bytes ends.
    wait: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    rejection: RequestRejection,
}

impl<B> ReceivedBody<B> {
    pub(super) fn new(inner: B, exchange: Exchange, rejection: RequestRejection) -> Self {
        Self {
            inner,
            exchange,
            received: 0,
            wait: None,
            rejection,
        }
    }

    /// Waits for the next bytes. It ends with the reason for which the request fails.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<RequestFailure> {
        if self.exchange.is_displaced() {
            return Poll::Ready(RequestFailure::Displaced);
        }
        self.exchange.begin_wait(cx.waker());
        let limit = MAX_REQUEST_STALL;
        let wait = self
            .wait
            .get_or_insert_with(|| Box::pin(running_time(limit)));
        let expired = wait.as_mut().poll(cx);
        expired.map(|()| RequestFailure::Stalled { limit })
    }

    fn end_wait(&mut self) {
        if self.wait.take().is_some() {
            self.exchange.end_wait();
        }
    }

    fn count(&mut self, bytes: usize) -> Result<(), Status> {
        let budgets = self.exchange.budgets();
        self.received = self.received.saturating_add(bytes);
        let counted = self.received.min(budgets.max_request);
        if counted <= UNCOUNTED_BYTES || self.exchange.count_request(counted) {
            return Ok(());
        }
        let max = budgets.requests.limit();
        Err((self.rejection)(RequestFailure::TooManyBytes { max }))
    }
}

impl<B> http_body::Body for ReceivedBody<B>
where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Poll::Ready(received) = Pin::new(&mut self.inner).poll_frame(cx) else {
            let failed = self.poll_wait(cx);
            return failed.map(|failure| Some(Err((self.rejection)(failure))));
        };
        self.end_wait();
        if self.exchange.is_displaced() {
            let failure = RequestFailure::Displaced;
            return Poll::Ready(Some(Err((self.rejection)(failure))));
        }
        let frame = match received {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
            Some(Ok(frame)) => frame,
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        Poll::Ready(Some(self.count(bytes).map(|()| frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> Drop for ReceivedBody<B> {
    fn drop(&mut self) {
        self.end_wait();
    }
}

/// Body of a response, which is passed on in pieces. Its exchange lasts until the last of them
/// has been accepted.
#[derive(Debug)]
pub(super) struct DeliveredBody {
    inner: Body,
    exchange: Exchange,
    /// Data that has been produced and not been passed on.
    rest: Bytes,
    /// Number of bytes that were counted before the response began.
    reserved: usize,
}

impl DeliveredBody {
    pub(super) fn new(inner: Body, exchange: Exchange) -> Self {
        Self {
            reserved: exchange.reserved_response(),
            inner,
            exchange,
            rest: Bytes::new(),
        }
    }

    fn next_piece(&mut self) -> Frame<Bytes> {
        let piece = self.rest.split_to(self.rest.len().min(PIECE_BYTES));
        let uncounted = piece.len().saturating_sub(self.reserved);
        self.reserved = self.reserved.saturating_sub(piece.len());
        let counted = (uncounted > UNCOUNTED_BYTES).then(|| self.exchange.count_piece(uncounted));
        self.exchange.connection().add_piece();
        Frame::data(Bytes::from_owner(Piece {
            bytes: piece,
            exchange: self.exchange.clone(),
            _counted: counted,
        }))
    }
}

impl http_body::Body for DeliveredBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            }
        }
        Poll::Ready(Some(Ok(self.next_piece())))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.inner.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

/// Data that has been passed to the connection, until the connection has sent it or is closed.
#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    exchange: Exchange,
    _counted: Option<Permits>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.exchange.connection().remove_piece();
    }
}

#[cfg(test)]
mod tests;
