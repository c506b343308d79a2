//! Import of a conversation: a transaction on a separate connection. If the import is dropped
//! before its end, the connection is closed, which rolls the transaction back.

use async_trait::async_trait;
use sqlx::{query, query_as};
use uuid::Uuid;

use super::{
    ConversationRow, PostgresPool, attempts,
    columns::{
        BlobColumns, ContextColumns, MessageColumns, bind_blobs, bind_contexts, bind_messages,
        message_values, placeholders,
    },
    connection::PooledConnection,
    documents::{DocumentColumns, bind_documents},
    sql,
    store_connection::{Begin, StoreConnection},
    transaction::{self, before_commit, end},
};
use crate::{
    domain::{Conversation, DeptId, NumberedMessage, Title},
    store::{
        Import, ReusedKey, StoreError, metadata_json,
        operation_error::OperationError,
        transfers::{ImportTotals, TransferPermit},
    },
    text_analysis::Languages,
};

/// Time after which the server ends the transaction if the client sends nothing.
const BEGIN: Begin = Begin {
    statement: transaction::BEGIN.statement,
    settings: "SET LOCAL statement_timeout = '35s'; \
        SET LOCAL idle_in_transaction_session_timeout = '60s'",
};

/// Creates the conversation. Parameters: $1 id, $2 user, $3 department, $4 title, $5 metadata, $6
/// and $7 times.
const CREATE: &str = concat!(
    "INSERT INTO conversations (id, user_id, dept_id, title, metadata, created_at, updated_at) \
     SELECT $1, $2, $3, $4, $5, $6, $7 WHERE NOT (",
    sql::id_is_referenced!(),
    ") ON CONFLICT (id) DO NOTHING"
);

/// Parameters: $1 conversation, $2 numbers, and the message columns.
const ADD_MESSAGES: &str = concat!(
    "INSERT INTO messages (conversation_id, seq, ",
    message_values!(""),
    ") SELECT $1, m.* FROM unnest($2, ",
    placeholders!(import messages),
    ") AS m"
);

/// Parameters: $1 conversation, and the context columns.
const ADD_CONTEXTS: &str = concat!(
    "INSERT INTO message_contexts (conversation_id, seq, position, ",
    sql::context_columns!(""),
    ") SELECT $1, x.* FROM unnest(",
    placeholders!(import contexts),
    ") AS x"
);

/// Parameters: $1 conversation, and the blob columns.
const ADD_BLOBS: &str = concat!(
    "INSERT INTO message_blobs (conversation_id, seq, position, data) SELECT $1, b.* FROM unnest(",
    placeholders!(import blobs),
    ") AS b"
);

/// Parameters: $1 conversation, $2 user, $3 department, and the document columns.
const ADD_DOCUMENTS: &str =
    "INSERT INTO message_documents (conversation_id, seq, user_id, dept_id, role, config, words)
     SELECT $1, d.seq, $2, $3, d.role, $4, d.words FROM unnest($5, $6, $7) AS d (seq, role, words)";

/// Completes the conversation. The activity is assigned last, so that it has its final
/// position in the list when it becomes visible. Parameters: $1 id, $2 last number, $3 tokens of
/// the messages, $4 whether one is pinned.
const FINISH: &str = concat!(
    "UPDATE conversations c SET last_seq = $2, activity = nextval('activity_order'), \
        uncompacted_tokens = $3, has_pinned = $4 \
     WHERE c.id = $1 RETURNING ",
    sql::conversation_columns!()
);

struct PgImport {
    connection: PooledConnection,
    conversation: Conversation,
    languages: Languages,
    totals: ImportTotals,
    _permit: TransferPermit,
}

/// Begins an import.
pub(super) async fn begin(
    pool: &PostgresPool,
    conversation: &Conversation,
    permit: TransferPermit,
) -> Result<Box<dyn Import>, StoreError> {
    let connection = attempts::transaction(pool, || open(pool, conversation)).await?;
    Ok(Box::new(PgImport {
        connection,
        conversation: conversation.clone(),
        languages: pool.languages,
        totals: ImportTotals::default(),
        _permit: permit,
    }))
}

