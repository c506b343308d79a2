//! A conversation that is being imported. There is one writer for everybody, which
//! must not wait for a client: messages are laid down in a file of their own, and
//! moved over all at once.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use sqlx::{
    ConnectOptions as _, Connection as _, SqliteConnection, query, raw_sql,
    sqlite::SqliteConnectOptions, types::Json,
};

use super::{
    Pool,
    append::{Insertion, insert, insertion_into},
    connection::{self, Micros},
    conversations::find_one,
};
use crate::{
    domain::{Conversation, ConversationRef, DeptId, Numbered, Title},
    store::{
        Import, StoreError,
        failure::{ErrorKind, Failure, OperationError},
        files::OpenFile,
    },
};

/// The file is no more than memory that need not be memory: nothing of it has to
/// outlive its connection.
const PREPARE: &str = "
PRAGMA spool.journal_mode = OFF;
PRAGMA spool.synchronous = OFF;
CREATE TABLE spool.messages AS SELECT * FROM main.messages WHERE false;
CREATE TABLE spool.message_contexts AS SELECT * FROM main.message_contexts WHERE false;";

const INTO_SPOOL: Insertion = insertion_into!("spool");

/// $1 id, $2 user, $3 department, $4 title, $5 metadata, $6 and $7 times, $8 last
/// number, $9 activity.
const CREATE: &str = "
INSERT INTO main.conversations (id, user_id, dept_id, title, metadata, created_at, updated_at,
                                last_seq, activity)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

const MOVE: [&str; 2] = [
    "INSERT INTO main.messages SELECT * FROM spool.messages ORDER BY rowid",
    "INSERT INTO main.message_contexts SELECT * FROM spool.message_contexts ORDER BY rowid",
];

struct SqliteImport {
    connection: SqliteConnection,
    writer: Arc<Pool>,
    conversation: Conversation,
    _held: OpenFile,
}

/// Begins to import.
pub(super) async fn begin(
    options: &SqliteConnectOptions,
    writer: &Arc<Pool>,
    conversation: &Conversation,
    held: OpenFile,
) -> Result<Box<dyn Import>, OperationError> {
    let file = options.get_filename();
    let spool = file.with_extension(format!("import-{}", conversation.id));
    let mut connection = connection::for_writing(options.clone()).connect().await?;
    attach(&mut connection, spool).await?;
    raw_sql(PREPARE).execute(&mut connection).await?;
    Ok(Box::new(SqliteImport {
        connection,
        writer: Arc::clone(writer),
        conversation: conversation.clone(),
        _held: held,
    }))
}

async fn attach(connection: &mut SqliteConnection, spool: PathBuf) -> Result<(), OperationError> {
    connection::make_file(&spool)
        .map_err(|error| Failure::new(ErrorKind::Unavailable, error.to_string()))?;
    let name = spool.to_string_lossy().into_owned();
    let _unnamed = Unnamed(spool);
    query("ATTACH DATABASE $1 AS spool")
        .bind(name)
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes its name from a file at the end, also of a call that is given up. Open
/// files live on without one, and go when the program does, however it ends.
struct Unnamed(PathBuf);

impl Drop for Unnamed {
    fn drop(&mut self) {
        // One that stays is empty, or as good as that, and in nobody's way.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[async_trait]
impl Import for SqliteImport {
    async fn add(&mut self, messages: &[Numbered]) -> Result<(), StoreError> {
        let added = lay_down(&mut self.connection, &self.conversation, messages);
        added.await.map_err(OperationError::of_read)
    }

    async fn finish(mut self: Box<Self>, last_seq: i64) -> Result<Conversation, StoreError> {
        let Self {
            connection,
            writer,
            conversation,
            ..
        } = &mut *self;
        let finished = move_over(connection, writer, conversation, last_seq);
        finished.await.map_err(OperationError::of_read)
    }
}

async fn lay_down(
    connection: &mut SqliteConnection,
    conversation: &Conversation,
    messages: &[Numbered],
) -> Result<(), OperationError> {
    let at = Micros::from(conversation.updated_at);
    let mut transaction = connection.begin().await?;
    for Numbered { seq, message } in messages {
        insert(
            &mut transaction,
            INTO_SPOOL,
            conversation.id,
            *seq,
            message,
            at,
        )
        .await?;
    }
    Ok(transaction.commit().await?)
}

async fn move_over(
    connection: &mut SqliteConnection,
    writer: &Pool,
    conversation: &Conversation,
    last_seq: i64,
) -> Result<Conversation, OperationError> {
    let _turn = connection::turn(writer).await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let activity = connection::next_activity(&mut transaction).await?;
    query(CREATE)
        .bind(conversation.id.as_uuid().hyphenated())
        .bind(conversation.user_id.as_str())
        .bind(conversation.dept_id.as_ref().map(DeptId::as_str))
        .bind(conversation.title.as_ref().map(Title::as_str))
        .bind(conversation.metadata.as_ref().map(Json))
        .bind(Micros::from(conversation.created_at))
        .bind(Micros::from(conversation.updated_at))
        .bind(last_seq)
        .bind(activity)
        .execute(&mut *transaction)
        .await?;
    for statement in MOVE {
        query(statement).execute(&mut *transaction).await?;
    }
    let named = ConversationRef {
        id: conversation.id,
        user_id: None,
    };
    let imported = find_one(&mut transaction, &named).await?;
    connection::commit(transaction).await?;
    Ok(imported)
}
