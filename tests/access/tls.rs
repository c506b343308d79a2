//! TLS and mutual TLS on TCP listeners.

use std::{fs, process::Stdio, time::Duration};

use http::StatusCode;
use tokio::{io::AsyncReadExt as _, net::TcpStream, task::JoinSet};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    authority::{Authority, Client, Identity, TlsFolder, Validity},
    client::{HttpResponse, begin, begin_with, http, memory_at, try_http},
    tokens,
};
use test_support::{
    completes, eventually,
    otlp_sink::OtlpSink,
    sidecar::{Form, Memory, Sidecar, command},
    stopwatch::Stopwatch,
};

const AGENT: &str = "spiffe://example.org/ns/agents/sa/agent";

async fn start(form: &Form, files: &TlsFolder, further: &[(&str, &str)]) -> Sidecar {
    let own = files.settings();
    let mut all: Vec<_> = own.iter().map(|(name, path)| (*name, &**path)).collect();
    all.extend(further);
    Sidecar::start_with(form, &all).await
}

/// Requests a page on a new connection.
async fn page(client: &Client, sidecar: &Sidecar) -> Option<HttpResponse> {
    let stream = client.connect(sidecar).await.ok()?;
    try_http(stream, "GET /openapi.json", "").await
}

/// The certificate that the server presents on a new connection.
async fn presented_certificate(client: &Client, sidecar: &Sidecar) -> Vec<u8> {
    let stream = client.connect(sidecar).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn serves_grpc_and_rest_over_tls() {
    let authority = Authority::new();
    let files = TlsFolder::of(&authority.server());
    let (form, path) = (Form::embedded(), files.path("memory.sock"));
    let listen = format!("127.0.0.1:0,unix:{}", path.display());
    let mut sidecar = start(&form, &files, &[("LISTEN_ADDR", &listen)]).await;
    let mut memory = Memory::new(Client::channel(&authority, None, &sidecar));
    begin(&mut memory).await.unwrap();
    let client = Client::new(&authority, None);
    let answer = page(&client, &sidecar).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    begin(&mut sidecar.memory()).await.unwrap_err();
    // Neither the socket nor the operations port has TLS.
    begin(&mut memory_at(&path).await).await.unwrap();
    let operations = sidecar.operations().await;
    let stream = TcpStream::connect(operations).await.unwrap();
    let ready = http(stream, "GET /readyz", "").await;
    assert_eq!(ready.status, StatusCode::OK);
    let mut healthcheck = command();
    healthcheck.arg("healthcheck").envs(files.settings());
    healthcheck.env("LISTEN_ADDR", sidecar.address.to_string());
    healthcheck.env("OPS_ADDR", operations.to_string());
    assert!(healthcheck.status().unwrap().success());
}

#[tokio::test]
async fn new_connections_use_a_changed_certificate() {
    let authority = Authority::new();
    let files = TlsFolder::of(&authority.server());
    let form = Form::embedded();
    let mut sidecar = start(&form, &files, &[]).await;
    let client = Client::new(&authority, None);
    // This connection is older than the change.
    let mut memory = Memory::new(Client::channel(&authority, None, &sidecar));
    begin(&mut memory).await.unwrap();
    let before = presented_certificate(&client, &sidecar).await;
    files.write(&authority.server());
    eventually("the new certificate is presented", async || {
        presented_certificate(&client, &sidecar).await != before
    })
    .await;
    let after = presented_certificate(&client, &sidecar).await;
    begin(&mut memory).await.unwrap();

    let other = authority.server();
    fs::write(files.path("tls.key"), &other.key).unwrap();
    let line = sidecar.wait_for_log("does not match the key").await;
    assert!(
        line.contains("ERROR") && line.contains("TLS_CERT_FILE"),
        "{line}"
    );
    assert_eq!(presented_certificate(&client, &sidecar).await, after);
    fs::write(files.path("tls.crt"), &other.certificate).unwrap();
    eventually(
        "the certificate is used when it fits the key again",
        async || presented_certificate(&client, &sidecar).await != after,
    )
    .await;
    begin(&mut memory).await.unwrap();
}

#[tokio::test]
async fn rejects_callers_without_a_valid_certificate() {
    let (authority, ours, foreign) = (Authority::new(), Authority::new(), Authority::new());
    let files = TlsFolder::of(&authority.server());
    fs::write(files.path("ca.crt"), ours.pem()).unwrap();
    let sink = OtlpSink::start().await;
    let (url, ca) = (sink.url(), files.path("ca.crt"));
    let further = [
        // Client certificates authenticate callers on every network.
        ("LISTEN_ADDR", "0.0.0.0:0"),
        ("TLS_CLIENT_CA_FILE", ca.to_str().unwrap()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
    ];
    let form = Form::embedded();
    let mut sidecar = start(&form, &files, &further).await;
    sidecar.address.set_ip([127, 0, 0, 1].into());
    let refused = [
        ("none", None),
        ("foreign", Some(foreign.client(AGENT, Validity::Now))),
        ("expired", Some(ours.client(AGENT, Validity::Past))),
        ("not yet valid", Some(ours.client(AGENT, Validity::Future))),
        ("for servers", Some(ours.server())),
    ];
    for (which, identity) in &refused {
        let client = Client::new(&authority, identity.as_ref());
        assert_eq!(page(&client, &sidecar).await, None, "{which}");
        let channel = Client::channel(&authority, identity.as_ref(), &sidecar);
        begin(&mut Memory::new(channel.clone()))
            .await
            .expect_err(which);
        let mut health = HealthClient::new(channel);
        let checked = health.check(HealthCheckRequest::default()).await;
        checked.expect_err(which);
    }
    let agent = ours.client(AGENT, Validity::Now);
    let channel = Client::channel(&authority, Some(&agent), &sidecar);
    begin(&mut Memory::new(channel)).await.unwrap();
    let client = Client::new(&authority, Some(&agent));
    let answer = page(&client, &sidecar).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);

    // With another authority, the certificates of the previous one are rejected.
    fs::write(&ca, foreign.pem()).unwrap();
    let newcomer = Client::new(&authority, refused[1].1.as_ref());
    eventually("callers of the new authority are accepted", async || {
        page(&newcomer, &sidecar).await.is_some()
    })
    .await;
    assert_eq!(page(&client, &sidecar).await, None);
    sidecar.signal("TERM");
    sidecar.ended().await;
    let spans = sink.spans();
    let calls = spans.iter().filter(|span| span.name.contains('/'));
    let names: Vec<_> = calls.map(|span| span.text("enduser.id")).collect();
    assert_eq!(names, [AGENT]);
}

#[tokio::test]
async fn a_certificate_does_not_replace_a_token() {
    let (authority, ours) = (Authority::new(), Authority::new());
    let files = TlsFolder::of(&authority.server());
    fs::write(files.path("ca.crt"), ours.pem()).unwrap();
    let file = tokens::TokenFile::of(&[("agent", tokens::TOKEN)]);
    let (ca, path) = (files.path("ca.crt"), file.path());
    let both = [
        ("TLS_CLIENT_CA_FILE", ca.to_str().unwrap()),
        ("AUTH_TOKENS_FILE", path.to_str().unwrap()),
    ];
    let form = Form::embedded();
    let sidecar = start(&form, &files, &both).await;
    let agent = ours.client(AGENT, Validity::Now);
    let with_certificate = Client::channel(&authority, Some(&agent), &sidecar);
    let mut memory = Memory::new(with_certificate);
    begin(&mut memory).await.unwrap_err();
    let token = format!("Bearer {}", tokens::TOKEN);
    begin_with(&mut memory, Some(&token)).await.unwrap();
    let mut without = Memory::new(Client::channel(&authority, None, &sidecar));
    begin_with(&mut without, Some(&token)).await.unwrap_err();
}

#[tokio::test]
async fn unfinished_handshakes_do_not_delay_other_connections() {
    let authority = Authority::new();
    let files = TlsFolder::of(&authority.server());
    let form = Form::embedded();
    let sidecar = start(&form, &files, &[("MAX_CONNECTIONS", "64")]).await;
    let mut silent = JoinSet::new();
    // More of them would replace each other.
    for _ in 0..47 {
        let mut stream = TcpStream::connect(sidecar.address).await.unwrap();
        silent.spawn(async move { stream.read_u8().await });
    }
    let client = Client::new(&authority, None);
    let started = Stopwatch::start();
    assert!(page(&client, &sidecar).await.is_some());
    // The time limit of the unfinished handshakes is five seconds.
    assert!(started.elapsed() < Duration::from_secs(4) && silent.try_join_next().is_none());
    for ended in completes("the handshakes end", silent.join_all()).await {
        ended.unwrap_err();
    }
}

#[tokio::test]
async fn start_fails_if_the_tls_files_are_invalid() {
    let authority = Authority::new();
    let (server, other) = (authority.server(), authority.server());
    let files = TlsFolder::of(&server);
    let mismatched = Identity {
        certificate: server.certificate.clone(),
        key: other.key,
    };
    let swapped = Identity {
        certificate: server.key.clone(),
        key: server.certificate,
    };
    let [certificate, key] = files.settings();
    let refused = |settings: &[(&str, &str)]| {
        let output = command()
            .env("DATA_DIR", files.folder.path())
            .env("LISTEN_ADDR", "127.0.0.1:0")
            .env("OPS_ADDR", "127.0.0.1:0")
            .env("LOG_LEVEL", "off")
            .envs(settings.iter().copied())
            .stderr(Stdio::piped())
            .output();
        let output = output.unwrap();
        assert!(!output.status.success());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(!stderr.contains("-----"), "{stderr}");
        stderr
    };
    let both = [(certificate.0, &*certificate.1), (key.0, &*key.1)];
    for identity in [mismatched, swapped] {
        files.write(&identity);
        assert!(refused(&both).contains("TLS_CERT_FILE"));
    }
    assert!(refused(&both[..1]).contains("TLS_KEY_FILE"));
    assert!(refused(&both[1..]).contains("TLS_CERT_FILE"));
    let ca = [("TLS_CLIENT_CA_FILE", &*certificate.1)];
    assert!(refused(&ca).contains("TLS_CLIENT_CA_FILE"));
    // TLS alone does not authenticate callers.
    let everywhere = [both[0], both[1], ("LISTEN_ADDR", "0.0.0.0:0")];
    assert!(refused(&everywhere).contains("LISTEN_ADDR"));
}
