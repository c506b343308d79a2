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
    connection_state::SocketKind,
    open_connections::{ConnectionPermit, OpenConnections, RefusalReason},
    tls::Tls,
    unix::{self, SocketFile},
};
use crate::{
    access::{CallerName, Peer, TcpPeer},
    log_throttle::LogThrottle,
    os_error,
};

/// Delay before the next attempt after a failed accept. When the process has no file
/// descriptors left, accepting fails at once, and repeating it without a delay would use a
/// whole core.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(75);

/// Idle time after which TCP keepalive probes a peer.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// A bound listener. Dropping the listener of a Unix socket removes the socket's file.
#[derive(Debug)]
pub struct Listener(BoundSocket);

#[derive(Debug)]
enum BoundSocket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile, Address),
}

/// The socket of a new connection.
enum AcceptedSocket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AcceptedSocket {
    fn kind(&self) -> SocketKind {
        match self {
            Self::Tcp(_) => SocketKind::Tcp,
            Self::Unix(_) => SocketKind::Unix,
        }
    }
}

impl Listener {
    /// Binds a listener. A Unix socket gets the mode 0660 and replaces a socket at its path
    /// at which no process listens.
    ///
    /// # Errors
    /// Fails if the address cannot be bound, or the path of a Unix socket has a socket that is in
    /// use or a file that is not a socket.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        let socket = match address {
            Address::Tcp(address) => BoundSocket::Tcp(TcpListener::bind(address).await?),
            Address::Unix(path) => {
                let (listener, file) = unix::bind(path)?;
                BoundSocket::Unix(listener, file, address.clone())
            }
        };
        Ok(Self(socket))
    }

    /// Returns the bound address, in which port 0 is replaced by the port that the operating
    /// system selected.
    ///
    /// # Errors
    /// Fails if the operating system does not return the address of the socket.
    pub fn address(&self) -> io::Result<Address> {
        match &self.0 {
            BoundSocket::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            BoundSocket::Unix(_, _, address) => Ok(address.clone()),
        }
    }

    fn into_stream(self) -> BoxStream<'static, io::Result<AcceptedSocket>> {
        match self.0 {
            BoundSocket::Tcp(listener) => TcpIncoming::from(listener)
                .with_nodelay(Some(true))
                .with_keepalive(Some(KEEPALIVE))
                .map(|accepted| accepted.map(AcceptedSocket::Tcp))
                .boxed(),
            BoundSocket::Unix(listener, file, _) => UnixListenerStream::new(listener)
                .map(move |accepted| {
                    // The file exists as long as the stream.
                    let _ = &file;
                    accepted.map(AcceptedSocket::Unix)
                })
                .boxed(),
        }
    }
}

/// Accepts connections within the limit, over TCP with `tls` if it is set. A handshake does
/// not delay other connections. The stream never ends.
pub fn incoming(
    listeners: Vec<Listener>,
    tls: Option<Tls>,
    connections: OpenConnections,
) -> impl Stream<Item = Connection> + Send {
    let max = connections.max();
    stream::select_all(listeners.into_iter().map(Listener::into_stream))
        .then(async |accepted| {
            if let Err(error) = &accepted {
                log_accept_error(error);
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
            accepted.ok()
        })
        .filter_map(move |accepted| {
            let admitted = accepted.and_then(|socket| {
                let permit = connections.try_acquire(socket.kind())?;
                Some(open(socket, permit, tls.clone(), connections.clone()))
            });
            ready(admitted)
        })
        // One more than the maximum number of handshakes, so that a connection without a
        // handshake is opened at once.
        .buffer_unordered(max + 1)
        .filter_map(ready)
}

fn log_accept_error(error: &io::Error) {
    static LOG: LogThrottle = LogThrottle::new();
    let error = os_error::describe(error);
    if let Some(suppressed) = LOG.admit(&error) {
        let suppressed = suppressed.count();
        tracing::warn!(error, suppressed, "cannot accept connections");
    }
}

async fn open(
    socket: AcceptedSocket,
    permit: ConnectionPermit,
    tls: Option<Tls>,
    connections: OpenConnections,
) -> Option<Connection> {
    match (socket, tls) {
        (AcceptedSocket::Unix(stream), _) => {
            let peer = Peer::from_credentials(stream.peer_cred().ok());
            Some(Connection::new(stream, peer, permit))
        }
        (AcceptedSocket::Tcp(stream), None) => {
            let peer = tcp_peer(None, is_on_loopback(&stream));
            Some(Connection::new(stream, peer, permit))
        }
        (AcceptedSocket::Tcp(stream), Some(tls)) => {
            let is_on_loopback = is_on_loopback(&stream);
            let accepted = tokio::select! {
                accepted = tls.accept(stream) => accepted,
                () = permit.state.closed.cancelled() => return None,
            };
            match accepted {
                Ok((stream, name)) => {
                    let peer = tcp_peer(name, is_on_loopback);
                    Some(Connection::new(stream, peer, permit))
                }
                Err(error) => {
                    // At a level that is logged by default, a port scan would fill the log.
                    tracing::debug!(%error, "TLS handshake failed");
                    connections.count_refused(RefusalReason::Handshake);
                    None
                }
            }
        }
    }
}

fn tcp_peer(name: Option<CallerName>, is_on_loopback: bool) -> Peer {
    Peer::Tcp(TcpPeer {
        name,
        is_on_loopback,
    })
}

/// Whether a connection was accepted at a loopback address. If the operating system does not
/// report the address, the stricter rules for loopback apply.
fn is_on_loopback(stream: &TcpStream) -> bool {
    let local = stream.local_addr();
    local.map_or(true, |local| local.ip().to_canonical().is_loopback())
}
