//! Private PostgreSQL server of a test, which the test may kill, freeze and fill.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

use super::{
    eventually,
    ports::free_port,
    sidecar::{prioritize, send_signal, try_signal},
};

/// Server that ends when the value is dropped or the test's thread ends.
#[derive(Debug)]
pub struct PostgresServer {
    binaries: PathBuf,
    folder: TempDir,
    port: u16,
    options: Vec<String>,
    process: Option<Child>,
}

impl PostgresServer {
    /// Starts a server with an empty database.
    pub async fn start() -> Self {
        let mut server = Self::stopped();
        server.run().await;
        server
    }

    /// Creates a server that has a port and does not run yet.
    pub fn stopped() -> Self {
        let server = Self::without_data();
        let made = as_server(&server.binaries.join("initdb"))
            .arg("-D")
            .arg(server.data())
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8"])
            .args(["--locale=C.UTF-8", "--no-sync"])
            .stdout(Stdio::null())
            .status();
        assert!(made.unwrap().success(), "initdb failed");
        server
    }

    fn without_data() -> Self {
        let binaries = binaries();
        let folder = tempfile::tempdir().unwrap();
        let open = fs::Permissions::from_mode(0o711);
        fs::set_permissions(folder.path(), open).unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        // A standby requires this mode.
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        if is_root() {
            let owned = Command::new("chown").arg("postgres").arg(&data).status();
            assert!(owned.unwrap().success());
        }
        Self {
            binaries,
            port: free_port(),
            folder,
            options: Vec::new(),
            process: None,
        }
    }

    /// Starts a server that logs the statements it executes.
    pub async fn start_logging() -> Self {
        let mut server = Self::stopped();
        server.options = [
            "logging_collector=on",
            "log_directory=statements",
            "log_filename=log",
            "log_statement=all",
            "log_line_prefix=%m ",
        ]
        .map(str::to_owned)
        .into();
        server.run().await;
        server
    }

    /// Returns the statements that were executed so far, each as the first line of its text, of a
    /// server that logs them.
    pub async fn statements(&self) -> Vec<String> {
        const MARKER: &str = "SELECT 'all statements before'";
        let log = || {
            let log = fs::read_to_string(self.data().join("statements/log"));
            log.unwrap_or_default()
        };
        let markers = |log: &str| log.matches(MARKER).count();
        let written = markers(&log());
        self.execute(MARKER).await;
        // The log is written by another process.
        eventually("the log has all statements", async || {
            markers(&log()) > written
        })
        .await;
        let log = log();
        let statements = log.lines().filter_map(|line| {
            let (_, logged) = line.split_once(" LOG:  ")?;
            let kinds = ["execute ", "statement"];
            let is_statement = kinds.iter().any(|kind| logged.starts_with(kind));
            let (_, text) = logged.split_once(": ")?;
            (is_statement && !text.starts_with(MARKER)).then(|| text.to_owned())
        });
        statements.collect()
    }

