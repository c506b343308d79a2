//! Sidecars of a comparison: one that serves both users, and one for each user alone.

use test_support::{
    json_grpc::JsonGrpc,
    postgres_server::PostgresServer,
    redis_server::RedisServer,
    sidecar::{Form, Sidecar},
};

/// Settings under which small histories reach the limits. Estimated counts need no tables.
const SETTINGS: [(&str, &str); 4] = [
    ("OPERATORS", "*"),
    ("TOKEN_ENCODING", "none"),
    ("COMPACTION_TOKENS", "60"),
    ("MAX_CONTENT_BYTES", "4096"),
];

/// Sidecars of the same form with separate storage.
pub(crate) struct Deployment {
    pub(crate) shared: Sidecar,
    /// One for each user.
    pub(crate) alone: [Sidecar; 2],
    _servers: Option<(PostgresServer, [RedisServer; 3])>,
    _folders: Vec<Form>,
}

impl Deployment {
    pub(crate) async fn embedded() -> Self {
        Self::start([Form::embedded(), Form::embedded(), Form::embedded()], None).await
    }

    pub(crate) async fn on_servers() -> Self {
        let postgres = PostgresServer::start().await;
        postgres.execute("CREATE DATABASE shared").await;
        postgres.execute("CREATE DATABASE first").await;
        postgres.execute("CREATE DATABASE second").await;
        let redis = [
            RedisServer::start(&[]).await,
            RedisServer::start(&[]).await,
            RedisServer::start(&[]).await,
        ];
        let form = |database: &str, redis: &RedisServer| Form::Servers {
            database_url: format!(
                "postgres://postgres@127.0.0.1:{}/{database}",
                postgres.port()
            ),
            redis_url: redis.url(),
        };
        let forms = [
            form("shared", &redis[0]),
            form("first", &redis[1]),
            form("second", &redis[2]),
        ];
        Self::start(forms, Some((postgres, redis))).await
    }

    async fn start(forms: [Form; 3], servers: Option<(PostgresServer, [RedisServer; 3])>) -> Self {
        Self {
            shared: Sidecar::start_with(&forms[0], &SETTINGS).await,
            alone: [
                Sidecar::start_with(&forms[1], &SETTINGS).await,
                Sidecar::start_with(&forms[2], &SETTINGS).await,
            ],
            _servers: servers,
            _folders: forms.into(),
        }
    }

    /// Names of all methods of the contract.
    pub(crate) fn methods(&self) -> Vec<String> {
        let grpc = JsonGrpc::new(self.shared.channel());
        grpc.methods().map(ToOwned::to_owned).collect()
    }
}
