//! Settings: flags and environment variables, read once, into one validated
//! struct. `--help` is their reference.

mod args;
mod secret;
mod server;
mod telemetry;

use std::{fmt, path::PathBuf, time::Duration};

use clap::{CommandFactory as _, FromArgMatches as _, builder::Resettable};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

pub use self::{
    args::{Args, Command, LogFormat, ServerArgs},
    secret::Secret,
    server::{Ops, ServerConfig},
    telemetry::{Export, LangSmithUnused, Sampling, TelemetryArgs, TelemetryConfig},
};
use crate::{
    domain::{Limits, TextSearch},
    memory::Memory,
    redis::RedisTarget,
};

/// Everything that the program was told.
#[derive(Debug)]
pub struct Config {
    /// What to do.
    pub command: Command,
    /// Where the API is served, to whom, and how much of it.
    pub server: ServerConfig,
    /// Where conversations are kept.
    pub store: StoreConfig,
    /// How what messages say is searched.
    pub text_search: TextSearch,
    /// Where sessions and recent windows are kept; in this process without it.
    pub redis: Option<RedisConfig>,
    /// Whether `serve` brings the schema to its version.
    pub migrate_on_start: bool,
    /// How long a session lives unused.
    pub session_ttl: Duration,
    /// How many messages a history has by default.
    pub max_history_messages: u32,
    /// How large what a caller sends may be.
    pub limits: Limits,
    /// How long a call may take at most.
    pub max_call_time: Duration,
    /// How long shutdown waits for calls.
    pub drain: Duration,
    /// How logs are written.
    pub log_format: LogFormat,
    /// Which logs are written.
    pub log_filter: String,
    /// What becomes of traces and metrics.
    pub telemetry: TelemetryConfig,
}

/// Where conversations are kept.
#[derive(Clone)]
pub enum StoreConfig {
    /// In a SQLite file in this folder.
    Embedded {
        /// The folder.
        data_dir: PathBuf,
    },
    /// In PostgreSQL.
    Postgres {
        /// Where it is and how to log in.
        options: Box<PgConnectOptions>,
        /// The most connections to it.
        max_connections: u32,
    },
}

impl fmt::Debug for StoreConfig {
    /// The options' own Debug shows the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded { data_dir } => f
                .debug_struct("Embedded")
                .field("data_dir", data_dir)
                .finish(),
            Self::Postgres { options, .. } => f
                .debug_struct("Postgres")
                .field("host", &options.get_host())
                .field("port", &options.get_port())
                .field("database", &options.get_database())
                .finish_non_exhaustive(),
        }
    }
}

/// Where Redis is.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// Its address and how to log in.
    pub target: RedisTarget,
    /// What every key begins with.
    pub key_prefix: String,
}

/// A setting that cannot be used, as one line that names it.
#[derive(Debug, PartialEq, Eq)]
pub struct BadSetting(String);

impl fmt::Display for BadSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadSetting {}

impl BadSetting {
    fn new(name: &str, why: impl fmt::Display) -> Self {
        Self(format!("{name} {why}"))
    }
}

impl Config {
    /// Reads the command line and the environment; ends the program after
    /// `--help` and `--version`.
    pub fn read() -> Result<Self, BadSetting> {
        // An empty variable is an unset one, as manifests often have them.
        let command = Args::command().mut_args(|arg| match arg.get_env() {
            Some(name) if std::env::var_os(name).is_some_and(|value| value.is_empty()) => {
                arg.env(Resettable::Reset)
            }
            _ => arg,
        });
        let args = command
            .try_get_matches()
            .and_then(|matches| Args::from_arg_matches(&matches));
        match args {
            Ok(args) => Self::from_args(args),
            Err(error) if !error.use_stderr() => error.exit(),
            Err(error) => Err(first_line(&error)),
        }
    }

    /// Checks what was read.
    pub fn from_args(args: Args) -> Result<Self, BadSetting> {
        let redis = redis(&args)?;
        Ok(Self {
            server: ServerConfig::from_args(&args.server)?,
            store: store(&args)?,
            text_search: text_search(&args.text_search_config)?,
            redis,
            migrate_on_start: args.migrate_on_start,
            session_ttl: positive(args.session_ttl_minutes * 60.0, "SESSION_TTL_MINUTES")?,
            max_history_messages: in_range(
                args.max_history_messages,
                1..=Memory::MAX_LIMIT,
                "MAX_HISTORY_MESSAGES",
            )?,
            limits: Limits {
                content_bytes: args.max_content_bytes,
                metadata_bytes: args.max_metadata_bytes,
            },
            max_call_time: positive(args.max_call_seconds, "MAX_CALL_SECONDS")?,
            drain: positive(args.drain_seconds, "DRAIN_SECONDS")?,
            log_format: args.log_format,
            log_filter: args.log_level,
            telemetry: TelemetryConfig::from_args(&args.telemetry)?,
            command: args.command.unwrap_or(Command::Serve),
        })
    }
}

/// clap's errors have a first line that names the flag and what is wrong, and
/// more that repeats the usage.
fn first_line(error: &clap::Error) -> BadSetting {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    BadSetting(line.trim_start_matches("error: ").to_owned())
}

