use std::{future::Future, sync::Arc, time::Instant};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram},
    trace::Status,
};
use tracing::{Instrument as _, Span, debug_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::{
    domain::{
        Conversation, ConversationChanges, ConversationRef, Message, NewConversation, SessionId,
        UserId,
    },
    instrumentation,
    store::{
        Append, Appended, Bound, Branch, ConversationPage, ConversationQuery, Import, SchemaError,
        SearchPage, SearchQuery, Snapshot, Store, StoreError, Truncated, Truncation,
    },
    telemetry::call,
};

/// A database as the conventions of OpenTelemetry describe it.
#[derive(Clone, Debug)]
pub struct Database {
    /// `db.system.name`.
    pub system: &'static str,
    /// `db.namespace`: the database's name.
    pub namespace: Option<String>,
    /// `server.address`.
    pub host: Option<String>,
    /// `server.port`.
    pub port: Option<u16>,
}

/// A store whose calls are spans and durations, and whose saves are counted.
#[derive(Debug)]
pub struct ObservedStore {
    inner: Arc<dyn Store>,
    database: Database,
    durations: Histogram<f64>,
    saved: Counter<u64>,
    replayed: Counter<u64>,
}

impl ObservedStore {
    /// Observes a store in this database.
    pub fn new(inner: Arc<dyn Store>, database: Database) -> Self {
        let meter = instrumentation::meter();
        Self {
            inner,
            database,
            durations: meter
                .f64_histogram("db.client.operation.duration")
                .with_unit("s")
                .with_description("Duration of database client operations.")
                .build(),
            saved: meter
                .u64_counter("conversation_memory.messages.saved")
                .with_unit("{message}")
                .with_description("Messages saved, replays not counted.")
                .build(),
            replayed: meter
                .u64_counter("conversation_memory.saves.replayed")
                .with_unit("{save}")
                .with_description("Saves that had been done before.")
                .build(),
        }
    }

    /// Runs an operation on a table in a span and measures it. A refusal is an
    /// answer, not an error.
    async fn observe<T>(
        &self,
        operation: &'static str,
        table: &'static str,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let Database {
            system,
            namespace,
            host,
            port,
        } = &self.database;
        let span = debug_span!(
            "store",
            otel.name = format_args!("{operation} {table}"),
            otel.kind = "client",
            db.system.name = system,
            db.operation.name = operation,
            db.collection.name = table,
            db.namespace = namespace,
            server.address = host,
            server.port = port,
        );
        let mut ending = Ending {
            durations: &self.durations,
            attributes: vec![
                KeyValue::new("db.system.name", *system),
                KeyValue::new("db.operation.name", operation),
                KeyValue::new("db.collection.name", table),
            ],
            span: span.clone(),
            started: Instant::now(),
            error: Some((CANCELLED, String::new())),
        };
        let outcome = work.instrument(span).await;
        let failed = outcome.as_ref().err().and_then(failure);
        ending.error = failed.map(|(kind, error)| (kind, error.to_string()));
        outcome
    }
}

/// What an operation ends with whose caller did not wait for it: a deadline that
/// passed, say, while the store was slow.
const CANCELLED: &str = "cancelled";

/// The end of an operation, measured however it comes.
struct Ending<'a> {
    durations: &'a Histogram<f64>,
    attributes: Vec<KeyValue>,
    span: Span,
    started: Instant,
    error: Option<(&'static str, String)>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if let Some((kind, error)) = self.error.take() {
            self.attributes.push(KeyValue::new("error.type", kind));
            self.span.set_attribute("error.type", kind);
            self.span.set_status(Status::error(error));
        }
        self.durations
            .record(self.started.elapsed().as_secs_f64(), &self.attributes);
    }
}

/// What is the store's fault.
fn failure(error: &StoreError) -> Option<(&'static str, &StoreError)> {
    match error {
        StoreError::NotFound
        | StoreError::Conflict { .. }
        | StoreError::BeyondEnd { .. }
        | StoreError::AlreadyExists(_) => None,
        StoreError::Unavailable(_) => Some(("unavailable", error)),
        StoreError::OutcomeUnknown(_) => Some(("outcome_unknown", error)),
        StoreError::Internal(_) => Some(("internal", error)),
    }
}

const CONVERSATIONS: &str = "conversations";
const MESSAGES: &str = "messages";

#[async_trait]
impl Store for ObservedStore {
    async fn prepare(&self, migrate: bool) -> Result<(), SchemaError> {
        self.inner.prepare(migrate).await
    }