/// Begins the transaction, and creates the conversation in it.
async fn open(
    pool: &PostgresPool,
    conversation: &Conversation,
) -> Result<PooledConnection, OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let created = before_commit(connection.wait(), create(&mut connection, conversation)).await;
    match created {
        Ok(()) => Ok(connection),
        Err(error) => end(connection, Err(error)).await,
    }
}

async fn create(
    connection: &mut StoreConnection,
    conversation: &Conversation,
) -> Result<(), OperationError> {
    connection.begin(&BEGIN).await?;
    let created = query(CREATE)
        .bind(conversation.id.as_uuid())
        .bind(conversation.user_id.as_str())
        .bind(conversation.dept_id.as_ref().map(DeptId::as_str))
        .bind(conversation.title.as_ref().map(Title::as_str))
        .bind(conversation.metadata.as_ref().map(metadata_json::bindable))
        .bind(conversation.created_at)
        .bind(conversation.updated_at)
        .execute(connection)
        .await?;
    if created.rows_affected() == 0 {
        return Err(StoreError::AlreadyExists(ReusedKey::ConversationId).into());
    }
    Ok(())
}

#[async_trait]
impl Import for PgImport {
    async fn add(&mut self, messages: &[NumberedMessage]) -> Result<(), StoreError> {
        self.totals.add(messages);
        let wait = self.connection.begin_wait();
        let added = add(
            &mut self.connection,
            &self.conversation,
            messages,
            self.languages,
        );
        let added = before_commit(wait, added).await;
        let added = added.map_err(|error| error.of_reused(ReusedKey::MessageId));
        added.map_err(OperationError::into_write_error)
    }

    async fn finish(mut self: Box<Self>, last_seq: i64) -> Result<Conversation, StoreError> {
        let id = self.conversation.id.as_uuid();
        let wait = self.connection.begin_wait();
        let finished = finish(&mut self.connection, id, last_seq, self.totals);
        let finished = before_commit(wait, finished).await;
        let finished = end(self.connection, finished).await;
        finished.map_err(OperationError::into_write_error)
    }
}

async fn add(
    connection: &mut StoreConnection,
    conversation: &Conversation,
    numbered: &[NumberedMessage],
    languages: Languages,
) -> Result<(), OperationError> {
    let id = conversation.id.as_uuid();
    let messages = MessageColumns::new(
        numbered.iter().map(|numbered| &numbered.message),
        conversation.updated_at,
    );
    let contexts = ContextColumns::new(numbered.iter().map(|n| (n.seq, &n.message)));
    let seqs: Vec<i64> = numbered.iter().map(|numbered| numbered.seq).collect();
    bind_messages!(query(ADD_MESSAGES).bind(id).bind(seqs), messages)
        .execute(&mut *connection)
        .await?;
    let documents = DocumentColumns::new(numbered.iter().map(|n| (n.seq, &n.message)), languages);
    let adding = query(ADD_DOCUMENTS)
        .bind(id)
        .bind(conversation.user_id.as_str())
        .bind(conversation.dept_id.as_ref().map(DeptId::as_str));
    bind_documents!(adding, documents)
        .execute(&mut *connection)
        .await?;
    let blobs = BlobColumns::new(numbered.iter().map(|n| (n.seq, &n.message)));
    if !blobs.message_numbers.is_empty() {
        bind_blobs!(query(ADD_BLOBS).bind(id), blobs)
            .execute(&mut *connection)
            .await?;
    }
    if !contexts.message_numbers.is_empty() {
        bind_contexts!(query(ADD_CONTEXTS).bind(id), contexts)
            .execute(connection)
            .await?;
    }
    Ok(())
}

async fn finish(
    connection: &mut StoreConnection,
    id: Uuid,
    last_seq: i64,
    totals: ImportTotals,
) -> Result<Conversation, OperationError> {
    let row: ConversationRow = query_as(FINISH)
        .bind(id)
        .bind(last_seq)
        .bind(totals.tokens)
        .bind(totals.has_pinned)
        .fetch_one(connection)
        .await?;
    Ok(row.decode()?)
}
