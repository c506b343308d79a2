use async_trait::async_trait;
use bytes::Bytes;

use super::store::ObservedStore;
use crate::{
    call,
    domain::{
        CheckpointId, CheckpointNamespace, ContentDigest, Contents, ConversationId,
        ConversationRef, UserId,
    },
    store::{
        AncestorQuery, CheckpointPage, CheckpointQuery, CheckpointStore, PutCheckpoint, PutWrites,
        StoreError, StoredCheckpoint,
    },
};

const CHECKPOINTS: &str = "checkpoints";
const WRITES: &str = "checkpoint_writes";
const CONTENTS: &str = "checkpoint_contents";

#[async_trait]
impl CheckpointStore for ObservedStore {
    async fn put_checkpoint(&self, put: &PutCheckpoint) -> Result<StoredCheckpoint, StoreError> {
        call::set_conversation(put.conversation.id);
        let work = self.inner.put_checkpoint(put);
        let stored = self.observe("put_checkpoint", CHECKPOINTS, work).await?;
        if let Some((messages, _)) = &stored.saved {
            self.saved.add(messages.len() as u64, &[]);
        }
        Ok(stored)
    }

    async fn put_writes(&self, put: &PutWrites) -> Result<(), StoreError> {
        call::set_conversation(put.conversation.id);
        let work = self.inner.put_writes(put);
        self.observe("put_writes", WRITES, work).await
    }

    async fn put_contents(
        &self,
        conversation: &ConversationRef,
        thread_name: Option<&str>,
        contents: &Contents,
    ) -> Result<(), StoreError> {
        call::set_conversation(conversation.id);
        let work = self.inner.put_contents(conversation, thread_name, contents);
        self.observe("put_contents", CONTENTS, work).await
    }

    async fn checkpoint(
        &self,
        conversation: &ConversationRef,
        namespace: &CheckpointNamespace,
        id: Option<CheckpointId>,
    ) -> Result<CheckpointPage, StoreError> {
        call::set_conversation(conversation.id);
        let work = self.inner.checkpoint(conversation, namespace, id);
        self.observe("get_checkpoint", CHECKPOINTS, work).await
    }

    async fn checkpoint_contents(
        &self,
        conversation: &ConversationRef,
        digests: &[ContentDigest],
    ) -> Result<Vec<Bytes>, StoreError> {
        call::set_conversation(conversation.id);
        let work = self.inner.checkpoint_contents(conversation, digests);
        self.observe("get_contents", CONTENTS, work).await
    }

    async fn checkpoints(&self, query: &CheckpointQuery) -> Result<CheckpointPage, StoreError> {
        call::set_conversation(query.conversation.id);
        let work = self.inner.checkpoints(query);
        self.observe("list_checkpoints", CHECKPOINTS, work).await
    }

    async fn checkpoint_ancestors(
        &self,
        query: &AncestorQuery,
    ) -> Result<CheckpointPage, StoreError> {
        call::set_conversation(query.conversation.id);
        let work = self.inner.checkpoint_ancestors(query);
        self.observe("list_checkpoints", CHECKPOINTS, work).await
    }

    async fn copy_checkpoints(
        &self,
        source: &ConversationRef,
        target: &ConversationRef,
        thread_name: Option<&str>,
    ) -> Result<(), StoreError> {
        call::set_conversation(target.id);
        let work = self.inner.copy_checkpoints(source, target, thread_name);
        self.observe("copy_checkpoints", CHECKPOINTS, work).await
    }

    async fn prune_checkpoints(&self, conversation: &ConversationRef) -> Result<i64, StoreError> {
        call::set_conversation(conversation.id);
        let work = self.inner.prune_checkpoints(conversation);
        self.observe("prune_checkpoints", CHECKPOINTS, work).await
    }

    async fn conversations_of_runs(
        &self,
        runs: &[ContentDigest],
        user: Option<&UserId>,
        after: Option<ConversationId>,
        limit: u32,
    ) -> Result<Vec<ConversationId>, StoreError> {
        let work = self.inner.conversations_of_runs(runs, user, after, limit);
        self.observe("find_runs", CHECKPOINTS, work).await
    }

    async fn delete_runs(
        &self,
        conversation: &ConversationRef,
        runs: &[ContentDigest],
    ) -> Result<i64, StoreError> {
        call::set_conversation(conversation.id);
        let work = self.inner.delete_runs(conversation, runs);
        self.observe("delete_runs", CHECKPOINTS, work).await
    }
}
