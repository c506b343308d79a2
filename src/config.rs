//! Settings: command-line flags and environment variables, read once at startup and
//! validated into one [`Config`]. `--help` is the reference; a file per group of settings.

mod args;
mod auth;
mod conversations;
mod environment;
mod error;
mod limits;
mod logs;
mod parse;
mod postgres;
mod redis;
mod replica;
mod secret;
mod server;
mod server_url;
mod store;
mod telemetry;
mod transfers;
mod web;

pub use self::{
    args::{Args, Command},
    auth::AuthConfig,
    conversations::ConversationConfig,
    environment::Misspelled,
    error::InvalidSetting,
    limits::LimitConfig,
    logs::{LogConfig, LogFormat},
    postgres::{PoolerMode, PostgresConfig},
    redis::RedisConfig,
    replica::ReplicaConfig,
    secret::Secret,
    server::{OpsConfig, ServerConfig},
    store::{StoreBackend, StoreConfig},
    telemetry::{Export, LangSmithUnused, Sampling, TelemetryConfig},
    transfers::{ConnectionArgs, ExportArgs, ExportFileFormat, ImportArgs, Target},
    web::WebConfig,
};

/// The validated settings of the program.
#[derive(Debug)]
pub struct Config {
    /// Subcommand to run.
    pub command: Command,
    /// Listeners and shutdown.
    pub server: ServerConfig,
    /// Authentication and authorization of callers.
    pub auth: AuthConfig,
    /// Hosts and web pages that the API is served to.
    pub web: WebConfig,
    /// Limits on connections, calls and request sizes.
    pub limits: LimitConfig,
    /// Sessions, histories and search.
    pub conversations: ConversationConfig,
    /// Durable store.
    pub store: StoreConfig,
    /// Redis for sessions and recent windows; `None` keeps sessions in this process.
    pub redis: Option<RedisConfig>,
    /// Path of `REDIS_URL_FILE` if there is no such file.
    pub missing_redis_url_file: Option<std::path::PathBuf>,
    /// Environment variables that resemble settings.
    pub misspelled: Vec<Misspelled>,
    /// Settings that are environment variables without a value, and count as not set.
    pub empty: Vec<String>,
    /// Format and filter of the log.
    pub logs: LogConfig,
    /// Export of traces and metrics.
    pub telemetry: TelemetryConfig,
}

impl Config {
    /// Reads the command line and the environment. Prints and exits the process for
    /// `--help` and `--version`.
    ///
    /// # Errors
    /// Returns the first setting that is invalid, or a usage error of the command line.
    pub fn read() -> Result<Self, InvalidSetting> {
        match args::read() {
            Ok(args) => {
                let settings = environment::settings();
                Ok(Self {
                    misspelled: environment::misspelled(&settings),
                    empty: environment::empty(&settings),
                    ..Self::from_args(args)?
                })
            }
            Err(error) if !error.use_stderr() => error.exit(),
            Err(error) => Err(InvalidSetting::from_clap(&error)),
        }
    }

    /// Validates parsed arguments, including the rules that span several settings.
    ///
    /// # Errors
    /// Returns the first setting that is invalid or inconsistent with another one.
    pub fn from_args(args: Args) -> Result<Self, InvalidSetting> {
        let server = ServerConfig::from_args(args.server);
        let auth = AuthConfig::from_args(&args.auth)?;
        if !args.auth.insecure {
            auth.check_exposure(&server.listen)?;
        }
        Ok(Self {
            server,
            auth,
            web: WebConfig::from_args(args.web),
            limits: LimitConfig::from_args(&args.limits)?,
            conversations: ConversationConfig::from_args(&args.conversations),
            store: StoreConfig::from_args(args.store, &args.postgres, &args.replica)?,
            redis: RedisConfig::from_args(&args.redis)?,
            misspelled: Vec::new(),
            empty: Vec::new(),
            missing_redis_url_file: args.redis.missing_url_file(),
            logs: LogConfig::from_args(args.logs),
            telemetry: TelemetryConfig::from_args(&args.telemetry)?,
            command: args.command.unwrap_or(Command::Serve),
        })
    }
}

#[cfg(test)]
mod tests;
