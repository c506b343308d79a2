//! Store behind a pooler. The conformance cases run behind one in transaction mode, too.

use std::time::Duration;

use conversation_memory::{
    domain::{Conversation, ConversationChanges, ConversationRef, Message, Title},
    store::{
        Bound, SchemaError, Store, StoreError,
        postgres::{Pooler, PostgresStore},
    },
    text_analysis::Languages,
};
use futures_util::future::join_all;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Row as _, postgres::PgConnectOptions, query_scalar, raw_sql,
};
use test_support::{
    eventually, new_id,
    pgbouncer::PgBouncer,
    postgres_server::PostgresServer,
    random::Random,
    rounds,
    store_fixture::{
        StoreFixture, at, new_conversation, owned_ref, server_options, title, truncation, turn,
        user,
    },
    tcp_proxy::TcpProxy,
};
use tokio::time::sleep;

/// Callers of the comparison with the model.
const CALLERS: u32 = 64;

/// Options of a new database, on the server itself and behind a pooler.
async fn new_database(pooler: &PgBouncer) -> (PgConnectOptions, PgConnectOptions) {
    let name = format!("pooled_{}", new_id().replace('-', "_"));
    let mut connection = server_options().connect().await.unwrap();
    let create = format!("CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0");
    let create = raw_sql(AssertSqlSafe(create));
    create.execute(&mut connection).await.unwrap();
    let direct = server_options().database(&name);
    (direct.clone(), direct.port(pooler.port()))
}

/// Conversation of one caller, as it has to be read.
struct Model {
    conversation: ConversationRef,
    messages: Vec<(i64, String)>,
    last_seq: i64,
    title: Option<String>,
}

impl Model {
    async fn new(store: &dyn Store) -> Self {
        let new = new_conversation(&user());
        retried(async || store.create(&new, at(0)).await).await;
        Self {
            conversation: owned_ref(&new),
            messages: Vec::new(),
            last_seq: 0,
            title: None,
        }
    }

    /// Executes a call, and compares its response with the model.
    async fn call(&mut self, store: &dyn Store, random: &mut Random) {
        let of = &self.conversation;
        match random.below(100) {
            0..35 => {
                let texts: Vec<String> = (0..=random.below(2)).map(|_| new_id()).collect();
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                let append = turn(of, &texts);
                retried(async || store.append(&append).await).await;
                for text in texts {
                    self.last_seq += 1;
                    self.messages.push((self.last_seq, text.to_owned()));
                }
            }
            35..55 => {
                let read = async || store.messages(of, Bound::After(0), 10_000, true).await;
                assert_eq!(stored(retried(read).await), self.messages);
            }
            55..75 => {
                let newest = retried(async || store.newest(of, 3, true).await).await;
                self.assert_conversation(&newest.conversation);
                let from = self.messages.len().saturating_sub(3);
                assert_eq!(stored(newest.messages), self.messages[from..]);
            }
            75..85 => {
                let found = retried(async || store.get(of).await).await;
                self.assert_conversation(&found);
            }
            85..90 => {
                let text = new_id();
                let changes = ConversationChanges {
                    title: Some(Some(title(&text))),
                    metadata: None,
                };
                self.title = Some(text);
                let changed = retried(async || store.update(of, &changes, at(1)).await).await;
                self.assert_conversation(&changed);
            }
            90..94 => {
                let after = random.between(0, self.last_seq);
                let truncation = truncation(of, after);
                retried(async || store.truncate(&truncation).await).await;
                self.messages.retain(|(seq, _)| *seq <= after);
            }
            94..97 => {
                let (found, mut snapshot) = retried(async || store.snapshot(of).await).await;
                self.assert_conversation(&found);
                let read = snapshot.after(0, 10_000).await.unwrap();
                assert_eq!(stored(read), self.messages);
            }
            _ => {
                let foreign = ConversationRef {
                    user_id: Some(user()),
                    ..of.clone()
                };
                let read = store.get(&foreign).await;
                assert!(read.is_err(), "{read:?}");
            }
        }
    }

    fn assert_conversation(&self, found: &Conversation) {
        assert_eq!(found.id, self.conversation.id);
        assert_eq!(found.last_seq, self.last_seq);
        let title = found.title.as_ref().map(Title::as_str);
        assert_eq!(title, self.title.as_deref());
    }
}

/// Repeats a call that was not executed because no connection was available in time.
async fn retried<T>(call: impl AsyncFn() -> Result<T, StoreError>) -> T {
    loop {
        match call().await {
            Err(
                StoreError::Unavailable(_)
                | StoreError::TooManySaves
                | StoreError::TooManyTransfers,
            ) => {
                sleep(Duration::from_millis(20)).await;
            }
            outcome => return outcome.unwrap(),
        }
    }
}

