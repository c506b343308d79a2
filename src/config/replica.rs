#![expect(clippy::doc_markdown, reason = "these comments are the text of --help")]

use std::{fmt, path::PathBuf, time::Duration};

use sqlx::postgres::PgConnectOptions;

use super::{
    InvalidSetting, Secret,
    parse::lag,
    postgres::{ServerRole, Servers, servers_from_url},
};

const READ_URL: &str = "DATABASE_READ_URL";

const MAX_LAG: &str = "DATABASE_READ_MAX_LAG";

const DEFAULT_MAX_LAG: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "PostgreSQL")]
#[expect(
    clippy::struct_field_names,
    reason = "the names are those of the settings"
)]
pub(super) struct ReplicaArgs {
    /// URL of one or several standbys of the server of DATABASE_URL, from which conversations and
    /// messages are listed, searched and exported. DATABASE_READ_MAX_LAG limits the time by which
    /// such a read may lag.
    #[arg(long, env, global = true, hide_env_values = true, value_name = "URL")]
    database_read_url: Option<Secret>,

    /// File that contains DATABASE_READ_URL.
    #[arg(long, env, global = true, value_name = "FILE")]
    database_read_url_file: Option<PathBuf>,

    /// Maximum time by which reads from a standby may lag, in seconds. While a standby lags by more,
    /// DATABASE_URL is read instead. [default: 1]
    #[arg(
        long,
        env,
        global = true,
        value_parser = lag,
        value_name = "SECONDS"
    )]
    database_read_max_lag: Option<Duration>,
}

/// Standbys for reads that may lag.
#[derive(Clone)]
pub struct ReplicaConfig {
    /// Address, credentials and TLS mode.
    pub options: Box<PgConnectOptions>,
    /// The same for further servers, one of which can be used instead.
    pub further: Vec<PgConnectOptions>,
    /// Maximum time by which reads may lag.
    pub max_lag: Duration,
}

impl fmt::Debug for ReplicaConfig {
    /// Omits the options, whose own Debug shows the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaConfig")
            .field("host", &self.options.get_host())
            .field("port", &self.options.get_port())
            .field("max_lag", &self.max_lag)
            .finish_non_exhaustive()
    }
}

impl ReplicaConfig {
    /// Returns `None` if no standby is configured.
    pub(super) fn from_args(args: &ReplicaArgs) -> Result<Option<Self>, InvalidSetting> {
        let url = Secret::from_value_or_file(
            args.database_read_url.as_ref(),
            args.database_read_url_file.as_deref(),
            READ_URL,
        )?;
        let Some(url) = url else {
            return match args.database_read_max_lag {
                Some(_) => Err(InvalidSetting::new(
                    MAX_LAG,
                    "must be set together with DATABASE_READ_URL",
                )),
                None => Ok(None),
            };
        };
        let (options, further): Servers = servers_from_url(&url, READ_URL, ServerRole::Standby)?;
        Ok(Some(Self {
            options: Box::new(options),
            further,
            max_lag: args.database_read_max_lag.unwrap_or(DEFAULT_MAX_LAG),
        }))
    }

    /// Error of a standby without a server that it follows.
    pub(super) fn without_primary() -> InvalidSetting {
        InvalidSetting::secret(
            READ_URL,
            "must be set together with DATABASE_URL or POSTGRES_HOST",
        )
    }
}
