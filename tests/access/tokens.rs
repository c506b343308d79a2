//! Bearer tokens: which calls need one, and changes of the token file.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Stdio,
};

use conversation_memory::proto::CreateSessionRequest;
use http::StatusCode;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::client::{
    HttpResponse, bearer, begin, begin_with, contents_of, http, is_reflected, memory_at, read,
    unix, with,
};
use test_support::{
    eventually, new_id, new_user,
    otlp_sink::OtlpSink,
    sidecar::{Form, Sidecar, command},
};

pub(crate) const TOKEN: &str = "correct-Horse-Battery-staple";
pub(crate) const OTHER: &str = "another-token-altogether";

test_support::in_both_forms!(
    rejects_all_calls_without_a_token_except_health_checks,
    applies_changes_of_the_token_file,
);

/// A token file in a temporary folder.
pub(crate) struct TokenFile {
    folder: tempfile::TempDir,
}

impl TokenFile {
    pub(crate) fn of(tokens: &[(&str, &str)]) -> Self {
        let file = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        file.write(&lines(tokens));
        file
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("tokens")
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
    }

    pub(crate) async fn start(&self, form: &Form, settings: &[(&str, &str)]) -> Sidecar {
        let path = self.path();
        let mut all = vec![("AUTH_TOKENS_FILE", path.to_str().unwrap())];
        all.extend(settings);
        Sidecar::start_with(form, &all).await
    }
}

