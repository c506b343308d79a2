use std::{sync::Arc, time::Duration};

use super::Failure;
use crate::{
    config::{Config, RedisConfig, StoreConfig},
    domain::{Clock, IdSource, SystemClock, UuidV7},
    recent::{RecentWindow, none::NoWindow, redis::RedisRecent},
    redis::{Redis, RedisSettings},
    sessions::{Sessions, in_process::InProcessSessions, redis::RedisSessions},
    store::{Store, postgres::PostgresStore, sqlite::SqliteStore},
    telemetry::observed::{DatabaseAttributes, ObservedRecent, ObservedSessions, ObservedStore},
};

/// How long closing the store may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// The tiers that were chosen.
#[derive(Clone, Debug)]
pub(super) struct Backends {
    pub(super) store: Arc<dyn Store>,
    pub(super) recent: Arc<dyn RecentWindow>,
    pub(super) sessions: Arc<dyn Sessions>,
    redis: Option<Redis>,
}

impl Backends {
    /// Opens what is configured. Servers that are away are no failure: they are
    /// attached to when they answer.
    pub(super) fn open(config: &Config) -> Result<Self, Failure> {
        let store = observed(open_store(config)?, &config.store);
        let Some(redis) = &config.redis else {
            tracing::info!("sessions: in this process");
            if let StoreConfig::Postgres { .. } = config.store {
                tracing::warn!("no Redis is configured: other sidecars do not see these sessions");
            }
            return Ok(Self {
                store,
                recent: Arc::new(NoWindow),
                sessions: Arc::new(ObservedSessions::new(Arc::new(InProcessSessions::new(
                    config.session_ttl,
                    Arc::new(SystemClock) as Arc<dyn Clock>,
                )))),
                redis: None,
            });
        };
        let redis = connect(redis);
        let recent: Arc<dyn RecentWindow> = match config.store {
            StoreConfig::Postgres { .. } => {
                Arc::new(ObservedRecent::new(Arc::new(RedisRecent::new(
                    redis.clone(),
                    Arc::new(UuidV7) as Arc<dyn IdSource>,
                    config.session_ttl,
                    config.max_history_messages as usize,
                ))))
            }
            // The file is as near as Redis, and another sidecar's file has
            // other conversations.
            StoreConfig::Embedded { .. } => {
                tracing::warn!("conversations are in a file of this sidecar, sessions are shared");
                Arc::new(NoWindow)
            }
        };
        Ok(Self {
            store,
            recent,
            sessions: Arc::new(ObservedSessions::new(Arc::new(RedisSessions::new(
                redis.clone(),
                config.session_ttl,
            )))),
            redis: Some(redis),
        })
    }

    /// Waits until Redis answers, if there is one, but not for long: it is not needed.
    pub(super) async fn greet_redis(&self) {
        const PATIENCE: Duration = Duration::from_millis(500);
        if let Some(redis) = &self.redis
            && tokio::time::timeout(PATIENCE, redis.available())
                .await
                .is_err()
        {
            tracing::warn!("Redis does not answer yet: histories come from the store");
        }
    }

    /// Ends all connections.
    pub(super) async fn close(&self) {
        if tokio::time::timeout(CLOSE_LIMIT, self.store.close())
            .await
            .is_err()
        {
            tracing::warn!("the store did not close in time");
        }
        if let Some(redis) = &self.redis {
            redis.shutdown().await;
        }
    }
}

/// Brings the schema to this program's version.
pub(super) async fn migrate(config: &Config) -> Result<(), Failure> {
    let store = open_store(config)?;
    let prepared = store.prepare(true).await;
    prepared.map_err(|error| error.with_cause())?;
    tracing::info!("the schema is at this program's version");
    store.close().await;
    Ok(())
}

fn open_store(config: &Config) -> Result<Arc<dyn Store>, Failure> {
    match &config.store {
        StoreConfig::Embedded { data_dir } => {
            let file = data_dir.join("conversations.db");
            let store =
                SqliteStore::with_text_search(&file, config.text_search).map_err(|error| {
                    format!("DATA_DIR: {} cannot be opened: {error}", file.display())
                })?;
            let shown = std::path::absolute(&file).unwrap_or(file);
            tracing::info!(file = %shown.display(), "store: embedded, in a SQLite file");
            Ok(Arc::new(store))
        }
        StoreConfig::Postgres {
            options,
            max_connections,
        } => {
            tracing::info!(
                host = options.get_host(),
                port = options.get_port(),
                database = options.get_database(),
                "store: PostgreSQL"
            );
            Ok(Arc::new(PostgresStore::with_text_search(
                options.as_ref().clone(),
                *max_connections,
                config.text_search,
            )))
        }
    }
}

fn observed(store: Arc<dyn Store>, config: &StoreConfig) -> Arc<dyn Store> {
    let database = match config {
        StoreConfig::Embedded { .. } => DatabaseAttributes {
            system: "sqlite",
            namespace: None,
            host: None,
            port: None,
        },
        StoreConfig::Postgres { options, .. } => DatabaseAttributes {
            system: "postgresql",
            namespace: options.get_database().map(ToOwned::to_owned),
            host: Some(options.get_host().to_owned()),
            port: Some(options.get_port()),
        },
    };
    Arc::new(ObservedStore::new(store, database))
}

fn connect(config: &RedisConfig) -> Redis {
    tracing::info!(servers = %config.target, "sessions and recent windows: Redis");
    let settings = RedisSettings {
        key_prefix: config.key_prefix.clone(),
        ..RedisSettings::default()
    };
    Redis::connect(config.target.clone(), settings)
}
