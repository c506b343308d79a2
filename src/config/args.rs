#![expect(clippy::doc_markdown, reason = "these comments are the text of --help")]

mod server;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

pub use self::server::ServerArgs;
use super::{Secret, TelemetryArgs};

/// Remembers conversations for agent services, over gRPC.
///
/// With nothing configured it keeps conversations in a SQLite file and sessions
/// in memory. Every setting is a flag and an environment variable; the flag wins.
#[derive(Debug, Parser)]
#[command(name = "conversation-memory", version, max_term_width = 100)]
pub struct Args {
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    #[command(flatten)]
    pub(super) server: ServerArgs,

    /// The folder of the embedded store, used when no PostgreSQL is configured.
    #[arg(
        long,
        env,
        global = true,
        default_value = "./data",
        value_name = "FOLDER"
    )]
    pub(super) data_dir: PathBuf,

    /// PostgreSQL as a URL: postgres://user:password@host:5432/database. Wins over POSTGRES_*.
    #[arg(
        long,
        env,
        global = true,
        hide_env_values = true,
        value_name = "URL",
        help_heading = "PostgreSQL"
    )]
    pub(super) database_url: Option<Secret>,

    /// A file that holds DATABASE_URL.
    #[arg(
        long,
        env,
        global = true,
        value_name = "FILE",
        help_heading = "PostgreSQL"
    )]
    pub(super) database_url_file: Option<PathBuf>,

    /// PostgreSQL's host, or the folder of its socket [default: localhost if another POSTGRES_* is set]
    #[arg(
        long,
        env,
        global = true,
        value_name = "HOST",
        help_heading = "PostgreSQL"
    )]
    pub(super) postgres_host: Option<String>,

    /// PostgreSQL's port [default: 5432]
    #[arg(
        long,
        env,
        global = true,
        value_name = "PORT",
        help_heading = "PostgreSQL"
    )]
    pub(super) postgres_port: Option<String>,

    /// The database [default: conversation_memory]
    #[arg(
        long,
        env,
        global = true,
        value_name = "NAME",
        help_heading = "PostgreSQL"
    )]
    pub(super) postgres_db: Option<String>,

    /// The database's user [default: postgres]
    #[arg(
        long,
        env,
        global = true,
        value_name = "NAME",
        help_heading = "PostgreSQL"
    )]
    pub(super) postgres_user: Option<String>,

    /// The user's password.
    #[arg(
        long,
        env,
        global = true,
        hide_env_values = true,
        value_name = "PASSWORD",
        help_heading = "PostgreSQL"
    )]
    pub(super) postgres_password: Option<Secret>,

    /// A file that holds POSTGRES_PASSWORD.
    #[arg(
        long,
        env,
        global = true,
        value_name = "FILE",
        help_heading = "PostgreSQL"
    )]
    pub(super) postgres_password_file: Option<PathBuf>,

    /// The most connections to PostgreSQL.
    #[arg(
        long,
        env,
        global = true,
        default_value_t = 10,
        value_name = "NUMBER",
        help_heading = "PostgreSQL"
    )]
    pub(super) postgres_max_connections: u32,

    /// Bring the database's schema to this program's version on start. With false,
    /// run `conversation-memory migrate` beforehand.
    #[arg(long, env, global = true, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "PostgreSQL")]
    pub(super) migrate_on_start: bool,

    /// Redis as a URL: redis://default:password@host:6379/0, rediss:// for TLS,
    /// redis-cluster://, redis-sentinel://. Wins over REDIS_HOST and the rest.
    #[arg(
        long,
        env,
        global = true,
        hide_env_values = true,
        value_name = "URL",
        help_heading = "Redis"
    )]
    pub(super) redis_url: Option<Secret>,

    /// A file that holds REDIS_URL.
    #[arg(long, env, global = true, value_name = "FILE", help_heading = "Redis")]
    pub(super) redis_url_file: Option<PathBuf>,

    /// Authorities in PEM that a rediss:// server's certificate may be signed by, beside the
    /// public ones.
    #[arg(long, env, global = true, value_name = "FILE", help_heading = "Redis")]
    pub(super) redis_ca_file: Option<PathBuf>,

    /// Redis's host. Without it, and without REDIS_URL, sessions live in this
    /// process and histories are read from the store.
    #[arg(long, env, global = true, value_name = "HOST", help_heading = "Redis")]
    pub(super) redis_host: Option<String>,

    /// Redis's port [default: 6379]
    #[arg(long, env, global = true, value_name = "PORT", help_heading = "Redis")]
    pub(super) redis_port: Option<String>,

    /// Redis's password.
    #[arg(
        long,
        env,
        global = true,
        hide_env_values = true,
        value_name = "PASSWORD",
        help_heading = "Redis"
    )]
    pub(super) redis_password: Option<Secret>,

    /// A file that holds REDIS_PASSWORD.
    #[arg(long, env, global = true, value_name = "FILE", help_heading = "Redis")]
    pub(super) redis_password_file: Option<PathBuf>,

    /// Redis's database number [default: 0]
    #[arg(
        long,
        env,
        global = true,
        value_name = "NUMBER",
        help_heading = "Redis"
    )]
    pub(super) redis_db: Option<u8>,

    /// What every key in Redis begins with, for a Redis that is shared.
    #[arg(
        long,
        env,
        global = true,
        default_value = "",
        value_name = "TEXT",
        help_heading = "Redis"
    )]
    pub(super) redis_key_prefix: String,

    /// How long a session lives unused. May be a fraction.
    #[arg(
        long,
        env,
        allow_negative_numbers = true,
        global = true,
        default_value_t = 30.0,
        value_name = "MINUTES",
        help_heading = "Behaviour"
    )]
    pub(super) session_ttl_minutes: f64,

    /// How many messages a history has when the caller does not say, 1 to 1000.
    #[arg(
        long,
        env,
        global = true,
        default_value_t = 6,
        value_name = "NUMBER",
        help_heading = "Behaviour"
    )]
    pub(super) max_history_messages: u32,

    /// How messages are searched: english finds forms of a word by each other and leaves
    /// out words such as "the"; simple, for other languages, takes words as they are. In
    /// PostgreSQL it holds for messages that are saved from now on, older ones are searched
    /// as they were saved; the embedded store's index is made anew when it migrates.
    #[arg(
        long,
        env,
        global = true,
        default_value = "english",
        value_name = "english|simple",
        help_heading = "Behaviour"
    )]
    pub(super) text_search_config: String,

    /// The longest text of a message or a context.
    #[arg(long, env, global = true, default_value_t = 1 << 20, value_name = "BYTES", help_heading = "Behaviour")]
    pub(super) max_content_bytes: usize,

    /// The largest metadata, as JSON.
    #[arg(long, env, global = true, default_value_t = 64 << 10, value_name = "BYTES", help_heading = "Behaviour")]
    pub(super) max_metadata_bytes: usize,

    /// How long a call may take when the caller sets no shorter deadline.
    #[arg(
        long,
        env,
        allow_negative_numbers = true,
        global = true,
        default_value_t = 60.0,
        value_name = "SECONDS",
        help_heading = "Behaviour"
    )]
    pub(super) max_call_seconds: f64,

    /// How long a shutdown waits for the calls that are under way.
    #[arg(
        long,
        env,
        allow_negative_numbers = true,
        global = true,
        default_value_t = 20.0,
        value_name = "SECONDS",
        help_heading = "Behaviour"
    )]
    pub(super) drain_seconds: f64,

    #[command(flatten)]
    pub(super) telemetry: TelemetryArgs,

    /// How logs are written: auto is text on a terminal and JSON elsewhere.
    #[arg(long, env, global = true, value_enum, default_value_t = LogFormat::Auto, help_heading = "Logs")]
    pub(super) log_format: LogFormat,

    /// Which logs are written: error, warn, info, debug, trace, or filters such as
    /// info,conversation_memory=debug. Message text is in none of them.
    #[arg(
        long,
        env = "LOG_LEVEL",
        global = true,
        default_value = "info",
        value_name = "FILTER",
        help_heading = "Logs"
    )]
    pub(super) log_level: String,
}

/// What the program can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve the API (the default).
    Serve,
    /// Bring the database's schema to this program's version, and exit.
    Migrate,
    /// Ask the sidecar at the first of LISTEN_ADDR that has no TLS, or else at OPS_ADDR,
    /// whether it is serving; exit 0 if it is.
    Healthcheck,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}
