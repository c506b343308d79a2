//! Stores under test, and constructors of their arguments.

use std::{
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use conversation_memory::{
    domain::{
        Content, ConversationId, ConversationRef, Digest, IdSource, Limits, Message, MessageId,
        Metadata, NewConversation, NewMessage, RawMessage, RequestId, RetrievedContext, Role,
        SessionId, Title, UserId, UuidV7,
    },
    store::{
        Append, Appended, Bound, Branch, Compaction, Invalidation, MinState, OwnerChange,
        Redaction, RequestIdentity, Store, StoreError, Truncation,
        postgres::{Pooler, PostgresStore, ReplicaSettings},
        sqlite::SqliteStore,
    },
};
use serde_json::Value;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, PgConnection, postgres::PgConnectOptions, query_scalar,
    raw_sql, sqlite::SqliteConnectOptions,
};
use tempfile::TempDir;

use crate::{POLL_INTERVAL, STALL_LIMIT, pgbouncer, replicated};

/// Statement that makes searches take longer than a search may.
pub const SLOW_SEARCHES_ON_POSTGRES: &str = "CREATE OR REPLACE FUNCTION searched_text(content text) RETURNS text LANGUAGE plpgsql IMMUTABLE \
     AS $$ BEGIN \
         IF current_query() LIKE '%websearch_to_tsquery%' THEN PERFORM pg_sleep(10); END IF; \
         RETURN content; \
     END $$";

/// Prepared store. Other tests may use the same database, for other users.
pub struct StoreFixture {
    pub store: Arc<dyn Store>,
    folder: Option<TempDir>,
    /// Server of the store, if it is in PostgreSQL.
    server: Option<PgConnectOptions>,
}

/// Conversation as an ordered key.
#[derive(Clone, Debug)]
pub struct ConversationKey(pub ConversationRef);

impl PartialEq for ConversationKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ConversationKey {}

impl PartialOrd for ConversationKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ConversationKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.id.as_uuid().cmp(&other.0.id.as_uuid())
    }
}