fn stored(messages: Vec<Message>) -> Vec<(i64, String)> {
    let stored = messages.into_iter();
    stored
        .map(|message| (message.seq, message.content.into_string()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn mixed_calls_of_many_callers_get_their_own_results() {
    let fixture = StoreFixture::pooled().await;
    let calls = rounds("POOLER_CALLS", 10_000) / CALLERS;
    let callers = (0..CALLERS).map(async |caller| {
        let mut random = Random::new(caller.into());
        let mut model = Model::new(&*fixture.store).await;
        for _ in 0..calls {
            model.call(&*fixture.store, &mut random).await;
        }
    });
    join_all(callers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_migrated_on_a_connection_to_the_server_itself() {
    let port = server_options().get_port();
    let pooler = PgBouncer::start(port, "transaction", 2).await;
    let (direct, pooled) = new_database(&pooler).await;
    let store = || PostgresStore::new(pooled.clone(), 4);
    let rejected = store().prepare(true).await.unwrap_err();
    assert!(
        matches!(rejected, SchemaError::NeedsMigrationUrl),
        "{rejected:?}"
    );
    let through_pooler = store().with_migration_options(pooled.clone());
    let rejected = through_pooler.prepare(true).await.unwrap_err();
    assert!(
        matches!(rejected, SchemaError::NeedsMigrationUrl),
        "{rejected:?}"
    );
    let (other, _) = new_database(&pooler).await;
    let mistaken = store().with_migration_options(other.clone());
    let rejected = mistaken.prepare(true).await.unwrap_err();
    assert!(
        matches!(rejected, SchemaError::OtherDatabase { .. }),
        "{rejected:?}"
    );
    let mut other = other.connect().await.unwrap();
    let tables =
        query_scalar::<_, i64>("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'");
    assert_eq!(tables.fetch_one(&mut other).await.unwrap(), 0);
    let migrated = store().with_migration_options(direct);
    migrated.prepare(true).await.unwrap();
    // Nothing has to be migrated any more.
    let store = StoreFixture::prepared(store()).await;
    let conversation = store.create_conversation().await;
    store.append_texts(&conversation, &["saved"]).await;
    assert_eq!(store.texts(&conversation).await, ["saved"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ignored_startup_parameters_reveal_a_pooler() {
    let port = server_options().get_port();
    let ignored = "ignore_startup_parameters = extra_float_digits, options";
    let pooler = PgBouncer::start_with(port, "transaction", 2, ignored).await;
    let (direct, pooled) = new_database(&pooler).await;
    let store = PostgresStore::new(pooled, 4).with_migration_options(direct);
    let store = StoreFixture::prepared(store).await;
    let conversation = store.create_conversation().await;
    store.append_texts(&conversation, &["saved"]).await;
    assert_eq!(store.texts(&conversation).await, ["saved"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_remains_in_the_sessions_of_a_pooler() {
    let port = server_options().get_port();
    let pooler = PgBouncer::start(port, "transaction", 1).await;
    let (direct, pooled) = new_database(&pooler).await;
    let store = PostgresStore::new(pooled.clone(), 4).with_migration_options(direct);
    let store = StoreFixture::prepared(store).await;
    let conversation = store.create_conversation().await;
    store.append_texts(&conversation, &["saved"]).await;
    assert_eq!(store.texts(&conversation).await, ["saved"]);

    let mut session = pooled.extra_float_digits(None).connect().await.unwrap();
    let state = "SELECT current_setting('statement_timeout') || ' ' || \
            current_setting('enable_seqscan') || ' ' || current_setting('plan_cache_mode') || ' ' || \
            (SELECT count(*) FROM pg_prepared_statements) AS state, \
        (SELECT count(*)::text FROM pg_stat_activity \
            WHERE datname = current_database()) AS sessions";
    let row = raw_sql(state).fetch_one(&mut session).await.unwrap();
    assert_eq!(row.get::<&str, _>("state"), "0 on auto 0");
    assert_eq!(row.get::<&str, _>("sessions"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_session_mode_keeps_the_settings() {
    let port = server_options().get_port();
    let pooler = PgBouncer::start(port, "session", 20).await;
    let (_, pooled) = new_database(&pooler).await;
    let store =
        PostgresStore::connect(pooled, Vec::new(), 4, Languages::default(), Pooler::Session);
    let store = StoreFixture::prepared(store).await;
    let conversation = store.create_conversation().await;
    for number in 1..=5 {
        assert_eq!(store.append_texts(&conversation, &["saved"]).await, number);
    }
    assert_eq!(store.seqs(&conversation).await, [1, 2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_server_behind_a_pooler_is_noticed() {
    let mut server = PostgresServer::start().await;
    let pooler = PgBouncer::start(server.port(), "transaction", 2).await;
    let direct: PgConnectOptions = server.url().parse().unwrap();
    let store = PostgresStore::new(pooler.url().parse().unwrap(), 4);
    let store = StoreFixture::prepared(store.with_migration_options(direct)).await;
    let conversation = store.create_conversation().await;
    store.append_texts(&conversation, &["before"]).await;
    let history = store.store.history();
    server.kill();
    server.run().await;
    eventually("the server is used again", async || {
        store.store.get(&conversation).await.is_ok()
    })
    .await;
    assert_ne!(store.store.history(), history);
    store.append_texts(&conversation, &["after"]).await;
    assert_eq!(store.texts(&conversation).await, ["before", "after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_whose_commit_is_not_acknowledged_is_saved_once() {
    let port = server_options().get_port();
    let pooler = PgBouncer::start(port, "transaction", 2).await;
    let (direct, pooled) = new_database(&pooler).await;
    let proxy = TcpProxy::start(([127, 0, 0, 1], pooler.port()).into()).await;
    let store = PostgresStore::new(pooled.port(proxy.address().port()), 2);
    let store = StoreFixture::prepared(store.with_migration_options(direct)).await;
    let conversation = store.create_conversation().await;
    store.append_texts(&conversation, &["first"]).await;
    for lost in ["COMMIT", "BEGIN"] {
        proxy.lose_response_to(lost);
        store.append_texts(&conversation, &[lost]).await;
    }
    let texts = store.texts(&conversation).await;
    assert_eq!(texts, ["first", "COMMIT", "BEGIN"]);
}
