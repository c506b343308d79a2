use async_trait::async_trait;

use super::Replica;
use crate::{
    domain::{Conversation, ConversationId, NumberedMessage, UserId},
    store::{Import, StoreError},
};

/// Import that is recorded as a write when it is finished.
struct RecordedImport {
    import: Box<dyn Import>,
    replica: Replica,
    conversation: ConversationId,
    user: UserId,
}

/// Records the end of an import as a write.
pub(in crate::store::postgres) fn record(
    replica: &Replica,
    conversation: &Conversation,
    import: Box<dyn Import>,
) -> Box<dyn Import> {
    Box::new(RecordedImport {
        import,
        replica: replica.clone(),
        conversation: conversation.id,
        user: conversation.user_id.clone(),
    })
}

#[async_trait]
impl Import for RecordedImport {
    async fn add(&mut self, messages: &[NumberedMessage]) -> Result<(), StoreError> {
        self.import.add(messages).await
    }

    async fn finish(self: Box<Self>, last_seq: i64) -> Result<Conversation, StoreError> {
        let finished = self.import.finish(last_seq).await;
        let writes = self.replica.recent_writes();
        writes.record(self.conversation, Some(&self.user));
        finished
    }
}
