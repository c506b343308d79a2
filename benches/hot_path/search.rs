//! Latency of searches, and the additional cost of a save for the search documents.

use std::time::Instant;

use conversation_memory::proto::SearchMessagesRequest;
use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, SqliteConnection, raw_sql,
    sqlite::SqliteConnectOptions,
};

use crate::compare::{Call, Caller, Times, alternate, heading, micros, row};
use test_support::{
    new_id, new_user,
    requests::new_conversation,
    sidecar::{Form, Sidecar},
};

const USERS: u32 = 10_000;
const MESSAGES: u32 = 1_000_000;
const OF_ONE_USER: u32 = 100_000;
/// Number of users in the embedded store, which belongs to one sidecar.
const EMBEDDED_USERS: u32 = 1_000;

/// Measures searches, and saves with and without search documents.
pub(crate) async fn search(rounds: usize) {
    embedded(rounds).await;
    let searched = BenchDatabase::create().await;
    let plain = BenchDatabase::create().await;
    let forms = [&searched, &plain].map(BenchDatabase::form);
    let sidecars = [
        Sidecar::start(&forms[0]).await,
        Sidecar::start(&forms[1]).await,
    ];
    plain.run("DROP TRIGGER messages_added ON messages").await;
    for database in [&searched, &plain] {
        for statement in in_postgres() {
            database.run(&statement).await;
        }
    }
    heading("search: PostgreSQL, 1,000,000 messages", &["median", "max"]);
    time_row("100 messages of a user, a common word", &{
        find(&sidecars[0], rounds, |round| any_user(round, USERS)).await
    });
    time_row("100,000 messages of a user, a common word", &{
        find(&sidecars[0], rounds / 10 + 1, |_| "busy".to_owned()).await
    });
    save(rounds, &sidecars).await;
    drop(sidecars);
    searched.drop().await;
    plain.drop().await;
}

/// Measures searches in the embedded store.
async fn embedded(rounds: usize) {
    let embedded = Form::embedded();
    let sidecar = Sidecar::start(&embedded).await;
    let Form::Embedded(folder) = &embedded else {
        return;
    };
    let file = SqliteConnectOptions::new().filename(folder.path().join("conversations.db"));
    let mut connection = SqliteConnection::connect_with(&file).await.unwrap();
    raw_sql(AssertSqlSafe(in_sqlite()))
        .execute(&mut connection)
        .await
        .unwrap();
    heading("search: embedded, 100,000 messages", &["median", "max"]);
    time_row("100 messages of a user, a common word", &{
        find(&sidecar, rounds, |round| any_user(round, EMBEDDED_USERS)).await
    });
}

/// Compares saves to a database with search documents and to one without.
async fn save(rounds: usize, sidecars: &[Sidecar; 2]) {
    let mut ids = Vec::new();
    for sidecar in sidecars {
        ids.push(new_conversation(&mut sidecar.memory(), &new_user()).await);
    }
    let [searched, plain] = alternate(
        rounds,
        [
            Caller::new(&sidecars[0], Call::save(&ids[0])),
            Caller::new(&sidecars[1], Call::save(&ids[1])),
        ],
    )
    .await;
    heading("search: SaveMessages", &["median", "ratio"]);
    row(
        "not searched",
        &[micros(plain.median()), plain.ratio(&plain)],
    );
    row(
        "searched",
        &[micros(searched.median()), searched.ratio(&plain)],
    );
}

async fn find(sidecar: &Sidecar, rounds: usize, user: impl Fn(usize) -> String) -> Times {
    let mut memory = sidecar.memory();
    let mut times = Times::new();
    for round in 0..rounds {
        let request = SearchMessagesRequest {
            user_id: user(round),
            query: "plans".to_owned(),
            ..SearchMessagesRequest::default()
        };
        let start = Instant::now();
        let page = memory.search_messages(request).await.unwrap();
        times.add(Some(start.elapsed()));
        assert_eq!(page.into_inner().hits.len(), 20);
    }
    times
}

fn any_user(round: usize, users: u32) -> String {
    format!("user {}", round * 7919 % users as usize)
}

fn time_row(label: &str, times: &Times) {
    row(label, &[micros(times.median()), micros(times.max())]);
}

