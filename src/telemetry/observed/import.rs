use async_trait::async_trait;
use opentelemetry::metrics::Counter;

use crate::{
    domain::{Conversation, NumberedMessage},
    store::{Import, StoreError},
};

/// Decorator of an import that counts its messages as saved once they are stored.
pub(super) struct ObservedImport {
    inner: Box<dyn Import>,
    saved: Counter<u64>,
    messages: u64,
}

impl ObservedImport {
    /// Decorates an import to which nothing has been added.
    pub(super) fn new(inner: Box<dyn Import>, saved: Counter<u64>) -> Self {
        Self {
            inner,
            saved,
            messages: 0,
        }
    }
}

#[async_trait]
impl Import for ObservedImport {
    async fn add(&mut self, messages: &[NumberedMessage]) -> Result<(), StoreError> {
        self.inner.add(messages).await?;
        self.messages += messages.len() as u64;
        Ok(())
    }

    async fn finish(self: Box<Self>, last_seq: i64) -> Result<Conversation, StoreError> {
        let conversation = self.inner.finish(last_seq).await?;
        self.saved.add(self.messages, &[]);
        Ok(conversation)
    }
}
