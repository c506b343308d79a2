//! A conversation at one moment: a transaction that reads only. Dropped, its
//! connection is closed, and the transaction with it.

use async_trait::async_trait;
use sqlx::raw_sql;
use tokio::time::timeout;

use super::{
    Pool,
    connection::{Lease, STATEMENT_TIMEOUT},
    conversations::find,
    history::read_side,
};
use crate::{
    domain::{Conversation, ConversationRef, Message},
    store::{
        Bound, Snapshot, StoreError,
        failure::{ErrorKind, Failure, OperationError},
        files::OpenFile,
    },
};

/// The server ends a transaction whose client reads no further for so long.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
    SET LOCAL idle_in_transaction_session_timeout = '60s'";

struct PgSnapshot {
    lease: Lease,
    conversation: ConversationRef,
    _held: OpenFile,
}

/// Takes a snapshot.
pub(super) async fn take(
    pool: &Pool,
    conversation: &ConversationRef,
    held: OpenFile,
) -> Result<(Conversation, Box<dyn Snapshot>), OperationError> {
    let mut lease = Lease::take(pool).await?;
    raw_sql(BEGIN).execute(&mut *lease).await?;
    let found = find(&mut lease, conversation).await?;
    let found = found.ok_or(StoreError::NotFound)?;
    let snapshot = PgSnapshot {
        lease,
        conversation: conversation.clone(),
        _held: held,
    };
    Ok((found, Box::new(snapshot)))
}

#[async_trait]
impl Snapshot for PgSnapshot {
    async fn after(&mut self, seq: i64, limit: u32) -> Result<Vec<Message>, StoreError> {
        let from = Bound::After(seq);
        let read = read_side(&mut self.lease, &self.conversation, from, limit, true);
        let read = timeout(STATEMENT_TIMEOUT, read).await.unwrap_or_else(|_| {
            Err(Failure::new(ErrorKind::Unavailable, "the server did not answer in time").into())
        });
        read.map_err(OperationError::of_read)
    }
}
