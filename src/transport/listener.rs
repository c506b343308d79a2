use std::{future::ready, io, time::Duration};

use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream, Stream},
};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::TcpIncoming;

use super::{
    address::Address,
    connection::Connection,
    limit::{Connections, Over, Place, Reason},
    tls::Tls,
    unix::{self, SocketFile},
};
use crate::access::Peer;

/// How long to wait before accepting again when accepting failed. Out of file
/// descriptors it fails at once, and would take a whole core doing so.
const ACCEPT_PAUSE: Duration = Duration::from_millis(75);

/// After how long a silent TCP peer is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// A place that callers connect to. A Unix socket's file goes with it.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile, Address),
}

/// A connection that has just been made.
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn over(&self) -> Over {
        match self {
            Self::Tcp(_) => Over::Port,
            Self::Unix(_) => Over::Socket,
        }
    }
}

impl Listener {
    /// Listens at an address. A Unix socket has mode 0660 and takes the place of one that
    /// nobody listens at; a path with anything else, or with a socket that is in use, is
    /// an error.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        let kind = match address {
            Address::Tcp(address) => Kind::Tcp(TcpListener::bind(address).await?),
            Address::Unix(path) => {
                let (listener, file) = unix::bind(path)?;
                Kind::Unix(listener, file, address.clone())
            }
        };
        Ok(Self(kind))
    }

    /// Where it listens, with the port that it got.
    pub fn address(&self) -> io::Result<Address> {
        match &self.0 {
            Kind::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Kind::Unix(_, _, address) => Ok(address.clone()),
        }
    }

    fn into_stream(self) -> BoxStream<'static, io::Result<Socket>> {
        match self.0 {
            Kind::Tcp(listener) => TcpIncoming::from(listener)
                .with_nodelay(Some(true))
                .with_keepalive(Some(KEEPALIVE))
                .map(|accepted| accepted.map(Socket::Tcp))
                .boxed(),
            Kind::Unix(listener, file, _) => UnixListenerStream::new(listener)
                .map(move |accepted| {
                    // Kept for as long as it is listened at.
                    let _ = &file;
                    accepted.map(Socket::Unix)
                })
                .boxed(),
        }
    }
}

/// The connections that are made to listeners, within the limit; over TCP with `tls`, if
/// there is any. A handshake holds up nobody else's. Never ends.
pub fn incoming(
    listeners: Vec<Listener>,
    tls: Option<Tls>,
    connections: Connections,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    let max = connections.max();
    stream::select_all(listeners.into_iter().map(Listener::into_stream))
        .then(async |accepted| {
            if let Err(error) = &accepted {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            accepted.ok()
        })
        .filter_map(move |accepted| {
            let placed = accepted.and_then(|socket| {
                let place = connections.take_place(socket.over())?;
                Some(open(socket, place, tls.clone(), connections.clone()))
            });
            ready(placed)
        })
        // One more than there are handshakes: whatever needs none is done at once.
        .buffer_unordered(max + 1)
        .filter_map(|opened| ready(opened.map(Ok)))
}

async fn open(
    socket: Socket,
    place: Place,
    tls: Option<Tls>,
    connections: Connections,
) -> Option<Connection> {
    match (socket, tls) {
        (Socket::Unix(stream), _) => {
            let peer = Peer::of_process(stream.peer_cred().ok());
            Some(Connection::new(stream, peer, place))
        }
        (Socket::Tcp(stream), None) => Some(Connection::new(stream, Peer::Tcp(None), place)),
        (Socket::Tcp(stream), Some(tls)) => match tls.accept(stream).await {
            Ok((stream, name)) => Some(Connection::new(stream, Peer::Tcp(name), place)),
            Err(error) => {
                // Whoever scans ports would fill a log that is written by default.
                tracing::debug!(%error, "a handshake failed");
                connections.refuse(Reason::Handshake);
                None
            }
        },
    }
}
