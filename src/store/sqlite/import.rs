//! Import of a conversation. All writes share one writer, which must not wait for a client: an
//! import collects its messages in a separate spool file, and copies them into the store in one
//! transaction when it ends.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use sqlx::{
    ConnectOptions as _, Connection as _, SqliteConnection, query, raw_sql,
    sqlite::SqliteConnectOptions,
};

use super::{
    SqlitePool,
    columns::{Insertion, insert, insertion_into},
    connection::{self, Micros},
    conversations::get_in,
    disk_space,
};
use crate::{
    domain::{Conversation, ConversationRef, DeptId, NumberedMessage, Title},
    store::{
        Import, StoreError, metadata_json,
        operation_error::{BackendError, OperationError},
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
CREATE TABLE spool.message_blobs AS SELECT * FROM main.message_blobs WHERE false;";

const INTO_SPOOL: Insertion = insertion_into!("spool");

/// Parameters: $1 id, $2 user, $3 department, $4 title, $5 metadata, $6 and $7 times, $8
/// last number, $9 activity, $10 tokens of the messages, $11 whether one is pinned.
const CREATE: &str = "
INSERT INTO main.conversations (id, user_id, dept_id, title, metadata, created_at, updated_at,
                                last_seq, activity, uncompacted_tokens, has_pinned)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

const COPY_FROM_SPOOL: [&str; 3] = [
    "INSERT INTO main.messages SELECT * FROM spool.messages ORDER BY rowid",
    "INSERT INTO main.message_contexts SELECT * FROM spool.message_contexts ORDER BY rowid",
    "INSERT INTO main.message_blobs SELECT * FROM spool.message_blobs ORDER BY rowid",
];

struct SqliteImport {
    connection: SqliteConnection,
    writer: Arc<SqlitePool>,
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
    conversation: &Conversation,
    permit: TransferPermit,
) -> Result<Box<dyn Import>, OperationError> {
    let file = options.get_filename();
    let spool = file.with_extension(format!("import-{}", conversation.id));
    let connection = connect(options, spool).await;
    Ok(Box::new(SqliteImport {
        connection: connection.map_err(OperationError::before_commit)?,
        writer: Arc::clone(writer),
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
) -> Result<SqliteConnection, OperationError> {
    let options = connection::writer_options(options.clone());
    let mut connection = options.connect().await?;
    attach(&mut connection, &spool).await?;
    raw_sql(PREPARE_SPOOL).execute(&mut connection).await?;
    Ok(connection)
}

async fn attach(connection: &mut SqliteConnection, spool: &Path) -> Result<(), OperationError> {
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
            conversation,
            totals,
            file,
            ..
        } = &mut *self;
        let finished = finish(connection, writer, conversation, last_seq, *totals).await;
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

async fn finish(
    connection: &mut SqliteConnection,
    writer: &SqlitePool,
    conversation: &Conversation,
    last_seq: i64,
    totals: ImportTotals,
) -> Result<Conversation, OperationError> {
    let _reserved = connection::reserve(writer).await?;
    let mut transaction = connection::begin_on(connection).await?;
    let imported = copy_from_spool(&mut transaction, conversation, last_seq, totals).await;
    connection::end_on(transaction, imported).await
}

async fn copy_from_spool(
    connection: &mut SqliteConnection,
    conversation: &Conversation,
    last_seq: i64,
    totals: ImportTotals,
) -> Result<Conversation, OperationError> {
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
    for statement in COPY_FROM_SPOOL {
        query(statement).execute(&mut *connection).await?;
    }
    let imported = ConversationRef {
        id: conversation.id,
        user_id: None,
    };
    get_in(connection, &imported).await
}
