//! TCP proxy whose connections a test closes, silences, holds and delays.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinHandle},
};

/// Treatment of connections and of the bytes on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Forward,
    /// Bytes wait until the mode changes.
    Hold,
    /// Each piece of data is forwarded after this time.
    Delay(Duration),
    /// New connections are closed at once.
    Refuse,
}

/// Open connection of a client, which passes through the proxy.
#[derive(Debug)]
struct Connection {
    silenced: Arc<Silenced>,
    task: AbortHandle,
}

/// Directions of a connection in which bytes are discarded.
#[derive(Debug, Default)]
struct Silenced {
    requests: AtomicBool,
    replies: AtomicBool,
}

/// Direction in which bytes are discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Requests,
    Replies,
    Both,
}

/// Proxy of one server, which ends when the value is dropped.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    connections: Arc<Mutex<Vec<Connection>>>,
    lost: LostResponse,
    listener: JoinHandle<()>,
}

/// Text of the request whose response is lost.
type LostResponse = Arc<Mutex<Option<String>>>;

impl TcpProxy {
    /// Starts a proxy of the server at `target`.
    pub async fn start(target: SocketAddr) -> Self {
        Self::balancing(vec![target]).await
    }

    /// Starts a proxy that leads its connections to each of the servers in turn.
    pub async fn balancing(targets: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, modes) = watch::channel(Mode::Forward);
        let connections = Arc::default();
        let lost = LostResponse::default();
        let listener = tokio::spawn(accept(
            listener,
            targets,
            modes,
            Arc::clone(&connections),
            Arc::clone(&lost),
        ));
        Self {
            address,
            mode,
            connections,
            lost,
            listener,
        }
    }

    /// Address that clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Forwards again. Connections that were closed or silenced stay so.
    pub fn forward(&self) {
        self.mode.send_replace(Mode::Forward);
    }

    /// Holds all bytes back until the next change, and then forwards them.
    pub fn hold(&self) {
        self.mode.send_replace(Mode::Hold);
    }

    /// Delays each piece of data.
    pub fn delay(&self, delay: Duration) {
        self.mode.send_replace(Mode::Delay(delay));
    }

    /// Closes all connections, and each new one at once.
    pub fn refuse(&self) {
        self.mode.send_replace(Mode::Refuse);
        self.close();
    }

    /// Forwards the next request that contains `text`, and closes its connection instead of
    /// forwarding the response.
    pub fn lose_response_to(&self, text: &str) {
        *self.lost.lock().unwrap() = Some(text.to_owned());
    }

    /// Closes all connections of the clients with the server.
    pub fn close(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.task.abort();
        }
    }

    /// Discards all bytes on the present connections from now on, as a network does that drops their
    /// packets. New connections work.
    pub fn silence(&self) {
        self.silence_direction(Direction::Both);
    }

    /// Does the same in one direction only.
    pub fn silence_direction(&self, direction: Direction) {
        for connection in &*self.connections.lock().unwrap() {
            if direction != Direction::Replies {
                connection.silenced.requests.store(true, Ordering::Relaxed);
            }
            if direction != Direction::Requests {
                connection.silenced.replies.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Number of connections that neither side has closed.
    pub fn open_connections(&self) -> usize {
        let mut open = self.connections.lock().unwrap();
        open.retain(|connection| !connection.task.is_finished());
        open.len()
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.listener.abort();
        self.close();
    }
}

async fn accept(
    listener: TcpListener,
    targets: Vec<SocketAddr>,
    modes: watch::Receiver<Mode>,
    connections: Arc<Mutex<Vec<Connection>>>,
    lost: LostResponse,
) {
    let mut targets = targets.into_iter().cycle();
    while let (Ok((client, _)), Some(target)) = (listener.accept().await, targets.next()) {
        let mut open = connections.lock().unwrap();
        // The mode is read under the lock, so that no connection is added after `refuse`.
        if *modes.borrow() == Mode::Refuse {
            continue;
        }
        open.retain(|connection| !connection.task.is_finished());
        let silenced = Arc::<Silenced>::default();
        let task = tokio::spawn(connect(
            client,
            target,
            modes.clone(),
            Arc::clone(&silenced),
            Arc::clone(&lost),
        ));
        open.push(Connection {
            silenced,
            task: task.abort_handle(),
        });
    }
}

async fn connect(
    client: TcpStream,
    target: SocketAddr,
    modes: watch::Receiver<Mode>,
    silenced: Arc<Silenced>,
    lost: LostResponse,
) {
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (requests, replies) = (modes.clone(), modes);
    let is_lost = AtomicBool::new(false);
    let inspect_request = |request: &[u8]| {
        let contains =
            |text: &mut String| request.windows(text.len()).any(|w| w == text.as_bytes());
        let taken = lost.lock().unwrap().take_if(contains);
        is_lost.fetch_or(taken.is_some(), Ordering::Relaxed);
        true
    };
    let inspect_reply = |_: &[u8]| !is_lost.load(Ordering::Relaxed);
    // Either end closes both.
    let _ = futures_util::future::try_join(
        copy(
            from_client,
            to_server,
            requests,
            &silenced.requests,
            inspect_request,
        ),
        copy(
            from_server,
            to_client,
            replies,
            &silenced.replies,
            inspect_reply,
        ),
    )
    .await;
}

/// Copies until an error; the end of the stream is one, and so is data that `is_forwarded` rejects.
async fn copy(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut modes: watch::Receiver<Mode>,
    is_silent: &AtomicBool,
    is_forwarded: impl Fn(&[u8]) -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        if is_silent.load(Ordering::Relaxed) {
            if read == 0 {
                // Not even the end arrives at the other side.
                return std::future::pending().await;
            }
            continue;
        }
        let mode = modes.wait_for(|mode| *mode != Mode::Hold).await;
        let mode = *mode.map_err(io::Error::other)?;
        if let Mode::Delay(delay) = mode {
            tokio::time::sleep(delay).await;
        }
        if read == 0 || !is_forwarded(&buffer[..read]) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all(&buffer[..read]).await?;
    }
}
