//! Requests that cannot be decoded: the caller receives `INVALID_ARGUMENT`, nothing is written, and
//! no error of the server is counted.

use std::{io::Write as _, time::Duration};

use flate2::{Compression, write::GzEncoder};
use http::{Method, StatusCode};
use prost::Message as _;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use conversation_memory::proto::{BeginTurnRequest, ListConversationsRequest};
use test_support::{
    eventually,
    http::{Http, HttpResponse},
    new_user,
    sidecar::{Form, Sidecar},
};

test_support::in_both_forms!(requests_that_cannot_be_decoded_are_invalid);

const SERVICE: &str = "/conversation_memory.v1.ConversationMemory";
const SESSIONS: &str = "/conversation_memory.v1.SessionService";

fn frame(flag: u8, length: usize, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![flag];
    frame.extend(u32::try_from(length).unwrap().to_be_bytes());
    frame.extend(message);
    frame
}

fn whole(message: &[u8]) -> Vec<u8> {
    frame(0, message.len(), message)
}

fn zipped(message: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(message).unwrap();
    encoder.finish().unwrap()
}

async fn call(http: &Http, path: &str, encoding: Option<&str>, body: Vec<u8>) -> HttpResponse {
    let mut headers = vec![("content-type", "application/grpc"), ("te", "trailers")];
    headers.extend(encoding.map(|encoding| ("grpc-encoding", encoding)));
    http.send(Method::POST, path, &headers, body).await
}

fn status_of(response: &HttpResponse) -> String {
    assert_eq!(response.status, StatusCode::OK);
    let text = |name| response.headers.get(name).map(|it| it.to_str().unwrap());
    let status = text("grpc-status").unwrap_or("none");
    format!("{status} {}", text("grpc-message").unwrap_or_default())
}

