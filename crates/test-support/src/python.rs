//! Python scripts of the tests, which use libraries that callers and readers of the data use.

use std::{path::Path, process::Stdio};

use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::completes;

/// Runs a script of tests/python with arguments and standard input, and returns the JSON that it
/// prints.
pub async fn python(script: &str, arguments: &[&str], input: &str) -> Value {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let environment = root.join("target/test-python");
    let interpreter = environment.join("bin/python");
    assert!(
        interpreter.exists(),
        "the Python environment of the tests is missing: run the tests with `make test`"
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
    let output = completes("the script ends", process.wait_with_output()).await;
    let output = output.unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{script}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}
