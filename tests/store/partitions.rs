//! Tables on PostgreSQL that are partitioned by the conversation.

use conversation_memory::{
    domain::{ConversationId, ConversationRef, IdSource as _, UserId, UuidV7},
    store::{Appended, Invalidation, Newest, Store as _, postgres::PostgresStore},
};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, PgConnection, migrate::Migrator,
    postgres::PgConnectOptions, query_as, query_scalar, raw_sql,
};
use test_support::{
    eventually,
    store_fixture::{
        append_of, at, context, message, new_conversation, owned_ref, truncation, turn, user,
    },
};
use uuid::Uuid;

use crate::{postgres::empty_schema, search::query as search_query};

const TABLES: [&str; 5] = [
    "messages",
    "message_contexts",
    "message_blobs",
    "message_documents",
    "requests",
];

/// Number of conversations, except the branch, that [`ROWS`] inserts.
const CONVERSATIONS: i64 = 40;

/// Rows of each table: some conversations with ten messages each, and a branch of the first one.
const ROWS: &str = "
SET conversation_memory.text_search_config = 'program';
INSERT INTO conversations (id, user_id, title, last_seq, activity, created_at, updated_at)
SELECT ('01a20000-0000-7000-8000-' || lpad(to_hex(c), 12, '0'))::uuid, 'ana', 'title ' || c, 10, c,
       now(), now() FROM generate_series(1, 40) c;
INSERT INTO messages (conversation_id, seq, id, role, content, metadata, created_at, name, parts,
                      token_count, pinned, tokens_used, latency_ms)
SELECT c.id, seq, gen_random_uuid(), 'user', 'text ' || seq, '{\"a\": 1.5}', now(), 'bo',
       '[]', 3, seq = 2, 7, 8
FROM conversations c, generate_series(1, 10) seq;
INSERT INTO message_contexts (conversation_id, seq, position, doc_id, content, score, metadata)
SELECT m.conversation_id, m.seq, position, 'doc', 'context', 0.5, '{}'
FROM messages m, generate_series(0, 1) position;
INSERT INTO message_blobs (conversation_id, seq, position, data)
SELECT m.conversation_id, m.seq, 1, convert_to(m.content, 'UTF8') FROM messages m;
INSERT INTO message_documents (conversation_id, seq, user_id, dept_id, role, config, words)
SELECT m.conversation_id, m.seq, 'ana', 'hr', m.role, 'english', to_tsvector('english', m.content)
FROM messages m ORDER BY m.conversation_id, m.seq;
INSERT INTO requests (conversation_id, request_id, digest, first_seq, last_seq, removed, created_at)
SELECT m.conversation_id, 'key ' || m.seq, sha256('x'), m.seq, m.seq, NULL, now() FROM messages m;
INSERT INTO conversations (id, user_id, last_seq, activity, created_at, updated_at, own_after,
                           parent_id, branched_at_seq, has_pinned)
VALUES ('01a20000-0000-7000-8000-000000000100', 'ana', 5, 100, now(), now(), 5,
        '01a20000-0000-7000-8000-000000000001', 5, true);
INSERT INTO lineage (conversation_id, source_id, after_seq, upto_seq)
VALUES ('01a20000-0000-7000-8000-000000000100', '01a20000-0000-7000-8000-000000000001', 0, 5);";

fn reference(number: i64) -> ConversationRef {
    let id = format!("01a20000-0000-7000-8000-{number:012x}");
    ConversationRef {
        id: ConversationId::from_uuid(id.parse::<Uuid>().unwrap()),
        user_id: Some(UserId::parse("ana").unwrap()),
    }
}

/// Returns the migrations before the one that creates the partitions.
fn migrations_before() -> Migrator {
    let mut migrator = sqlx::migrate!("migrations/postgres");
    let before = migrator.migrations.iter().filter(|m| m.version <= 15);
    migrator.migrations = before.cloned().collect::<Vec<_>>().into();
    migrator
}

