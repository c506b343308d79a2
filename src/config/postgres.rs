#![expect(clippy::doc_markdown, reason = "these comments are the text of --help")]

use std::{
    fmt,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use percent_encoding::percent_decode_str;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::{
    InvalidSetting, Secret,
    parse::{integer, non_empty},
    replica::{ReplicaArgs, ReplicaConfig},
    server_url::{check_encoding, port},
};
use crate::{os_error, small_file};

/// Values of `sslmode`, as in libpq.
const SSL_MODES: [&str; 6] = [
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

const DEFAULT_PORT: u16 = 5432;

const MIGRATION_URL: &str = "MIGRATION_DATABASE_URL";

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "PostgreSQL")]
pub(super) struct PostgresArgs {
    /// URL of PostgreSQL: postgres://user:password@host:5432/database, where the password is
    /// percent-encoded. Of several servers, host1:5432,host2:5432, the one that accepts writes is used.
    /// POSTGRES_HOST, _DB, _USER and _PASSWORD must not be set beside it.
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
        default_value = "6",
        value_parser = integer(1..=1000_u32),
        value_name = "NUMBER"
    )]
    postgres_max_connections: u32,

    /// Pooler such as PgBouncer through which PostgreSQL is reached. With auto, a pooler is detected,
    /// and used as one in transaction mode.
    #[arg(long, env, global = true, value_enum, default_value_t = PoolerMode::Auto, value_name = "MODE")]
    postgres_pooler: PoolerMode,

    /// URL of PostgreSQL itself, with which the schema is migrated. Needed behind a pooler in
    /// transaction mode, and if another user owns the tables.
    #[arg(long, env, global = true, hide_env_values = true, value_name = "URL")]
    migration_database_url: Option<Secret>,

    /// File that contains MIGRATION_DATABASE_URL.
    #[arg(long, env, global = true, value_name = "FILE")]
    migration_database_url_file: Option<PathBuf>,
}

/// Mode of the pooler through which PostgreSQL is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PoolerMode {
    /// Detected on start; a pooler counts as one in transaction mode.
    Auto,
    /// Assigns a server to each connection.
    Session,
    /// Assigns a server to each transaction.
    Transaction,
}

/// PostgreSQL server.
#[derive(Clone)]
pub struct PostgresConfig {
    /// Address, credentials and TLS mode.
    pub options: Box<PgConnectOptions>,
    /// The same for further servers, one of which may accept writes instead.
    pub further: Vec<PgConnectOptions>,
    /// Setting that names the servers.
    pub setting: &'static str,
    /// Upper bound on connections.
    pub max_connections: u32,
    /// Pooler of the connections.
    pub pooler: PoolerMode,
    /// Options of the connection that migrates the schema, if it is another one.
    pub migration_options: Option<Box<PgConnectOptions>>,
    /// Standbys for reads that may lag.
    pub replica: Option<ReplicaConfig>,
}

impl fmt::Debug for PostgresConfig {
    /// Omits the options, whose own Debug shows the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("host", &self.options.get_host())
            .field("port", &self.options.get_port())
            .field("database", &self.options.get_database())
            .field("max_connections", &self.max_connections)
            .field("pooler", &self.pooler)
            .finish_non_exhaustive()
    }
}

impl PostgresConfig {
    /// Addresses of the further servers for the log; `None` if there is none.
    pub fn further_hosts(&self) -> Option<String> {
        let further = self.further.iter();
        let names = further.map(|it| format!("{}:{}", it.get_host(), it.get_port()));
        let names: Vec<_> = names.collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// Returns `None` if PostgreSQL is not configured.
    pub(super) fn from_args(
        args: &PostgresArgs,
        replica: &ReplicaArgs,
    ) -> Result<Option<Self>, InvalidSetting> {
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
        let (setting, servers) = match url {
            Some(url) => {
                args.reject_beside_url(password.as_ref())?;
                let servers = servers_from_url(&url, "DATABASE_URL", ServerRole::Primary)?;
                ("DATABASE_URL", Some(servers))
            }
            None => ("POSTGRES_HOST", args.servers(password.as_ref())?),
        };
        let migration_options = args.migration_options()?;
        let replica = ReplicaConfig::from_args(replica)?;
        let Some((options, further)) = servers else {
            if replica.is_some() {
                return Err(ReplicaConfig::without_primary());
            }
            return match migration_options {
                Some(_) => Err(InvalidSetting::secret(
                    MIGRATION_URL,
                    "must be set together with DATABASE_URL or POSTGRES_HOST",
                )),
                None => Ok(None),
            };
        };
        Ok(Some(Self {
            options: Box::new(options),
            further,
            setting,
            max_connections: args.postgres_max_connections,
            pooler: args.postgres_pooler,
            migration_options: migration_options.map(Box::new),
            replica,
        }))
    }
}

impl PostgresArgs {
    fn migration_options(&self) -> Result<Option<PgConnectOptions>, InvalidSetting> {
        let url = Secret::from_value_or_file(
            self.migration_database_url.as_ref(),
            self.migration_database_url_file.as_deref(),
            MIGRATION_URL,
        )?;
        let Some(url) = url else {
            return Ok(None);
        };
        match servers_from_url(&url, MIGRATION_URL, ServerRole::Primary)? {
            (options, further) if further.is_empty() => Ok(Some(options)),
            _ => Err(InvalidSetting::secret(MIGRATION_URL, "must name one host")),
        }
    }

