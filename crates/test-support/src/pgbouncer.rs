//! `PgBouncer` in front of a PostgreSQL server of a test.

use std::{
    collections::HashMap,
    process::{Child, Stdio},
    sync::{Mutex, PoisonError},
    thread,
};

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::{eventually, ports::free_port, postgres_server::as_server};

/// Pooler that ends when the value is dropped or the thread that started it ends.
#[derive(Debug)]
pub struct PgBouncer {
    port: u16,
    process: Child,
    _folder: TempDir,
}

impl PgBouncer {
    /// Starts a pooler of the server on a port of this machine. `mode` is its `pool_mode`. It opens at
    /// most `servers` connections to each database.
    pub async fn start(postgres: u16, mode: &str, servers: u32) -> Self {
        Self::start_with(postgres, mode, servers, "").await
    }

    /// Starts a pooler with additional lines of its configuration.
    pub async fn start_with(postgres: u16, mode: &str, servers: u32, lines: &str) -> Self {
        let started = Self::spawn(postgres, mode, servers, lines);
        accepts_connections(started.port).await;
        started
    }

    fn spawn(postgres: u16, mode: &str, servers: u32, lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let file = folder.path().join("pgbouncer.ini");
        let configuration = format!(
            "[databases]\n\
             * = host=127.0.0.1 port={postgres} user=postgres\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             unix_socket_dir =\n\
             auth_type = any\n\
             pool_mode = {mode}\n\
             default_pool_size = {servers}\n\
             max_client_conn = 1000\n\
             server_login_retry = 0.2\n\
             {lines}\n"
        );
        std::fs::write(&file, configuration).unwrap();
        open_to_all(&folder, &file);
        let process = as_server("pgbouncer".as_ref())
            .arg("--quiet")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("PgBouncer is needed: run the tests with `make test`");
        Self {
            port,
            process,
            _folder: folder,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the port of a pooler in transaction mode with twelve servers, which all tests of this
/// process share. It ends with the process.
pub async fn shared(postgres: u16) -> u16 {
    let port = started(postgres);
    accepts_connections(port).await;
    port
}

/// Returns the port of the shared pooler, which may not accept connections yet. See [`shared()`].
pub fn started(postgres: u16) -> u16 {
    static PORTS: Mutex<Option<HashMap<u16, u16>>> = Mutex::new(None);
    let mut ports = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    let ports = ports.get_or_insert_default();
    *ports.entry(postgres).or_insert_with(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        // The pooler ends with the thread that started it.
        thread::spawn(move || {
            let pooler = PgBouncer::spawn(postgres, "transaction", 12, "");
            sender.send(pooler.port).unwrap();
            loop {
                thread::park();
            }
        });
        receiver.recv().unwrap()
    })
}

async fn accepts_connections(port: u16) {
    eventually("PgBouncer accepts connections", async || {
        TcpStream::connect(("127.0.0.1", port)).await.is_ok()
    })
    .await;
}

fn open_to_all(folder: &TempDir, file: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    for (path, mode) in [(folder.path(), 0o711), (file, 0o644)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}
