//! Import of a conversation. All writes share one writer, which must not wait for a client: an
//! import collects its messages in a separate spool file, and copies them into the store when it ends.
//!
//! The messages are copied in short transactions. No conversation contains them until the last one,
//! and they are recorded as messages to be deleted, so that an import that does not end leaves
//! nothing.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use sqlx::{
    ConnectOptions as _, Connection as _, SqliteConnection, query, query_scalar, raw_sql,
    sqlite::SqliteConnectOptions,
};
use tokio::sync::Notify;

use super::{
    SqlitePool,
    columns::{Insertion, insert, insertion_into},
    connection::{self, Micros},
    conversations::{get_in, require_unused},
    disk_space,
    lineage::LineageRange,
    pending_removals::{self, ImportLock, Step, Sweeper},
};
use crate::{
    domain::{Conversation, ConversationId, ConversationRef, DeptId, NumberedMessage, Title},
    store::{
        Import, ReusedKey, StoreError, metadata_json,
        operation_error::{BackendError, ErrorKind, OperationError},
        transfers::{ImportTotals, TransferPermit},
    },
};

/// Prepares the spool file. It need not be durable, because it is only used until its
/// connection is closed.
const PREPARE_SPOOL: &str = "
PRAGMA spool.journal_mode = OFF;
PRAGMA spool.synchronous = OFF;
CREATE TABLE spool.messages AS SELECT * FROM main.messages WHERE false;
CREATE TABLE spool.message_contexts AS SELECT * FROM main.message_contexts WHERE false;
CREATE TABLE spool.message_blobs AS SELECT * FROM main.message_blobs WHERE false;
CREATE INDEX spool.messages_by_seq ON messages (seq);
CREATE INDEX spool.contexts_by_seq ON message_contexts (seq);
CREATE INDEX spool.blobs_by_seq ON message_blobs (seq);";

const INTO_SPOOL: Insertion = insertion_into!("spool");

/// Parameters: $1 id, $2 user, $3 department, $4 title, $5 metadata, $6 and $7 times, $8
/// last number, $9 activity, $10 tokens of the messages, $11 whether one is pinned.
const CREATE: &str = "
INSERT INTO main.conversations (id, user_id, dept_id, title, metadata, created_at, updated_at,
                                last_seq, activity, uncompacted_tokens, has_pinned)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

/// Finds the last message of a batch. Parameters: $1 number before the batch, $2 limit.
const BATCH_END: &str = "SELECT max(b.seq) FROM (SELECT m.seq FROM spool.messages m WHERE m.seq > $1 \
    ORDER BY m.seq LIMIT CAST($2 AS INTEGER)) AS b";

/// Copies a batch of messages. Parameters: $1 number before the first, $2 last number.
const COPY_FROM_SPOOL: [&str; 3] = [
    "INSERT INTO main.messages SELECT * FROM spool.messages WHERE seq > $1 AND seq <= $2 ORDER BY seq",
    "INSERT INTO main.message_contexts SELECT * FROM spool.message_contexts \
       WHERE seq > $1 AND seq <= $2 ORDER BY seq, position",
    "INSERT INTO main.message_blobs SELECT * FROM spool.message_blobs \
       WHERE seq > $1 AND seq <= $2 ORDER BY seq, position",
];

/// Adds the search documents of a batch: the triggers add those of messages whose conversation
/// exists. Parameters: $1 conversation, $2 and $3 the range, $4 user, $5 department.
const ADD_DOCUMENTS: &str = "
INSERT INTO main.message_documents (conversation_id, seq, user_id, dept_id, role)
SELECT m.conversation_id, m.seq, $4, $5, m.role FROM main.messages m
WHERE m.conversation_id = $1 AND m.seq > $2 AND m.seq <= $3 AND m.content <> '' ORDER BY m.seq";

/// Distinguishes the spool files of a process: imports with the same id can be in progress at once.
static SPOOL_NUMBER: AtomicU64 = AtomicU64::new(0);

/// Number of attempts of a step while the store is busy.
const MAX_ATTEMPTS: u32 = 10;

struct SqliteImport {
    connection: SqliteConnection,
    writer: Arc<SqlitePool>,
    sweeper: Arc<Sweeper>,
    has_saved: Arc<Notify>,
    conversation: Conversation,
    totals: ImportTotals,
    /// File of the store.
    file: PathBuf,
    _permit: TransferPermit,
}

