//! Snapshot of a conversation: a read-only transaction on a separate connection. When the
//! snapshot is dropped, the connection is closed, which ends the transaction.

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::{ConnectOptions as _, SqliteConnection, raw_sql, sqlite::SqliteConnectOptions};

use super::{
    conversations::get_in,
    history::{read_blobs, read_page},
};
use crate::{
    domain::{Conversation, ConversationRef, Message},
    store::{
        Bound, Snapshot, StoreError, operation_error::OperationError, transfers::TransferPermit,
    },
};

struct SqliteSnapshot {
    connection: SqliteConnection,
    conversation: ConversationRef,
    _permit: TransferPermit,
}

/// Takes a snapshot.
pub(super) async fn take(
    options: &SqliteConnectOptions,
    conversation: &ConversationRef,
    permit: TransferPermit,
) -> Result<(Conversation, Box<dyn Snapshot>), OperationError> {
    let mut connection = options.clone().read_only(true).connect().await?;
    raw_sql("BEGIN").execute(&mut connection).await?;
    // The first read determines the state that the snapshot contains.
    let found = get_in(&mut connection, conversation).await?;
    let snapshot = SqliteSnapshot {
        connection,
        conversation: conversation.clone(),
        _permit: permit,
    };
    Ok((found, Box::new(snapshot)))
}

#[async_trait]
impl Snapshot for SqliteSnapshot {
    async fn after(&mut self, seq: i64, limit: u32) -> Result<Vec<Message>, StoreError> {
        let from = Bound::After(seq);
        read_page(&mut self.connection, &self.conversation, from, limit, true)
            .await
            .map_err(OperationError::into_read_error)
    }

    async fn blobs(&mut self, seq: i64) -> Result<Vec<(u32, Bytes)>, StoreError> {
        read_blobs(&mut self.connection, self.conversation.id, seq)
            .await
            .map_err(OperationError::into_read_error)
    }
}
