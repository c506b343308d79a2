//! Snapshot of a conversation: a read-only transaction on a separate connection. When the
//! snapshot is dropped, the connection is closed, which ends the transaction.

use std::future::Future;

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    PostgresPool,
    connection::{PooledConnection, STATEMENT_TIMEOUT, Wait},
    conversations::find,
    history::{read_blobs, read_page},
    store_connection::{Begin, StoreConnection},
};
use crate::{
    domain::{Conversation, ConversationRef, Message},
    store::{
        Bound, Snapshot, StoreError, operation_error::OperationError, transfers::TransferPermit,
    },
};

/// The server ends the transaction if the client reads nothing for 60 seconds.
const BEGIN: Begin = Begin {
    statement: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    settings: "SET LOCAL idle_in_transaction_session_timeout = '60s'",
};

struct PgSnapshot {
    connection: PooledConnection,
    conversation: ConversationRef,
    _permit: TransferPermit,
}

/// Takes a snapshot.
pub(super) async fn take(
    pool: &PostgresPool,
    conversation: &ConversationRef,
    permit: TransferPermit,
) -> Result<(Conversation, Box<dyn Snapshot>), OperationError> {
    let connection = PooledConnection::acquire(pool).await?;
    take_on(connection, conversation, permit).await
}

/// Takes a snapshot on a connection.
pub(super) async fn take_on(
    mut connection: PooledConnection,
    conversation: &ConversationRef,
    permit: TransferPermit,
) -> Result<(Conversation, Box<dyn Snapshot>), OperationError> {
    let wait = connection.wait();
    let found = with_time_limit(wait, begin(&mut connection, conversation)).await?;
    let snapshot = PgSnapshot {
        connection,
        conversation: conversation.clone(),
        _permit: permit,
    };
    Ok((found, Box::new(snapshot)))
}

async fn begin(
    connection: &mut StoreConnection,
    conversation: &ConversationRef,
) -> Result<Conversation, OperationError> {
    connection.begin(&BEGIN).await?;
    let found = find(connection, conversation).await?;
    Ok(found.ok_or(StoreError::NotFound)?)
}

#[async_trait]
impl Snapshot for PgSnapshot {
    async fn after(&mut self, seq: i64, limit: u32) -> Result<Vec<Message>, StoreError> {
        let wait = self.connection.begin_wait();
        let from = Bound::After(seq);
        let page = read_page(&mut self.connection, &self.conversation, from, limit, true);
        let page = with_time_limit(wait, page).await;
        page.map_err(OperationError::into_read_error)
    }

    async fn blobs(&mut self, seq: i64) -> Result<Vec<(u32, Bytes)>, StoreError> {
        let wait = self.connection.begin_wait();
        let read = read_blobs(&mut self.connection, self.conversation.id, seq);
        with_time_limit(wait, read)
            .await
            .map_err(OperationError::into_read_error)
    }
}

/// Limits the time of a read by the client, which is not retried.
async fn with_time_limit<T>(
    wait: Wait,
    read: impl Future<Output = Result<T, OperationError>>,
) -> Result<T, OperationError> {
    let exceeded = "the server did not respond in time";
    wait.within(STATEMENT_TIMEOUT, exceeded, read).await
}
