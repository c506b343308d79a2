//! Snapshot of a conversation on the replica.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Replica, Subject, instruments::Outcome};
use crate::{
    domain::{Conversation, ConversationRef, Message},
    store::{
        MinState, Snapshot, StoreError,
        operation_error::OperationError,
        postgres::{connection::PostgresPool, snapshot},
        transfers::TransferLimit,
    },
};

/// Snapshot that continues on the primary if the replica cancels it.
struct ReplicaSnapshot {
    snapshot: Box<dyn Snapshot>,
    /// What is needed to continue on the primary; `None` if that was done.
    primary: Option<Continuation>,
}

struct Continuation {
    pool: Arc<PostgresPool>,
    transfers: TransferLimit,
    reference: ConversationRef,
    conversation: Conversation,
}

/// Takes a snapshot on the replica. `None` if it must be taken on the primary. Its transaction needs
/// the connection of the check that precedes it, which a pooler does not keep.
pub(super) async fn take(
    replica: &Replica,
    conversation: &ConversationRef,
    primary: &Arc<PostgresPool>,
    transfers: &TransferLimit,
) -> Result<Option<(Conversation, Box<dyn Snapshot>)>, StoreError> {
    if replica.pool.is_pooled() {
        return Ok(None);
    }
    let subject = Subject::Conversation(conversation.id);
    let Some(required) = replica.admit(MinState::ANY, subject).await else {
        return Ok(None);
    };
    let permit = replica.transfers.start()?;
    let Some(connection) = replica.begin(required).await else {
        return Ok(None);
    };
    match snapshot::take_on(connection, conversation, permit).await {
        Ok((found, snapshot)) => {
            replica.instruments.count(Outcome::Replica);
            let snapshot = ReplicaSnapshot {
                snapshot,
                primary: Some(Continuation {
                    pool: Arc::clone(primary),
                    transfers: transfers.clone(),
                    reference: conversation.clone(),
                    conversation: found.clone(),
                }),
            };
            Ok(Some((found, Box::new(snapshot))))
        }
        Err(error) => replica.give_up(error).map(|()| None),
    }
}

impl ReplicaSnapshot {
    /// Continues on the primary after an error, if the conversation has not changed since.
    async fn replace(&mut self, error: StoreError) -> Result<(), StoreError> {
        let Some(Continuation {
            pool,
            transfers,
            reference,
            conversation,
        }) = self.primary.take()
        else {
            return Err(error);
        };
        let taken = snapshot::take(&pool, &reference, transfers.start()?).await;
        let (found, snapshot) = taken.map_err(OperationError::into_read_error)?;
        if found != conversation {
            return Err(error);
        }
        self.snapshot = snapshot;
        Ok(())
    }
}

#[async_trait]
impl Snapshot for ReplicaSnapshot {
    async fn after(&mut self, seq: i64, limit: u32) -> Result<Vec<Message>, StoreError> {
        match self.snapshot.after(seq, limit).await {
            Err(error) => {
                self.replace(error).await?;
                self.snapshot.after(seq, limit).await
            }
            read => read,
        }
    }

    async fn blobs(&mut self, seq: i64) -> Result<Vec<(u32, Bytes)>, StoreError> {
        match self.snapshot.blobs(seq).await {
            Err(error) => {
                self.replace(error).await?;
                self.snapshot.blobs(seq).await
            }
            read => read,
        }
    }
}