    /// Rejects settings that a URL would replace. The port is not one of them, because Kubernetes sets
    /// it in every pod of a namespace with a Service of this name.
    fn reject_beside_url(&self, password: Option<&Secret>) -> Result<(), InvalidSetting> {
        let settings = [
            ("POSTGRES_HOST", self.postgres_host.as_deref()),
            ("POSTGRES_DB", self.postgres_db.as_deref()),
            ("POSTGRES_USER", self.postgres_user.as_deref()),
            ("POSTGRES_PASSWORD", password.map(Secret::expose)),
        ];
        match settings
            .iter()
            .find(|(_, value)| non_empty(*value).is_some())
        {
            Some((name, _)) => Err(InvalidSetting::new(
                name,
                "must not be set together with DATABASE_URL, which contains it",
            )),
            None => Ok(()),
        }
    }

    /// Returns the servers of the settings other than the URL; `None` if no setting that selects
    /// PostgreSQL is set.
    fn servers(&self, password: Option<&Secret>) -> Result<Option<Servers>, InvalidSetting> {
        let host = non_empty(self.postgres_host.as_deref());
        let user = non_empty(self.postgres_user.as_deref());
        let database = non_empty(self.postgres_db.as_deref());
        if host.or(user).or(database).is_none() && password.is_none() {
            return Ok(None);
        }
        let port = port(self.postgres_port.as_deref(), DEFAULT_PORT, "POSTGRES_PORT")?;
        let mut options = PgConnectOptions::new_without_pgpass()
            .port(port)
            .username(user.unwrap_or("postgres"))
            .database(database.unwrap_or("conversation_memory"))
            .ssl_mode(PgSslMode::Prefer);
        if let Some(password) = password {
            options = options.password(password.expose());
        }
        let hosts = host.unwrap_or("localhost").split(',');
        let mut servers = Vec::new();
        for host in hosts {
            reject_empty_host(host, "POSTGRES_HOST")?;
            reject_port(host, "POSTGRES_HOST")?;
            servers.push(options.clone().host(host));
        }
        Ok(first_and_further(servers))
    }
}

/// Options of the first server and of the further ones.
pub(super) type Servers = (PgConnectOptions, Vec<PgConnectOptions>);

/// `None` if there is no server.
fn first_and_further(mut servers: Vec<PgConnectOptions>) -> Option<Servers> {
    (!servers.is_empty()).then(|| (servers.remove(0), servers))
}

fn reject_empty_host(host: &str, name: &str) -> Result<(), InvalidSetting> {
    if host.is_empty() {
        return Err(InvalidSetting::new(name, "names an empty host"));
    }
    Ok(())
}

/// Rejects `host:port`. An IPv6 address has several colons.
fn reject_port(host: &str, name: &str) -> Result<(), InvalidSetting> {
    if !host.starts_with('/') && host.matches(':').count() == 1 {
        return Err(InvalidSetting::new(
            name,
            "must not contain a port: set POSTGRES_PORT, or DATABASE_URL if the ports differ",
        ));
    }
    Ok(())
}

/// Role of the servers that a URL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerRole {
    Primary,
    Standby,
}