async fn execute(connection: &mut PgConnection, statements: &str) {
    raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(connection)
        .await
        .unwrap();
}

/// Creates the schema of the previous version with rows in each table.
async fn fill_previous_version(options: &PgConnectOptions) -> PgConnection {
    let mut raw = options.connect().await.unwrap();
    migrations_before()
        .run_direct(None, &mut raw, false)
        .await
        .unwrap();
    execute(&mut raw, ROWS).await;
    raw
}

/// Returns the rows of each table, as text.
async fn rows(connection: &mut PgConnection) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for table in TABLES {
        let select = format!("SELECT to_jsonb(t)::text FROM {table} t ORDER BY 1");
        let rows = query_scalar(AssertSqlSafe(select))
            .fetch_all(&mut *connection)
            .await
            .unwrap();
        all.push(rows);
    }
    all
}

async fn count(connection: &mut PgConnection, select: &str) -> i64 {
    query_scalar(AssertSqlSafe(select.to_owned()))
        .fetch_one(connection)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_the_previous_version_are_kept() {
    let options = empty_schema().await;
    let mut raw = fill_previous_version(&options).await;
    let before = rows(&mut raw).await;
    assert!(before.iter().all(|rows| rows.len() >= 400));
    let store = PostgresStore::new(options, 2);
    store.prepare(true).await.unwrap();
    assert_eq!(rows(&mut raw).await, before);
    for table in &TABLES[..4] {
        let used = format!("SELECT count(DISTINCT tableoid) FROM {table}");
        assert!(count(&mut raw, &used).await > 1, "{table}");
    }

    let Newest {
        messages, pinned, ..
    } = store.newest(&reference(0x100), 4, true).await.unwrap();
    let seqs: Vec<i64> = messages.iter().map(|message| message.seq).collect();
    assert_eq!(seqs, [2, 3, 4, 5]);
    assert_eq!(messages[0].contexts.len(), 2);
    assert_eq!(pinned.len(), 1);
    assert_eq!(store.blobs(reference(7).id, 3).await.unwrap().len(), 1);
    let search = search_query(&UserId::parse("ana").unwrap(), "text");
    let found = store.search(&search).await.unwrap().hits;
    assert_eq!(found.len(), search.limit as usize);

    // Numbers of documents continue after the greatest one.
    let greatest = "SELECT max(id) FROM message_documents";
    let last = count(&mut raw, greatest).await;
    let saved = store.append(&turn(&reference(3), &["further words"])).await;
    assert!(matches!(saved, Ok(Appended::Saved { first_seq: 11, .. })));
    assert!(count(&mut raw, greatest).await > last);
}

/// What operators have added to the tables would be lost without a notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_would_lose_additions_is_rejected() {
    let options = empty_schema().await;
    let mut raw = fill_previous_version(&options).await;
    let before = rows(&mut raw).await;
    for (add, name, remove) in [
        (
            "ALTER TABLE messages ENABLE ROW LEVEL SECURITY",
            "row security of messages",
            "ALTER TABLE messages DISABLE ROW LEVEL SECURITY",
        ),
        (
            "CREATE TRIGGER audited AFTER DELETE ON message_blobs FOR EACH ROW \
             EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "trigger audited",
            "DROP TRIGGER audited ON message_blobs",
        ),
        (
            "CREATE PUBLICATION sent_messages FOR TABLE messages",
            "publication sent_messages",
            "DROP PUBLICATION sent_messages",
        ),
    ] {
        execute(&mut raw, add).await;
        let store = PostgresStore::new(options.clone(), 2);
        let error = store.prepare(true).await.unwrap_err();
        let text = error_chain(&error);
        assert!(text.contains(name), "{text}");
        assert_eq!(rows(&mut raw).await, before);
        execute(&mut raw, remove).await;
    }
    PostgresStore::new(options, 2).prepare(true).await.unwrap();
    assert_eq!(rows(&mut raw).await, before);
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<_> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}