    async fn create(
        &self,
        new: &NewConversation,
        at: DateTime<Utc>,
    ) -> Result<Conversation, StoreError> {
        call::is_about(new.id);
        let work = self.inner.create(new, at);
        self.observe("create", CONVERSATIONS, work).await
    }

    async fn get(&self, conversation: &ConversationRef) -> Result<Conversation, StoreError> {
        call::is_about(conversation.id);
        let work = self.inner.get(conversation);
        self.observe("get", CONVERSATIONS, work).await
    }

    async fn attach_session(
        &self,
        conversation: &ConversationRef,
        session: SessionId,
    ) -> Result<Conversation, StoreError> {
        call::is_about(conversation.id);
        let work = self.inner.attach_session(conversation, session);
        self.observe("attach_session", CONVERSATIONS, work).await
    }

    async fn conversation_of_session(
        &self,
        session: SessionId,
        user: &UserId,
    ) -> Result<Option<Conversation>, StoreError> {
        let work = self.inner.conversation_of_session(session, user);
        self.observe("conversation_of_session", CONVERSATIONS, work)
            .await
    }

    async fn list(&self, query: &ConversationQuery) -> Result<ConversationPage, StoreError> {
        self.observe("list", CONVERSATIONS, self.inner.list(query))
            .await
    }

    async fn update(
        &self,
        conversation: &ConversationRef,
        changes: &ConversationChanges,
        at: DateTime<Utc>,
    ) -> Result<Conversation, StoreError> {
        call::is_about(conversation.id);
        let work = self.inner.update(conversation, changes, at);
        self.observe("update", CONVERSATIONS, work).await
    }

    async fn delete(&self, conversation: &ConversationRef) -> Result<(), StoreError> {
        call::is_about(conversation.id);
        let work = self.inner.delete(conversation);
        self.observe("delete", CONVERSATIONS, work).await
    }

    async fn append(&self, append: &Append) -> Result<Appended, StoreError> {
        call::is_about(append.conversation.id);
        let appended = self
            .observe("append", MESSAGES, self.inner.append(append))
            .await?;
        match &appended {
            Appended::Saved { .. } => self.saved.add(append.messages.len() as u64, &[]),
            Appended::Replayed { .. } => self.replayed.add(1, &[]),
        }
        Ok(appended)
    }

    async fn branch(&self, branch: &Branch) -> Result<Conversation, StoreError> {
        call::is_about(branch.parent.id);
        let work = self.inner.branch(branch);
        self.observe("branch", CONVERSATIONS, work).await
    }

    async fn branches(
        &self,
        conversation: &ConversationRef,
        after: Option<i64>,
        limit: u32,
    ) -> Result<ConversationPage, StoreError> {
        call::is_about(conversation.id);
        let work = self.inner.branches(conversation, after, limit);
        self.observe("list_branches", CONVERSATIONS, work).await
    }

    async fn truncate(&self, truncation: &Truncation) -> Result<Truncated, StoreError> {
        call::is_about(truncation.conversation.id);
        let work = self.inner.truncate(truncation);
        self.observe("truncate", MESSAGES, work).await
    }

    async fn newest(
        &self,
        conversation: &ConversationRef,
        limit: u32,
        contexts: bool,
    ) -> Result<(Conversation, Vec<Message>), StoreError> {
        call::is_about(conversation.id);
        let work = self.inner.newest(conversation, limit, contexts);
        self.observe("newest", MESSAGES, work).await
    }

    async fn messages(
        &self,
        conversation: &ConversationRef,
        from: Bound,
        limit: u32,
        contexts: bool,
    ) -> Result<Vec<Message>, StoreError> {
        call::is_about(conversation.id);
        let work = self.inner.messages(conversation, from, limit, contexts);
        self.observe("list", MESSAGES, work).await
    }

    async fn snapshot(
        &self,
        conversation: &ConversationRef,
    ) -> Result<(Conversation, Box<dyn Snapshot>), StoreError> {
        call::is_about(conversation.id);
        let work = self.inner.snapshot(conversation);
        self.observe("snapshot", CONVERSATIONS, work).await
    }

    async fn import(&self, conversation: &Conversation) -> Result<Box<dyn Import>, StoreError> {
        call::is_about(conversation.id);
        let work = self.inner.import(conversation);
        self.observe("import", CONVERSATIONS, work).await
    }

    async fn search(&self, query: &SearchQuery) -> Result<SearchPage, StoreError> {
        let work = self.inner.search(query);
        self.observe("search", MESSAGES, work).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
