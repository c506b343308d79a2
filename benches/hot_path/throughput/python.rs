//! Turns of a Python program, with the client of this project or with drivers alone.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{
    client::Sample,
    cpu::{Processes, Usage},
};

/// Python process that takes turns when it is told to.
#[derive(Debug)]
pub(super) struct Python {
    // Ends the process when it is dropped.
    _process: Child,
    commands: ChildStdin,
    results: Lines<BufReader<ChildStdout>>,
    servers: Processes,
}

impl Python {
    /// Starts a program in `benches/python`.
    pub(super) fn start(program: &str, arguments: &[&str], servers: Processes) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let interpreter = root.join("target/bench-python/bin/python");
        let mut process = Command::new(interpreter)
            .arg(root.join("benches/python").join(program))
            .args(arguments)
            .env_clear()
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the environment exists: run `tests/python-env bench`");
        let output = process.stdout.take().unwrap();
        Self {
            commands: process.stdin.take().unwrap(),
            results: BufReader::new(output).lines(),
            _process: process,
            servers,
        }
    }

    /// Takes turns with a number of callers.
    pub(super) async fn run(&mut self, callers: usize, duration: Duration) -> (Sample, Usage) {
        let before = self.servers.snapshot();
        let result = self
            .send(format!("{callers} {}\n", duration.as_secs_f64()))
            .await;
        let mut usage = self.servers.snapshot().since(&before);
        usage.client = Duration::from_secs_f64(result["cpu"].as_f64().unwrap());
        let times = result["times"].as_array().unwrap();
        let times = times
            .iter()
            .map(|time| Duration::from_secs_f64(time.as_f64().unwrap()));
        let times: Vec<_> = times.collect();
        let sample = Sample {
            calls: times.len(),
            rejected: 0,
            elapsed: Duration::from_secs_f64(result["elapsed"].as_f64().unwrap()),
            times,
        };
        (sample, usage)
    }

    /// Takes turns in one thread, and returns the bytes of its messages.
    pub(super) async fn take_turns_in_one_thread(&mut self, turns: usize) -> f64 {
        let result = self.send(format!("0 {turns}\n")).await;
        result["bytes"].as_f64().unwrap()
    }

    async fn send(&mut self, command: String) -> Value {
        self.commands.write_all(command.as_bytes()).await.unwrap();
        let line = self.results.next_line().await.unwrap();
        serde_json::from_str(&line.expect("the program has ended")).unwrap()
    }
}