pub(crate) fn lines(tokens: &[(&str, &str)]) -> String {
    let mut text = "# callers\n\n".to_owned();
    for (name, token) in tokens {
        write!(text, "{name}:").unwrap();
        for byte in Sha256::digest(token) {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

pub(crate) fn authorization(token: &str) -> String {
    format!("Bearer {token}")
}

async fn get(sidecar: &Sidecar, line: &str, headers: &str) -> HttpResponse {
    let stream = TcpStream::connect(sidecar.address).await.unwrap();
    http(stream, line, headers).await
}

async fn rejects_all_calls_without_a_token_except_health_checks(form: Form) {
    let file = TokenFile::of(&[("agent", TOKEN)]);
    let sidecar = file.start(&form, &[("LOG_LEVEL", "trace")]).await;
    let mut memory = sidecar.memory();
    let right = authorization(TOKEN);
    let known = begin_with(&mut memory, Some(&right)).await.unwrap();
    let mut rejections = (Vec::new(), Vec::new());
    let invalid = [
        None,
        Some(authorization(OTHER)),
        Some(authorization(&TOKEN.to_uppercase())),
        Some(authorization(&TOKEN[1..])),
        Some(format!("Basic {TOKEN}")),
        Some(TOKEN.to_owned()),
        Some("Bearer ".to_owned()),
    ];
    for invalid in invalid {
        for id in [&known, &new_id()] {
            let refused = read(&mut memory, id, invalid.as_deref()).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unauthenticated);
            rejections.0.push(contents_of(&refused));
            let header = invalid
                .as_ref()
                .map(|value| format!("authorization: {value}\r\n"));
            let line = format!("GET /v1/conversations/{id}");
            rejections
                .1
                .push(get(&sidecar, &line, &header.unwrap_or_default()).await);
        }
    }
    // A rejection does not wait for a body, and is the same for unknown paths.
    let body = "content-type: application/json\r\ncontent-length: 9\r\n";
    for line in ["POST /v1/turns:begin", "PUT /nothing"] {
        rejections.1.push(get(&sidecar, line, body).await);
    }
    rejections
        .1
        .push(get(&sidecar, "GET /openapi.json", "").await);
    let twice = bearer(TOKEN).repeat(2);
    rejections
        .1
        .push(get(&sidecar, "GET /openapi.json", &twice).await);
    rejections.0.dedup();
    rejections.1.dedup();
    assert!(
        rejections.0.len() == 1 && rejections.1.len() == 1,
        "{rejections:?}"
    );
    let rejection = &rejections.1[0];
    assert_eq!(rejection.status, StatusCode::UNAUTHORIZED);
    assert!(
        rejection.text.contains("www-authenticate: Bearer\n"),
        "{rejection:?}"
    );

    assert!(!is_reflected(sidecar.channel(), None).await);
    assert!(is_reflected(sidecar.channel(), Some(&right)).await);
    let lower = authorization(TOKEN).replace("Bearer", "bearer");
    read(&mut memory, &known, Some(&lower)).await.unwrap();
    let line = format!("GET /v1/conversations/{known}");
    let answer = get(&sidecar, &line, &bearer(TOKEN)).await;
    assert_eq!(answer.status, StatusCode::OK);
    let mut health = HealthClient::new(sidecar.channel());
    health.check(HealthCheckRequest::default()).await.unwrap();
    for line in sidecar.log() {
        assert!(!line.contains(TOKEN) && !line.contains(OTHER), "{line}");
    }
}

async fn applies_changes_of_the_token_file(form: Form) {
    let file = TokenFile::of(&[("agent", TOKEN)]);
    let mut sidecar = file.start(&form, &[]).await;
    // All calls use one connection.
    let mut memory = sidecar.memory();
    let (first, second) = (authorization(TOKEN), authorization(OTHER));
    let id = begin_with(&mut memory, Some(&first)).await.unwrap();
    read(&mut memory, &id, Some(&second)).await.unwrap_err();

    file.write(&lines(&[("agent", TOKEN), ("agent", OTHER)]));
    eventually("a new token is accepted", async || {
        read(&mut memory, &id, Some(&second)).await.is_ok()
    })
    .await;
    read(&mut memory, &id, Some(&first)).await.unwrap();
    // The file is replaced instead of written.
    let new = file.folder.path().join("new");
    fs::write(&new, lines(&[("agent", OTHER)])).unwrap();
    fs::rename(&new, file.path()).unwrap();
    eventually("a removed token is rejected", async || {
        read(&mut memory, &id, Some(&first)).await.is_err()
    })
    .await;

    let secret = "secret-in-an-invalid-line";
    file.write(&format!("{}x:{secret}\n", lines(&[("agent", TOKEN)])));
    let line = sidecar.wait_for_log("\"cause\":\"line 4 ").await;
    assert!(
        line.contains("ERROR") && line.contains("AUTH_TOKENS_FILE"),
        "{line}"
    );
    assert!(!line.contains(secret), "{line}");
    read(&mut memory, &id, Some(&second)).await.unwrap();
    read(&mut memory, &id, Some(&first)).await.unwrap_err();
    fs::remove_file(file.path()).unwrap();
    sidecar.wait_for_log("cannot read").await;
    read(&mut memory, &id, Some(&second)).await.unwrap();
    file.write(&lines(&[("agent", TOKEN)]));
    eventually("the file is used when it is valid again", async || {
        read(&mut memory, &id, Some(&first)).await.is_ok()
    })
    .await;
    file.write(&lines(&[]));
    eventually("the last token is removed", async || {
        read(&mut memory, &id, Some(&first)).await.is_err()
    })
    .await;
}

/// Kubernetes mounts a file as a link through a folder that is a link, and replaces the
/// latter.
#[tokio::test]
async fn applies_changes_of_a_symbolic_link() {
    let folder = tempfile::tempdir().unwrap();
    let version = |name: &str, token| {
        let version = folder.path().join(name);
        fs::create_dir(&version).unwrap();
        fs::write(version.join("tokens"), lines(&[("agent", token)])).unwrap();
    };
    let link = |to: &str| {
        let next = folder.path().join("..next");
        symlink(to, &next).unwrap();
        fs::rename(next, folder.path().join("..data")).unwrap();
    };
    version("..1", TOKEN);
    version("..2", OTHER);
    link("..1");
    let path = folder.path().join("tokens");
    symlink(Path::new("..data/tokens"), &path).unwrap();
    let form = Form::embedded();
    let file = [("AUTH_TOKENS_FILE", path.to_str().unwrap())];
    let sidecar = Sidecar::start_with(&form, &file).await;
    let mut memory = sidecar.memory();
    begin_with(&mut memory, Some(&authorization(TOKEN)))
        .await
        .unwrap();
    link("..2");
    eventually("the tokens of the other version are accepted", async || {
        begin_with(&mut memory, Some(&authorization(OTHER)))
            .await
            .is_ok()
    })
    .await;
    begin_with(&mut memory, Some(&authorization(TOKEN)))
        .await
        .unwrap_err();
}

#[tokio::test]
async fn start_fails_if_the_token_file_is_invalid() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    let refused = || {
        let output = command()
            .env("DATA_DIR", folder.path())
            .env("LISTEN_ADDR", "127.0.0.1:0")
            .env("OPS_ADDR", "127.0.0.1:0")
            .env("LOG_LEVEL", "off")
            .env("AUTH_TOKENS_FILE", &path)
            .stderr(Stdio::piped())
            .output();
        let output = output.unwrap();
        assert!(!output.status.success());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("AUTH_TOKENS_FILE"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        stderr
    };
    assert!(refused().contains("cannot read"));
    fs::write(&path, "agent:hunter2\n").unwrap();
    let stderr = refused();
    assert!(
        stderr.contains("line 1") && !stderr.contains("hunter2"),
        "{stderr}"
    );
    fs::write(&path, "\n").unwrap();
    assert!(refused().contains("no token"));
}

#[tokio::test]
async fn a_unix_socket_needs_a_token_unless_it_has_a_list() {
    let file = TokenFile::of(&[("agent", TOKEN)]);
    let path = file.folder.path().join("memory.sock");
    let listen = format!("127.0.0.1:0,unix:{}", path.display());
    let form = Form::embedded();
    let sidecar = file.start(&form, &[("LISTEN_ADDR", &listen)]).await;
    let mut memory = memory_at(&path).await;
    let refused = begin(&mut memory).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    begin_with(&mut memory, Some(&authorization(TOKEN)))
        .await
        .unwrap();
    sidecar.kill().await;

    let uid = std::os::unix::fs::MetadataExt::uid(&file.path().metadata().unwrap());
    for (listed, expected) in [(uid, Code::Ok), (uid + 1, Code::PermissionDenied)] {
        let listed = listed.to_string();
        let settings = [("LISTEN_ADDR", &*listen), ("UNIX_ALLOWED_UIDS", &*listed)];
        let sidecar = file.start(&form, &settings).await;
        let mut memory = memory_at(&path).await;
        for token in [None, Some(authorization(TOKEN))] {
            let begun = begin_with(&mut memory, token.as_deref()).await;
            let code = begun.err().map_or(Code::Ok, |refused| refused.code());
            assert_eq!(code, expected, "{token:?}");
        }
        let answer = http(unix(&path).await, "GET /openapi.json", &bearer(TOKEN)).await;
        assert_eq!(answer.status == StatusCode::OK, expected == Code::Ok);
        let refused = begin(&mut sidecar.memory()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        sidecar.kill().await;
    }
}

#[tokio::test]
async fn start_fails_beyond_loopback_without_authentication() {
    let output = command()
        .env("LISTEN_ADDR", "127.0.0.1:0,0.0.0.0:0")
        .stderr(Stdio::piped())
        .output();
    let stderr = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(stderr.contains("AUTH_TOKENS_FILE"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let (form, everywhere) = (Form::embedded(), ("LISTEN_ADDR", "0.0.0.0:0"));
    let insecure = [everywhere, ("INSECURE", "true")];
    Sidecar::start_with(&form, &insecure).await.kill().await;
    let file = TokenFile::of(&[("agent", TOKEN)]);
    file.start(&form, &[everywhere]).await.kill().await;
}

#[tokio::test]
async fn logs_and_spans_have_the_name_of_the_caller_and_no_secret() {
    let file = TokenFile::of(&[("agent-7", TOKEN)]);
    let sink = OtlpSink::start().await;
    let url = sink.url();
    let form = Form::servers().without_redis().unwrap();
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true"),
    ];
    let mut sidecar = file.start(&form, &settings).await;
    let mut memory = sidecar.memory();
    begin_with(&mut memory, Some(&authorization(TOKEN)))
        .await
        .unwrap();
    begin_with(&mut memory, Some(&authorization(OTHER)))
        .await
        .unwrap_err();
    let create = CreateSessionRequest {
        user_id: new_user(),
        ..CreateSessionRequest::default()
    };
    let create = with(create, Some(&authorization(TOKEN)));
    let failed = sidecar.sessions().create_session(create).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable);
    let line = sidecar.wait_for_log("call failed").await;
    assert!(line.contains("\"caller\":\"agent-7\""), "{line}");
    sidecar.signal("TERM");
    sidecar.ended().await;
    let calls: Vec<_> = sink.spans();
    let calls = calls.iter().filter(|span| span.name.contains('/'));
    let names: Vec<_> = calls.map(|span| span.text("enduser.id")).collect();
    assert_eq!(names, ["agent-7", "", "agent-7"]);
    for token in [TOKEN, OTHER] {
        let hash = lines(&[("", token)]);
        let hash = hash.lines().last().unwrap().trim_start_matches(':');
        for secret in [token, hash] {
            assert!(!sink.sent().iter().any(|sent| sent.contains(secret)));
            assert!(!sidecar.log().iter().any(|line| line.contains(secret)));
        }
    }
}
