//! A conversation that is being imported: a transaction. Dropped, its connection is
//! closed, and the transaction with it.

use async_trait::async_trait;
use sqlx::{PgConnection, query, query_as, raw_sql, types::Json};
use uuid::Uuid;

use super::{
    ConversationRow, Pool,
    columns::{Contexts, Messages},
    connection::Lease,
    sql,
    transaction::{BEGIN, before_commit, end},
};
use crate::{
    domain::{Conversation, DeptId, Numbered, Title},
    store::{Import, StoreError, failure::OperationError, files::OpenFile},
};

/// The server ends a transaction whose client sends nothing for so long.
const WAIT_FOR_CLIENT: &str = "SET LOCAL idle_in_transaction_session_timeout = '60s'";

/// $1 id, $2 user, $3 department, $4 title, $5 metadata, $6 and $7 times.
///
/// First, because documents of messages are made from it.
const CREATE: &str = "
INSERT INTO conversations (id, user_id, dept_id, title, metadata, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)";

const ADD_MESSAGES: &str = "
INSERT INTO messages (conversation_id, seq, id, role, content, tokens_used, latency_ms,
                      created_at, metadata)
SELECT $1, m.* FROM unnest($2, $3, $4, $5, $6, $7, $8, $9) AS m";

const ADD_CONTEXTS: &str = "
INSERT INTO message_contexts (conversation_id, seq, position, doc_id, content, score, metadata)
SELECT $1, x.* FROM unnest($2, $3, $4, $5, $6, $7) AS x";

/// $1 id, $2 last number. The activity is counted last: it has its place in the
/// list when it can be seen.
const FINISH: &str = concat!(
    "UPDATE conversations c SET last_seq = $2, activity = nextval('activity_order') \
     WHERE c.id = $1 RETURNING ",
    sql::conversation_columns!()
);

struct PgImport {
    lease: Lease,
    conversation: Conversation,
    _held: OpenFile,
}

/// Begins to import.
pub(super) async fn begin(
    pool: &Pool,
    conversation: &Conversation,
    held: OpenFile,
) -> Result<Box<dyn Import>, OperationError> {
    let mut lease = Lease::take(pool).await?;
    before_commit(create(&mut lease, conversation)).await?;
    Ok(Box::new(PgImport {
        lease,
        conversation: conversation.clone(),
        _held: held,
    }))
}

async fn create(
    connection: &mut PgConnection,
    conversation: &Conversation,
) -> Result<(), OperationError> {
    raw_sql(BEGIN).execute(&mut *connection).await?;
    raw_sql(WAIT_FOR_CLIENT).execute(&mut *connection).await?;
    query(CREATE)
        .bind(conversation.id.as_uuid())
        .bind(conversation.user_id.as_str())
        .bind(conversation.dept_id.as_ref().map(DeptId::as_str))
        .bind(conversation.title.as_ref().map(Title::as_str))
        .bind(conversation.metadata.as_ref().map(Json))
        .bind(conversation.created_at)
        .bind(conversation.updated_at)
        .execute(connection)
        .await?;
    Ok(())
}

#[async_trait]
impl Import for PgImport {
    async fn add(&mut self, messages: &[Numbered]) -> Result<(), StoreError> {
        let added = add(&mut self.lease, &self.conversation, messages);
        before_commit(added).await.map_err(OperationError::of_write)
    }

    async fn finish(mut self: Box<Self>, last_seq: i64) -> Result<Conversation, StoreError> {
        let id = self.conversation.id.as_uuid();
        let finished = before_commit(finish(&mut self.lease, id, last_seq)).await;
        end(self.lease, finished)
            .await
            .map_err(OperationError::of_write)
    }
}

async fn add(
    connection: &mut PgConnection,
    conversation: &Conversation,
    numbered: &[Numbered],
) -> Result<(), OperationError> {
    let id = conversation.id.as_uuid();
    let of = numbered.iter().map(|numbered| &numbered.message);
    let messages = Messages::of(of, conversation.updated_at);
    let contexts = Contexts::of(numbered.iter().map(|n| (n.seq, &n.message)));
    let seqs: Vec<i64> = numbered.iter().map(|numbered| numbered.seq).collect();
    query(ADD_MESSAGES)
        .bind(id)
        .bind(seqs)
        .bind(messages.ids)
        .bind(messages.roles)
        .bind(messages.contents)
        .bind(messages.tokens_used)
        .bind(messages.latency_ms)
        .bind(messages.created_at)
        .bind(messages.metadata)
        .execute(&mut *connection)
        .await?;
    if contexts.places.is_empty() {
        return Ok(());
    }
    query(ADD_CONTEXTS)
        .bind(id)
        .bind(contexts.places)
        .bind(contexts.positions)
        .bind(contexts.doc_ids)
        .bind(contexts.contents)
        .bind(contexts.scores)
        .bind(contexts.metadata)
        .execute(connection)
        .await?;
    Ok(())
}

async fn finish(
    connection: &mut PgConnection,
    id: Uuid,
    last_seq: i64,
) -> Result<Conversation, OperationError> {
    let row: ConversationRow = query_as(FINISH)
        .bind(id)
        .bind(last_seq)
        .fetch_one(connection)
        .await?;
    Ok(row.read()?)
}
