//! Several listeners, Unix sockets, and the processes at their other ends.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use http::StatusCode;
use tokio::net::TcpStream;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::client::{begin, channel_at, http, memory_at, read, said, unix};
use test_support::{
    new_id,
    sidecar::{Form, Sidecar, command},
};

test_support::in_both_forms!(a_user_that_is_not_on_the_list_is_denied);

/// A folder for a socket, and the settings that listen there besides on TCP.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("memory.sock")
    }

    fn addresses(&self) -> String {
        format!("unix:{},127.0.0.1:0", self.socket().display())
    }

    /// The user and group that the tests run as.
    fn ids(&self) -> (u32, u32) {
        let found = fs::metadata(self.folder.path()).unwrap();
        (found.uid(), found.gid())
    }
}

async fn start(form: &Form, addresses: &str, settings: &[(&str, &str)]) -> Sidecar {
    let mut all = vec![("LISTEN_ADDR", addresses)];
    all.extend(settings);
    Sidecar::start_with(form, &all).await
}

fn is_healthy(address: &str) -> bool {
    let asked = command()
        .arg("healthcheck")
        .env("LISTEN_ADDR", address)
        .stderr(Stdio::null())
        .status();
    asked.unwrap().success()
}

#[tokio::test]
async fn every_listener_serves_the_same() {
    let (form, place) = (Form::embedded(), Place::new());
    let addresses = format!("{},[::1]:0", place.addresses());
    let mut sidecar = start(&form, &addresses, &[]).await;
    let path = place.socket();
    let id = begin(&mut memory_at(&path).await).await.unwrap();
    read(&mut sidecar.memory(), &id, None).await.unwrap();
    let line = format!("GET /v1/conversations/{id}");
    let answer = http(unix(&path).await, &line, "").await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let second = sidecar.wait_for_log("\"address\":\"[::1]:").await;
    let second: serde_json::Value = serde_json::from_str(&second).unwrap();
    let second = second["address"].as_str().unwrap();
    let stream = TcpStream::connect(second).await.unwrap();
    assert_eq!(http(stream, &line, "").await.status, StatusCode::OK);

    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let first = sidecar.address.to_string();
    let at_path = format!("unix:{}", path.display());
    for address in [&first, second, &at_path, &format!("{first},{at_path}")] {
        assert!(is_healthy(address), "{address}");
    }
    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().await.code(), Some(0), "{:?}", sidecar.log());
    assert!(!path.exists());
    assert!(!is_healthy(&at_path));
}

#[tokio::test]
async fn a_socket_that_was_left_behind_is_replaced() {
    let (form, place) = (Form::embedded(), Place::new());
    let sidecar = start(&form, &place.addresses(), &[]).await;
    sidecar.kill().await;
    assert!(place.socket().metadata().unwrap().file_type().is_socket());
    let _sidecar = start(&form, &place.addresses(), &[]).await;
    begin(&mut memory_at(&place.socket()).await).await.unwrap();
}

#[tokio::test]
async fn what_is_in_use_or_no_socket_stops_the_start() {
    let (form, place) = (Form::embedded(), Place::new());
    let _sidecar = start(&form, &place.addresses(), &[]).await;
    let refusal = refused_start(&place.socket());
    assert!(refusal.contains("another process listens"), "{refusal}");
    begin(&mut memory_at(&place.socket()).await).await.unwrap();

    let file = place.folder.path().join("file");
    fs::write(&file, "kept").unwrap();
    let link = place.folder.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for path in [&file, &link] {
        let refusal = refused_start(path);
        assert!(refusal.contains("is not a socket"), "{refusal}");
        assert_eq!(fs::read_to_string(path).unwrap(), "kept");
    }
    let nowhere = refused_start(&place.folder.path().join("missing/memory.sock"));
    assert!(
        nowhere.contains("LISTEN_ADDR: cannot bind unix:"),
        "{nowhere}"
    );
}

/// What a sidecar says that cannot listen at a path.
fn refused_start(path: &Path) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = command()
        .env("DATA_DIR", folder.path())
        .env("OPS_ADDR", "127.0.0.1:0")
        .env("LOG_LEVEL", "error")
        .env("LISTEN_ADDR", format!("unix:{}", path.display()))
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

async fn a_user_that_is_not_on_the_list_is_denied(form: Form) {
    let place = Place::new();
    let (uid, gid) = place.ids();
    let (other_user, other_group) = ((uid + 1).to_string(), (gid + 1).to_string());
    let lists = [
        ("UNIX_ALLOWED_UIDS", other_user.as_str()),
        ("UNIX_ALLOWED_GIDS", &other_group),
    ];
    let sidecar = start(&form, &place.addresses(), &lists).await;
    // TCP is another matter.
    let known = begin(&mut sidecar.memory()).await.unwrap();
    let path = place.socket();
    let mut memory = memory_at(&path).await;
    let begun = begin(&mut memory).await.unwrap_err();
    assert_eq!(begun.code(), Code::PermissionDenied);
    let mut refusals = Vec::new();
    for id in [&known, &new_id()] {
        let refused = read(&mut memory, id, None).await.unwrap_err();
        assert_eq!(said(&refused), said(&begun));
        let line = format!("GET /v1/conversations/{id}");
        let refused = http(unix(&path).await, &line, "").await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
        refusals.push(refused);
    }
    assert_eq!(refusals[0], refusals[1]);
    for line in ["GET /openapi.json", "GET /nothing", "PATCH /conversations"] {
        let refused = http(unix(&path).await, line, "").await;
        assert_eq!(refused, refusals[0], "{line}");
    }
    let mut health = HealthClient::new(channel_at(&path).await);
    health.check(HealthCheckRequest::default()).await.unwrap();
}

#[tokio::test]
async fn a_user_or_a_group_on_the_list_is_let_in() {
    let place = Place::new();
    let (uid, gid) = place.ids();
    let (users, groups) = (format!("{},{uid}", uid + 1), gid.to_string());
    let nobody = (uid + 1).to_string();
    for lists in [
        &[("UNIX_ALLOWED_UIDS", users.as_str())][..],
        &[("UNIX_ALLOWED_GIDS", &groups)],
        &[
            ("UNIX_ALLOWED_UIDS", &nobody),
            ("UNIX_ALLOWED_GIDS", &groups),
        ],
    ] {
        let form = Form::embedded();
        let _sidecar = start(&form, &place.addresses(), lists).await;
        begin(&mut memory_at(&place.socket()).await).await.unwrap();
    }
}
