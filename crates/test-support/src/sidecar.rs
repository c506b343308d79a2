//! Sidecar process: the compiled program, started and stopped by a test.

use std::{
    env,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use conversation_memory::proto::{
    conversation_memory_client::ConversationMemoryClient,
    session_service_client::SessionServiceClient, store_service_client::StoreServiceClient,
};
use tonic::transport::{Channel, Endpoint};

use crate::{eventually, pgbouncer, required_variable, within_progress};

pub type Memory = ConversationMemoryClient<Channel>;
pub type Sessions = SessionServiceClient<Channel>;
pub type Items = StoreServiceClient<Channel>;

/// Storage of a sidecar: an embedded SQLite file, or PostgreSQL and Redis.
pub enum Form {
    Embedded(tempfile::TempDir),
    Servers {
        database_url: String,
        redis_url: String,
    },
}

impl Form {
    pub fn embedded() -> Self {
        Self::Embedded(tempfile::tempdir().unwrap())
    }

    /// PostgreSQL and Redis that `make test` started.
    pub fn servers() -> Self {
        Self::Servers {
            database_url: required_variable("TEST_DATABASE_URL"),
            redis_url: required_variable("TEST_REDIS_URL"),
        }
    }

    /// The same storage with an unreachable Redis; `None` for the embedded form, which uses none.
    pub fn without_redis(&self) -> Option<Self> {
        match self {
            Self::Embedded(_) => None,
            Self::Servers { database_url, .. } => Some(Self::Servers {
                database_url: database_url.clone(),
                redis_url: "redis://127.0.0.1:1/0".to_owned(),
            }),
        }
    }

    fn settings(&self) -> Vec<(String, String)> {
        match self {
            Self::Embedded(folder) => vec![(
                "DATA_DIR".to_owned(),
                folder.path().to_str().unwrap().to_owned(),
            )],
            Self::Servers {
                database_url,
                redis_url,
            } => {
                let mut settings = vec![("REDIS_URL".to_owned(), redis_url.clone())];
                match pooled(database_url) {
                    Some(pooled) => {
                        settings.push(("DATABASE_URL".to_owned(), pooled));
                        settings.push(("MIGRATION_DATABASE_URL".to_owned(), database_url.clone()));
                    }
                    None => settings.push(("DATABASE_URL".to_owned(), database_url.clone())),
                }
                settings
            }
        }
    }
}

/// URL of a pooler in front of a server of this machine, if `TEST_POOLER=transaction` is set.
fn pooled(database_url: &str) -> Option<String> {
    if std::env::var("TEST_POOLER").as_deref() != Ok("transaction") {
        return None;
    }
    let (before, after) = database_url.split_once("@127.0.0.1:")?;
    let (port, after) = after.split_once('/')?;
    let port = pgbouncer::started(port.parse().ok()?);
    Some(format!("{before}@127.0.0.1:{port}/{after}"))
}

/// Sidecar that runs until it is dropped.
pub struct Sidecar {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<thread::JoinHandle<()>>,
    pub address: SocketAddr,
}

impl Sidecar {
    /// Starts a sidecar and waits until it serves.
    pub async fn start(form: &Form) -> Self {
        Self::start_with(form, &[]).await
    }

    /// Starts a sidecar with additional settings and waits until it serves.
    pub async fn start_with(form: &Form, settings: &[(&str, &str)]) -> Self {
        let mut sidecar = Self::launch(form, settings);
        sidecar.serving().await;
        sidecar
    }

    /// Starts as many sidecars as a test uses together: two on servers, and one on a folder, which
    /// belongs to one sidecar.
    pub async fn start_all(form: &Form) -> Vec<Self> {
        let mut sidecars = vec![Self::start(form).await];
        if let Form::Servers { .. } = form {
            sidecars.push(Self::start(form).await);
        }
        sidecars
    }

    /// Starts another build of the program and waits until it serves.
    pub async fn start_program(program: &Path, form: &Form) -> Self {
        let mut sidecar = Self::launch_command(command_of(program), form, &[]);
        sidecar.serving().await;
        sidecar
    }

    /// Waits until the sidecar is serving, and stores its address.
    pub async fn serving(&mut self) {
        let line = self.wait_for_log("\"message\":\"serving\"").await;
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        self.address = line["address"].as_str().unwrap().parse().unwrap();
    }

    /// Waits for the address of the operations port, and returns it.
    pub async fn operations(&mut self) -> SocketAddr {
        let line = self
            .wait_for_log("\"message\":\"serving operations\"")
            .await;
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        line["address"].as_str().unwrap().parse().unwrap()
    }

    /// Starts a sidecar and does not wait.
    pub fn launch(form: &Form, settings: &[(&str, &str)]) -> Self {
        Self::launch_command(command(), form, settings)
    }

    /// Starts a sidecar whose data folder is a disk of `mib` MiB of its own, and waits until it
    /// serves. Returns the sidecar, and the folder as the test reaches it. `None` if this machine
    /// does not permit to mount one.
    pub async fn start_on_small_disk(form: &Form, mib: u32) -> Option<(Self, PathBuf)> {
        let mount = format!("mount -t tmpfs -o size={mib}m,mode=700 tmpfs \"$DATA_DIR\"");
        let mut command = Command::new("/usr/bin/unshare");
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // The namespace maps this user to root, who may mount in it.
            .args(["--map-root-user", "--mount", "sh", "-c"]);
        let mut trial = Command::new("/usr/bin/unshare");
        let permitted = trial.args(["--map-root-user", "--mount", "sh", "-c"]);
        let permitted = permitted.arg("mount -t tmpfs tmpfs /mnt").status();
        if !permitted.is_ok_and(|status| status.success()) {
            return None;
        }
        command
            .arg(format!("{mount} && exec \"$0\""))
            .arg(program());
        let mut sidecar = Self::launch_command(command, form, &[]);
        sidecar.serving().await;
        let Form::Embedded(folder) = form else {
            panic!("only the embedded form has a disk");
        };
        let root = PathBuf::from(format!("/proc/{}/root", sidecar.id()));
        let folder = root.join(folder.path().strip_prefix("/").unwrap());
        Some((sidecar, folder))
    }

    fn launch_command(mut command: Command, form: &Form, settings: &[(&str, &str)]) -> Self {
        command
            .envs(form.settings())
            .env("LISTEN_ADDR", "127.0.0.1:0")
            .env("OPS_ADDR", "127.0.0.1:0")
            .env("LOG_FORMAT", "json")
            .envs(settings.iter().copied())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let seen = Arc::clone(&log);
        let reader = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                seen.lock().unwrap().push(line);
            }
        });
        Self {
            child,
            log,
            reader: Some(reader),
            address: ([127, 0, 0, 1], 0).into(),
        }
    }

    /// Waits for a line of the log that contains a text.
    pub async fn wait_for_log(&mut self, text: &str) -> String {
        let what = format!("a line of the log with {text:?}");
        within_progress(
            &what,
            async || {
                let log = self.log();
                let found = log.iter().find(|line| line.contains(text)).cloned();
                let ended = self.child.try_wait().unwrap();
                assert!(
                    found.is_some() || ended.is_none(),
                    "the sidecar ended ({ended:?}) without {what}: {log:#?}"
                );
                (log.len(), found)
            },
            |(_, found)| found.is_some(),
        )
        .await
        .1
        .unwrap()
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub fn channel(&self) -> Channel {
        Endpoint::try_from(format!("http://{}", self.address))
            .unwrap()
            .connect_lazy()
    }

    pub fn memory(&self) -> Memory {
        Memory::new(self.channel()).max_decoding_message_size(64 << 20)
    }

    pub fn items(&self) -> Items {
        StoreServiceClient::new(self.channel())
    }

    pub fn sessions(&self) -> Sessions {
        Sessions::new(self.channel())
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, such as "TERM" or "KILL".
    pub fn signal(&self, name: &str) {
        send_signal(self.id(), name);
    }

    /// Gives the sidecar precedence over other processes, and returns whether the machine allows it.
    pub fn prioritize(&self) -> bool {
        prioritize(&[self.id()])
    }

    /// Waits until the sidecar has ended; then its log is complete.
    pub async fn ended(&mut self) -> ExitStatus {
        eventually("the sidecar ends", async || {
            self.child.try_wait().unwrap().is_some()
        })
        .await;
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.child.wait().unwrap()
    }

    /// Kills the sidecar, as a crash would.
    pub async fn kill(mut self) {
        self.signal("KILL");
        self.ended().await;
    }

    /// Returns the resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.memory_kib("VmRSS:")
    }

    /// Returns the highest resident memory so far, in KiB.
    pub fn peak_kib(&self) -> u64 {
        self.memory_kib("VmHWM:")
    }

    fn memory_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Command of the program with an empty environment, because the environment of the tests may contain
/// settings.
pub fn command() -> Command {
    command_of(&program())
}

fn command_of(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

/// Path of the program under test, which Cargo builds before the suites and benchmarks of
/// its package and puts into the folder above theirs.
fn program() -> PathBuf {
    let suite = env::current_exe().unwrap();
    let folder = suite.ancestors().nth(2).unwrap();
    folder.join("conversation-memory")
}

pub fn send_signal(process: u32, name: &str) {
    assert!(try_signal(process, name), "kill -s {name} {process}");
}

/// Sends a signal to a process that may have ended, and returns whether it was sent. The shell's
/// built-in `kill` is used because not every machine has the program of that name.
pub fn try_signal(process: u32, name: &str) -> bool {
    let sent = Command::new("sh")
        .args([
            "-c",
            "kill -s \"$1\" \"$2\"",
            "sh",
            name,
            &process.to_string(),
        ])
        .stderr(Stdio::null())
        .status();
    sent.unwrap().success()
}

/// Gives processes precedence over others, and returns whether the machine allows it. Only the
/// superuser may do it.
pub(crate) fn prioritize(processes: &[u32]) -> bool {
    let threads = processes.iter().flat_map(|process| {
        let threads = std::fs::read_dir(format!("/proc/{process}/task"));
        threads.into_iter().flatten().flatten()
    });
    let changed = Command::new("renice")
        .args(["-n", "-15", "-p"])
        .args(threads.map(|thread| thread.file_name()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    changed.is_ok_and(|status| status.success())
}
