//! Bodies of requests and responses that count the bytes of their exchange.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tonic::{Status, body::Body};

use super::exchange::{Exchange, UNCOUNTED_BYTES};
use crate::fairness::Permits;

/// Size of the pieces in which a response is passed to the connection, in bytes. The connection
/// takes the next piece when the peer accepts bytes, so that at most one piece of a response that
/// is not read remains after its end.
const PIECE_BYTES: usize = 32 << 10;

/// Creates the error of a request whose bytes exceed the budget of all requests, in bytes.
pub type RequestRejection = fn(usize) -> Status;

/// Body of a request. It fails if the requests in progress exceed their budget.
#[derive(Debug)]
pub(super) struct ReceivedBody {
    inner: Incoming,
    exchange: Exchange,
    received: usize,
    rejection: RequestRejection,
}

impl ReceivedBody {
    pub(super) fn new(inner: Incoming, exchange: Exchange, rejection: RequestRejection) -> Self {
        Self {
            inner,
            exchange,
            received: 0,
            rejection,
        }
    }

    fn count(&mut self, bytes: usize) -> Result<(), Status> {
        let budgets = self.exchange.budgets();
        self.received = self.received.saturating_add(bytes);
        let counted = self.received.min(budgets.max_request);
        if counted <= UNCOUNTED_BYTES || self.exchange.count_request(counted) {
            return Ok(());
        }
        Err((self.rejection)(budgets.requests.limit()))
    }
}

impl http_body::Body for ReceivedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
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
