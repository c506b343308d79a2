use std::{future::Future, sync::Arc, time::Instant};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use opentelemetry::{
    KeyValue, Value,
    metrics::{Counter, Histogram},
    trace::SpanKind,
};

use super::{
    availability::{Access, StoreAvailability},
    import::ObservedImport,
};
use crate::{
    call::{self, Span},
    domain::{
        Conversation, ConversationChanges, ConversationId, ConversationRef, Message,
        NewConversation, SessionId, UserId,
    },
    instrumentation,
    store::{
        Append, Appended, Bound, Branch, Compaction, ConversationPage, ConversationQuery, Import,
        Invalidation, MessagePlace, MinState, Newest, OwnerChange, PendingInvalidation, Redacted,
        Redaction, Reindexed, SchemaError, SearchPage, SearchQuery, Snapshot, Store, StoreError,
        Truncated, Truncation,
    },
};

/// Attributes of a database in the semantic conventions of OpenTelemetry.
#[derive(Clone, Debug)]
pub struct DatabaseAttributes {
    /// Value of `db.system.name`.
    pub system: &'static str,
    /// Value of `db.namespace`, the name of the database.
    pub namespace: Option<String>,
    /// Value of `server.address`.
    pub host: Option<String>,
    /// Value of `server.port`.
    pub port: Option<u16>,
}

/// Decorator of a store that traces and measures its operations, and counts saves.
#[derive(Debug)]
pub struct ObservedStore {
    pub(super) inner: Arc<dyn Store>,
    system: &'static str,
    /// Attributes of the database in spans.
    database: Vec<KeyValue>,
    durations: Histogram<f64>,
    pub(super) saved: Counter<u64>,
    replayed: Counter<u64>,
    availability: Arc<StoreAvailability>,
}

impl ObservedStore {
    /// Decorates a store in the given database.
    pub fn new(inner: Arc<dyn Store>, database: DatabaseAttributes) -> Self {
        let meter = instrumentation::meter();
        let store = Self {
            inner,
            system: database.system,
            database: database.into_attributes(),
            durations: meter
                .f64_histogram("db.client.operation.duration")
                .with_unit("s")
                .with_description("Duration of database client operations.")
                .build(),
            saved: meter
                .u64_counter("conversation_memory.messages.saved")
                .with_unit("{message}")
                .with_description("Messages saved or imported, excluding replays.")
                .build(),
            replayed: meter
                .u64_counter("conversation_memory.saves.replayed")
                .with_unit("{save}")
                .with_description("Saves that were replays of an earlier save.")
                .build(),
            availability: StoreAvailability::new(),
        };
        instrumentation::export_zero(&store.saved, &[]);
        instrumentation::export_zero(&store.replayed, &[]);
        store
    }

    /// Runs an operation on a table in a span and measures it. A rejected request is not an
    /// error of the operation.
    pub(super) async fn observe<T>(
        &self,
        operation: &'static str,
        table: &'static str,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let mut recorder = OperationRecorder {
            durations: &self.durations,
            attributes: [
                ("db.system.name", self.system),
                ("db.operation.name", operation),
                ("db.collection.name", table),
            ],
            span: self.span(operation, table),
            started: Instant::now(),
            error: Some((CANCELLED, String::new())),
        };
        let outcome = work.await;
        let failed = outcome.as_ref().err().and_then(failure);
        if let Some(access) = Access::of(operation) {
            self.availability.record(access, &outcome);
        }
        recorder.error = failed.map(|(kind, error)| (kind, error.to_string()));
        outcome
    }

    /// Starts the span of an operation, if it belongs to a call that is traced.
    fn span(&self, operation: &'static str, table: &'static str) -> Span {
        Span::start(SpanKind::Client, || {
            let mut attributes = Vec::with_capacity(MAX_ATTRIBUTES);
            attributes.extend([
                KeyValue::new("db.operation.name", operation),
                KeyValue::new("db.collection.name", table),
            ]);
            attributes.extend_from_slice(&self.database);
            (format!("{operation} {table}"), attributes)
        })
    }
}

/// Number of attributes that a span can get. The vector does not grow then.
const MAX_ATTRIBUTES: usize = 12;

impl DatabaseAttributes {
    fn into_attributes(self) -> Vec<KeyValue> {
        let shared = |text: String| Value::from(Arc::<str>::from(text));
        let mut attributes = vec![KeyValue::new("db.system.name", self.system)];
        let namespace = self.namespace.map(shared);
        attributes.extend(namespace.map(|name| KeyValue::new("db.namespace", name)));
        let host = self.host.map(shared);
        attributes.extend(host.map(|host| KeyValue::new("server.address", host)));
        let port = self.port.map(i64::from);
        attributes.extend(port.map(|port| KeyValue::new("server.port", port)));
        attributes
    }
}

