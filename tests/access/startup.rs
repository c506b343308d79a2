//! Failures at startup, as the operator sees them: one line that names the setting.

use std::{net::TcpListener, os::unix::ffi::OsStringExt as _, path::Path, process::Stdio};

use serde_json::Value;
use test_support::sidecar::{Form, Sidecar, command};

/// Standard error of a sidecar that cannot start with these settings.
fn failure(data_dir: &Path, settings: &[(&str, &str)]) -> String {
    let output = command()
        .env("DATA_DIR", data_dir)
        .env("OPS_ADDR", "127.0.0.1:0")
        .env("LISTEN_ADDR", "127.0.0.1:0")
        .env("LOG_LEVEL", "warn")
        .envs(settings.iter().copied())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        !text.contains("Os {") && !text.contains("Custom {"),
        "{text}"
    );
    text
}

#[test]
fn failures_are_log_lines_that_name_the_setting_and_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let in_use = TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = in_use.local_addr().unwrap().to_string();
    let long = format!("unix:{}/{}.sock", folder.path().display(), "a".repeat(100));
    for (settings, expected) in [
        (
            [("LISTEN_ADDR", &*in_use)],
            format!("LISTEN_ADDR: cannot bind {in_use}: address in use"),
        ),
        (
            [("OPS_ADDR", &in_use)],
            format!("OPS_ADDR: cannot bind {in_use}: address in use"),
        ),
        (
            [("LISTEN_ADDR", &long)],
            format!(
                "LISTEN_ADDR: cannot bind {long}: the path of a Unix socket must have at most 107 bytes"
            ),
        ),
        (
            [("DATA_DIR", file)],
            format!("DATA_DIR: cannot create {file}: file exists"),
        ),
        (
            // A folder in which nothing can be created, not even by root.
            [("DATA_DIR", "/proc/data")],
            "DATA_DIR: cannot create /proc/data: no such file or directory".to_owned(),
        ),
        (
            [("AUTH_TOKENS_FILE", "/nonexistent")],
            "AUTH_TOKENS_FILE: cannot read /nonexistent: no such file or directory".to_owned(),
        ),
    ] {
        let text = [&settings[..], &[("LOG_FORMAT", "text")]].concat();
        let line = failure(&data_dir, &text);
        assert!(line.ends_with(&format!("ERROR {expected}\n")), "{line}");
        let json = [&settings[..], &[("LOG_FORMAT", "json")]].concat();
        let line: Value = serde_json::from_str(&failure(&data_dir, &json)).unwrap();
        assert_eq!(line["level"], "ERROR");
        assert_eq!(line["message"], *expected);
    }
}

#[tokio::test]
async fn a_second_sidecar_on_a_folder_does_not_start_until_the_first_one_has_ended() {
    let form = Form::embedded();
    let Form::Embedded(folder) = &form else {
        panic!("the form has a folder");
    };
    let first = Sidecar::start(&form).await;
    let settings = [("LOG_FORMAT", "text")];
    let line = failure(folder.path(), &settings);
    let expected = format!(
        "ERROR DATA_DIR: {} is in use by another sidecar: stop it, or set another folder; several \
         sidecars can share conversations in PostgreSQL (DATABASE_URL)\n",
        folder.path().display()
    );
    assert!(line.ends_with(&expected), "{line}");
    // Other commands need no lock.
    let migrated = command()
        .arg("migrate")
        .env("DATA_DIR", folder.path())
        .output()
        .unwrap();
    assert!(migrated.status.success(), "{migrated:?}");
    // A sidecar that overlaps its killed predecessor takes the folder over.
    let mut second = Sidecar::launch(&form, &[]);
    second.wait_for_log("waiting for its end").await;
    first.kill().await;
    second.serving().await;
}

#[test]
fn failures_are_written_to_standard_error_if_the_log_is_off() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("AUTH_TOKENS_FILE", "/nonexistent"), ("LOG_LEVEL", "off")];
    assert_eq!(
        failure(folder.path(), &settings),
        "conversation-memory: AUTH_TOKENS_FILE: cannot read /nonexistent: no such file or \
         directory\n"
    );
}

#[test]
fn invalid_variables_are_reported_with_their_valid_values() {
    let folder = tempfile::tempdir().unwrap();
    for (settings, expected) in [
        (
            ("INSECURE", "yes"),
            "invalid value \"yes\" for INSECURE: must be true or false",
        ),
        (
            ("LOG_LEVEL", "WARNING"),
            "invalid value \"WARNING\" for LOG_LEVEL: must be error, warn, info, debug, trace or \
             off, or filters by module such as info,sqlx=debug",
        ),
        (
            ("LOG_FORMAT", "xml"),
            "invalid value \"xml\" for LOG_FORMAT: must be auto, text or json",
        ),
    ] {
        let line = failure(folder.path(), &[settings]);
        assert_eq!(line, format!("conversation-memory: {expected}\n"));
    }
}

#[test]
fn variables_that_are_not_utf8_are_named() {
    let output = command()
        .env("REDIS_HOST", std::ffi::OsString::from_vec(vec![0xff]))
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "conversation-memory: invalid value for REDIS_HOST: must be UTF-8\n"
    );
}
