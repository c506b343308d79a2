//! Check of a new connection: the session has the settings that the store depends on, and the
//! server is one that accepts writes.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use chrono::DateTime;
use sqlx::{
    AssertSqlSafe, Error, PgConnection, Row as _,
    postgres::{PgConnectOptions, PgRow},
    raw_sql,
};

use super::{
    connection::STATEMENT_TIMEOUT,
    pooler::{Pooler, SettingsMode, SharedMode},
    server_state::{ClockReading, HistoryIdentity, ServerState},
    store_connection::Begin,
};

/// Name and value of a setting. The value is written as the server shows it.
type Setting = (&'static str, String);

/// Columns that identify the history of the server. A standby cannot evaluate the first one.
const HISTORY: &str = "CASE WHEN NOT pg_is_in_recovery() \
        THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END AS timeline, \
    (SELECT system_identifier::text FROM pg_control_system()) AS system";

const NO_HISTORY: &str = "NULL AS timeline, NULL AS system";

/// Pins `synchronous_commit`, so that a later change of the server's default to `off` does not affect
/// it. All other values make a commit durable before it is acknowledged. `$local` is whether the
/// setting ends with the transaction.
macro_rules! synchronous_commit {
    ($local:literal) => {
        concat!(
            "set_config('synchronous_commit', CASE current_setting('synchronous_commit') \
                WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, ",
            $local,
            ") AS commit"
        )
    };
}

/// Encoding of the session, which is set because the default of the role or database may be another
/// one. See [`synchronous_commit`] for `$local`.
macro_rules! client_encoding {
    ($local:literal) => {
        concat!(
            "set_config('client_encoding', 'UTF8', ",
            $local,
            ") AS client_encoding"
        )
    };
}

const SESSION_SETTINGS: &str = concat!(
    synchronous_commit!("false"),
    ", ",
    client_encoding!("false")
);

const TRANSACTION_SETTINGS: &str =
    concat!(synchronous_commit!("true"), ", ", client_encoding!("true"));

/// When the server was started, and whether it is a standby.
const SERVER: &str = "pg_is_in_recovery()::text AS standby, \
    (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text AS started";

/// Whether more than four fifths of the server's connections are open, apart from those that it reserves.
macro_rules! is_crowded {
    () => {
        "((SELECT sum(d.numbackends) FROM pg_stat_database d) * 5 \
            > (current_setting('max_connections')::int \
                - current_setting('superuser_reserved_connections')::int \
                - coalesce(current_setting('reserved_connections', true), '0')::int) * 4)"
    };
}
pub(super) use is_crowded;

const IS_CROWDED: &str = concat!(is_crowded!(), "::text AS is_crowded");

/// SQLSTATE codes with which a server rejects [`HISTORY`]: the role may not call the functions, or
/// the server does not have them.
const HISTORY_REJECTED: [&str; 3] = ["42501", "0A000", "42883"];

/// Returns the settings of every session, or of every transaction of a pooler.
fn settings() -> Vec<Setting> {
    let limit = format!("{}s", STATEMENT_TIMEOUT.as_secs());
    vec![
        (STATEMENT_TIMEOUT_SETTING, limit.clone()),
        ("idle_in_transaction_session_timeout", limit),
        // Every query reads an index in order. A plan that was created from stale statistics
        // must not read a whole table or a whole conversation instead.
        ("enable_seqscan", "off".to_owned()),
        ("enable_bitmapscan", "off".to_owned()),
        ("jit", "off".to_owned()),
        // To start a process takes longer than a read. Some searches set it for themselves.
        ("max_parallel_workers_per_gather", "0".to_owned()),
        // A plan for particular values is no better here, and for a short read the
        // server would spend more time on planning than on execution.
        ("plan_cache_mode", "force_generic_plan".to_owned()),
        // Read by the trigger of migration 14: the program sends the terms of messages.
        (
            "conversation_memory.text_search_config",
            "program".to_owned(),
        ),
        // Suppresses the notices about words that are too long for the index.
        ("client_min_messages", "warning".to_owned()),
    ]
}

const STATEMENT_TIMEOUT_SETTING: &str = "statement_timeout";

/// Number of times that a transaction begins on a server that has to be checked.
const MAX_BEGINS: u32 = 3;

/// Check of new connections.
#[derive(Debug)]
pub(super) struct SessionCheck {
    settings: Vec<Setting>,
    /// Statement that sets the settings until the transaction ends, and returns the columns of
    /// [`SERVER`].
    transaction_settings: String,
    mode: SharedMode,
    server: Arc<ServerState>,
    role: Role,
    /// Whether the server has rejected [`HISTORY`].
    history_is_rejected: AtomicBool,
}

/// Servers that a check accepts.
#[derive(Debug)]
enum Role {
    /// Servers that accept writes, one at a time.
    Primary,
    /// Standbys of this server. There can be several at one address.
    Standby(Arc<ServerState>),
}

/// Result of a check.
#[derive(Debug)]
pub(super) struct Session {
    /// Settings of the server that are off, although the durability of a commit depends on them.
    pub(super) unsafe_settings: Vec<String>,
    /// Whether the session commits synchronously although that is not the default.
    pub(super) overrides_synchronous_commit: bool,
    /// Whether the server reports the identity of its history.
    pub(super) reports_history: bool,
    /// Identifier of the database cluster; empty if the role may not read it.
    pub(super) system: String,
}

impl SessionCheck {
    /// Creates a check of connections that have [`settings`].
    pub(super) fn new(server: Arc<ServerState>, pooler: Pooler) -> Self {
        Self::of(server, pooler, Role::Primary)
    }

    /// Creates a check of connections to standbys of `primary`.
    pub(super) fn of_standbys(
        server: Arc<ServerState>,
        pooler: Pooler,
        primary: Arc<ServerState>,
    ) -> Self {
        Self::of(server, pooler, Role::Standby(primary))
    }

    fn of(server: Arc<ServerState>, pooler: Pooler, role: Role) -> Self {
        let settings = settings();
        Self {
            transaction_settings: format!(
                "SELECT {}, {TRANSACTION_SETTINGS}, {SERVER}",
                set_statement(&settings, true)
            ),
            settings,
            mode: SharedMode::new(pooler),
            server,
            role,
            history_is_rejected: AtomicBool::new(false),
        }
    }

    /// Checks a new connection, and records what it reports about the server.
    ///
    /// # Errors
    ///
    /// Fails if the session lacks a setting, the server is a standby or a former server, or the
    /// connection was lost.
    pub(super) async fn check(&self, connection: &mut PgConnection) -> Result<Session, Error> {
        self.check_settings(connection, &self.settings).await
    }

    /// Checks a connection that was opened without a statement timeout. See [`Self::check`].
    pub(super) async fn check_without_timeout(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Session, Error> {
        self.check_settings(connection, &self.settings_without_timeout())
            .await
    }

    /// Whether the connections lead to standbys.
    pub(super) fn is_of_standbys(&self) -> bool {
        matches!(self.role, Role::Standby(_))
    }

    /// Returns what the checked connections have observed.
    pub(super) fn server(&self) -> &ServerState {
        &self.server
    }

    /// Returns the mode of the connections.
    pub(super) fn mode(&self) -> SettingsMode {
        self.mode.get()
    }

    /// Records that connections lead to a pooler. Returns `false` if that was known.
    pub(super) fn record_pooler(&self) -> bool {
        self.mode.record_pooler()
    }

    /// Returns the options of a connection in the present mode.
    pub(super) fn connect_options(&self, options: &PgConnectOptions) -> PgConnectOptions {
        self.with_settings(options, &self.settings)
    }

    /// Returns the options of a connection without a statement timeout. See
    /// [`Self::connect_options`].
    pub(super) fn connect_options_without_timeout(
        &self,
        options: &PgConnectOptions,
    ) -> PgConnectOptions {
        self.with_settings(options, &self.settings_without_timeout())
    }

    /// A pooler rejects parameters of the startup message that it does not know.
    fn with_settings(&self, options: &PgConnectOptions, settings: &[Setting]) -> PgConnectOptions {
        let options = options.clone();
        match self.mode() {
            SettingsMode::Startup => {
                options.options(settings.iter().map(|(name, value)| (*name, value)))
            }
            SettingsMode::Session | SettingsMode::Transaction => options.extra_float_digits(None),
        }
    }

    fn settings_without_timeout(&self) -> Vec<Setting> {
        let mut settings = self.settings.clone();
        for (name, value) in &mut settings {
            if *name == STATEMENT_TIMEOUT_SETTING {
                "0".clone_into(value);
            }
        }
        settings
    }

    /// Begins a transaction with the settings on the server that a pooler assigns to it. A server that
    /// was started at another time than the last one is checked like a new connection, because the
    /// pooler can have connected to it after a failover.
    ///
    /// # Errors
    ///
    /// Fails like [`Self::check`]. The connection cannot be used then.
    pub(super) async fn begin(
        &self,
        connection: &mut PgConnection,
        begin: &Begin,
    ) -> Result<(), Error> {
        let Begin {
            statement,
            settings,
        } = begin;
        let statement = format!("{statement}; {}; {settings}", self.transaction_settings);
        for _ in 0..MAX_BEGINS {
            let row = raw_sql(AssertSqlSafe(statement.as_str().to_owned()))
                .fetch_one(&mut *connection)
                .await?;
            self.check_role(&row)?;
            if self.is_of_standbys() {
                return Ok(());
            }
            if self.server.has_started_at(&text(&row, "started")?) {
                return Ok(());
            }
            raw_sql("ROLLBACK").execute(&mut *connection).await?;
            self.check(connection).await?;
        }
        Err(rejection("the pooler alternates between servers"))
    }

    async fn check_settings(
        &self,
        connection: &mut PgConnection,
        settings: &[Setting],
    ) -> Result<Session, Error> {
        if self.mode() == SettingsMode::Session {
            let statement = format!("SELECT {}", set_statement(settings, false));
            raw_sql(AssertSqlSafe(statement))
                .execute(&mut *connection)
                .await?;
        }
        let sent = Instant::now();
        let row = self.query(connection, settings).await?;
        let received = Instant::now();
        self.check_missing_settings(&row)?;
        self.check_role(&row)?;
        let encoding = text(&row, "encoding")?;
        if !is_supported(&encoding) {
            return Err(rejection(unsupported_encoding(&encoding)));
        }
        if row.try_get::<&str, _>("commit")? == "off" {
            return Err(rejection(
                "the server does not let the session commit synchronously: set synchronous_commit=on",
            ));
        }
        let identity = self.identity(&row)?;
        let session = Session {
            unsafe_settings: names(&text(&row, "unsafe_settings")?),
            overrides_synchronous_commit: row.try_get::<&str, _>("default_commit")? == "off",
            reports_history: !identity.timeline.is_empty(),
            system: identity.system.clone(),
        };
        if !self.server.identify(identity) {
            return Err(rejection(
                "the server is on an older timeline than the one used before: it was replaced by a failover",
            ));
        }
        // The connections of a pooler are not the server's.
        let is_crowded = is_true(&row, "is_crowded")?;
        self.server
            .record_crowding(is_crowded && self.mode() != SettingsMode::Transaction);
        if let Some(time) = text(&row, "clock")?
            .parse()
            .ok()
            .and_then(DateTime::from_timestamp_micros)
        {
            self.server.record_clock(ClockReading {
                sent,
                received,
                time,
            });
        }
        Ok(session)
    }

    /// Identity of the server's history. That of a standby is its system alone, because all standbys at
    /// an address are used.
    ///
    /// # Errors
    ///
    /// Fails if a standby belongs to another system than its primary.
    fn identity(&self, row: &PgRow) -> Result<HistoryIdentity, Error> {
        let system = text(row, "system")?;
        let Role::Standby(primary) = &self.role else {
            return Ok(HistoryIdentity {
                system,
                timeline: text(row, "timeline")?,
                started: text(row, "started")?,
            });
        };
        let expected = primary.system();
        if !system.is_empty() && !expected.is_empty() && system != expected {
            return Err(rejection(
                "the server is no standby of the server of DATABASE_URL: its system identifier is another \
                 one",
            ));
        }
        Ok(HistoryIdentity {
            system,
            ..HistoryIdentity::default()
        })
    }

    fn check_role(&self, row: &PgRow) -> Result<(), Error> {
        match (&self.role, is_true(row, "standby")?) {
            (Role::Primary, true) => Err(rejection("the server is a standby")),
            (Role::Standby(_), false) => Err(rejection("the server is no standby")),
            (Role::Primary, false) | (Role::Standby(_), true) => Ok(()),
        }
    }

    /// Executes the check as one query. The simple protocol returns all values as text.
    async fn query(
        &self,
        connection: &mut PgConnection,
        settings: &[Setting],
    ) -> Result<PgRow, Error> {
        let pinned = match self.mode() {
            SettingsMode::Startup | SettingsMode::Session => SESSION_SETTINGS,
            SettingsMode::Transaction => TRANSACTION_SETTINGS,
        };
        if !self.history_is_rejected.load(Ordering::Relaxed) {
            let query = raw_sql(AssertSqlSafe(statement(settings, pinned, HISTORY)));
            match query.fetch_one(&mut *connection).await {
                Err(Error::Database(error))
                    if error
                        .code()
                        .is_some_and(|code| HISTORY_REJECTED.contains(&&*code)) =>
                {
                    self.history_is_rejected.store(true, Ordering::Relaxed);
                }
                outcome => return outcome,
            }
        }
        let query = raw_sql(AssertSqlSafe(statement(settings, pinned, NO_HISTORY)));
        query.fetch_one(connection).await
    }

    /// Checks that a connection received its settings. A pooler that assigns a server to each
    /// transaction does not forward them, and would confuse the responses to prepared statements of
    /// different clients.
    fn check_missing_settings(&self, row: &PgRow) -> Result<(), Error> {
        let missing = text(row, "missing_settings")?;
        if missing.is_empty() {
            return Ok(());
        }
        match self.mode() {
            SettingsMode::Transaction => Ok(()),
            SettingsMode::Startup => {
                self.record_pooler();
                Ok(())
            }
            SettingsMode::Session => Err(rejection(format!(
                "the pooler is not in session mode, because it drops settings ({missing}): set \
                 POSTGRES_POOLER=transaction"
            ))),
        }
    }
}

/// Returns expressions that set settings. `is_local` is whether they end with the transaction.
fn set_statement(settings: &[Setting], is_local: bool) -> String {
    let set = |(name, value): &Setting| format!("set_config('{name}', '{value}', {is_local})");
    settings.iter().map(set).collect::<Vec<_>>().join(", ")
}

/// Builds the query. The values of the settings are constants of this program.
fn statement(settings: &[Setting], pinned: &str, history: &str) -> String {
    let mut expected = String::new();
    for (name, value) in settings {
        let separator = if expected.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(expected, "{separator}('{name}', '{value}')");
    }
    format!(
        "SELECT (SELECT string_agg(name, ', ') FROM (VALUES {expected}) AS s (name, value) \
            WHERE current_setting(name, true) IS DISTINCT FROM value) AS missing_settings, \
         current_setting('synchronous_commit') AS default_commit, \
         current_setting('server_encoding') AS encoding, {pinned}, \
         (SELECT string_agg(name, ', ') FROM (VALUES ('fsync'), ('full_page_writes')) AS s (name) \
            WHERE current_setting(name, true) = 'off') AS unsafe_settings, {history}, {SERVER}, \
         {IS_CROWDED}, \
         (extract(epoch FROM clock_timestamp()) * 1000000)::bigint::text AS clock"
    )
}

/// Returns whether every text can be stored in a database with this encoding, and in the same form.
pub(super) fn is_supported(encoding: &str) -> bool {
    encoding == "UTF8"
}

/// Text of the error for a database whose encoding is not supported.
pub(super) fn unsupported_encoding(encoding: &str) -> String {
    format!(
        "the encoding of the database is {encoding}, this program needs UTF8: create a database with \
         ENCODING 'UTF8' TEMPLATE template0, and migrate it"
    )
}

fn text(row: &PgRow, column: &str) -> Result<String, Error> {
    let value: Option<&str> = row.try_get(column)?;
    Ok(value.unwrap_or_default().to_owned())
}

fn is_true(row: &PgRow, column: &str) -> Result<bool, Error> {
    Ok(text(row, column)? == "true")
}

fn names(list: &str) -> Vec<String> {
    let names = list.split(", ").filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

pub(super) fn rejection(text: impl Into<String>) -> Error {
    Error::Configuration(text.into().into())
}