/// `error.type` of an operation whose future was dropped, for example because the
/// call's deadline passed.
const CANCELLED: &str = "cancelled";

/// Records an operation when it is dropped, so that cancelled ones are recorded too.
struct OperationRecorder<'a> {
    durations: &'a Histogram<f64>,
    attributes: [(&'static str, &'static str); 3],
    span: Span,
    started: Instant,
    /// Value of `error.type`, and the description of the span's status.
    error: Option<(&'static str, String)>,
}

impl Drop for OperationRecorder<'_> {
    fn drop(&mut self) {
        let kind = self.error.as_ref().map_or("", |(kind, _)| *kind);
        let [system, operation, table] = self.attributes;
        let attributes = [system, operation, table, ("error.type", kind)];
        let attributes = attributes.map(|(key, value)| KeyValue::new(key, value));
        // The error is the last attribute, and omitted if there is none.
        let count = attributes.len() - usize::from(self.error.is_none());
        self.durations
            .record(self.started.elapsed().as_secs_f64(), &attributes[..count]);
        if let Some((kind, error)) = self.error.take() {
            self.span.set_attribute("error.type", kind);
            self.span.set_error(|| error);
        }
    }
}

/// Returns the value of `error.type` for failures of the store. `None` for rejected requests.
fn failure(error: &StoreError) -> Option<(&'static str, &StoreError)> {
    match error {
        StoreError::NotFound
        | StoreError::MessageNotFound { .. }
        | StoreError::Conflict { .. }
        | StoreError::BeyondEnd { .. }
        | StoreError::TooDeep { .. }
        | StoreError::FamilyTooLarge
        | StoreError::BaseVersionMissing
        | StoreError::ContentMissing
        | StoreError::CheckpointTooLarge
        | StoreError::TooManyWrites { .. }
        | StoreError::HasCheckpoints
        | StoreError::SearchTooExpensive
        | StoreError::TooManySearches
        | StoreError::TooManySaves
        | StoreError::TooManyTransfers
        | StoreError::AlreadyExists(_) => None,
        StoreError::Unavailable(_) => Some(("unavailable", error)),
        StoreError::Full(_) => Some(("full", error)),
        StoreError::OutcomeUnknown(_) => Some(("outcome_unknown", error)),
        StoreError::Internal(_) => Some(("internal", error)),
    }
}