/// Begins an import.
pub(super) async fn begin(
    options: &SqliteConnectOptions,
    writer: &Arc<SqlitePool>,
    sweeper: &Arc<Sweeper>,
    has_saved: Arc<Notify>,
    conversation: &Conversation,
    permit: TransferPermit,
) -> Result<Box<dyn Import>, OperationError> {
    let file = options.get_filename();
    let number = SPOOL_NUMBER.fetch_add(1, Ordering::Relaxed);
    let (id, process) = (conversation.id, std::process::id());
    let spool = file.with_extension(format!("spool-{id}-{process}-{number}"));
    let connection = connect(options, spool, id).await;
    Ok(Box::new(SqliteImport {
        connection: connection.map_err(OperationError::before_commit)?,
        writer: Arc::clone(writer),
        sweeper: Arc::clone(sweeper),
        has_saved,
        conversation: conversation.clone(),
        totals: ImportTotals::default(),
        file: file.to_owned(),
        _permit: permit,
    }))
}

/// Opens a connection to the store, and attaches a new spool file to it.
async fn connect(
    options: &SqliteConnectOptions,
    spool: PathBuf,
    id: ConversationId,
) -> Result<SqliteConnection, OperationError> {
    let options = connection::writer_options(options.clone());
    let mut connection = options.connect().await?;
    // The end of the import decides. This spares the transfer of a file that cannot be imported.
    require_unused(&mut connection, id).await?;
    attach(&mut connection, &spool).await?;
    raw_sql(PREPARE_SPOOL).execute(&mut connection).await?;
    Ok(connection)
}

async fn attach(connection: &mut SqliteConnection, spool: &Path) -> Result<(), OperationError> {
    // A process that was killed at this point may have left a file with this name.
    let _ = std::fs::remove_file(spool);
    connection::create_file(spool)
        .map_err(|error| BackendError::new(disk_space::kind(&error), error.to_string()))?;
    let _unlink = UnlinkOnDrop(spool);
    query("ATTACH DATABASE $1 AS spool")
        .bind(spool.to_string_lossy().into_owned())
        .execute(connection)
        .await?;
    Ok(())
}

/// Unlinks a file when it is dropped, also if the call is cancelled. The unlinked file exists
/// as long as it is open.
struct UnlinkOnDrop<'a>(&'a Path);

impl Drop for UnlinkOnDrop<'_> {
    fn drop(&mut self) {
        // A file that remains is nearly empty and has a name that is never used again.
        let _ = std::fs::remove_file(self.0);
    }
}

#[async_trait]
impl Import for SqliteImport {
    async fn add(&mut self, messages: &[NumberedMessage]) -> Result<(), StoreError> {
        self.totals.add(messages);
        let added = spool(&mut self.connection, &self.conversation, messages).await;
        let added = added.map_err(OperationError::before_commit);
        disk_space::write_outcome(added, &self.file).await
    }

    async fn finish(mut self: Box<Self>, last_seq: i64) -> Result<Conversation, StoreError> {
        let Self {
            connection,
            writer,
            sweeper,
            has_saved,
            conversation,
            totals,
            file,
            ..
        } = &mut *self;
        let id = conversation.id.as_uuid();
        let lock = ImportLock::acquire(file, id).map_err(|error| {
            let kind = match error.kind() {
                // Another import has the same id.
                std::io::ErrorKind::WouldBlock => ErrorKind::Unavailable,
                _ => disk_space::kind(&error),
            };
            OperationError::from(BackendError::new(kind, error.to_string())).into_read_error()
        })?;
        let finished = finish(connection, writer, conversation, last_seq, *totals).await;
        // The messages of another conversation with this id must not be deleted.
        let is_foreign = matches!(
            finished,
            Err(OperationError::Store(StoreError::AlreadyExists(
                ReusedKey::ConversationId
            )))
        );
        if finished.is_err() && !is_foreign {
            // Deletes nothing if the import was committed.
            sweeper.sweep(vec![range_of(conversation)]).await;
        }
        drop(lock);
        has_saved.notify_one();
        disk_space::write_outcome(finished, file).await
    }
}

/// Writes messages to the spool file.
async fn spool(
    connection: &mut SqliteConnection,
    conversation: &Conversation,
    messages: &[NumberedMessage],
) -> Result<(), OperationError> {
    let (id, at) = (conversation.id, Micros::from(conversation.updated_at));
    let mut transaction = connection.begin().await?;
    for NumberedMessage { seq, message } in messages {
        insert(&mut transaction, INTO_SPOOL, id, *seq, message, at).await?;
    }
    Ok(transaction.commit().await?)
}

/// Copies the messages, and creates the conversation.
async fn finish(
    connection: &mut SqliteConnection,
    writer: &SqlitePool,
    conversation: &Conversation,
    last_seq: i64,
    totals: ImportTotals,
) -> Result<Conversation, OperationError> {
    let mut copied = attempt(connection, writer, conversation, None).await?;
    while copied.is_some() {
        copied = attempt(connection, writer, conversation, copied).await?;
    }
    let _reserved = connection::reserve(writer).await?;
    let mut transaction = connection::begin_on(connection).await?;
    let created = create(&mut transaction, conversation, last_seq, totals).await;
    connection::end_on(transaction, created).await
}

