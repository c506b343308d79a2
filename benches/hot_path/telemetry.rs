//! What tracing costs a call, and that a collector which is away costs no more.

use tokio::net::TcpListener;

use crate::{
    compare::{Call, Caller, Times, heading, in_turns, micros, row},
    conversation,
};
use test_support::{
    requests::history,
    sidecar::{Form, Sidecar},
};

const MESSAGES: u32 = 10;

/// Calls on sidecars that export nowhere, to a collector that answers, to a port
/// where nobody listens, and to one that takes a request and says nothing.
pub(crate) async fn telemetry(rounds: usize) {
    let servers = Form::servers();
    let answering = collector(true).await;
    let silent = collector(false).await;
    // Bound and dropped: nobody listens there.
    let refused = endpoint(&TcpListener::bind("127.0.0.1:0").await.unwrap());
    let traced = async |endpoint: &str| {
        let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)];
        Sidecar::start_with(&servers, &settings).await
    };
    let sidecars = [
        Sidecar::start(&servers).await,
        traced(&answering).await,
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
    let callers: [Caller; 4] = callers.try_into().expect("one for each sidecar");
    let [none, answering, refused, silent] = in_turns(rounds, callers).await;
    heading(title, &["median", "of none", "max"]);
    let line = |label: &str, times: &Times| {
        let cells = [
            micros(times.median()),
            times.ratio(&none),
            micros(times.max()),
        ];
        row(label, &cells);
    };
    line("no exporter", &none);
    line("a collector that answers", &answering);
    line("a collector that is refused", &refused);
    line("a collector that never answers", &silent);
}

/// A collector: it reads what it is sent, and answers that or nothing.
async fn collector(answers: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = endpoint(&listener);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(serve(connection, answers));
        }
    });
    endpoint
}

fn endpoint(listener: &TcpListener) -> String {
    format!("http://{}", listener.local_addr().unwrap())
}

async fn serve(mut connection: tokio::net::TcpStream, answers: bool) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut buffer = vec![0; 1 << 16];
    let mut head = Vec::new();
    let mut left = 0_usize;
    while let Ok(read @ 1..) = connection.read(&mut buffer).await {
        if left > 0 {
            left = left.saturating_sub(read);
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
            left = (end + 4 + length).saturating_sub(head.len());
        }
        if left == 0 {
            head.clear();
            if answers {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                let _ = connection.write_all(answer).await;
            }
        }
    }
}