const CONVERSATIONS: &str = "conversations";
const PENDING_INVALIDATIONS: &str = "pending_invalidations";
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
        call::set_conversation(new.id);
        let work = self.inner.create(new, at);
        self.observe("create", CONVERSATIONS, work).await
    }

    async fn get(&self, conversation: &ConversationRef) -> Result<Conversation, StoreError> {
        call::set_conversation(conversation.id);
        let work = self.inner.get(conversation);
        self.observe("get", CONVERSATIONS, work).await
    }

    async fn attach_session(
        &self,
        conversation: &ConversationRef,
        session: SessionId,
    ) -> Result<Conversation, StoreError> {
        call::set_conversation(conversation.id);
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
        call::set_conversation(conversation.id);
        let work = self.inner.update(conversation, changes, at);
        self.observe("update", CONVERSATIONS, work).await
    }

    async fn delete(
        &self,
        conversation: &ConversationRef,
        invalidation: Invalidation,
    ) -> Result<(), StoreError> {
        call::set_conversation(conversation.id);
        let work = self.inner.delete(conversation, invalidation);
        self.observe("delete", CONVERSATIONS, work).await
    }

    async fn append(&self, append: &Append) -> Result<Appended, StoreError> {
        call::set_conversation(append.conversation.id);
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
        call::set_conversation(branch.parent.id);
        let work = self.inner.branch(branch);
        self.observe("branch", CONVERSATIONS, work).await
    }

    async fn branches(
        &self,
        conversation: &ConversationRef,
        after: Option<i64>,
        limit: u32,
    ) -> Result<ConversationPage, StoreError> {
        call::set_conversation(conversation.id);
        let work = self.inner.branches(conversation, after, limit);
        self.observe("list_branches", CONVERSATIONS, work).await
    }

    async fn truncate(&self, truncation: &Truncation) -> Result<Truncated, StoreError> {
        call::set_conversation(truncation.conversation.id);
        let work = self.inner.truncate(truncation);
        self.observe("truncate", MESSAGES, work).await
    }

    async fn compact(&self, compaction: &Compaction) -> Result<i64, StoreError> {
        call::set_conversation(compaction.conversation.id);
        let work = self.inner.compact(compaction);
        self.observe("compact", CONVERSATIONS, work).await
    }

    async fn containing(
        &self,
        conversation: &ConversationRef,
        seqs: &[i64],
    ) -> Result<Vec<ConversationId>, StoreError> {
        call::set_conversation(conversation.id);
        let work = self.inner.containing(conversation, seqs);
        self.observe("find_containing", CONVERSATIONS, work).await
    }

    async fn redact(&self, redaction: &Redaction) -> Result<Redacted, StoreError> {
        call::set_conversation(redaction.conversation.id);
        let work = self.inner.redact(redaction);
        self.observe("redact", MESSAGES, work).await
    }

    async fn family(&self, change: &OwnerChange) -> Result<Vec<ConversationId>, StoreError> {
        call::set_conversation(change.conversation.id);
        let work = self.inner.family(change);
        self.observe("find_family", CONVERSATIONS, work).await
    }

    async fn change_owner(&self, change: &OwnerChange) -> Result<Vec<ConversationId>, StoreError> {
        call::set_conversation(change.conversation.id);
        let work = self.inner.change_owner(change);
        self.observe("change_owner", CONVERSATIONS, work).await
    }

    async fn newest(
        &self,
        conversation: &ConversationRef,
        limit: u32,
        contexts: bool,
    ) -> Result<Newest, StoreError> {
        call::set_conversation(conversation.id);
        let work = self.inner.newest(conversation, limit, contexts);
        self.observe("newest", MESSAGES, work).await
    }

    async fn blobs(
        &self,
        conversation: ConversationId,
        seq: i64,
    ) -> Result<Vec<(u32, Bytes)>, StoreError> {
        call::set_conversation(conversation);
        let work = self.inner.blobs(conversation, seq);
        self.observe("blobs", "message_blobs", work).await
    }

    async fn messages(
        &self,
        conversation: &ConversationRef,
        from: Bound,
        limit: u32,
        contexts: bool,
    ) -> Result<Vec<Message>, StoreError> {
        call::set_conversation(conversation.id);
        let work = self.inner.messages(conversation, from, limit, contexts);
        self.observe("list", MESSAGES, work).await
    }

    async fn messages_since(
        &self,
        state: MinState,
        conversation: &ConversationRef,
        from: Bound,
        limit: u32,
        contexts: bool,
    ) -> Result<(Vec<Message>, MinState), StoreError> {
        call::set_conversation(conversation.id);
        let inner = &self.inner;
        let work = inner.messages_since(state, conversation, from, limit, contexts);
        self.observe("list", MESSAGES, work).await
    }

    async fn snapshot(
        &self,
        conversation: &ConversationRef,
    ) -> Result<(Conversation, Box<dyn Snapshot>), StoreError> {
        call::set_conversation(conversation.id);
        let work = self.inner.snapshot(conversation);
        self.observe("snapshot", CONVERSATIONS, work).await
    }

    async fn import(&self, conversation: &Conversation) -> Result<Box<dyn Import>, StoreError> {
        call::set_conversation(conversation.id);
        let work = self.inner.import(conversation);
        let import = self.observe("import", CONVERSATIONS, work).await?;
        Ok(Box::new(ObservedImport::new(import, self.saved.clone())))
    }

    async fn search(&self, query: &SearchQuery) -> Result<SearchPage, StoreError> {
        let work = self.inner.search(query);
        self.observe("search", MESSAGES, work).await
    }

    async fn correct(&self, query: &SearchQuery) -> Result<Option<String>, StoreError> {
        let work = self.inner.correct(query);
        self.observe("correct", MESSAGES, work).await
    }

    async fn reindex(&self, after: Option<MessagePlace>) -> Result<Reindexed, StoreError> {
        let work = self.inner.reindex(after);
        self.observe("reindex", MESSAGES, work).await
    }

    fn history(&self) -> Bytes {
        self.inner.history()
    }

    fn has_idle_connection(&self) -> bool {
        self.inner.has_idle_connection()
    }

    async fn pending_invalidations(
        &self,
        after: Option<ConversationId>,
        limit: u32,
    ) -> Result<Vec<PendingInvalidation>, StoreError> {
        let work = self.inner.pending_invalidations(after, limit);
        self.observe("pending_invalidations", PENDING_INVALIDATIONS, work)
            .await
    }

    async fn complete_invalidations(
        &self,
        completed: &[PendingInvalidation],
    ) -> Result<(), StoreError> {
        let work = self.inner.complete_invalidations(completed);
        self.observe("complete_invalidations", PENDING_INVALIDATIONS, work)
            .await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
