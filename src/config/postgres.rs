#![expect(clippy::doc_markdown, reason = "these comments are the text of --help")]

use std::{fmt, path::PathBuf};

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::{
    InvalidSetting, Secret,
    parse::{integer, non_empty},
    server_url::{check_encoding, port},
};

const DEFAULT_PORT: u16 = 5432;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "PostgreSQL")]
pub(super) struct PostgresArgs {
    /// URL of PostgreSQL: postgres://user:password@host:5432/database, where the password is
    /// percent-encoded. Replaces POSTGRES_HOST, _PORT, _DB, _USER and _PASSWORD.
    #[arg(long, env, global = true, hide_env_values = true, value_name = "URL")]
    database_url: Option<Secret>,

    /// File that contains DATABASE_URL.
    #[arg(long, env, global = true, value_name = "FILE")]
    database_url_file: Option<PathBuf>,

    /// Host of PostgreSQL, or the directory of its Unix socket. PostgreSQL is used if this, the
    /// database, the user or the password is set. [default: localhost]
    #[arg(long, env, global = true, value_name = "HOST")]
    postgres_host: Option<String>,

    /// Port of PostgreSQL. [default: 5432]
    #[arg(long, env, global = true, value_name = "PORT")]
    postgres_port: Option<String>,

    /// Name of the database. [default: conversation_memory]
    #[arg(long, env, global = true, value_name = "NAME")]
    postgres_db: Option<String>,

    /// User of the database. [default: postgres]
    #[arg(long, env, global = true, value_name = "NAME")]
    postgres_user: Option<String>,

    /// Password of the user.
    #[arg(
        long,
        env,
        global = true,
        hide_env_values = true,
        value_name = "PASSWORD"
    )]
    postgres_password: Option<Secret>,

    /// File that contains POSTGRES_PASSWORD.
    #[arg(long, env, global = true, value_name = "FILE")]
    postgres_password_file: Option<PathBuf>,

    /// Maximum number of connections to PostgreSQL.
    #[arg(
        long,
        env,
        global = true,
        default_value = "10",
        value_parser = integer(1..=1000_u32),
        value_name = "NUMBER"
    )]
    postgres_max_connections: u32,
}

/// PostgreSQL server.
#[derive(Clone)]
pub struct PostgresConfig {
    /// Address, credentials and TLS mode.
    pub options: Box<PgConnectOptions>,
    /// Upper bound on connections.
    pub max_connections: u32,
}

impl fmt::Debug for PostgresConfig {
    /// Omits the options, whose own Debug shows the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("host", &self.options.get_host())
            .field("port", &self.options.get_port())
            .field("database", &self.options.get_database())
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

impl PostgresConfig {
    /// Returns `None` if PostgreSQL is not configured.
    pub(super) fn from_args(args: &PostgresArgs) -> Result<Option<Self>, InvalidSetting> {
        let url = Secret::from_value_or_file(
            args.database_url.as_ref(),
            args.database_url_file.as_deref(),
            "DATABASE_URL",
        )?;
        let password = Secret::from_value_or_file(
            args.postgres_password.as_ref(),
            args.postgres_password_file.as_deref(),
            "POSTGRES_PASSWORD",
        )?;
        let options = match url {
            Some(url) => Some(options_from_url(&url)?),
            None => args.options(password.as_ref())?,
        };
        Ok(options.map(|options| Self {
            options: Box::new(options),
            max_connections: args.postgres_max_connections,
        }))
    }
}

impl PostgresArgs {
    /// Returns the options from the settings other than the URL; `None` if no setting that
    /// selects PostgreSQL is set.
    fn options(
        &self,
        password: Option<&Secret>,
    ) -> Result<Option<PgConnectOptions>, InvalidSetting> {
        let host = non_empty(self.postgres_host.as_deref());
        let user = non_empty(self.postgres_user.as_deref());
        let database = non_empty(self.postgres_db.as_deref());
        if host.or(user).or(database).is_none() && password.is_none() {
            return Ok(None);
        }
        let port = port(self.postgres_port.as_deref(), DEFAULT_PORT, "POSTGRES_PORT")?;
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(host.unwrap_or("localhost"))
            .port(port)
            .username(user.unwrap_or("postgres"))
            .database(database.unwrap_or("conversation_memory"))
            .ssl_mode(PgSslMode::Prefer);
        if let Some(password) = password {
            options = options.password(password.expose());
        }
        Ok(Some(options))
    }
}

fn options_from_url(url: &Secret) -> Result<PgConnectOptions, InvalidSetting> {
    const NAME: &str = "DATABASE_URL";
    if !["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| url.expose().starts_with(scheme))
    {
        return Err(InvalidSetting::secret(NAME, "must begin with postgres://"));
    }
    check_encoding(url.expose(), NAME)?;
    // The parser's error can quote the URL, which can contain a password.
    url.expose().parse().map_err(|_| {
        InvalidSetting::secret(
            NAME,
            "must be a URL such as postgres://user:password@host:5432/database",
        )
    })
}