fn store(args: &Args) -> Result<StoreConfig, BadSetting> {
    let url = Secret::given(
        args.database_url.as_ref(),
        args.database_url_file.as_deref(),
        "DATABASE_URL",
    )?;
    let password = Secret::given(
        args.postgres_password.as_ref(),
        args.postgres_password_file.as_deref(),
        "POSTGRES_PASSWORD",
    )?;
    let host = given(args.postgres_host.as_deref());
    let user = given(args.postgres_user.as_deref());
    let database = given(args.postgres_db.as_deref());
    let options = if let Some(url) = url {
        if !["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| url.expose().starts_with(scheme))
        {
            return Err(BadSetting::new(
                "DATABASE_URL",
                "must begin with postgres://",
            ));
        }
        check_encoding(url.expose(), "DATABASE_URL")?;
        // The parser's error can quote the URL, which can hold a password.
        url.expose().parse().map_err(|_| {
            BadSetting::new(
                "DATABASE_URL",
                "must be a URL such as postgres://user:password@host:5432/database",
            )
        })?
    } else if host.or(user).or(database).is_some() || password.is_some() {
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(host.unwrap_or("localhost"))
            .port(port(args.postgres_port.as_deref(), 5432, "POSTGRES_PORT")?)
            .username(user.unwrap_or("postgres"))
            .database(database.unwrap_or("conversation_memory"))
            .ssl_mode(PgSslMode::Prefer);
        if let Some(password) = password {
            options = options.password(password.expose());
        }
        options
    } else {
        return Ok(StoreConfig::Embedded {
            data_dir: args.data_dir.clone(),
        });
    };
    Ok(StoreConfig::Postgres {
        options: Box::new(options),
        max_connections: in_range(
            args.postgres_max_connections,
            1..=1000,
            "POSTGRES_MAX_CONNECTIONS",
        )?,
    })
}

fn text_search(name: &str) -> Result<TextSearch, BadSetting> {
    TextSearch::from_name(name)
        .ok_or_else(|| BadSetting::new("TEXT_SEARCH_CONFIG", "must be english or simple"))
}

fn redis(args: &Args) -> Result<Option<RedisConfig>, BadSetting> {
    let url = Secret::given(
        args.redis_url.as_ref(),
        args.redis_url_file.as_deref(),
        "REDIS_URL",
    )?;
    let password = Secret::given(
        args.redis_password.as_ref(),
        args.redis_password_file.as_deref(),
        "REDIS_PASSWORD",
    )?;
    let host = given(args.redis_host.as_deref());
    let mut target = if let Some(url) = url {
        check_encoding(url.expose(), "REDIS_URL")?;
        RedisTarget::from_url(url.expose()).map_err(|why| BadSetting::new("REDIS_URL", why))?
    } else if host.is_some() || password.is_some() {
        RedisTarget::new(
            host.unwrap_or("localhost"),
            port(args.redis_port.as_deref(), 6379, "REDIS_PORT")?,
            password.map(Secret::into_inner),
            args.redis_db,
        )
    } else {
        return Ok(None);
    };
    if let Some(file) = server::file(args.redis_ca_file.as_deref()) {
        let bad = |why: &dyn fmt::Display| BadSetting::new("REDIS_CA_FILE", why);
        if !target.uses_tls() {
            return Err(bad(&"needs a REDIS_URL that begins with rediss"));
        }
        target = target.with_ca_file(&file).map_err(|why| bad(&why))?;
    }
    Ok(Some(RedisConfig {
        target,
        key_prefix: args.redis_key_prefix.clone(),
    }))
}

/// Refuses a URL that ends within its password, as far as one can see: the rest of the
/// password would be taken for a host or a database, and be logged.
fn check_encoding(url: &str, name: &str) -> Result<(), BadSetting> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let key = query.split('=').next().unwrap_or_default();
    let is_cut_off = !authority.contains('@')
        && authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.bytes().all(|byte| byte.is_ascii_digit()));
    let is_of_authority = key.contains('@') || (is_cut_off && query.contains('@'));
    if !fragment.is_empty() || path.contains('@') || is_of_authority {
        let why = "must have a password in which / ? # and @ are percent-encoded";
        return Err(BadSetting::new(name, why));
    }
    Ok(())
}

/// An empty text says nothing.
fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// A port. Kubernetes sets `POSTGRES_PORT` and `REDIS_PORT` to something like
/// `tcp://10.0.0.11:6379` in every pod beside a Service of that name; that was
/// not meant for us.
fn port(text: Option<&str>, default: u16, name: &str) -> Result<u16, BadSetting> {
    match text {
        None | Some("") => Ok(default),
        Some(text) if text.starts_with("tcp://") => Ok(default),
        Some(text) => text
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| BadSetting::new(name, "must be a port from 1 to 65535")),
    }
}

fn positive(seconds: f64, name: &str) -> Result<Duration, BadSetting> {
    const A_YEAR: f64 = 366.0 * 24.0 * 3600.0;
    if !(0.001..=A_YEAR).contains(&seconds) {
        return Err(BadSetting::new(name, "must be above 0 and at most a year"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn in_range<T: PartialOrd + fmt::Display>(
    number: T,
    range: std::ops::RangeInclusive<T>,
    name: &str,
) -> Result<T, BadSetting> {
    if !range.contains(&number) {
        let why = format!("must be from {} to {}", range.start(), range.end());
        return Err(BadSetting::new(name, why));
    }
    Ok(number)
}

#[cfg(test)]
mod tests;
