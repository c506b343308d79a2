//! pgbench, PostgreSQL's own load generator, on a schema of its own.

use std::{path::PathBuf, process::Stdio, time::Duration};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, raw_sql};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
    time::sleep,
};

use super::{
    client::Sample,
    cpu::{Processes, Usage},
    texts::{answer, question},
};

/// Highest number of clients: the test server accepts 200 connections, and more of them make
/// PostgreSQL slower.
const MAX_CLIENTS: usize = 150;

const SCHEMA: &str = "
    DROP SCHEMA IF EXISTS pgbench CASCADE;
    CREATE SCHEMA pgbench;
    CREATE TABLE pgbench.conversations (
        id bigint PRIMARY KEY,
        last_seq bigint NOT NULL,
        updated_at timestamptz NOT NULL
    );
    CREATE TABLE pgbench.messages (
        conversation_id bigint NOT NULL,
        seq bigint NOT NULL,
        role text NOT NULL,
        content text NOT NULL,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (conversation_id, seq)
    );
    INSERT INTO pgbench.conversations SELECT n, 0, now() FROM generate_series(0, 255) AS n;";

/// The least that a save of two messages does, as one prepared statement.
const STATEMENT: &str = "
    WITH conversation AS (
        UPDATE pgbench.conversations SET last_seq = last_seq + 2, updated_at = now()
        WHERE id = :client_id RETURNING id, last_seq
    )
    INSERT INTO pgbench.messages (conversation_id, seq, role, content, created_at)
    SELECT id, last_seq - 1, 'user', :question::text, now() FROM conversation
    UNION ALL
    SELECT id, last_seq, 'assistant', :answer::text, now() FROM conversation;";

/// pgbench with a script that saves two messages.
#[derive(Debug)]
pub(super) struct Pgbench {
    program: PathBuf,
    script: tempfile::NamedTempFile,
    database_url: String,
    servers: Processes,
}

impl Pgbench {
    /// Creates the schema and the script.
    pub(super) async fn new(database_url: &str, servers: Processes) -> Self {
        let mut connection = PgConnection::connect(database_url).await.unwrap();
        execute(&mut connection, SCHEMA).await;
        let script = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(script.path(), STATEMENT).unwrap();
        // pgbench is beside the server's program, which need not be in the search path.
        let server = servers
            .postgres
            .and_then(|id| std::fs::read_link(format!("/proc/{id}/exe")).ok());
        let program = server.map_or_else(
            || PathBuf::from("pgbench"),
            |server| server.with_file_name("pgbench"),
        );
        Self {
            program,
            script,
            database_url: database_url.to_owned(),
            servers,
        }
    }

    /// Runs the script for whole seconds, at least two.
    pub(super) async fn run(&self, clients: usize, duration: Duration) -> (Sample, Usage) {
        let seconds = duration.as_secs_f64().ceil().max(2.0);
        let mut process = self.start(clients.min(MAX_CLIENTS), seconds);
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut messages = Vec::new();
        let mut window = None;
        // The first progress report marks a moment at which every client is connected.
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.starts_with("progress:") && window.is_none() {
                let before = self.servers.snapshot();
                sleep(Duration::from_millis(900)).await;
                window = Some(self.servers.snapshot().since(&before));
            }
            messages.push(line);
        }
        let mut output = String::new();
        let mut pipe = process.stdout.take().unwrap();
        pipe.read_to_string(&mut output).await.unwrap();
        let status = process.wait().await.unwrap();
        assert!(status.success(), "pgbench failed: {messages:?}");
        let number = |name: &str| -> f64 {
            let line = output.lines().find_map(|line| line.strip_prefix(name));
            let text = line.and_then(|line| line.split_whitespace().next());
            text.unwrap().parse().unwrap()
        };
        let calls = number("number of transactions actually processed:");
        let elapsed = calls / number("tps =");
        let mut usage = Usage::default();
        usage.add(window.unwrap_or_default(), elapsed / 0.9);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count of calls"
        )]
        let sample = Sample {
            calls: calls as usize,
            elapsed: Duration::from_secs_f64(elapsed),
            ..Sample::default()
        };
        (sample, usage)
    }

    fn start(&self, clients: usize, seconds: f64) -> Child {
        let clients = clients.to_string();
        let seconds = seconds.to_string();
        Command::new(&self.program)
            .args(["--no-vacuum", "--protocol=prepared", "--progress=1"])
            .args(["--client", &clients, "--time", &seconds])
            .arg(format!("--define=question={}", question()))
            .arg(format!("--define=answer={}", answer()))
            .arg("--file")
            .arg(self.script.path())
            .arg(&self.database_url)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("pgbench can be started")
    }
}

/// Starts a checkpoint and waits for its end, so that none begins during a measurement.
pub(super) async fn checkpoint(database_url: &str) {
    let mut connection = PgConnection::connect(database_url).await.unwrap();
    execute(&mut connection, "CHECKPOINT").await;
}

async fn execute(connection: &mut PgConnection, statements: &'static str) {
    raw_sql(AssertSqlSafe(statements))
        .execute(connection)
        .await
        .unwrap();
}
