//! The tests' Python: callers and readers with the libraries that they have.

use std::{path::Path, process::Stdio};

use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, process::Command};

/// Runs a script of tests/python with arguments and an input, and gives what it
/// printed, which is JSON.
pub async fn python(script: &str, arguments: &[&str], input: &str) -> Value {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let environment = root.join("target/test-python");
    let interpreter = environment.join("bin/python");
    assert!(
        interpreter.exists(),
        "the tests' Python is missing: run the tests with `make test`"
    );
    let mut process = Command::new(interpreter)
        .arg(root.join("tests/python").join(script))
        .args(arguments)
        .env_clear()
        .env("PYTHONPATH", environment.join("stubs"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = process.wait_with_output();
    let output = tokio::time::timeout(crate::PATIENCE, output).await;
    let output = output.expect("the script ends").unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{script}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}
