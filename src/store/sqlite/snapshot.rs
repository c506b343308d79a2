//! A conversation at one moment: a transaction that reads only, on a connection of
//! its own, which ends with it.

use async_trait::async_trait;
use sqlx::{ConnectOptions as _, SqliteConnection, raw_sql, sqlite::SqliteConnectOptions};

use super::{conversations::find_one, history::read_side};
use crate::{
    domain::{Conversation, ConversationRef, Message},
    store::{Bound, Snapshot, StoreError, failure::OperationError, files::OpenFile},
};

struct SqliteSnapshot {
    connection: SqliteConnection,
    conversation: ConversationRef,
    _held: OpenFile,
}

/// Takes a snapshot.
pub(super) async fn take(
    options: &SqliteConnectOptions,
    conversation: &ConversationRef,
    held: OpenFile,
) -> Result<(Conversation, Box<dyn Snapshot>), OperationError> {
    let mut connection = options.clone().read_only(true).connect().await?;
    raw_sql("BEGIN").execute(&mut connection).await?;
    // The first read chooses the moment.
    let found = find_one(&mut connection, conversation).await?;
    let snapshot = SqliteSnapshot {
        connection,
        conversation: conversation.clone(),
        _held: held,
    };
    Ok((found, Box::new(snapshot)))
}

#[async_trait]
impl Snapshot for SqliteSnapshot {
    async fn after(&mut self, seq: i64, limit: u32) -> Result<Vec<Message>, StoreError> {
        let from = Bound::After(seq);
        read_side(&mut self.connection, &self.conversation, from, limit, true)
            .await
            .map_err(OperationError::of_read)
    }
}
