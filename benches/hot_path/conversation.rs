//! Conversations of a given length, inserted directly into the store.

use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, SqliteConnection, raw_sql,
    sqlite::SqliteConnectOptions,
};

use test_support::{
    new_id, new_user,
    requests::new_conversation,
    sidecar::{Form, Sidecar},
};

/// Creates a conversation with a number of messages.
pub(crate) async fn of_length(form: &Form, sidecar: &Sidecar, messages: u32) -> String {
    let id = new_conversation(&mut sidecar.memory(), &new_user()).await;
    match form {
        Form::Embedded(folder) => {
            let file = SqliteConnectOptions::new()
                .filename(folder.path().join("conversations.db"))
                .foreign_keys(false);
            let mut connection = SqliteConnection::connect_with(&file).await.unwrap();
            let statements = in_sqlite(&id, messages);
            raw_sql(AssertSqlSafe(statements))
                .execute(&mut connection)
                .await
                .unwrap();
        }
        Form::Servers { database_url, .. } => {
            let mut connection = PgConnection::connect(database_url).await.unwrap();
            for statement in in_postgres(&id, messages) {
                raw_sql(AssertSqlSafe(statement))
                    .execute(&mut connection)
                    .await
                    .unwrap();
            }
        }
    }
    id
}

/// Common prefix of the message ids.
fn id_prefix() -> String {
    let mut id = new_id();
    id.truncate("01234567-0123-7123-8123-".len());
    id
}

fn in_postgres(id: &str, messages: u32) -> [String; 4] {
    let prefix = id_prefix();
    [
        // Checking a million foreign keys would take longer than all other statements.
        "SET session_replication_role = replica".to_owned(),
        format!(
            "INSERT INTO messages (conversation_id, seq, id, role, content, created_at)
             SELECT '{id}', n, ('{prefix}' || lpad(to_hex(n), 12, '0'))::uuid,
                    CASE n % 2 WHEN 1 THEN 'user' ELSE 'assistant' END,
                    'Message ' || n || repeat(' of a long conversation', 8), now()
             FROM generate_series(1, {messages}) AS n"
        ),
        format!("UPDATE conversations SET last_seq = {messages} WHERE id = '{id}'"),
        "VACUUM ANALYZE".to_owned(),
    ]
}

fn in_sqlite(id: &str, messages: u32) -> String {
    let prefix = id_prefix();
    format!(
        "PRAGMA synchronous = OFF;
         PRAGMA cache_size = -200000;
         BEGIN IMMEDIATE;
         WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {messages})
         INSERT INTO messages (conversation_id, seq, id, role, content, created_at)
         SELECT '{id}', n, '{prefix}' || printf('%012x', n),
                CASE n % 2 WHEN 1 THEN 'user' ELSE 'assistant' END,
                'Message ' || n || replace(hex(zeroblob(8)), '00', ' of a long conversation'),
                1700000000000000 + n
         FROM s;
         UPDATE conversations SET last_seq = {messages} WHERE id = '{id}';
         COMMIT;
         ANALYZE;
         PRAGMA wal_checkpoint(TRUNCATE);"
    )
}