/// Separate database, because the messages of other users affect the measurement.
struct BenchDatabase {
    name: String,
    server: String,
    redis_url: String,
}

impl BenchDatabase {
    async fn create() -> Self {
        let Form::Servers {
            database_url,
            redis_url,
        } = Form::servers()
        else {
            unreachable!("the form consists of servers");
        };
        let name = format!("bench_{}", new_id().replace('-', ""));
        let mut connection = PgConnection::connect(&database_url).await.unwrap();
        raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut connection)
            .await
            .unwrap();
        Self {
            name,
            server: database_url,
            redis_url,
        }
    }

    fn url(&self) -> String {
        let (server, _) = self.server.rsplit_once('/').unwrap();
        format!("{server}/{}", self.name)
    }

    fn form(&self) -> Form {
        Form::Servers {
            database_url: self.url(),
            redis_url: self.redis_url.clone(),
        }
    }

    async fn run(&self, statement: &str) {
        let mut connection = PgConnection::connect(&self.url()).await.unwrap();
        raw_sql(AssertSqlSafe(statement.to_owned()))
            .execute(&mut connection)
            .await
            .unwrap();
    }

    async fn drop(self) {
        let mut connection = PgConnection::connect(&self.server).await.unwrap();
        let statement = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        raw_sql(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await
            .unwrap();
    }
}

/// Statements that insert messages of all users in interleaved order, as in production,
/// so that no user's messages are adjacent. A message has about 250 characters.
fn in_postgres() -> [String; 4] {
    let conversation = "lpad(to_hex(u), 32, '0')::uuid";
    let text = "(SELECT 'The plan is ' || string_agg(
            substr(md5((n * 31 + k)::text), 1, 3 + k % 7), ' ') FROM generate_series(1, 36) k)";
    [
        format!(
            "INSERT INTO conversations (id, user_id, last_seq, created_at, updated_at)
             SELECT {conversation}, CASE WHEN u < {USERS} THEN 'user ' || u ELSE 'busy' END,
                    CASE WHEN u < {USERS} THEN {MESSAGES} / {USERS} ELSE {OF_ONE_USER} END,
                    now(), now()
             FROM generate_series(0, {USERS}) u"
        ),
        format!(
            "INSERT INTO messages (conversation_id, seq, id, role, content, created_at)
             SELECT {conversation}, 1 + n / {USERS}, gen_random_uuid(), 'user', {text}, now()
             FROM (SELECT n, n % {USERS} AS u FROM generate_series(0, {MESSAGES} - 1) n) all_users"
        ),
        format!(
            "INSERT INTO messages (conversation_id, seq, id, role, content, created_at)
             SELECT {conversation}, n, gen_random_uuid(), 'user', {text}, now()
             FROM (SELECT n, {USERS} AS u FROM generate_series(1, {OF_ONE_USER}) n) one_user"
        ),
        "VACUUM ANALYZE".to_owned(),
    ]
}

fn in_sqlite() -> String {
    let messages = EMBEDDED_USERS * 100;
    let prefix = "00000000-0000-7000-8000-";
    format!(
        "PRAGMA synchronous = OFF;
         BEGIN IMMEDIATE;
         WITH RECURSIVE s (u) AS (SELECT 0 UNION ALL SELECT u + 1 FROM s WHERE u < {EMBEDDED_USERS} - 1)
         INSERT INTO conversations (id, user_id, last_seq, activity, created_at, updated_at)
         SELECT '{prefix}' || printf('%012d', u), 'user ' || u, 100, -1 - u, 0, 0 FROM s;
         WITH RECURSIVE s (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < {messages} - 1)
         INSERT INTO messages (conversation_id, seq, id, role, content, created_at)
         SELECT '{prefix}' || printf('%012d', n % {EMBEDDED_USERS}), 1 + n / {EMBEDDED_USERS},
                '{prefix}' || printf('%012d', n), 'user',
                'The plan is ' || lower(hex(randomblob(4)) || ' ' || hex(randomblob(3)))
                || replace(hex(zeroblob(8)), '00', ' of this project'), 0
         FROM s;
         COMMIT;
         PRAGMA wal_checkpoint(TRUNCATE);"
    )
}
