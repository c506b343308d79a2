use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use tonic::transport::server::Connected;

use super::limit::Place;
use crate::access::Peer;

/// How long a peer may take for its first bytes: one that says nothing would keep its
/// place for ever, and needs to prove nothing for that.
const SILENCE: Duration = Duration::from_secs(10);

/// How many bytes the beginning of the shortest request has.
const BEGINNING: usize = 16;

/// Bytes both ways, over whatever they go.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// An open connection. Every request on it has its [`Peer`] as an extension.
pub struct Connection {
    stream: Pin<Box<dyn Stream>>,
    peer: Peer,
    /// Ends a connection whose beginning does not come; how much of it is missing.
    silence: Option<(Pin<Box<Sleep>>, usize)>,
    _place: Place,
}

impl Connection {
    pub(super) fn new(stream: impl Stream + 'static, peer: Peer, place: Place) -> Self {
        Self {
            stream: Box::pin(stream),
            peer,
            silence: Some((Box::pin(sleep(SILENCE)), BEGINNING)),
            _place: place,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
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
        let Some((silence, missing)) = &mut self.silence else {
            return read;
        };
        if read.is_pending() {
            let ended = silence.as_mut().poll(cx);
            return ended.map(|()| Err(io::ErrorKind::TimedOut.into()));
        }
        *missing = missing.saturating_sub(buf.filled().len() - before);
        if *missing == 0 {
            self.silence = None;
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
        self.stream.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
