use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{connection_state::ConnectionState, open_connections::ConnectionPermit};
use crate::access::Peer;

/// Time in which a peer must send its first bytes. Otherwise a peer that sends none could keep
/// its permit forever, even without credentials.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(10);

/// Number of first bytes: fewer than the shortest request has.
const FIRST_BYTES: usize = 16;

/// Number of bytes that a connection reads before others have their turn, so that frames that begin
/// no call delay others little.
const BYTES_PER_TURN: usize = 8 << 10;

/// The same before a call of the connection has been accepted, and after a turn in which more than
/// [`CALLS_PER_TURN`] calls began, or none although no request was incomplete. Calls that clients make to
/// get a response are larger than the former.
const BYTES_PER_SHORT_TURN: usize = 1 << 10;
const CALLS_PER_TURN: usize = 64;

/// A stream of bytes in both directions.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// An open connection. Every request on it has the connection's [`Peer`] as an extension.
pub struct Connection {
    stream: Pin<Box<dyn Stream>>,
    peer: Peer,
    /// Deadline of the first bytes, and how many of them are missing. `None` once they have
    /// arrived.
    first_bytes: Option<(Pin<Box<Sleep>>, usize)>,
    /// Number of bytes that may be read in this turn, and how many of them have not been read.
    bytes_of_turn: usize,
    bytes_left: usize,
    /// Number of calls that had begun before this turn.
    calls_before_turn: usize,
    /// End of a time in which nothing is read.
    delay: Option<Pin<Box<Sleep>>>,
    permit: ConnectionPermit,
}

impl Connection {
    pub(super) fn new(stream: impl Stream + 'static, peer: Peer, permit: ConnectionPermit) -> Self {
        Self {
            stream: Box::pin(stream),
            peer,
            first_bytes: Some((Box::pin(sleep(FIRST_BYTES_TIMEOUT)), FIRST_BYTES)),
            bytes_of_turn: BYTES_PER_SHORT_TURN,
            bytes_left: BYTES_PER_SHORT_TURN,
            calls_before_turn: 0,
            delay: None,
            permit,
        }
    }

    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    pub(super) fn state(&self) -> &Arc<ConnectionState> {
        &self.permit.state
    }

    /// Whether other tasks run before the connection reads more: those of its requests, too.
    fn ends_turn(&mut self) -> bool {
        let state = &self.permit.state;
        let unstarted = &state.unstarted;
        if self.bytes_left > 0 && !unstarted.is_limit_reached() {
            return false;
        }
        let begun = unstarted.begun();
        let calls = begun.wrapping_sub(self.calls_before_turn);
        if calls == 0 && !state.has_exchanges() {
            let bytes = self.bytes_of_turn - self.bytes_left;
            state.overhead.add_frames(bytes);
        }
        let is_short = match calls {
            0 => !state.awaits_requests(),
            _ => calls > CALLS_PER_TURN,
        };
        self.bytes_of_turn = if is_short || !state.is_trusted() {
            BYTES_PER_SHORT_TURN
        } else {
            BYTES_PER_TURN
        };
        self.bytes_left = self.bytes_of_turn;
        self.calls_before_turn = begun;
        true
    }

    /// Waits while the connection must not be read, because of work without a response.
    fn poll_delay(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(delay) = &mut self.delay {
                ready!(delay.as_mut().poll(cx));
            }
            self.delay = self
                .permit
                .state
                .overhead
                .take_delay()
                .map(|it| Box::pin(sleep(it)));
            if self.delay.is_none() {
                return Poll::Ready(());
            }
        }
    }

    /// Records whether the socket accepts bytes.
    fn observe_write<T>(&self, written: Poll<T>) -> Poll<T> {
        self.permit.state.set_blocked(written.is_pending());
        written
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_delay(cx));
        if self.ends_turn() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = if self.bytes_of_turn <= BYTES_PER_SHORT_TURN {
            let length = self.bytes_left.min(buf.remaining());
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(length));
            let read = self.stream.as_mut().poll_read(cx, &mut part);
            let received = part.filled().len();
            buf.advance(received);
            read
        } else {
            self.stream.as_mut().poll_read(cx, buf)
        };
        let received = buf.filled().len() - before;
        self.bytes_left = self.bytes_left.saturating_sub(received);
        let Some((deadline, missing)) = &mut self.first_bytes else {
            return read;
        };
        if read.is_pending() {
            let expired = deadline.as_mut().poll(cx);
            return expired.map(|()| Err(io::ErrorKind::TimedOut.into()));
        }
        *missing = missing.saturating_sub(received);
        if *missing == 0 {
            self.first_bytes = None;
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream.as_mut().poll_write(cx, buf);
        self.observe_write(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream.as_mut().poll_flush(cx);
        self.observe_write(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream.as_mut().poll_write_vectored(cx, bufs);
        self.observe_write(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
