use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
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
    permit: ConnectionPermit,
}

impl Connection {
    pub(super) fn new(stream: impl Stream + 'static, peer: Peer, permit: ConnectionPermit) -> Self {
        Self {
            stream: Box::pin(stream),
            peer,
            first_bytes: Some((Box::pin(sleep(FIRST_BYTES_TIMEOUT)), FIRST_BYTES)),
            permit,
        }
    }

    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    pub(super) fn state(&self) -> &Arc<ConnectionState> {
        &self.permit.state
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
        let before = buf.filled().len();
        let read = self.stream.as_mut().poll_read(cx, buf);
        let Some((deadline, missing)) = &mut self.first_bytes else {
            return read;
        };
        if read.is_pending() {
            let expired = deadline.as_mut().poll(cx);
            return expired.map(|()| Err(io::ErrorKind::TimedOut.into()));
        }
        *missing = missing.saturating_sub(buf.filled().len() - before);
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
