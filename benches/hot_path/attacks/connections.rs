//! Attacks by frames of HTTP/2, and by connections.

use std::{net::SocketAddr, time::Duration};

use conversation_memory::proto::GetHistoryRequest;
use test_support::{
    raw_http2::{
        DATA, HEADERS, LARGE_WINDOW, NO_WINDOW, RST_STREAM, RawConnection, announced, encode,
        preface, request_head,
    },
    requests::history,
    sidecar::Sidecar,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use super::{Attackers, reads::large_conversation};

/// Most concurrent calls that a connection permits.
const CALLS: usize = 1024;
const GET_HISTORY: &str = "/conversation_memory.v1.ConversationMemory/GetHistory";
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// Interval at which it is checked whether the server has closed a connection.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Calls whose responses are never read.
pub(super) async fn unread_responses(attackers: &mut Attackers, sidecar: &Sidecar) {
    let id = large_conversation(sidecar).await;
    hold(attackers, sidecar, 1, NO_WINDOW, move |connection| {
        let request = GetHistoryRequest {
            limit: 10,
            ..history(&id)
        };
        for _ in 0..CALLS {
            connection.call(GET_HISTORY, None, &request);
        }
    });
}

/// Health checks whose requests are incomplete.
pub(super) fn half_sent_checks(attackers: &mut Attackers, sidecar: &Sidecar) {
    hold_half_sent(attackers, sidecar, 100, CHECK, CALLS);
}

/// Calls whose requests are incomplete.
pub(super) fn half_sent_calls(attackers: &mut Attackers, sidecar: &Sidecar) {
    hold_half_sent(attackers, sidecar, 300, GET_HISTORY, CALLS / 100);
}

/// Connections that send nothing.
pub(super) fn idle(attackers: &mut Attackers, sidecar: &Sidecar) {
    hold(attackers, sidecar, 1000, LARGE_WINDOW, |_| {});
}

fn hold_half_sent(
    attackers: &mut Attackers,
    sidecar: &Sidecar,
    connections: usize,
    path: &'static str,
    calls: usize,
) {
    hold(
        attackers,
        sidecar,
        connections,
        LARGE_WINDOW,
        move |connection| {
            for _ in 0..calls {
                let stream = connection.begin_call(path, None);
                connection.frame(DATA, 0, stream, &announced(100));
            }
        },
    );
}

/// Keeps connections open, and opens and uses each again when the server has closed it.
fn hold(
    attackers: &mut Attackers,
    sidecar: &Sidecar,
    connections: usize,
    window: u32,
    act: impl Fn(&mut RawConnection) + Clone + Send + 'static,
) {
    for _ in 0..connections {
        let (address, act) = (sidecar.address, act.clone());
        attackers.spawn(async move {
            loop {
                let mut connection = RawConnection::open(address, window).await.read();
                act(&mut connection);
                while !connection.is_closed() {
                    sleep(CHECK_INTERVAL).await;
                }
            }
        });
    }
}

/// Number of frames that are written at once.
const FRAMES: u32 = 1000;

/// Writes frames over four connections as fast as the server reads them.
pub(super) fn flood(attackers: &mut Attackers, address: SocketAddr, frames: fn(u32) -> Vec<u8>) {
    for _ in 0..4 {
        attackers.spawn(async move {
            loop {
                let stream = TcpStream::connect(address).await.unwrap();
                let (mut reader, mut writer) = stream.into_split();
                let reading = async {
                    let mut buffer = vec![0; 64 << 10];
                    while reader.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
                };
                let writing = async {
                    let mut written = writer.write_all(&preface(LARGE_WINDOW)).await;
                    let mut first = 0;
                    while written.is_ok() {
                        let batch: Vec<u8> = (first..first + FRAMES).flat_map(frames).collect();
                        first += FRAMES;
                        written = writer.write_all(&batch).await;
                    }
                };
                tokio::join!(reading, writing);
            }
        });
    }
}

/// Empty data of a call that begins with the first frame.
pub(super) fn empty_data(number: u32) -> Vec<u8> {
    match number {
        0 => encode(HEADERS, 4, 1, &request_head(GET_HISTORY, None)).to_vec(),
        _ => encode(DATA, 0, 1, &[]).to_vec(),
    }
}

/// A call and its cancellation.
pub(super) fn cancelled_call(number: u32) -> Vec<u8> {
    let stream = 2 * number + 1;
    let mut frames = encode(HEADERS, 4, stream, &request_head(GET_HISTORY, None));
    frames.extend_from_slice(&encode(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    frames.to_vec()
}