/// Name, encoding and body of a call with the encoded request `begin` that is not valid.
fn invalid_bodies(begin: &[u8]) -> Vec<(&'static str, Option<&'static str>, Vec<u8>)> {
    let twice = [whole(begin), whole(begin)].concat();
    let followed = [whole(begin), vec![0, 0, 0]].concat();
    let gzip = zipped(begin);
    let mut changed = gzip.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 0xff;
    let cut = &gzip[..gzip.len() / 2];
    vec![
        ("no message", None, Vec::new()),
        ("incomplete header", None, vec![0, 0, 0]),
        ("incomplete message", None, frame(0, begin.len() + 1, begin)),
        ("length without message", None, frame(0, 5, &[])),
        ("invalid flag", None, frame(2, begin.len(), begin)),
        ("invalid flag", Some("gzip"), frame(255, begin.len(), begin)),
        ("flag without encoding", None, frame(1, gzip.len(), &gzip)),
        (
            "flag and identity",
            Some("identity"),
            frame(1, gzip.len(), &gzip),
        ),
        ("two messages", None, twice),
        ("incomplete second message", None, followed),
        ("no gzip", Some("gzip"), frame(1, begin.len(), begin)),
        ("empty gzip", Some("gzip"), frame(1, 0, &[])),
        ("incomplete gzip", Some("gzip"), frame(1, cut.len(), cut)),
        (
            "changed gzip",
            Some("gzip"),
            frame(1, changed.len(), &changed),
        ),
        ("incomplete key", None, whole(&[0x80])),
        ("incomplete value", None, whole(&[0x0a])),
        ("length beyond the end", None, whole(&[0x0a, 5, b'a'])),
        (
            "huge length",
            None,
            whole(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        ),
        ("long varint", None, whole(&[0xff; 11])),
        ("field 0", None, whole(&[0x02, 0])),
        ("wire type 7", None, whole(&[0x0f])),
        ("other wire type", None, whole(&[0x08, 1])),
        ("end of no group", None, whole(&[0x0c])),
        ("no UTF-8", None, whole(&[0x0a, 2, 0xc3, 0x28])),
    ]
}

async fn requests_that_cannot_be_decoded_are_invalid(form: Form) {
    let mut sidecar = Sidecar::start(&form).await;
    let http = Http::over_http_2(&sidecar);
    let user = new_user();
    let begin = BeginTurnRequest {
        user_id: user.clone(),
        ..BeginTurnRequest::default()
    };
    let begin = begin.encode_to_vec();
    for (name, encoding, body) in invalid_bodies(&begin) {
        for path in [
            format!("{SERVICE}/BeginTurn"),
            format!("{SERVICE}/ExportConversation"),
            format!("{SESSIONS}/CreateSession"),
            "/grpc.health.v1.Health/Check".to_owned(),
        ] {
            let is_health = path.starts_with("/grpc.");
            // The library's own service ignores what follows the first message.
            if is_health && matches!(name, "two messages") {
                continue;
            }
            // Health accepts no compressed requests.
            if is_health && encoding == Some("gzip") {
                continue;
            }
            let response = call(&http, &path, encoding, body.clone()).await;
            let status = status_of(&response);
            assert!(status.starts_with("3 "), "{name}: {path}: {status}");
            assert!(status.len() > 10, "{name}: {path}: {status}");
        }
    }
    // A stream of requests.
    for body in [
        vec![0, 0, 0],
        frame(9, 0, &[]),
        whole(&[0x0f]),
        frame(1, 3, b"abc"),
    ] {
        let path = format!("{SERVICE}/ImportConversation");
        let response = call(&http, &path, None, body.clone()).await;
        let status = status_of(&response);
        assert!(status.starts_with("3 "), "{body:?}: {status}");
    }
    let request = ListConversationsRequest {
        user_id: user,
        ..ListConversationsRequest::default()
    };
    let listed = sidecar.memory().list_conversations(request).await.unwrap();
    assert_eq!(listed.into_inner().conversations, []);
    no_error_is_counted(&mut sidecar).await;
}

/// Encodes a frame of HTTP/2.
fn http_2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Start of a call over HTTP/2: its headers, and a part of its message.
fn start_of_call(path: &str) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        // Without compression and without an entry in the table.
        headers.push(0);
        for text in [name, value] {
            headers.push(u8::try_from(text.len()).unwrap());
            headers.extend(text.as_bytes());
        }
    }
    let mut start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    start.extend(http_2_frame(4, 0, 0, &[]));
    start.extend(http_2_frame(1, 4, 1, &headers));
    start.extend(http_2_frame(0, 0, 1, &frame(0, 16, b"abc")));
    start
}

#[tokio::test]
async fn requests_that_their_callers_reset_are_cancelled() {
    let form = Form::embedded();
    let mut sidecar = Sidecar::start(&form).await;
    for path in [
        format!("{SERVICE}/BeginTurn"),
        format!("{SERVICE}/ImportConversation"),
    ] {
        for code in 0..14_u32 {
            let mut stream = TcpStream::connect(sidecar.address).await.unwrap();
            stream.write_all(&start_of_call(&path)).await.unwrap();
            stream.flush().await.unwrap();
            // A call that is reset before it has begun reads no request.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let reset = http_2_frame(3, 0, 1, &code.to_be_bytes());
            stream.write_all(&reset).await.unwrap();
        }
    }
    let operations = Http::at(sidecar.operations().await);
    eventually("cancelled calls are counted", async || {
        let metrics = operations.get("/metrics").await.body;
        String::from_utf8_lossy(&metrics).contains("\"CANCELLED\"")
    })
    .await;
    no_error_is_counted(&mut sidecar).await;
}

async fn no_error_is_counted(sidecar: &mut Sidecar) {
    let operations = sidecar.operations().await;
    let metrics = Http::at(operations).get("/metrics").await.body;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    for unexpected in ["error_type=", "\"INTERNAL\"", "\"UNKNOWN\""] {
        let mut lines = metrics.lines();
        let found = lines.find(|line| line.starts_with("rpc_") && line.contains(unexpected));
        assert_eq!(found, None);
    }
    assert!(!sidecar.log().iter().any(|line| line.contains("\"ERROR\"")));
}
