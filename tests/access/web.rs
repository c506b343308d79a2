//! Requests that pages in a browser may send: the hosts that are served, requests that a browser
//! sends without asking, and pages that may call.

use std::net::{SocketAddr, UdpSocket};

use bytes::Bytes;
use conversation_memory::proto::{GetConversationRequest, ListConversationsRequest};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    client::{bearer, http, unix},
    tokens::{TOKEN, TokenFile},
};
use conversation_memory::proto::CreateConversationRequest;
use test_support::{
    http::{Http, HttpResponse},
    new_id, new_user,
    sidecar::{Form, Memory, Sidecar},
};

test_support::in_both_forms!(
    simple_requests_reach_no_method,
    pages_of_other_origins_change_nothing,
);

const FOREIGN_HOSTS: [&str; 8] = [
    "evil.example",
    "evil.example:50051",
    "127.0.0.1.evil.example",
    "localhost.evil.example:50051",
    "0.0.0.0:50051",
    "169.254.169.254",
    "[::2]:50051",
    "memory",
];

const OWN_HOSTS: [&str; 6] = [
    "localhost",
    "LOCALHOST.:50051",
    "a.localhost:1",
    "127.0.0.1",
    "127.1.2.3:50051",
    "[::1]:50051",
];

/// Sends text as a request over HTTP/1.1, and returns the status and the response.
async fn send_text(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let status = response.split(' ').nth(1).unwrap_or_default();
    (status.parse().unwrap_or_default(), response)
}

/// Sends a GET for a path with the given lines of headers.
async fn get(address: SocketAddr, path: &str, headers: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nconnection: close\r\n{headers}\r\n");
    send_text(address, &request).await.0
}