impl ServerRole {
    /// Checks the kind of server that a URL asks for. No other one than that of this role is used.
    fn check_target(self, value: &str) -> Result<(), &'static str> {
        match self {
            Self::Primary if !["any", "primary", "read-write"].contains(&value) => Err(
                "target_session_attrs must be read-write, primary or any: saves need a server that \
                 accepts writes",
            ),
            Self::Standby
                if !["any", "prefer-standby", "standby", "read-only"].contains(&value) =>
            {
                Err(
                    "target_session_attrs must be prefer-standby, standby, read-only or any: only \
                     standbys are used, and otherwise DATABASE_URL",
                )
            }
            Self::Primary | Self::Standby => Ok(()),
        }
    }
}

pub(super) fn servers_from_url(
    url: &Secret,
    name: &'static str,
    role: ServerRole,
) -> Result<Servers, InvalidSetting> {
    if !["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| url.expose().starts_with(scheme))
    {
        return Err(InvalidSetting::secret(name, "must begin with postgres://"));
    }
    check_encoding(url.expose(), name)?;
    check_parameters(url.expose(), name, role)?;
    let mut servers = Vec::new();
    for url in urls_of_hosts(url.expose(), name)? {
        // The parser's error can quote the URL, which can contain a password.
        servers.push(url.parse().map_err(|_| invalid_url(name))?);
    }
    first_and_further(servers).ok_or_else(|| invalid_url(name))
}

fn invalid_url(name: &str) -> InvalidSetting {
    InvalidSetting::secret(
        name,
        "must be a URL such as postgres://user:password@host:5432/database",
    )
}

/// Returns a URL for each host that a URL lists, as libpq accepts them. The driver's parser accepts one.
fn urls_of_hosts(url: &str, name: &str) -> Result<Vec<String>, InvalidSetting> {
    let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid_url(name))?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let hosts_from = authority.rfind('@').map_or(0, |at| at + 1);
    let (user, hosts) = authority.split_at(hosts_from);
    if !hosts.contains(',') {
        return Ok(vec![url.to_owned()]);
    }
    let mut urls = Vec::new();
    for host in hosts.split(',') {
        reject_empty_host(host, name)?;
        urls.push(format!("{scheme}://{user}{host}{path}"));
    }
    Ok(urls)
}

/// Rejects parameters of a URL that would have no effect, or another one than in libpq. Their names and
/// the values that the errors show are no secrets.
fn check_parameters(url: &str, name: &str, role: ServerRole) -> Result<(), InvalidSetting> {
    let invalid = |problem: String| Err(InvalidSetting::new(name, problem));
    let query = url.split_once('?').map_or("", |(_, query)| query);
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = percent_decode_str(value).decode_utf8_lossy();
        match key {
            "sslmode" | "ssl-mode" if !SSL_MODES.contains(&&*value) => {
                return invalid(format!("sslmode must be one of {}", SSL_MODES.join(", ")));
            }
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" | "sslcert" | "ssl-cert" | "sslkey"
            | "ssl-key" => {
                if let Err(error) = small_file::read_within_limit(Path::new(&*value)) {
                    let cause = os_error::describe(&error);
                    return invalid(format!("cannot read the file {value:?} of {key}: {cause}"));
                }
            }
            "target_session_attrs" => {
                if let Err(problem) = role.check_target(&value) {
                    return invalid(problem.to_owned());
                }
            }
            "host" | "hostaddr" | "port" if value.contains(',') => {
                return invalid(format!(
                    "{key} must be one value; list several servers as host1:5432,host2:5432 before the \
                     database"
                ));
            }
            _ if is_known(key) => {}
            _ => {
                return invalid(format!(
                    "unknown parameter {key:?}; known are those of libpq, such as sslmode, sslrootcert and \
                     application_name"
                ));
            }
        }
    }
    Ok(())
}

/// Whether the driver uses a parameter of a URL that names no file, or the sidecar works without it.
fn is_known(key: &str) -> bool {
    const USED: [&str; 11] = [
        "application_name",
        "dbname",
        "host",
        "hostaddr",
        "options",
        "password",
        "port",
        "ssl-mode",
        "sslmode",
        "statement-cache-capacity",
        "user",
    ];
    // The sidecar has its own time limits and tests of connections.
    const UNNECESSARY: [&str; 10] = [
        "channel_binding",
        "client_encoding",
        "connect_timeout",
        "fallback_application_name",
        "gssencmode",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "tcp_user_timeout",
    ];
    USED.contains(&key) || UNNECESSARY.contains(&key) || key.starts_with("options[")
}
