use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::Failure;
use crate::{
    config::{Config, PoolerMode, PostgresConfig, RedisConfig, ReplicaConfig, StoreBackend},
    domain::{Clock, IdSource, SystemClock, UuidV7},
    os_error,
    recent::{RecentWindow, in_process::InProcessRecent, none::NoWindow, redis::RedisRecent},
    redis::{Redis, RedisSettings},
    sessions::{
        Sessions,
        in_process::{InProcessLimits, InProcessSessions},
        redis::RedisSessions,
    },
    store::{
        Store,
        postgres::{Pooler, PostgresStore, ReplicaSettings},
        sqlite::SqliteStore,
    },
    telemetry::observed::{DatabaseAttributes, ObservedRecent, ObservedSessions, ObservedStore},
};

/// Time limit for closing the store's connections.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Time between two log lines about the progress of a command.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Time that startup waits for Redis, which is not required to become ready.
const REDIS_STARTUP_TIMEOUT: Duration = Duration::from_millis(500);

/// The configured store, recent window and session tier.
#[derive(Clone, Debug)]
pub(super) struct Backends {
    pub(super) store: Arc<dyn Store>,
    /// Setting that names the store.
    pub(super) store_setting: &'static str,
    pub(super) recent: Arc<dyn RecentWindow>,
    pub(super) sessions: Arc<dyn Sessions>,
    redis: Option<Redis>,
}

impl Backends {
    /// Creates the configured backends. A server that is unavailable is not an error:
    /// connections are opened when it responds.
    ///
    /// # Errors
    /// Returns an error if the embedded store cannot be opened.
    pub(super) fn open(config: &Config) -> Result<Self, Failure> {
        let store = open_store(config)?;
        let store: Arc<dyn Store> =
            Arc::new(ObservedStore::new(store, database(&config.store.backend)));
        let redis = config.redis.as_ref().map(connect);
        let sessions: Arc<dyn Sessions> = match &redis {
            Some(redis) => Arc::new(RedisSessions::new(
                redis.clone(),
                config.conversations.session_ttl,
                config.conversations.sessions_per_user,
            )),
            None => Arc::new(InProcessSessions::new(
                config.conversations.session_ttl,
                Arc::new(SystemClock) as Arc<dyn Clock>,
                InProcessLimits {
                    sessions_per_user: config.conversations.sessions_per_user as usize,
                    ..InProcessLimits::default()
                },
            )),
        };
        Ok(Self {
            recent: recent_window(config, redis.as_ref(), &store),
            store,
            store_setting: match &config.store.backend {
                StoreBackend::Embedded { .. } => "DATA_DIR",
                StoreBackend::Postgres(postgres) => postgres.setting,
            },
            sessions: Arc::new(ObservedSessions::new(sessions)),
            redis,
        })
    }

    /// Waits a short time for Redis to become available, so that the first calls can use it.
    pub(super) async fn wait_for_redis(&self) {
        if let Some(redis) = &self.redis
            && tokio::time::timeout(REDIS_STARTUP_TIMEOUT, redis.wait_until_available())
                .await
                .is_err()
        {
            tracing::warn!("Redis is not available yet: reading histories from the store");
        }
    }

    /// Closes all connections.
    pub(super) async fn close(&self) {
        if tokio::time::timeout(CLOSE_TIMEOUT, self.store.close())
            .await
            .is_err()
        {
            tracing::warn!("timed out closing the store");
        }
        if let Some(redis) = &self.redis {
            redis.shutdown().await;
        }
    }
}

/// Migrates the schema to this program's version.
///
/// # Errors
/// Returns an error if the store cannot be opened, reached or migrated.
pub(super) async fn migrate(config: &Config) -> Result<(), Failure> {
    let store = open_store(config)?;
    let prepared = store.prepare(true).await;
    prepared.map_err(|error| error.with_cause())?;
    tracing::info!("the database schema is at this program's version");
    store.close().await;
    Ok(())
}

/// Analyzes all messages again that another analysis has prepared for the search.
///
/// # Errors
/// Returns an error if the store cannot be opened or reached, or its schema is of another version.
pub(super) async fn reindex(config: &Config) -> Result<(), Failure> {
    let store = open_store(config)?;
    let prepared = store.prepare(false).await;
    prepared.map_err(|error| error.with_cause())?;
    let (mut examined, mut analyzed, mut next) = (0, 0, None);
    let mut reported = Instant::now();
    loop {
        let step = store
            .reindex(next)
            .await
            .map_err(|error| error.to_string())?;
        examined += step.examined;
        analyzed += step.analyzed;
        next = step.next;
        if next.is_none() {
            break;
        }
        if reported.elapsed() >= PROGRESS_INTERVAL {
            reported = Instant::now();
            tracing::info!(examined, analyzed, "reindexing messages");
        }
    }
    tracing::info!(examined, analyzed, "all messages are indexed");
    store.close().await;
    Ok(())
}

