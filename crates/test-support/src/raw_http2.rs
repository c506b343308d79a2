//! HTTP/2 connections whose frames a test writes itself.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{BufMut as _, BytesMut};
use prost::Message;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

use crate::{eventually, within_progress};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

const INITIAL_WINDOW_SIZE: u16 = 4;

/// Flow-control window of the streams that the peer announces.
pub const NO_WINDOW: u32 = 0;
pub const LARGE_WINDOW: u32 = (1 << 31) - 1;

/// Connection over HTTP/2 whose frames a test writes itself, as no library would.
pub struct RawConnection {
    frames: UnboundedSender<BytesMut>,
    reader: Option<OwnedReadHalf>,
    next_stream: u32,
    state: Arc<State>,
}

/// What the reader of a connection has seen.
#[derive(Default)]
struct State {
    /// Number of streams that the server has ended.
    ended: AtomicUsize,
    is_closed: AtomicBool,
}

impl RawConnection {
    /// Connects, and announces a window for each stream.
    pub async fn open(address: SocketAddr, stream_window: u32) -> Self {
        // A server with many connections may refuse one for a while.
        let (reader, writer) = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream.into_split(),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        let (frames, queue) = unbounded_channel();
        let state = Arc::new(State::default());
        tokio::spawn(write(writer, queue, Arc::clone(&state)));
        let connection = Self {
            frames,
            reader: Some(reader),
            next_stream: 1,
            state,
        };
        let _ = connection.frames.send(preface(stream_window));
        connection
    }

    /// Reads what the server sends from now on, and answers its pings.
    #[must_use]
    pub fn read(mut self) -> Self {
        let reader = self.reader.take().unwrap();
        tokio::spawn(read(reader, self.frames.clone(), Arc::clone(&self.state)));
        self
    }

    /// Queues a frame. A connection that the server has closed ignores it.
    pub fn frame(&self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let _ = self.frames.send(encode(kind, flags, stream, payload));
    }

    /// Begins a gRPC call and returns its stream.
    pub fn begin_call(&mut self, path: &str, token: Option<&str>) -> u32 {
        let block = request_head(path, token);
        let stream = self.next_stream;
        self.next_stream += 2;
        self.frame(HEADERS, END_HEADERS, stream, &block);
        stream
    }

    /// Makes a gRPC call with one complete request.
    pub fn call(&mut self, path: &str, token: Option<&str>, request: &impl Message) -> u32 {
        let stream = self.begin_call(path, token);
        self.frame(
            DATA,
            END_STREAM,
            stream,
            &grpc_message(&request.encode_to_vec()),
        );
        stream
    }

    pub fn ended(&self) -> usize {
        self.state.ended.load(Ordering::Relaxed)
    }

    pub fn is_closed(&self) -> bool {
        self.state.is_closed.load(Ordering::Relaxed)
    }

    /// Waits until the server has ended a number of streams, or closed the connection.
    pub async fn ends(&self, streams: usize) {
        let ended = async || (self.is_closed(), self.ended());
        within_progress("the server ends the calls", ended, |(is_closed, ended)| {
            *is_closed || *ended >= streams
        })
        .await;
    }

    /// Waits until the server has closed the connection.
    pub async fn closes(&self) {
        eventually("the server closes the connection", async || {
            // Writing reveals a closed connection that nothing is read from.
            self.frame(PING, 0, 0, &[0; 8]);
            self.is_closed()
        })
        .await;
    }
}

pub fn grpc_message(message: &[u8]) -> BytesMut {
    let length = u32::try_from(message.len()).unwrap();
    let mut framed = announced(length);
    framed.put_slice(message);
    framed
}

/// The prefix of a gRPC message of this length.
pub fn announced(length: u32) -> BytesMut {
    let mut prefix = BytesMut::new();
    prefix.put_u8(0);
    prefix.put_u32(length);
    prefix
}

/// The first bytes of a connection, with a window for each stream.
pub fn preface(stream_window: u32) -> BytesMut {
    let mut preface = BytesMut::from(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..]);
    let mut settings = BytesMut::new();
    settings.put_u16(INITIAL_WINDOW_SIZE);
    settings.put_u32(stream_window);
    preface.put_slice(&encode(SETTINGS, 0, 0, &settings));
    preface
}

/// The compressed headers of a gRPC call.
pub fn request_head(path: &str, token: Option<&str>) -> BytesMut {
    let mut block = BytesMut::new();
    // Indexed fields of HPACK's static table: POST and http.
    block.put_slice(&[0x83, 0x86]);
    literal(&mut block, &[0x04], path);
    literal(&mut block, &[0x01], "localhost");
    literal(&mut block, &[0x0f, 0x10], "application/grpc");
    literal(&mut block, b"\0\x02te", "trailers");
    if let Some(token) = token {
        literal(&mut block, &[0x0f, 0x08], &format!("Bearer {token}"));
    }
    block
}

/// Returns a frame of HTTP/2 as it is sent on a connection.
pub fn encode(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> BytesMut {
    let mut frame = BytesMut::with_capacity(9 + payload.len());
    frame.put_uint(payload.len() as u64, 3);
    frame.put_u8(kind);
    frame.put_u8(flags);
    frame.put_u32(stream);
    frame.put_slice(payload);
    frame
}

fn literal(block: &mut BytesMut, name: &[u8], value: &str) {
    block.put_slice(name);
    block.put_u8(u8::try_from(value.len()).unwrap());
    block.put_slice(value.as_bytes());
}

async fn write(
    mut writer: OwnedWriteHalf,
    mut queue: UnboundedReceiver<BytesMut>,
    state: Arc<State>,
) {
    while let Some(frame) = queue.recv().await {
        if writer.write_all(&frame).await.is_err() {
            state.is_closed.store(true, Ordering::Relaxed);
            return;
        }
    }
}

async fn read(mut reader: OwnedReadHalf, replies: UnboundedSender<BytesMut>, state: Arc<State>) {
    let mut header = [0; 9];
    while reader.read_exact(&mut header).await.is_ok() {
        let length =
            usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        let mut payload = vec![0; length];
        if reader.read_exact(&mut payload).await.is_err() {
            break;
        }
        let (kind, flags) = (header[3], header[4]);
        let reply = match kind {
            SETTINGS if flags & ACK == 0 => Some(encode(SETTINGS, ACK, 0, &[])),
            PING if flags & ACK == 0 => Some(encode(PING, ACK, 0, &payload)),
            _ => None,
        };
        if reply.is_some_and(|reply| replies.send(reply).is_err()) {
            break;
        }
        let ends = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
        if ends || kind == RST_STREAM {
            state.ended.fetch_add(1, Ordering::Relaxed);
        }
        if kind == GOAWAY {
            break;
        }
    }
    state.is_closed.store(true, Ordering::Relaxed);
}
