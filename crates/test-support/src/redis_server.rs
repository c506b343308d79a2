//! Redis servers for tests: the shared one that `make test` starts, and private ones that a test may
//! freeze, kill and fill.

use std::{
    ops::Range,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use conversation_memory::redis::{Redis, RedisSettings, RedisTarget};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{completes, eventually, ports::free_port, sidecar::prioritize};

/// Returns the URL of the shared server.
pub fn shared_url() -> String {
    std::env::var("TEST_REDIS_URL")
        .expect("TEST_REDIS_URL is not set: run the tests with `make test`")
}

/// Creates a key prefix that no other test uses.
pub fn unique_prefix() -> String {
    let id = uuid::Uuid::now_v7();
    format!("test-{}:", id.simple())
}

/// Connects a client whose timeout is long enough for a busy machine, and waits until it is
/// available.
pub async fn connect_and_wait(url: &str, prefix: &str) -> Redis {
    let redis = Redis::connect(
        RedisTarget::from_url(url).unwrap(),
        RedisSettings {
            key_prefix: prefix.to_owned(),
            call_timeout: Duration::from_secs(5),
            ..RedisSettings::default()
        },
    );
    completes("Redis responds", redis.wait_until_available()).await;
    redis
}

/// Connects a client with the settings of a sidecar.
pub fn connect(url: &str, prefix: &str) -> Redis {
    let settings = RedisSettings {
        key_prefix: prefix.to_owned(),
        ..RedisSettings::default()
    };
    Redis::connect(RedisTarget::from_url(url).unwrap(), settings)
}

/// Time in milliseconds after which a node of a cluster is replaced. On a busy machine, several seconds can
/// pass before a node responds.
pub(crate) const NODE_TIMEOUT: &str = "5000";

/// Private server, which ends when the value is dropped or the test's thread ends.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    options: Vec<String>,
    folder: TempDir,
    process: Option<Child>,
    is_sentinel: bool,
}

impl RedisServer {
    /// Starts a server on a free port with additional options such as `--maxmemory 4mb`.
    pub async fn start(options: &[&str]) -> Self {
        let mut server = Self::stopped(options);
        server.run().await;
        server
    }

    /// Starts a sentinel.
    pub async fn start_sentinel() -> Self {
        let mut server = Self::stopped(&[]);
        server.is_sentinel = true;
        server.run().await;
        server
    }

    /// Creates a server that has a port and does not run yet.
    pub fn stopped(options: &[&str]) -> Self {
        Self {
            port: free_port(),
            options: options.iter().map(ToString::to_string).collect(),
            folder: tempfile::tempdir().unwrap(),
            process: None,
            is_sentinel: false,
        }
    }

    /// Runs a stopped server, on the same port, and waits until it responds.
    pub async fn run(&mut self) {
        self.launch();
        eventually("redis-server responds", async || {
            let answer = self.try_call(&["PING"]).await;
            answer.is_ok_and(|answer| answer == "PONG" || answer.contains("NOAUTH"))
        })
        .await;
    }