    /// Starts a standby that follows this server asynchronously.
    pub async fn start_standby(&self) -> Self {
        let mut standby = Self::without_data();
        let copied = as_server(&self.binaries.join("pg_basebackup"))
            .arg("-D")
            .arg(standby.data())
            .args(["-d", &self.url(), "-R", "--checkpoint=fast", "--no-sync"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(copied.unwrap().success(), "pg_basebackup failed");
        standby.run().await;
        standby
    }

    /// Promotes a standby, and waits until it accepts writes.
    pub async fn promote(&self) {
        self.execute("SELECT pg_promote()").await;
    }

    /// Takes the address of another server. Neither of them may run.
    pub fn take_address_of(&mut self, other: &Self) {
        self.port = other.port;
    }

    /// Runs a stopped server with its data on disk, and waits until it accepts connections.
    pub async fn run(&mut self) {
        let url = self.url();
        self.process = Some(self.spawn());
        eventually("PostgreSQL accepts connections", async || {
            // A server does not start before all processes of a killed one have ended.
            let process = self.process.as_mut().unwrap();
            if process.try_wait().unwrap().is_some() {
                self.process = Some(self.spawn());
            }
            PgConnection::connect(&url).await.is_ok()
        })
        .await;
    }

    fn spawn(&self) -> Child {
        let data = self.data();
        as_server(&self.binaries.join("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-p", &self.port.to_string()])
            .args(self.options.iter().flat_map(|option| ["-c", option]))
            .args(["-c", "listen_addresses=127.0.0.1"])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", data.display()))
            .current_dir("/")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Opens a connection for the test itself.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.unwrap()
    }

    /// Executes a statement as the superuser.
    pub async fn execute(&self, statement: &'static str) {
        let mut connection = self.connect().await;
        sqlx::query(statement)
            .execute(&mut connection)
            .await
            .unwrap();
    }

    /// Requires the password of a role when it connects.
    pub async fn require_password(&self, role: &str) {
        let file = self.data().join("pg_hba.conf");
        let rules = fs::read_to_string(&file).unwrap();
        let rule = format!("host all {role} 127.0.0.1/32 scram-sha-256\n");
        fs::write(&file, rule + &rules).unwrap();
        self.execute("SELECT pg_reload_conf()").await;
    }

    /// Copies a database to an empty one, by `pg_dump` and `psql`.
    pub fn copy_by_dump(&self, from: &str, to: &str) {
        let url =
            |database: &str| format!("postgres://postgres@127.0.0.1:{}/{database}", self.port);
        let mut dump = as_server(&self.binaries.join("pg_dump"))
            .arg(url(from))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let restored = as_server(&self.binaries.join("psql"))
            .args(["--quiet", "--no-psqlrc", "--set", "ON_ERROR_STOP=1"])
            .arg(url(to))
            .stdin(dump.stdout.take().unwrap())
            .stdout(Stdio::null())
            .status();
        assert!(dump.wait().unwrap().success(), "pg_dump of {from} failed");
        assert!(
            restored.unwrap().success(),
            "the dump of {from} cannot be restored"
        );
    }

    /// Kills all processes of the server, as a crash of the machine would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            for id in Self::processes(process.id()) {
                // A back end may have ended by itself.
                try_signal(id, "KILL");
            }
            let _ = process.wait();
        }
    }

    /// Shuts the server down in order, disconnecting its clients.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            send_signal(process.id(), "INT");
            let _ = process.wait();
        }
    }

    /// Suspends all processes of the server.
    pub fn freeze(&self) {
        self.signal_all("STOP");
    }

    pub fn thaw(&self) {
        self.signal_all("CONT");
    }

    /// Gives the server's processes precedence over others, and returns whether the machine allows
    /// it. Processes that the server starts later inherit that.
    pub fn prioritize(&self) -> bool {
        let id = self.process.as_ref().expect("the server runs").id();
        prioritize(&Self::processes(id))
    }

    fn signal_all(&self, name: &str) {
        let id = self.process.as_ref().expect("the server runs").id();
        for id in Self::processes(id) {
            try_signal(id, name);
        }
    }

    /// Returns the ids of the server and its children.
    fn processes(server: u32) -> Vec<u32> {
        let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace().map(|id| id.parse().unwrap());
        std::iter::once(server).chain(children).collect()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.kill();
        // The files belong to another user, so the temporary folder cannot remove them.
        let _ = Command::new("rm").arg("-rf").arg(self.data()).status();
    }
}

/// Command that runs as the user postgres, because the server refuses to run as root. The process
/// ends with the thread that started it.
pub(crate) fn as_server(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if is_root() {
        command.args([
            "--reuid",
            "postgres",
            "--regid",
            "postgres",
            "--clear-groups",
        ]);
    }
    command.arg(program);
    command
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Returns the folder with the programs of the newest PostgreSQL. Debian has one folder per version.
fn binaries() -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .map(|version| version.unwrap().path().join("bin"))
        .filter(|folder| folder.join("initdb").exists())
        .collect();
    found.sort();
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&on_path).find(|folder| folder.join("initdb").exists());
    found
        .pop()
        .or(on_path)
        .expect("a PostgreSQL server is needed: run the tests with `make test`")
}