/// All messages that an import stores.
fn range_of(conversation: &Conversation) -> LineageRange {
    (conversation.id.as_uuid().hyphenated(), 0, i64::MAX)
}

/// Copies messages after a number in a transaction, and repeats it while the store is busy: other
/// writes can wait before each step. Without a number, records the messages.
async fn attempt(
    connection: &mut SqliteConnection,
    writer: &SqlitePool,
    conversation: &Conversation,
    copied: Option<i64>,
) -> Result<Option<i64>, OperationError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match step(connection, writer, conversation, copied).await {
            Err(error)
                if error.kind() == Some(ErrorKind::Unavailable) && attempts < MAX_ATTEMPTS => {}
            attempted => return attempted.map_err(OperationError::before_commit),
        }
    }
}

async fn step(
    connection: &mut SqliteConnection,
    writer: &SqlitePool,
    conversation: &Conversation,
    copied: Option<i64>,
) -> Result<Option<i64>, OperationError> {
    let _reserved = connection::reserve(writer).await?;
    let mut transaction = connection::begin_on(connection).await?;
    let stepped = match copied {
        Some(after_seq) => copy_step(&mut transaction, conversation, after_seq).await,
        None => begin_copy(&mut transaction, conversation).await,
    };
    connection::end_on(transaction, stepped).await
}

/// Records the messages of the import. From now on no other conversation can get its id.
async fn begin_copy(
    connection: &mut SqliteConnection,
    conversation: &Conversation,
) -> Result<Option<i64>, OperationError> {
    require_unused(connection, conversation.id).await?;
    pending_removals::record(connection, range_of(conversation), true).await?;
    Ok(Some(0))
}

/// Copies messages until the step is over. Returns the number of the last one, `None` if none is left.
async fn copy_step(
    connection: &mut SqliteConnection,
    conversation: &Conversation,
    mut after_seq: i64,
) -> Result<Option<i64>, OperationError> {
    let step = Step::begin();
    while !step.is_over() {
        let end: Option<i64> = query_scalar(BATCH_END)
            .bind(after_seq)
            .bind(pending_removals::BATCH)
            .fetch_one(&mut *connection)
            .await?;
        let Some(end) = end else {
            return Ok(None);
        };
        copy_batch(connection, conversation, after_seq, end).await?;
        after_seq = end;
    }
    Ok(Some(after_seq))
}

async fn copy_batch(
    connection: &mut SqliteConnection,
    conversation: &Conversation,
    after_seq: i64,
    upto_seq: i64,
) -> Result<(), OperationError> {
    for statement in COPY_FROM_SPOOL {
        let copied = query(statement)
            .bind(after_seq)
            .bind(upto_seq)
            .execute(&mut *connection)
            .await;
        copied.map_err(|error| OperationError::from(error).of_reused(ReusedKey::MessageId))?;
    }
    let id = conversation.id.as_uuid().hyphenated();
    query(ADD_DOCUMENTS)
        .bind(id)
        .bind(after_seq)
        .bind(upto_seq)
        .bind(conversation.user_id.as_str())
        .bind(conversation.dept_id.as_ref().map(DeptId::as_str))
        .execute(&mut *connection)
        .await?;
    Ok(())
}

/// Creates the conversation that contains the messages.
async fn create(
    connection: &mut SqliteConnection,
    conversation: &Conversation,
    last_seq: i64,
    totals: ImportTotals,
) -> Result<Conversation, OperationError> {
    if !pending_removals::complete(connection, range_of(conversation)).await? {
        let cause = "the messages of the import were deleted by another process";
        return Err(BackendError::new(ErrorKind::Internal, cause).into());
    }
    let activity = connection::next_activity(connection).await?;
    query(CREATE)
        .bind(conversation.id.as_uuid().hyphenated())
        .bind(conversation.user_id.as_str())
        .bind(conversation.dept_id.as_ref().map(DeptId::as_str))
        .bind(conversation.title.as_ref().map(Title::as_str))
        .bind(conversation.metadata.as_ref().map(metadata_json::bindable))
        .bind(Micros::from(conversation.created_at))
        .bind(Micros::from(conversation.updated_at))
        .bind(last_seq)
        .bind(activity)
        .bind(totals.tokens)
        .bind(totals.has_pinned)
        .execute(&mut *connection)
        .await?;
    let imported = ConversationRef {
        id: conversation.id,
        user_id: None,
    };
    get_in(connection, &imported).await
}
