//! Several listeners, Unix sockets, and the lists of processes that may call over them.

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

use crate::client::{begin, channel_at, contents_of, http, memory_at, read, unix};
use test_support::{
    new_id,
    sidecar::{Form, Sidecar, command},
};

test_support::in_both_forms!(rejects_users_that_are_not_on_the_list);

/// A temporary folder for a Unix socket.
struct SocketFolder {
    dir: tempfile::TempDir,
}

impl SocketFolder {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("memory.sock")
    }

    fn addresses(&self) -> String {
        format!("unix:{},127.0.0.1:0", self.socket().display())
    }

    /// User and group that the tests run as.
    fn ids(&self) -> (u32, u32) {
        let found = fs::metadata(self.dir.path()).unwrap();
        (found.uid(), found.gid())
    }
}

async fn start(form: &Form, addresses: &str, settings: &[(&str, &str)]) -> Sidecar {
    let mut all = vec![("LISTEN_ADDR", addresses)];
    all.extend(settings);
    Sidecar::start_with(form, &all).await
}

fn is_healthy(address: &str) -> bool {
    let status = command()
        .arg("healthcheck")
        .env("LISTEN_ADDR", address)
        .stderr(Stdio::null())
        .status();
    status.unwrap().success()
}

#[tokio::test]
async fn every_listener_serves_grpc_and_rest() {
    let (form, folder) = (Form::embedded(), SocketFolder::new());
    let addresses = format!("{},[::1]:0", folder.addresses());
    let mut sidecar = start(&form, &addresses, &[]).await;
    let path = folder.socket();
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
async fn replaces_a_stale_socket() {
    let (form, folder) = (Form::embedded(), SocketFolder::new());
    let sidecar = start(&form, &folder.addresses(), &[]).await;
    sidecar.kill().await;
    assert!(folder.socket().metadata().unwrap().file_type().is_socket());
    let _sidecar = start(&form, &folder.addresses(), &[]).await;
    begin(&mut memory_at(&folder.socket()).await).await.unwrap();
}

#[tokio::test]
async fn start_fails_if_the_path_is_in_use_or_not_a_socket() {
    let (form, folder) = (Form::embedded(), SocketFolder::new());
    let _sidecar = start(&form, &folder.addresses(), &[]).await;
    let rejection = failed_start(&folder.socket());
    assert!(rejection.contains("another process listens"), "{rejection}");
    begin(&mut memory_at(&folder.socket()).await).await.unwrap();

    let file = folder.dir.path().join("file");
    fs::write(&file, "kept").unwrap();
    let link = folder.dir.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for path in [&file, &link] {
        let rejection = failed_start(path);
        assert!(rejection.contains("is not a socket"), "{rejection}");
        assert_eq!(fs::read_to_string(path).unwrap(), "kept");
    }
    let nowhere = failed_start(&folder.dir.path().join("missing/memory.sock"));
    assert!(
        nowhere.contains("LISTEN_ADDR: cannot bind unix:"),
        "{nowhere}"
    );
}

/// Error of a sidecar that cannot bind a path.
fn failed_start(path: &Path) -> String {
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
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

async fn rejects_users_that_are_not_on_the_list(form: Form) {
    let folder = SocketFolder::new();
    let (uid, gid) = folder.ids();
    let (other_user, other_group) = ((uid + 1).to_string(), (gid + 1).to_string());
    let lists = [
        ("UNIX_ALLOWED_UIDS", other_user.as_str()),
        ("UNIX_ALLOWED_GIDS", &other_group),
    ];
    let sidecar = start(&form, &folder.addresses(), &lists).await;
    // The lists do not apply to TCP.
    let known = begin(&mut sidecar.memory()).await.unwrap();
    let path = folder.socket();
    let mut memory = memory_at(&path).await;
    let begun = begin(&mut memory).await.unwrap_err();
    assert_eq!(begun.code(), Code::PermissionDenied);
    let mut rejections = Vec::new();
    for id in [&known, &new_id()] {
        let refused = read(&mut memory, id, None).await.unwrap_err();
        assert_eq!(contents_of(&refused), contents_of(&begun));
        let line = format!("GET /v1/conversations/{id}");
        let refused = http(unix(&path).await, &line, "").await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
        rejections.push(refused);
    }
    assert_eq!(rejections[0], rejections[1]);
    for line in ["GET /openapi.json", "GET /nothing", "PATCH /conversations"] {
        let refused = http(unix(&path).await, line, "").await;
        assert_eq!(refused, rejections[0], "{line}");
    }
    let mut health = HealthClient::new(channel_at(&path).await);
    health.check(HealthCheckRequest::default()).await.unwrap();
}

#[tokio::test]
async fn accepts_users_and_groups_on_the_list() {
    let folder = SocketFolder::new();
    let (uid, gid) = folder.ids();
    let (users, groups) = (format!("{},{uid}", uid + 1), gid.to_string());
    let other_uid = (uid + 1).to_string();
    for lists in [
        &[("UNIX_ALLOWED_UIDS", users.as_str())][..],
        &[("UNIX_ALLOWED_GIDS", &groups)],
        &[
            ("UNIX_ALLOWED_UIDS", &other_uid),
            ("UNIX_ALLOWED_GIDS", &groups),
        ],
    ] {
        let form = Form::embedded();
        let _sidecar = start(&form, &folder.addresses(), lists).await;
        begin(&mut memory_at(&folder.socket()).await).await.unwrap();
    }
}
