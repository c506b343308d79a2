//! Files of settings that block, never end, or are no regular files.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    client::begin_with,
    tokens::{TOKEN, TokenFile, authorization, lines},
};
use test_support::{
    eventually,
    sidecar::{Form, command},
};

/// Replaces the token file by something that is not a regular file.
fn replace(path: &Path, with: impl FnOnce(&Path)) {
    let _ = fs::remove_file(path);
    let _ = fs::remove_dir(path);
    with(path);
}

fn make_fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.unwrap().success());
}

fn link_to(target: &'static str) -> impl Fn(&Path) {
    move |path| symlink(target, path).unwrap()
}

/// Creates a file at a path.
type Create = Box<dyn Fn(&Path)>;

/// Files that block, never end, or are no files, each with the error that it causes.
fn special_files() -> Vec<(&'static str, Create)> {
    let sparse = |path: &Path| fs::File::create(path).unwrap().set_len(1 << 40).unwrap();
    vec![
        ("not a regular file", Box::new(make_fifo)),
        ("not a regular file", Box::new(link_to("/dev/zero"))),
        ("not a regular file", Box::new(link_to("/dev/tty"))),
        ("not a regular file", Box::new(link_to("/dev/stdin"))),
        (
            "not a regular file",
            Box::new(|path| fs::create_dir(path).unwrap()),
        ),
        ("larger than 1 MiB", Box::new(sparse)),
    ]
}

#[tokio::test]
async fn files_that_block_or_never_end_keep_the_previous_tokens() {
    let file = TokenFile::of(&[("agent", TOKEN)]);
    let form = Form::embedded();
    let mut sidecar = file.start(&form, &[]).await;
    let mut memory = sidecar.memory();
    for (round, (cause, special)) in special_files().into_iter().enumerate() {
        let token = format!("token {round}");
        replace(&file.path(), special);
        let failed = format!("{cause}\"");
        eventually("the failure is logged", async || {
            let log = sidecar.log();
            let last = log.iter().rfind(|line| line.contains("AUTH_TOKENS_FILE"));
            last.is_some_and(|line| line.contains("reload failed") && line.contains(&failed))
        })
        .await;
        let previous = if round == 0 {
            TOKEN.to_owned()
        } else {
            format!("token {}", round - 1)
        };
        let previous = authorization(&previous);
        begin_with(&mut memory, Some(&previous)).await.unwrap();
        replace(&file.path(), |path| {
            fs::write(path, lines(&[("agent", &token)])).unwrap();
        });
        eventually("the valid file is used", async || {
            begin_with(&mut memory, Some(&authorization(&token)))
                .await
                .is_ok()
        })
        .await;
    }
    assert!(sidecar.resident_kib() < 256 << 10);
    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().await.code(), Some(0));
}

#[test]
fn start_fails_if_a_file_blocks_or_never_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    for (cause, special) in special_files() {
        replace(&path, special);
        for (setting, others) in [
            ("AUTH_TOKENS_FILE", &[][..]),
            ("DATABASE_URL_FILE", &[]),
            ("POSTGRES_PASSWORD_FILE", &[]),
            ("REDIS_URL_FILE", &[]),
            ("REDIS_PASSWORD_FILE", &[]),
            ("LANGSMITH_API_KEY_FILE", &[]),
            ("REDIS_CA_FILE", &[("REDIS_URL", "rediss://localhost:1")]),
            ("TLS_CERT_FILE", &[("TLS_KEY_FILE", "/dev/null")]),
            ("TLS_KEY_FILE", &[("TLS_CERT_FILE", "/etc/hostname")]),
            (
                "OTEL_EXPORTER_OTLP_CERTIFICATE",
                &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:1")],
            ),
        ] {
            let data = tempfile::tempdir().unwrap();
            let output = command()
                .env("DATA_DIR", data.path())
                .env("LISTEN_ADDR", "127.0.0.1:0")
                .env("OPS_ADDR", "127.0.0.1:0")
                .env(setting, &path)
                .envs(others.iter().copied())
                .stderr(Stdio::piped())
                .output()
                .unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success(), "{setting} {cause}");
            assert!(stderr.contains(cause), "{setting} {cause}: {stderr}");
        }
    }
}