/// Sends a request over HTTP/2 for the authority of `uri` to another address.
async fn http_2(address: SocketAddr, request: Request<Full<Bytes>>) -> HttpResponse {
    let connect =
        move |_: Uri| Box::pin(async move { TcpStream::connect(address).await.map(TokioIo::new) });
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build(tower::service_fn(connect));
    let (head, body) = client.request(request).await.unwrap().into_parts();
    HttpResponse {
        status: head.status,
        headers: head.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

async fn get_over_http_2(address: SocketAddr, host: &str, path: &str) -> HttpResponse {
    let uri = format!("http://{host}{path}");
    let request = Request::get(uri).body(Full::default()).unwrap();
    http_2(address, request).await
}

/// A gRPC channel to a sidecar that names another host.
fn channel(address: SocketAddr, host: &str) -> Channel {
    let origin = format!("http://{host}").parse().unwrap();
    Endpoint::try_from(format!("http://{address}"))
        .unwrap()
        .origin(origin)
        .connect_lazy()
}

fn named(id: &str) -> GetConversationRequest {
    GetConversationRequest {
        conversation_id: id.to_owned(),
        ..GetConversationRequest::default()
    }
}

/// Checks that a rejection names the host, and the setting that allows it.
fn assert_names(message: &str, host: &str) {
    assert!(message.contains(&format!("\"{host}\"")), "{message}");
    assert!(message.contains("ALLOWED_HOSTS"), "{message}");
}

#[tokio::test]
async fn refused_hosts_and_origins_are_shown_shortened_and_without_other_characters() {
    let form = Form::embedded();
    let sidecar = Sidecar::start(&form).await;
    let long = "a".repeat(2_000);
    for (host, shown) in [
        ("<b>&\"evil\"</b>", "\"?b???evil??/b?\""),
        (long.as_str(), &format!("\"{}...\"", &long[..100])),
    ] {
        let request = format!("GET /x HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let (status, response) = send_text(sidecar.address, &request).await;
        assert_eq!(status, 421);
        assert!(response.contains(&shown.replace('"', "\\\"")), "{response}");
        assert!(!response.contains("<b>") && !response.contains(&long));
        let http = Http::new(&sidecar);
        let origin = [("origin", host)];
        let rejected = http.send(Method::POST, "/x", &origin, "{}").await;
        assert_eq!(rejected.status, StatusCode::FORBIDDEN);
        let message = rejected.error()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(shown), "{message}");
        assert!(message.contains("CORS_ALLOWED_ORIGINS"), "{message}");
    }
}

#[tokio::test]
async fn foreign_hosts_are_rejected_on_loopback() {
    let form = Form::embedded();
    let mut sidecar = Sidecar::start(&form).await;
    let operations = sidecar.operations().await;
    let id = Http::new(&sidecar).conversation(&new_user()).await;
    let address = sidecar.address;
    for host in FOREIGN_HOSTS {
        let mut rejections = Vec::new();
        let header = format!("host: {host}\r\n");
        for path in ["/livez", "/readyz", "/metrics", "/x"] {
            assert_eq!(get(operations, path, &header).await, 421, "{host} {path}");
        }
        for id in [&id, &new_id()] {
            let path = format!("/v1/conversations/{id}");
            assert_eq!(get(address, &path, &header).await, 421, "{host}");
            let rejection = get_over_http_2(address, host, &path).await;
            assert_eq!(rejection.status, StatusCode::MISDIRECTED_REQUEST, "{host}");
            assert_names(rejection.error()["message"].as_str().unwrap(), host);
            rejections.push(rejection.body);
            let mut memory = Memory::new(channel(address, host));
            let rejected = memory.get_conversation(named(id)).await.unwrap_err();
            assert_eq!(rejected.code(), Code::PermissionDenied, "{rejected:?}");
            assert_names(rejected.message(), host);
        }
        for address in [address, operations] {
            let mut health = HealthClient::new(channel(address, host));
            let rejected = health.check(HealthCheckRequest::default()).await;
            let rejected = rejected.unwrap_err();
            assert_eq!(rejected.code(), Code::PermissionDenied, "{rejected:?}");
        }
        rejections.dedup();
        assert_eq!(rejections.len(), 1, "{rejections:?}");
    }
    for invalid in [
        "",
        "host:\r\n",
        "host: localhost\r\nhost: localhost\r\n",
        "host: localhost\r\nhost: evil.example\r\n",
        "host: user@localhost\r\n",
        "host: localhost/\r\n",
        "host: localhost:x\r\n",
        "host: localhost evil.example\r\n",
        "host: l\u{f6}calhost\r\n",
    ] {
        for (address, path) in [(address, "/openapi.json"), (operations, "/livez")] {
            assert_eq!(get(address, path, invalid).await, 421, "{invalid:?}");
        }
    }
    let absolute = "GET http://evil.example/openapi.json";
    assert_eq!(
        send_text(
            address,
            &format!("{absolute} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        )
        .await
        .0,
        421
    );
    assert!(
        sidecar
            .log()
            .iter()
            .any(|line| line.contains("ALLOWED_HOSTS"))
    );
}

#[tokio::test]
async fn names_of_loopback_are_served() {
    let form = Form::embedded();
    let mut sidecar = Sidecar::start(&form).await;
    let operations = sidecar.operations().await;
    let id = Http::new(&sidecar).conversation(&new_user()).await;
    let path = format!("/v1/conversations/{id}");
    for host in OWN_HOSTS {
        let header = format!("host: {host}\r\n");
        assert_eq!(get(sidecar.address, &path, &header).await, 200, "{host}");
        assert_eq!(get(operations, "/livez", &header).await, 200, "{host}");
        let served = get_over_http_2(sidecar.address, host, &path).await;
        assert_eq!(served.status, StatusCode::OK, "{host}");
        let mut memory = Memory::new(channel(sidecar.address, host));
        memory.get_conversation(named(&id)).await.unwrap();
    }
}

#[tokio::test]
async fn allowed_hosts_are_served_and_apply_to_all_tcp_connections() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("memory.sock");
    // An address of this machine other than loopback; no packet is sent.
    let route = UdpSocket::bind("0.0.0.0:0").unwrap();
    let external = route
        .connect("192.0.2.1:9")
        .and_then(|()| route.local_addr());
    let listen = format!("0.0.0.0:0,unix:{}", socket.display());
    let settings = [
        ("LISTEN_ADDR", listen.as_str()),
        ("INSECURE", "true"),
        ("ALLOWED_HOSTS", "Memory.Example.com, 10.9.8.7,fd00::7"),
    ];
    let form = Form::embedded();
    let sidecar = Sidecar::start_with(&form, &settings).await;
    let port = sidecar.address.port();
    let mut addresses = vec![SocketAddr::from(([127, 0, 0, 1], port))];
    addresses.extend(external.ok().map(|local| SocketAddr::new(local.ip(), port)));
    for address in addresses {
        for host in [
            "memory.example.com:1",
            "10.9.8.7",
            "[fd00::7]:1",
            "localhost",
        ] {
            let header = format!("host: {host}\r\n");
            let served = get(address, "/openapi.json", &header).await;
            assert_eq!(served, 200, "{address} {host}");
            let mut health = HealthClient::new(channel(address, host));
            health.check(HealthCheckRequest::default()).await.unwrap();
        }
        for host in ["example.com", "a.memory.example.com", "10.9.8.8"] {
            let header = format!("host: {host}\r\n");
            let rejected = get(address, "/openapi.json", &header).await;
            assert_eq!(rejected, 421, "{address} {host}");
        }
    }
    // The path of a Unix socket is not a name that a page can use.
    let line = "GET http://evil.example/openapi.json";
    let served = http(unix(&socket).await, line, "").await;
    assert_eq!(served.status, StatusCode::OK, "{served:?}");
}

/// Content types that a page can send without asking the server, or that are not gRPC.
const SIMPLE_TYPES: [Option<&str>; 9] = [
    None,
    Some("text/plain"),
    Some("text/plain; charset=utf-8"),
    Some("application/x-www-form-urlencoded"),
    Some("multipart/form-data; boundary=x"),
    Some("text/plain; application/grpc"),
    Some("application/grpcfoo"),
    Some("application/grpc-web+proto"),
    Some("application/json"),
];

fn framed(message: &impl prost::Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend(message);
    body
}

/// A page can send these requests without asking the server.
async fn simple_requests_reach_no_method(form: Form) {
    const CREATE: &str = "/conversation_memory.v1.ConversationMemory/CreateConversation";
    let sidecar = Sidecar::start(&form).await;
    let user = new_user();
    let create = CreateConversationRequest {
        user_id: user.clone(),
        ..CreateConversationRequest::default()
    };
    let body = framed(&create);
    let json_body = json!({ "userId": user }).to_string();
    let (one, two) = (Http::new(&sidecar), Http::over_http_2(&sidecar));
    for content_type in SIMPLE_TYPES {
        let headers: Vec<_> = content_type
            .map(|value| ("content-type", value))
            .into_iter()
            .collect();
        let rejected = one.send(Method::POST, CREATE, &headers, body.clone()).await;
        assert_eq!(rejected.status, StatusCode::HTTP_VERSION_NOT_SUPPORTED);
        rejected.error();
        let rejected = two.send(Method::POST, CREATE, &headers, body.clone()).await;
        assert_eq!(rejected.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        if content_type == Some("application/json") {
            continue;
        }
        for http in [&one, &two] {
            let path = "/v1/conversations";
            let rejected = http
                .send(Method::POST, path, &headers, json_body.clone())
                .await;
            assert_eq!(rejected.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
            rejected.error();
        }
    }
    let grpc = [("content-type", "application/grpc")];
    for path in [CREATE, "/grpc.health.v1.Health/Check"] {
        let rejected = one.send(Method::POST, path, &grpc, body.clone()).await;
        assert_eq!(rejected.status, StatusCode::HTTP_VERSION_NOT_SUPPORTED);
        let rejected = two.send(Method::GET, path, &grpc, body.clone()).await;
        assert_eq!(rejected.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(rejected.headers["allow"], "POST");
    }
    let rejected = one
        .send(Method::POST, "/v1/conversations", &grpc, body.clone())
        .await;
    assert_eq!(rejected.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let request = ListConversationsRequest {
        user_id: user.clone(),
        ..ListConversationsRequest::default()
    };
    let mut memory = sidecar.memory();
    let listed = memory.list_conversations(request.clone()).await.unwrap();
    assert_eq!(listed.into_inner().conversations, []);
    // What the requests would have done: the same body is a call if it declares its type.
    for kind in ["application/grpc", "application/grpc+proto"] {
        let headers = [("content-type", kind), ("te", "trailers")];
        let created = two.send(Method::POST, CREATE, &headers, body.clone()).await;
        assert_eq!(created.status, StatusCode::OK);
    }
    let listed = memory.list_conversations(request).await.unwrap();
    assert_eq!(listed.into_inner().conversations.len(), 2);
}

/// Headers that a browser adds to the requests of a page of another origin.
const CROSS_SITE: [&[(&str, &str)]; 6] = [
    &[("sec-fetch-site", "cross-site")],
    &[("sec-fetch-site", "same-site")],
    &[
        ("sec-fetch-site", "cross-site"),
        ("origin", "https://evil.example"),
    ],
    &[("origin", "https://evil.example")],
    &[("origin", "http://localhost:3000")],
    &[("origin", "null")],
];

async fn pages_of_other_origins_change_nothing(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let (one, two) = (Http::new(&sidecar), Http::over_http_2(&sidecar));
    let id = one.conversation(&new_user()).await;
    one.save_text(&id, "kept").await;
    let path = format!("/v1/conversations/{id}");
    let session = json!({ "userId": new_user() });
    let session = one.post("/v1/sessions", &session).await.ok();
    let session = session["session"]["id"].as_str().unwrap();
    let extend = format!("/v1/sessions/{session}:extend");
    let save = json!({ "messages": [{ "role": "ROLE_USER", "content": "x" }] }).to_string();
    let get_conversation = "/conversation_memory.v1.ConversationMemory/GetConversation";
    for http in [&one, &two] {
        for headers in CROSS_SITE {
            let json = [headers, &[("content-type", "application/json")]].concat();
            let grpc = [headers, &[("content-type", "application/grpc")]].concat();
            let call = framed(&named(&id));
            for rejected in [
                http.send(Method::POST, &extend, headers, "").await,
                http.send(Method::DELETE, &path, headers, "").await,
                http.send(
                    Method::POST,
                    &format!("{path}/messages"),
                    &json,
                    save.clone(),
                )
                .await,
            ] {
                assert_eq!(rejected.status, StatusCode::FORBIDDEN, "{headers:?}");
                rejected.error();
                assert!(!rejected.headers.contains_key("access-control-allow-origin"));
            }
            let rejected = http.send(Method::POST, get_conversation, &grpc, call).await;
            assert_eq!(rejected.status, StatusCode::FORBIDDEN, "{headers:?}");
            assert_eq!(rejected.headers["grpc-status"], "7");
            assert_eq!(rejected.body, "");
            let read = http.send(Method::GET, &path, headers, "").await;
            assert_eq!(read.ok()["messages"].as_array().unwrap().len(), 1);
            assert!(!read.headers.contains_key("access-control-allow-origin"));
        }
        let origin = format!("http://{}", sidecar.address);
        for own in [
            &[("sec-fetch-site", "same-origin")][..],
            &[("sec-fetch-site", "none")],
            &[("origin", &origin)],
            &[("sec-fetch-site", "same-origin"), ("origin", &origin)],
        ] {
            http.send(Method::POST, &extend, own, "").await.ok();
        }
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn pages_of_allowed_origins_may_call_with_a_token() {
    const APP: &str = "https://app.example.com";
    let file = TokenFile::of(&[("agent", TOKEN)]);
    let origins = (
        "CORS_ALLOWED_ORIGINS",
        "HTTPS://App.example.com:443, http://localhost:3000",
    );
    let form = Form::embedded();
    let sidecar = file.start(&form, &[origins]).await;
    let http = Http::new(&sidecar);
    let token = bearer(TOKEN);
    let token = token.trim_end().split_once(": ").unwrap();
    for (origin, is_allowed) in [
        (APP, true),
        ("http://localhost:3000", true),
        ("https://evil.example", false),
        ("http://app.example.com", false),
        ("null", false),
    ] {
        let expected = if is_allowed { origin } else { "" };
        let preflight = [
            ("origin", origin),
            ("access-control-request-method", "DELETE"),
            (
                "access-control-request-headers",
                "authorization,content-type",
            ),
        ];
        let allowed = http
            .send(Method::OPTIONS, "/v1/conversations/x", &preflight, "")
            .await;
        assert!(allowed.status.is_success(), "{allowed:?}");
        let headers = &allowed.headers;
        assert_eq!(header(headers, "access-control-allow-origin"), expected);
        let methods = header(headers, "access-control-allow-methods");
        assert!(methods.contains("DELETE") && methods.contains("PATCH"));
        let names = header(headers, "access-control-allow-headers");
        assert!(names.contains("authorization") && names.contains("content-type"));
        assert!(!headers.contains_key("access-control-allow-credentials"));

        let page = [("origin", origin), ("sec-fetch-site", "cross-site")];
        let body = json!({ "userId": new_user() }).to_string();
        let json = [&page[..], &[("content-type", "application/json")]].concat();
        let with_token = [&json[..], &[token]].concat();
        for (headers, status) in [
            (&json, StatusCode::UNAUTHORIZED),
            (&with_token, StatusCode::OK),
        ] {
            let answer = http
                .send(Method::POST, "/v1/conversations", headers, body.clone())
                .await;
            let status = if is_allowed {
                status
            } else {
                StatusCode::FORBIDDEN
            };
            assert_eq!(answer.status, status, "{origin}");
            let allowed = header(&answer.headers, "access-control-allow-origin");
            assert_eq!(allowed, expected);
            assert!(
                !answer
                    .headers
                    .contains_key("access-control-allow-credentials")
            );
        }
        let read = http
            .send(Method::GET, "/openapi.json", &[page[0], token], "")
            .await;
        assert_eq!(read.status, StatusCode::OK);
        assert_eq!(
            header(&read.headers, "access-control-allow-origin"),
            expected
        );
        assert_eq!(
            header(&read.headers, "access-control-expose-headers"),
            "content-disposition"
        );
    }
}