/// Otherwise an export that began before the end of the migration would lack all messages.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_with_an_earlier_snapshot_fails() {
    let options = empty_schema().await;
    let mut exporting = fill_previous_version(&options).await;
    execute(&mut exporting, "BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    assert!(count(&mut exporting, "SELECT count(*) FROM conversations").await > 0);
    // The migration waits for this one, with the table of messages locked.
    let mut delaying = options.connect().await.unwrap();
    execute(
        &mut delaying,
        "BEGIN; LOCK TABLE message_blobs IN ACCESS SHARE MODE",
    )
    .await;
    let mut admin = options.connect().await.unwrap();
    let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation \
        WHERE NOT l.granted AND c.relnamespace = current_schema()::regnamespace AND c.relname = ";
    let store = PostgresStore::new(options, 2);
    let migrated = store.prepare(true);
    let read = async {
        eventually("the migration has locked the messages", async || {
            count(&mut admin, &format!("{waiting}'message_blobs'")).await == 1
        })
        .await;
        let read =
            query_scalar::<_, i64>("SELECT count(*) FROM messages").fetch_one(&mut exporting);
        let released = async {
            eventually("the export waits", async || {
                count(&mut admin, &format!("{waiting}'messages'")).await == 1
            })
            .await;
            execute(&mut delaying, "COMMIT").await;
        };
        tokio::join!(read, released).0
    };
    let (migrated, read) = tokio::join!(migrated, read);
    migrated.unwrap();
    let error = read.unwrap_err();
    let Some(cause) = error.as_database_error() else {
        panic!("{error:?}")
    };
    assert_eq!(cause.code().as_deref(), Some("57014"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_fails_changes_nothing() {
    let options = empty_schema().await;
    let mut raw = fill_previous_version(&options).await;
    let before = rows(&mut raw).await;
    // The last step that concerns the previous tables fails.
    execute(
        &mut raw,
        "CREATE VIEW report AS SELECT content FROM messages",
    )
    .await;
    let store = PostgresStore::new(options, 2);
    store.prepare(true).await.unwrap_err();
    assert_eq!(rows(&mut raw).await, before);
    let partitioned = "SELECT count(*) FROM pg_class c WHERE c.relkind = 'p' \
        AND c.relnamespace = current_schema()::regnamespace";
    assert_eq!(count(&mut raw, partitioned).await, 0);
    execute(&mut raw, "DROP VIEW report").await;
    store.prepare(true).await.unwrap();
    assert_eq!(rows(&mut raw).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_the_previous_version_keep_their_effects() {
    let options = empty_schema().await;
    let mut raw = fill_previous_version(&options).await;
    PostgresStore::new(options, 2).prepare(true).await.unwrap();
    let id = reference(5).id;
    // It sends no documents, and relies on foreign keys when it deletes.
    execute(
        &mut raw,
        &format!(
            "RESET conversation_memory.text_search_config;
             INSERT INTO messages (conversation_id, seq, id, role, content, created_at)
             VALUES ('{id}', 11, gen_random_uuid(), 'user', 'eleven', now());
             UPDATE messages SET content = '' WHERE conversation_id = '{id}' AND seq = 10;
             DELETE FROM messages WHERE conversation_id = '{id}' AND seq > 0 AND seq <= 4;"
        ),
    )
    .await;
    for (table, expected) in [
        ("messages", [5, 6, 7, 8, 9, 10, 11].as_slice()),
        ("message_documents", &[5, 6, 7, 8, 9, 11]),
        ("message_contexts", &[5, 6, 7, 8, 9, 10]),
        ("message_blobs", &[5, 6, 7, 8, 9, 10]),
    ] {
        let select =
            format!("SELECT DISTINCT seq FROM {table} WHERE conversation_id = '{id}' ORDER BY seq");
        let seqs: Vec<i64> = query_scalar(AssertSqlSafe(select))
            .fetch_all(&mut raw)
            .await
            .unwrap();
        assert_eq!(seqs, expected, "{table}");
    }
    execute(
        &mut raw,
        &format!("DELETE FROM conversations WHERE id = '{id}'"),
    )
    .await;
    let requests = format!("SELECT count(*) FROM requests WHERE conversation_id = '{id}'");
    assert_eq!(count(&mut raw, &requests).await, 0);
    let others = "SELECT count(*) FROM messages";
    assert_eq!(count(&mut raw, others).await, (CONVERSATIONS - 1) * 10 + 7);
}

/// The tables belong to a role without further rights, and the sidecar has a role that may only read
/// and write.
#[tokio::test(flavor = "multi_thread")]
async fn roles_keep_their_privileges() {
    let options = empty_schema().await;
    let name = format!("r_{}", UuidV7.uuid().simple());
    let (owner, program) = (format!("{name}_owner"), format!("{name}_program"));
    let mut admin = options.connect().await.unwrap();
    execute(
        &mut admin,
        &format!(
            "CREATE ROLE {owner} LOGIN; CREATE ROLE {program} LOGIN;
             DO $$ BEGIN EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %I TO {owner}', current_schema());
                         EXECUTE format('GRANT USAGE ON SCHEMA %I TO {program}', current_schema()); END $$"
        ),
    )
    .await;
    let mut raw = fill_previous_version(&options.clone().username(&owner)).await;
    // Privileges of new tables and functions that the existing ones do not have.
    execute(
        &mut raw,
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC;
         ALTER DEFAULT PRIVILEGES GRANT SELECT ON SEQUENCES TO PUBLIC;
         ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
    )
    .await;
    execute(
        &mut raw,
        &format!(
            "DO $$ BEGIN
                 EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %I TO {program}',
                                current_schema());
                 GRANT USAGE ON SEQUENCE activity_order, item_positions TO {program};
             END $$"
        ),
    )
    .await;
    let migrating = PostgresStore::new(options.clone().username(&owner), 2);
    migrating.prepare(true).await.unwrap();
    let owners = format!(
        "SELECT count(*) FROM pg_class c WHERE c.relowner <> '{owner}'::regrole \
         AND c.relnamespace = current_schema()::regnamespace"
    );
    assert_eq!(count(&mut admin, &owners).await, 0);
    let public = "SELECT count(*) FROM pg_class c CROSS JOIN aclexplode(c.relacl) a \
        WHERE a.grantee = 0 AND c.relnamespace = current_schema()::regnamespace";
    assert_eq!(count(&mut admin, public).await, 0);
    let of_program = format!(
        "SELECT count(*) FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) AS p \
         WHERE has_table_privilege('{program}', 'primary_start', p)"
    );
    assert_eq!(count(&mut admin, &of_program).await, 3);

    let store = PostgresStore::new(options.username(&program), 2);
    store.prepare(false).await.unwrap();
    let new = new_conversation(&user());
    store.create(&new, at(0)).await.unwrap();
    let conversation = owned_ref(&new);
    let mut with_context = message("findable words");
    with_context.contexts = vec![context("doc", "c")];
    let append = append_of(&conversation, vec![with_context, message("more")]);
    store.append(&append).await.unwrap();
    let newest = store.newest(&conversation, 10, true).await.unwrap();
    assert_eq!(newest.messages[0].contexts.len(), 1);
    let search = search_query(&new.user_id, "findable");
    assert_eq!(store.search(&search).await.unwrap().hits.len(), 1);
    store.truncate(&truncation(&conversation, 1)).await.unwrap();
    let deleted = store.delete(&conversation, Invalidation::Never).await;
    deleted.unwrap();
    drop((store, migrating));
    execute(
        &mut admin,
        &format!("DROP OWNED BY {owner}, {program} CASCADE; DROP ROLE {owner}, {program}"),
    )
    .await;
}

/// Tables that can be distributed by the conversation, and the column that contains it.
const DISTRIBUTED: [(&str, &str); 9] = [
    ("conversations", "id"),
    ("messages", "conversation_id"),
    ("message_contexts", "conversation_id"),
    ("message_blobs", "conversation_id"),
    ("message_documents", "conversation_id"),
    ("requests", "conversation_id"),
    ("lineage", "conversation_id"),
    ("compactions", "conversation_id"),
    ("pending_invalidations", "conversation_id"),
];

/// Tables that cannot, because their keys are short numbers of threads and namespaces, which each
/// step of a graph repeats, or because they belong to no conversation.
const UNDISTRIBUTED: [&str; 9] = [
    "checkpoint_threads",
    "checkpoint_namespaces",
    "checkpoint_states",
    "checkpoint_task_writes",
    "checkpoint_values",
    "checkpoint_contents",
    "items",
    "primary_start",
    "_sqlx_migrations",
];

/// Name, referenced table, numbers of both columns, and ids of both tables.
type ForeignKey = (String, String, Vec<i16>, Vec<i16>, i64, i64);

const COLUMNS: &str = "SELECT a.attname::text FROM unnest($1) WITH ORDINALITY AS k (number, position) \
    JOIN pg_attribute a ON a.attrelid = $2 AND a.attnum = k.number ORDER BY k.position";

#[tokio::test(flavor = "multi_thread")]
async fn keys_contain_the_conversation() {
    let options = empty_schema().await;
    let mut raw = options.connect().await.unwrap();
    PostgresStore::new(options, 2).prepare(true).await.unwrap();
    let tables: Vec<String> = query_scalar(
        "SELECT c.relname::text FROM pg_class c WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition \
         AND c.relnamespace = current_schema()::regnamespace ORDER BY 1",
    )
    .fetch_all(&mut raw)
    .await
    .unwrap();
    let distributed = DISTRIBUTED.iter().map(|(table, _)| *table);
    let mut known: Vec<&str> = distributed.chain(UNDISTRIBUTED).collect();
    known.sort_unstable();
    assert_eq!(tables, known, "each table is in one of the lists");

    let column_of = |table: &str| {
        DISTRIBUTED
            .iter()
            .find(|(name, _)| *name == table)
            .map(|(_, column)| *column)
    };
    for (table, column) in DISTRIBUTED {
        let unique: Vec<(String, Vec<i16>, i64)> = query_as(
            "SELECT i.indexrelid::regclass::text, string_to_array(i.indkey::text, ' ')::int2[], i.indrelid::int8 FROM pg_index i \
             WHERE i.indisunique AND i.indrelid = $1::regclass",
        )
        .bind(table)
        .fetch_all(&mut raw)
        .await
        .unwrap();
        assert!(!unique.is_empty(), "{table} has a key");
        for (index, numbers, relation) in unique {
            let columns = columns(&mut raw, &numbers, relation).await;
            assert!(
                columns.iter().any(|name| name == column),
                "{index}: {columns:?}"
            );
        }
        let foreign: Vec<ForeignKey> = query_as(
            "SELECT k.conname::text, t.relname::text, k.conkey, k.confkey, k.conrelid::int8, \
                 k.confrelid::int8 \
             FROM pg_constraint k JOIN pg_class t ON t.oid = k.confrelid \
             WHERE k.contype = 'f' AND k.conrelid = $1::regclass",
        )
        .bind(table)
        .fetch_all(&mut raw)
        .await
        .unwrap();
        for (name, target, from, to, relation, target_relation) in foreign {
            let target_column = column_of(&target).expect(&name);
            let from = columns(&mut raw, &from, relation).await;
            let to = columns(&mut raw, &to, target_relation).await;
            let mut pairs = from.iter().zip(&to);
            let is_contained = pairs.any(|(from, to)| from == column && to == target_column);
            assert!(is_contained, "{name}: {from:?} -> {to:?}");
        }
    }
    // No other table refers to a distributed one.
    let references = "SELECT count(*) FROM pg_constraint k JOIN pg_class t ON t.oid = k.conrelid \
        WHERE k.contype = 'f' AND t.relnamespace = current_schema()::regnamespace \
          AND t.relname = ANY ($1)";
    let undistributed: Vec<String> = UNDISTRIBUTED.map(str::to_owned).into();
    let references: i64 = query_scalar(references)
        .bind(undistributed)
        .fetch_one(&mut raw)
        .await
        .unwrap();
    assert_eq!(references, 0);
}

async fn columns(connection: &mut PgConnection, numbers: &[i16], relation: i64) -> Vec<String> {
    let columns = COLUMNS.replace("$2", &relation.to_string());
    query_scalar(AssertSqlSafe(columns))
        .bind(numbers)
        .fetch_all(connection)
        .await
        .unwrap()
}

/// A plan that is kept opens the indexes of the partitions that it reads, and of no other.
#[tokio::test(flavor = "multi_thread")]
async fn reads_of_a_conversation_open_one_partition() {
    let options = empty_schema().await;
    let mut raw = options.connect().await.unwrap();
    PostgresStore::new(options, 2).prepare(true).await.unwrap();
    execute(&mut raw, ROWS).await;
    execute(
        &mut raw,
        "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off",
    )
    .await;
    for read in [
        "newest_messages('ID', 0, 10, 5)",
        "oldest_messages('ID', 0, 10, 5)",
        "newest_pinned_messages('ID', 0, 10, 5)",
        "contexts_of_messages('ID', 0, 10)",
    ] {
        let id = reference(9).id.to_string();
        let select = format!("SELECT count(*) FROM {}", read.replace("ID", &id));
        // The first execution makes the plan.
        assert!(count(&mut raw, &select).await > 0);
        execute(&mut raw, "BEGIN").await;
        count(&mut raw, &select).await;
        let opened = "SELECT count(DISTINCT i.indrelid) FROM pg_locks l \
            JOIN pg_index i ON i.indexrelid = l.relation JOIN pg_class t ON t.oid = i.indrelid \
            WHERE l.pid = pg_backend_pid() AND t.relispartition";
        assert_eq!(count(&mut raw, opened).await, 1, "{read}");
        execute(&mut raw, "COMMIT").await;
    }
}

/// A join could read all messages before those of the step, too.
#[tokio::test(flavor = "multi_thread")]
async fn reindexing_reads_the_messages_of_its_step() {
    let options = empty_schema().await;
    let mut raw = options.connect().await.unwrap();
    let store = PostgresStore::new(options, 2);
    store.prepare(true).await.unwrap();
    execute(&mut raw, "SET track_counts = off").await;
    execute(&mut raw, ROWS).await;
    // Enough that a plan which reads all of them would seem cheap for a step.
    execute(
        &mut raw,
        "INSERT INTO messages (conversation_id, seq, id, role, content, created_at)
         SELECT c.id, seq, gen_random_uuid(), 'user', 'text', now()
         FROM conversations c, generate_series(11, 1000) seq WHERE c.last_seq = 10;
         INSERT INTO message_documents (conversation_id, seq, user_id, role, config, words)
         SELECT m.conversation_id, m.seq, 'ana', 'user', 'english', 'text'
         FROM messages m WHERE m.seq > 10",
    )
    .await;
    execute(&mut raw, "ANALYZE messages, message_documents").await;
    let after = (reference(CONVERSATIONS).id, 995);
    // The server makes the plan that it keeps after some executions.
    let mut analyzed = 0;
    for _ in 0..10 {
        analyzed += store.reindex(Some(after)).await.unwrap().analyzed;
    }
    assert_eq!(analyzed, 5);
    // Statistics of a process are reported when it ends, at the latest.
    store.close().await;
    let read = "SELECT coalesce(sum(idx_tup_fetch + seq_tup_read), 0)::bigint \
        FROM pg_stat_user_tables \
        WHERE schemaname = current_schema() AND relname LIKE 'messages_%'";
    let mut last = 0;
    eventually("the rows that were read are counted", async || {
        last = count(&mut raw, read).await;
        last > 0
    })
    .await;
    assert_eq!(last, 5);
}
