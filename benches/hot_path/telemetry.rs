//! Cost of tracing, also while the collector is unavailable.

use tokio::net::TcpListener;

use crate::{
    compare::{Call, Caller, Times, alternate, heading, micros, row},
    conversation,
};
use test_support::{
    requests::history,
    sidecar::{Form, Sidecar},
};

const MESSAGES: u32 = 10;

/// Compares sidecars without an exporter, with a collector that responds, with a closed
/// port, and with a collector that accepts requests and does not respond.
pub(crate) async fn telemetry(rounds: usize) {
    let servers = Form::servers();
    let responding = collector(true).await;
    let silent = collector(false).await;
    // The listener is dropped, so that the port is closed.
    let refused = endpoint(&TcpListener::bind("127.0.0.1:0").await.unwrap());
    let traced = async |endpoint: &str| {
        let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)];
        Sidecar::start_with(&servers, &settings).await
    };
    let sidecars = [
        Sidecar::start(&servers).await,
        traced(&responding).await,
        traced(&refused).await,
        traced(&silent).await,
    ];
    let mut reads = Vec::new();
    let mut saves = Vec::new();
    for sidecar in &sidecars {
        let id = conversation::of_length(&servers, sidecar, MESSAGES).await;
        reads.push(Caller::new(sidecar, Call::History(history(&id))));
        saves.push(Caller::new(sidecar, Call::save(&id)));
    }
    table("telemetry: GetHistory, window", rounds, reads).await;
    table("telemetry: SaveMessages", rounds, saves).await;
}

async fn table(title: &str, rounds: usize, callers: Vec<Caller>) {
    let callers: [Caller; 4] = callers
        .try_into()
        .expect("there is one caller for each sidecar");
    let [none, responding, refused, silent] = alternate(rounds, callers).await;
    heading(title, &["median", "ratio", "max"]);
    let line = |label: &str, times: &Times| {
        let cells = [
            micros(times.median()),
            times.ratio(&none),
            micros(times.max()),
        ];
        row(label, &cells);
    };
    line("no exporter", &none);
    line("collector that responds", &responding);
    line("collector that refuses connections", &refused);
    line("collector that never responds", &silent);
}

/// Starts a collector that reads requests, and responds to them if `responds` is set.
async fn collector(responds: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = endpoint(&listener);
    tokio::spawn(collect(listener, responds));
    endpoint
}

/// Accepts connections of exporters.
pub(crate) async fn collect(listener: TcpListener, responds: bool) {
    while let Ok((connection, _)) = listener.accept().await {
        tokio::spawn(serve(connection, responds));
    }
}

fn endpoint(listener: &TcpListener) -> String {
    format!("http://{}", listener.local_addr().unwrap())
}

async fn serve(mut connection: tokio::net::TcpStream, responds: bool) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut buffer = vec![0; 1 << 16];
    let mut head = Vec::new();
    let mut remaining = 0_usize;
    while let Ok(read @ 1..) = connection.read(&mut buffer).await {
        if remaining > 0 {
            remaining = remaining.saturating_sub(read);
        } else {
            head.extend_from_slice(&buffer[..read]);
            let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else {
                continue;
            };
            let text = String::from_utf8_lossy(&head[..end]).to_lowercase();
            let length = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            remaining = (end + 4 + length).saturating_sub(head.len());
        }
        if remaining == 0 {
            head.clear();
            if responds {
                let response = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                let _ = connection.write_all(response).await;
            }
        }
    }
}