impl StoreFixture {
    pub async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("memory.db")).unwrap();
        let fixture = Self::prepared(store).await;
        Self {
            folder: Some(folder),
            ..fixture
        }
    }

    /// Prepares a store.
    pub async fn prepared(store: impl Store + 'static) -> Self {
        store.prepare(true).await.unwrap();
        Self::without_prepare(store)
    }

    /// Wraps a store whose schema the test has created.
    pub fn without_prepare(store: impl Store + 'static) -> Self {
        Self {
            store: Arc::new(store),
            folder: None,
            server: None,
        }
    }

    /// Counts the messages that are stored under these ids, in any conversation.
    pub async fn count_stored(&self, ids: &[ConversationId]) -> i64 {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        if let Some(folder) = &self.folder {
            let file = SqliteConnectOptions::new().filename(folder.path().join("memory.db"));
            let mut connection = file.connect().await.unwrap();
            let ids = serde_json::to_string(&ids).unwrap();
            let count = "SELECT count(*) FROM messages \
                         WHERE conversation_id IN (SELECT value FROM json_each($1))";
            let count = query_scalar(count).bind(ids).fetch_one(&mut connection);
            count.await.unwrap()
        } else {
            let mut connection = self.connect().await;
            let count = "SELECT count(*) FROM messages WHERE conversation_id::text = ANY($1)";
            let count = query_scalar(count).bind(ids).fetch_one(&mut connection);
            count.await.unwrap()
        }
    }

    /// Executes statements on the database of the store, in the language of that database.
    pub async fn execute(&self, on_postgres: &str, on_sqlite: &str) {
        if let Some(folder) = &self.folder {
            let file = SqliteConnectOptions::new().filename(folder.path().join("memory.db"));
            let mut connection = file.connect().await.unwrap();
            let statements = raw_sql(AssertSqlSafe(on_sqlite.to_owned()));
            statements.execute(&mut connection).await.unwrap();
        } else {
            let mut connection = self.connect().await;
            let statements = raw_sql(AssertSqlSafe(on_postgres.to_owned()));
            statements.execute(&mut connection).await.unwrap();
        }
    }

    /// Returns whether the store is in an SQLite file.
    pub fn is_sqlite(&self) -> bool {
        self.folder.is_some()
    }

    pub async fn postgres() -> Self {
        Self::prepared(PostgresStore::new(server_options(), 10)).await
    }

    /// Creates a store that reads from a standby as often as it may. Commits wait until the standby has
    /// applied them.
    pub async fn replicated() -> Self {
        let servers = replicated::shared();
        let primary: PgConnectOptions = servers.primary.parse().unwrap();
        let settings = ReplicaSettings {
            max_lag: Duration::from_mins(1),
            reads_own_writes: false,
        };
        let store = PostgresStore::new(primary.clone(), 10).with_replica(
            servers.standby.parse().unwrap(),
            Vec::new(),
            10,
            Pooler::Detect,
            settings,
        );
        Self {
            server: Some(primary),
            ..Self::prepared(store).await
        }
    }

    /// Opens a connection to the server of the store.
    async fn connect(&self) -> PgConnection {
        let options = self.server.clone().unwrap_or_else(server_options);
        options.connect().await.unwrap()
    }

    /// Creates a store behind a pooler in transaction mode, which has fewer connections to the server
    /// than the store has to it.
    pub async fn pooled() -> Self {
        let direct = server_options();
        let port = pgbouncer::shared(direct.get_port()).await;
        let store = PostgresStore::new(direct.clone().port(port), 10);
        Self::prepared(store.with_migration_options(direct)).await
    }

    /// Creates a conversation, and returns its reference with its owner.
    pub async fn create_conversation(&self) -> ConversationRef {
        let new = new_conversation(&user());
        retried(|| self.store.create(&new, at(0))).await.unwrap();
        owned_ref(&new)
    }

    /// Saves messages, see [`retried`].
    pub async fn save(&self, append: &Append) -> Result<Appended, StoreError> {
        retried(|| self.store.append(append)).await
    }

    /// Saves texts as one turn, and returns the number of the first.
    pub async fn append_texts(&self, conversation: &ConversationRef, texts: &[&str]) -> i64 {
        match self.save(&turn(conversation, texts)).await.unwrap() {
            Appended::Saved { first_seq, .. } => first_seq,
            Appended::Replayed { .. } => panic!("the save was replayed"),
        }
    }

    /// Creates a branch, and returns its reference with its owner.
    pub async fn branch(&self, branch: &Branch) -> ConversationRef {
        let branched = retried(|| self.store.branch(branch)).await.unwrap();
        ConversationRef {
            id: branched.id,
            user_id: Some(branched.user_id),
        }
    }

    /// Reads all messages of a conversation with their contexts.
    pub async fn all_messages(&self, conversation: &ConversationRef) -> Vec<Message> {
        let read = self
            .store
            .messages_since(MinState::ANY, conversation, Bound::After(0), 100_000, true)
            .await;
        read.unwrap().0
    }

    pub async fn texts(&self, conversation: &ConversationRef) -> Vec<String> {
        let messages = self.all_messages(conversation).await;
        messages
            .into_iter()
            .map(|message| message.content.into_string())
            .collect()
    }

    pub async fn seqs(&self, conversation: &ConversationRef) -> Vec<i64> {
        let messages = self.all_messages(conversation).await;
        messages.iter().map(|message| message.seq).collect()
    }
}

/// Repeats a write that the store rejects as unavailable, as clients do. On a busy machine, a write can
/// exceed its time limit, and has changed nothing then.
pub async fn retried<T, W>(write: impl Fn() -> W) -> Result<T, StoreError>
where
    W: Future<Output = Result<T, StoreError>>,
{
    let started = Instant::now();
    loop {
        match write().await {
            Err(StoreError::Unavailable(_)) if started.elapsed() < STALL_LIMIT => {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
            outcome => return outcome,
        }
    }
}

/// Returns the options of the PostgreSQL server of the tests.
pub fn server_options() -> PgConnectOptions {
    let Ok(url) = std::env::var("TEST_DATABASE_URL") else {
        panic!("TEST_DATABASE_URL is not set: run `make test`, or tests/with-servers cargo test");
    };
    PgConnectOptions::from_str(&url).unwrap()
}

pub fn user() -> UserId {
    UserId::parse(format!("user-{}", UuidV7.uuid())).unwrap()
}

pub fn session() -> SessionId {
    SessionId::from_uuid(UuidV7.uuid())
}

pub fn message_id() -> MessageId {
    MessageId::from_uuid(UuidV7.uuid())
}

pub fn title(text: &str) -> Title {
    Title::parse(text).unwrap()
}

pub fn content(text: impl Into<String>) -> Content {
    Content::parse(text.into(), &Limits::default()).unwrap()
}

pub fn metadata(value: Value) -> Metadata {
    let Value::Object(object) = value else {
        panic!("metadata is an object");
    };
    Metadata::parse(object, 1 << 20).unwrap()
}

/// Returns a fixed time plus `micros` microseconds.
pub fn at(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_800_000_000_123_456 + micros).unwrap()
}