/// Creates the recent window and logs where sessions are kept.
fn recent_window(
    config: &Config,
    redis: Option<&Redis>,
    store: &Arc<dyn Store>,
) -> Arc<dyn RecentWindow> {
    let capacity = config.conversations.history_messages as usize;
    match (&config.store.backend, redis) {
        (StoreBackend::Postgres(_), Some(redis)) => {
            let store = Arc::clone(store);
            let history = Arc::new(move || store.history());
            Arc::new(ObservedRecent::new(Arc::new(RedisRecent::new(
                redis.clone(),
                Arc::new(UuidV7) as Arc<dyn IdSource>,
                config.conversations.session_ttl,
                capacity,
                history,
            ))))
        }
        // Windows in a shared Redis would mix the conversations of different files.
        (
            StoreBackend::Embedded {
                recent_window_bytes,
                ..
            },
            redis,
        ) => {
            if redis.is_some() {
                tracing::warn!(
                    "sessions are shared through Redis, but conversations are in a local file"
                );
            } else {
                log_sessions_in_memory(config);
            }
            if *recent_window_bytes == 0 {
                return Arc::new(NoWindow);
            }
            let windows = InProcessRecent::new(capacity, *recent_window_bytes);
            Arc::new(ObservedRecent::new(Arc::new(windows)))
        }
        (StoreBackend::Postgres(_), None) => {
            log_sessions_in_memory(config);
            tracing::warn!("Redis is not configured: sessions are not shared with other sidecars");
            Arc::new(NoWindow)
        }
    }
}

fn log_sessions_in_memory(config: &Config) {
    tracing::info!("sessions: in memory");
    if let Some(file) = &config.missing_redis_url_file {
        tracing::warn!(file = %file.display(), "REDIS_URL_FILE does not exist");
    }
}

fn open_store(config: &Config) -> Result<Arc<dyn Store>, Failure> {
    let languages = config.conversations.search_languages;
    match &config.store.backend {
        StoreBackend::Embedded { data_dir, .. } => {
            let file = data_dir.join("conversations.db");
            let store = SqliteStore::with_languages(&file, languages).map_err(|error| {
                let cause = os_error::describe(&error);
                format!("DATA_DIR: cannot create {}: {cause}", data_dir.display())
            })?;
            let absolute = std::path::absolute(&file).unwrap_or(file);
            tracing::info!(file = %absolute.display(), "store: embedded SQLite file");
            Ok(Arc::new(store))
        }
        StoreBackend::Postgres(config) => {
            let PostgresConfig {
                options,
                further,
                max_connections,
                pooler,
                migration_options,
                replica,
                setting: _,
            } = config;
            tracing::info!(
                host = options.get_host(),
                port = options.get_port(),
                further_hosts = config.further_hosts(),
                database = options.get_database(),
                "store: PostgreSQL"
            );
            let pooler = match pooler {
                PoolerMode::Auto => Pooler::Detect,
                PoolerMode::Session => Pooler::Session,
                PoolerMode::Transaction => Pooler::Transaction,
            };
            let options = options.as_ref().clone();
            let store = PostgresStore::connect(
                options,
                further.clone(),
                *max_connections,
                languages,
                pooler,
            );
            let store = match migration_options {
                Some(migration) => store.with_migration_options(migration.as_ref().clone()),
                None => store,
            };
            Ok(Arc::new(match replica {
                Some(replica) => with_replica(store, replica, *max_connections, pooler),
                None => store,
            }))
        }
    }
}

/// Reads from the configured standby where reads may lag.
fn with_replica(
    store: PostgresStore,
    replica: &ReplicaConfig,
    max_connections: u32,
    pooler: Pooler,
) -> PostgresStore {
    let ReplicaConfig {
        options,
        further,
        max_lag,
    } = replica;
    tracing::info!(
        host = options.get_host(),
        port = options.get_port(),
        further = further.len(),
        "replica for reads that may lag: PostgreSQL"
    );
    let settings = ReplicaSettings {
        max_lag: *max_lag,
        reads_own_writes: true,
    };
    let options = options.as_ref().clone();
    store.with_replica(options, further.clone(), max_connections, pooler, settings)
}

/// Returns the attributes of the store in spans and metrics.
fn database(backend: &StoreBackend) -> DatabaseAttributes {
    match backend {
        StoreBackend::Embedded { .. } => DatabaseAttributes {
            system: "sqlite",
            namespace: None,
            host: None,
            port: None,
        },
        StoreBackend::Postgres(PostgresConfig { options, .. }) => DatabaseAttributes {
            system: "postgresql",
            namespace: options.get_database().map(ToOwned::to_owned),
            host: Some(options.get_host().to_owned()),
            port: Some(options.get_port()),
        },
    }
}

pub(super) fn connect(config: &RedisConfig) -> Redis {
    tracing::info!(servers = %config.target, "sessions and recent windows: Redis");
    let settings = RedisSettings {
        setting: config.setting,
        key_prefix: config.key_prefix.clone(),
        ..RedisSettings::default()
    };
    Redis::connect(config.target.clone(), settings)
}