    /// Runs a stopped server on the same port, and does not wait.
    pub fn launch(&mut self) {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "redis-server"]);
        if self.is_sentinel {
            let config = self.folder.path().join("sentinel.conf");
            std::fs::write(&config, "").unwrap();
            command.arg(config).arg("--sentinel");
        } else {
            command.args(["--save", ""]);
        }
        let process = command
            .args([
                "--bind",
                "127.0.0.1",
                "--port",
                &self.port.to_string(),
                "--dir",
            ])
            .arg(self.folder.path())
            .args(&self.options)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server and setpriv are needed: run the tests with `make test`");
        self.process = Some(process);
    }

    /// Adds options for the next start of a stopped server.
    pub fn add_options(&mut self, options: &[&str]) {
        self.options.extend(options.iter().map(ToString::to_string));
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Suspends the server: the kernel accepts connections, and no request is answered.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Gives the server precedence over other processes, and returns whether the machine allows it.
    pub fn prioritize(&self) -> bool {
        prioritize(&[self.process.as_ref().expect("the server runs").id()])
    }

    /// Starts a cluster of two masters with additional options.
    pub async fn start_cluster(options: &[&str]) -> Vec<Self> {
        let cluster = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            NODE_TIMEOUT,
        ];
        let options = [&cluster, options].concat();
        let mut servers = Vec::new();
        for slots in [0..8192, 8192..16_384] {
            let server = Self::start(&options).await;
            server.add_slots(slots).await;
            servers.push(server);
        }
        let port = servers[1].port().to_string();
        servers[0]
            .call(&["CLUSTER", "MEET", "127.0.0.1", &port])
            .await;
        for server in &servers {
            server.joins_cluster().await;
        }
        servers
    }

    /// Assigns hash slots to a node of a cluster.
    pub async fn add_slots(&self, slots: Range<usize>) {
        let slots: Vec<String> = slots.map(|slot| slot.to_string()).collect();
        let mut add = vec!["CLUSTER", "ADDSLOTS"];
        add.extend(slots.iter().map(String::as_str));
        assert_eq!(self.call(&add).await, "OK");
    }

    /// Waits until the server and another one form a cluster that works.
    pub async fn joins_cluster(&self) {
        eventually("the cluster is up", async || {
            let info = self.call(&["CLUSTER", "INFO"]).await;
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
        })
        .await;
    }

    /// Adds keys, and restarts the server, which then loads a key per millisecond and executes
    /// commands in between. Does not wait.
    pub async fn restart_with_slow_load(&mut self, keys: u32) {
        let fill = format!(
            "for i = 1, {keys} do redis.call('SET', 'filler:' .. i, string.rep('x', 100)) end"
        );
        self.call(&["EVAL", &fill, "0"]).await;
        self.call(&["SAVE"]).await;
        self.kill();
        self.add_options(&["--key-load-delay", "1000"]);
        self.add_options(&["--loading-process-events-interval-bytes", "1024"]);
        self.launch();
    }

    /// Kills the server.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Removes the snapshot that `SAVE` has written, so that the server starts empty.
    pub fn remove_snapshot(&self) {
        // There may be none.
        let _ = std::fs::remove_file(self.folder.path().join("dump.rdb"));
    }

    /// Executes a command and returns the reply as Redis wrote it.
    pub async fn call(&self, command: &[&str]) -> String {
        self.try_call(command).await.unwrap()
    }

    /// Executes a command as [`Self::call`] does.
    ///
    /// # Errors
    /// Fails if the server closes the connection, as it does when it becomes a replica.
    pub async fn try_call(&self, command: &[&str]) -> std::io::Result<String> {
        call(&self.url(), command).await
    }

    fn signal(&self, name: &str) {
        let id = self.process.as_ref().expect("the server runs").id();
        // The shell's own `kill`: the command of that name is not on every machine.
        let status = Command::new("sh")
            .args(["-c", "kill -s \"$1\" \"$2\"", "sh", name, &id.to_string()])
            .status();
        assert!(status.unwrap().success(), "kill -s {name}");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Requests a failover until its result is there: again when Redis has given the request before up, which
/// a node of a cluster does after five seconds, and a sentinel of the tests after three. An error of the
/// request means that the last one is being performed.
pub(crate) async fn repeat_request(
    what: &str,
    request: impl AsyncFn(),
    is_performed: impl AsyncFn() -> bool,
) {
    let mut requested: Option<Instant> = None;
    eventually(what, async || {
        if requested.is_none_or(|at| at.elapsed() > Duration::from_secs(6)) {
            request().await;
            requested = Some(Instant::now());
        }
        is_performed().await
    })
    .await;
}

/// Executes a command on a new connection and returns the reply as Redis wrote it: lines, or only the
/// value if the reply is a single string or number.
pub async fn call(url: &str, command: &[&str]) -> std::io::Result<String> {
    let address = url
        .trim_start_matches("redis://")
        .split('/')
        .next()
        .unwrap();
    let mut stream = TcpStream::connect(address).await?;
    let mut request = format!("*{}\r\n", command.len());
    for part in command {
        request += &["$", &part.len().to_string(), "\r\n", part, "\r\n"].concat();
    }
    stream.write_all(request.as_bytes()).await?;
    // Redis replies to what it has read and then closes the stream.
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    // Values can be binary.
    let answer = String::from_utf8_lossy(&answer);
    let answer = answer.trim_end();
    Ok(match answer.chars().next() {
        Some('$') => answer
            .split_once("\r\n")
            .map_or("", |(_, value)| value)
            .to_owned(),
        Some(':' | '+') => answer[1..].to_owned(),
        _ => answer.to_owned(),
    })
}