pub fn new_conversation(user_id: &UserId) -> NewConversation {
    NewConversation {
        id: ConversationId::from_uuid(UuidV7.uuid()),
        user_id: user_id.clone(),
        dept_id: None,
        title: None,
        metadata: None,
        session_id: None,
        is_listed: true,
        reuses_id: false,
    }
}

/// Creates the reference to a conversation with its owner.
pub fn owned_ref(new: &NewConversation) -> ConversationRef {
    ConversationRef {
        id: new.id,
        user_id: Some(new.user_id.clone()),
    }
}

pub fn message(text: impl Into<String>) -> NewMessage {
    let raw = RawMessage::text(Role::User, "text");
    let message = NewMessage::new(raw, std::iter::empty(), message_id, &Limits::default());
    NewMessage {
        // May be empty: the test then adds metadata.
        content: content(text),
        ..message.unwrap()
    }
}

pub fn with_chosen_id(text: &str) -> NewMessage {
    NewMessage {
        id_chosen: true,
        ..message(text)
    }
}

pub fn context(doc_id: &str, text: impl Into<String>) -> RetrievedContext {
    RetrievedContext {
        doc_id: doc_id.to_owned(),
        content: content(text),
        score: None,
        metadata: None,
    }
}

pub fn append_of(conversation: &ConversationRef, messages: Vec<NewMessage>) -> Append {
    Append {
        conversation: conversation.clone(),
        messages,
        request: None,
        expected_last_seq: None,
        session_id: None,
        invalidation: Invalidation::Never,
        title: None,
        at: at(1),
    }
}

pub fn turn(conversation: &ConversationRef, texts: &[&str]) -> Append {
    append_of(
        conversation,
        texts.iter().map(|text| message(*text)).collect(),
    )
}

/// Adds an idempotency key to a save.
pub fn with_request_id(mut append: Append, key: &str) -> Append {
    append.request = Some(RequestIdentity {
        id: RequestId::parse(key).unwrap(),
        digest: Digest::of_messages(&append.messages),
    });
    append
}

/// Creates the retry of a save by a caller that does not choose the message ids.
pub fn retry_of(append: &Append) -> Append {
    let mut retry = append.clone();
    for message in &mut retry.messages {
        if !message.id_chosen {
            message.id = message_id();
        }
    }
    retry
}

pub fn truncation(conversation: &ConversationRef, after_seq: i64) -> Truncation {
    Truncation {
        conversation: conversation.clone(),
        after_seq,
        request: None,
        expected_last_seq: None,
        invalidation: Invalidation::Never,
        at: at(2),
    }
}

pub fn truncation_with_request_id(
    conversation: &ConversationRef,
    after_seq: i64,
    key: &str,
) -> Truncation {
    Truncation {
        request: Some(RequestIdentity {
            id: RequestId::parse(key).unwrap(),
            digest: Digest::of_truncation(after_seq),
        }),
        ..truncation(conversation, after_seq)
    }
}

pub fn redaction(conversation: &ConversationRef, seqs: &[i64]) -> Redaction {
    Redaction {
        conversation: conversation.clone(),
        seqs: seqs.to_vec(),
        announced: Vec::new(),
        invalidation: Invalidation::Never,
    }
}

pub fn owner_change(conversation: &ConversationRef, owner: &UserId) -> OwnerChange {
    OwnerChange {
        conversation: conversation.clone(),
        owner: owner.clone(),
        dept_id: None,
        announced: Vec::new(),
        invalidation: Invalidation::Never,
    }
}

pub fn compaction(conversation: &ConversationRef, upto_seq: i64) -> Compaction {
    Compaction {
        conversation: conversation.clone(),
        upto_seq,
        summary: content(format!("up to {upto_seq}")),
        summary_id: message_id(),
        token_count: 3,
        request: None,
        expected_last_seq: None,
        invalidation: Invalidation::Never,
        at: at(4),
    }
}

pub fn compaction_with_request_id(
    conversation: &ConversationRef,
    upto_seq: i64,
    key: &str,
) -> Compaction {
    let compaction = compaction(conversation, upto_seq);
    Compaction {
        request: Some(RequestIdentity {
            id: RequestId::parse(key).unwrap(),
            digest: Digest::of_compaction(upto_seq, compaction.summary.as_str()),
        }),
        ..compaction
    }
}
