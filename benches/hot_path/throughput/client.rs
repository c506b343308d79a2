//! Client that repeats encoded gRPC calls at little cost, because it shares the processors with
//! the server: several callers use one connection, and responses are not decoded.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, header};
use prost::Message;
use tokio::{net::TcpStream, task::JoinSet};

/// Highest number of connections.
const CONNECTIONS: usize = 4;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 1 << 24;
/// Text in a request that each call replaces by a text of the same length that is used once.
pub(super) const UNIQUE: &str = "--unique-id-of-the-request--";

/// Calls of one method of a server.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    address: SocketAddr,
    method: &'static str,
    /// One request for each caller.
    requests: Arc<[Template]>,
}

/// Encoded request.
#[derive(Clone, Debug)]
struct Template {
    frame: Bytes,
    unique: Option<usize>,
}

/// Calls that were made in a period.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    pub(super) calls: usize,
    /// Calls whose status is not OK; they are not in `calls`.
    pub(super) rejected: usize,
    pub(super) elapsed: Duration,
    /// Durations of the calls. Empty if the client does not report them.
    pub(super) times: Vec<Duration>,
}

impl Sample {
    pub(super) fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.rejected += other.rejected;
        self.elapsed += other.elapsed;
        self.times.extend(other.times);
    }

    pub(super) fn per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a few million calls at most")]
        let calls = self.calls as f64;
        calls / self.elapsed.as_secs_f64()
    }

    /// The times must be sorted.
    pub(super) fn median(&self) -> Option<Duration> {
        self.times.get(self.times.len() / 2).copied()
    }
}

impl Calls {
    /// Creates calls with one request for each caller.
    pub(super) fn new<M: Message>(
        address: SocketAddr,
        method: &'static str,
        requests: impl IntoIterator<Item = M>,
    ) -> Self {
        Self {
            address,
            method,
            requests: requests
                .into_iter()
                .map(|request| Template::new(&request))
                .collect(),
        }
    }

    /// Repeats the call with a number of callers, each of which waits for its response.
    pub(super) async fn run(&self, callers: usize, duration: Duration) -> Sample {
        let connections = callers.min(CONNECTIONS);
        let mut senders = Vec::new();
        let mut drivers = JoinSet::new();
        for _ in 0..connections {
            let tcp = TcpStream::connect(self.address).await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let (sender, connection) = h2::client::Builder::new()
                .initial_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .handshake::<_, Bytes>(tcp)
                .await
                .unwrap();
            drivers.spawn(connection);
            senders.push(sender);
        }
        let start = Instant::now();
        let mut running = JoinSet::new();
        for caller in 0..callers {
            let sender = senders[caller % connections].clone();
            let request = self.requests[caller % self.requests.len()].clone();
            running.spawn(repeat(sender, self.head(), request, start + duration));
        }
        let mut sample = Sample::default();
        for of_caller in running.join_all().await {
            sample.add(of_caller);
        }
        sample.elapsed = start.elapsed();
        sample
    }

    fn head(&self) -> Request<()> {
        Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}{}", self.address, self.method))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(())
            .unwrap()
    }
}

impl Template {
    fn new(request: &impl Message) -> Self {
        let mut frame = BytesMut::new();
        frame.put_u8(0);
        frame.put_u32(u32::try_from(request.encoded_len()).unwrap());
        request.encode(&mut frame).unwrap();
        let mut windows = frame.windows(UNIQUE.len());
        let unique = windows.position(|window| window == UNIQUE.as_bytes());
        Self {
            frame: frame.freeze(),
            unique,
        }
    }

    fn next(&self) -> Bytes {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let Some(start) = self.unique else {
            return self.frame.clone();
        };
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let mut frame = BytesMut::from(&self.frame[..]);
        let id = format!("{number:0width$}", width = UNIQUE.len());
        frame[start..start + id.len()].copy_from_slice(id.as_bytes());
        frame.freeze()
    }
}

async fn repeat(
    sender: SendRequest<Bytes>,
    head: Request<()>,
    request: Template,
    end: Instant,
) -> Sample {
    let mut sample = Sample::default();
    let mut start = Instant::now();
    while start < end {
        let is_ok = call(&sender, head.clone(), request.next()).await.unwrap();
        let now = Instant::now();
        if is_ok {
            sample.calls += 1;
            sample.times.push(now - start);
        } else {
            sample.rejected += 1;
        }
        start = now;
    }
    sample
}

/// Makes a call, and returns whether its status is OK.
async fn call(
    sender: &SendRequest<Bytes>,
    head: Request<()>,
    frame: Bytes,
) -> Result<bool, h2::Error> {
    let (response, mut stream) = sender.clone().ready().await?.send_request(head, false)?;
    stream.send_data(frame, true)?;
    let response = response.await?;
    let status = is_ok(response.headers());
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        let length = data?.len();
        body.flow_control().release_capacity(length)?;
    }
    let trailers = body.trailers().await?;
    Ok(status
        .or(trailers.as_ref().and_then(is_ok))
        .unwrap_or(false))
}

fn is_ok(headers: &HeaderMap) -> Option<bool> {
    headers.get("grpc-status").map(|status| status == "0")
}
