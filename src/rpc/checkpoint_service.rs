use tonic::{Request, Response, Status, async_trait};

use super::{
    convert::{self, CheckpointParser, OwnerScope},
    field::{FieldViolation, InField},
    page_token,
    use_case::use_case,
};
use crate::{
    domain::{CheckpointId, ContentDigest, ConversationRef, InvalidValue},
    memory::Memory,
    proto::{self, checkpoint_service_server},
    store::{AncestorQuery, CheckpointQuery},
};

/// Implementation of the service `CheckpointService`.
#[derive(Clone, Debug)]
pub(crate) struct CheckpointService {
    pub(crate) memory: Memory,
    pub(crate) parser: CheckpointParser,
}

impl CheckpointService {
    fn owner_scope(&self) -> OwnerScope {
        self.parser.messages.owner_scope
    }

    fn conversation(&self, id: &str, user: &str) -> Result<ConversationRef, FieldViolation> {
        self.owner_scope().conversation(id, user)
    }
}

#[async_trait]
impl checkpoint_service_server::CheckpointService for CheckpointService {
    async fn put_checkpoint(
        &self,
        request: Request<proto::PutCheckpointRequest>,
    ) -> Result<Response<proto::PutCheckpointResponse>, Status> {
        let (put, new) = self.parser.put_checkpoint(request.into_inner())?;
        let task_writes = put.task_writes.len();
        let work = self.memory.put_checkpoint(put, new);
        let stored = use_case("put_checkpoint", work).await?;
        Ok(Response::new(proto::PutCheckpointResponse {
            last_seq: stored.last_seq,
            saved_messages: i32::try_from(stored.saved_messages).unwrap_or(i32::MAX),
            stored_task_writes: i32::try_from(task_writes).unwrap_or(i32::MAX),
        }))
    }

    async fn put_writes(
        &self,
        request: Request<proto::PutWritesRequest>,
    ) -> Result<Response<proto::PutWritesResponse>, Status> {
        let (put, new) = self.parser.put_writes(request.into_inner())?;
        use_case("put_writes", self.memory.put_writes(put, new)).await?;
        Ok(Response::new(proto::PutWritesResponse {}))
    }

    async fn put_contents(
        &self,
        request: Request<proto::PutContentsRequest>,
    ) -> Result<Response<proto::PutContentsResponse>, Status> {
        let request = request.into_inner();
        let conversation = self.conversation(&request.conversation_id, &request.user_id)?;
        let contents = convert::contents(request.contents)?;
        let new = self.parser.new_thread(request.new_thread, &conversation)?;
        let work = self.memory.put_contents(conversation, contents, new);
        use_case("put_contents", work).await?;
        Ok(Response::new(proto::PutContentsResponse {}))
    }

    async fn get_checkpoint(
        &self,
        request: Request<proto::GetCheckpointRequest>,
    ) -> Result<Response<proto::GetCheckpointResponse>, Status> {
        let request = request.into_inner();
        let conversation = self.conversation(&request.conversation_id, &request.user_id)?;
        let namespace = convert::namespace(request.namespace)?;
        let id = optional_id(&request.checkpoint_id, "checkpoint_id")?;
        let work = self.memory.get_checkpoint(&conversation, &namespace, id);
        let page = use_case("get_checkpoint", work).await?;
        let mut found = convert::checkpoint_page(page);
        Ok(Response::new(found.pop().unwrap_or_default()))
    }

    async fn get_contents(
        &self,
        request: Request<proto::GetContentsRequest>,
    ) -> Result<Response<proto::GetContentsResponse>, Status> {
        let request = request.into_inner();
        let conversation = self.conversation(&request.conversation_id, &request.user_id)?;
        let digests = digests(&request.digests)?;
        let work = self.memory.get_contents(&conversation, &digests);
        let contents = use_case("get_contents", work).await?;
        Ok(Response::new(proto::GetContentsResponse { contents }))
    }

    async fn list_checkpoints(
        &self,
        request: Request<proto::ListCheckpointsRequest>,
    ) -> Result<Response<proto::ListCheckpointsResponse>, Status> {
        let request = request.into_inner();
        let conversation = self.conversation(&request.conversation_id, &request.user_id)?;
        let named = request.namespace.clone().map(|name| format!("={name}"));
        let of = [
            "checkpoints",
            &request.conversation_id,
            named.as_deref().unwrap_or_default(),
            &request.checkpoint_id,
            &request.before_checkpoint_id,
            &request.filter_json,
        ];
        let query = CheckpointQuery {
            after: page_token::decode(&request.page_token, &of).in_field("page_token")?,
            conversation,
            namespace: request
                .namespace
                .clone()
                .map(convert::namespace)
                .transpose()?,
            id: optional_id(&request.checkpoint_id, "checkpoint_id")?,
            before: optional_id(&request.before_checkpoint_id, "before_checkpoint_id")?,
            filter: convert::filter(&request.filter_json)?,
            limit: convert::page_size(request.page_size, 20, 100)?,
        };
        let work = self.memory.list_checkpoints(&query);
        let page = use_case("list_checkpoints", work).await?;
        let next = page.next.map(|key| page_token::encode(key, &of));
        Ok(Response::new(proto::ListCheckpointsResponse {
            checkpoints: convert::checkpoint_page(page),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn get_delta_history(
        &self,
        request: Request<proto::GetDeltaHistoryRequest>,
    ) -> Result<Response<proto::GetDeltaHistoryResponse>, Status> {
        let request = request.into_inner();
        let query = AncestorQuery {
            conversation: self.conversation(&request.conversation_id, &request.user_id)?,
            namespace: convert::namespace(request.namespace)?,
            id: optional_id(&request.checkpoint_id, "checkpoint_id")?,
            channels: convert::channels(request.channels)?,
        };
        let work = self.memory.get_delta_history(&query);
        let page = use_case("get_delta_history", work).await?;
        Ok(Response::new(proto::GetDeltaHistoryResponse {
            has_more: page.next.is_some(),
            ancestors: convert::checkpoint_page(page),
        }))
    }

    async fn delete_thread(
        &self,
        request: Request<proto::DeleteThreadRequest>,
    ) -> Result<Response<proto::DeleteThreadResponse>, Status> {
        let request = request.into_inner();
        let conversation = self.conversation(&request.conversation_id, &request.user_id)?;
        use_case("delete_thread", self.memory.delete_thread(conversation)).await?;
        Ok(Response::new(proto::DeleteThreadResponse {}))
    }

    async fn copy_thread(
        &self,
        request: Request<proto::CopyThreadRequest>,
    ) -> Result<Response<proto::CopyThreadResponse>, Status> {
        let request = request.into_inner();
        let target = self.owner_scope().conversation_at(
            "target_conversation_id",
            &request.target_conversation_id,
            &request.user_id,
        )?;
        let source = self.conversation(&request.conversation_id, &request.user_id)?;
        if source.id == target.id {
            let reason = InvalidValue::new("must not be conversation_id");
            return Err(FieldViolation::new("target_conversation_id", reason).into());
        }
        let new = self.parser.new_thread(request.new_thread, &source)?;
        let work = self.memory.copy_thread(source, target.id, new);
        use_case("copy_thread", work).await?;
        Ok(Response::new(proto::CopyThreadResponse {}))
    }

    async fn delete_runs(
        &self,
        request: Request<proto::DeleteRunsRequest>,
    ) -> Result<Response<proto::DeleteRunsResponse>, Status> {
        let request = request.into_inner();
        let user = self.owner_scope().user(&request.user_id)?;
        let runs = convert::runs(&request.run_ids)?;
        let work = self.memory.delete_runs(runs, user);
        let deleted_checkpoints = use_case("delete_runs", work).await?;
        Ok(Response::new(proto::DeleteRunsResponse {
            deleted_checkpoints,
        }))
    }

    async fn prune_threads(
        &self,
        request: Request<proto::PruneThreadsRequest>,
    ) -> Result<Response<proto::PruneThreadsResponse>, Status> {
        let request = request.into_inner();
        let scope = self.owner_scope();
        scope.user(&request.user_id)?;
        let deletes = convert::deletes_threads(request.strategy)?;
        if request.conversation_ids.is_empty() || request.conversation_ids.len() > MAX_THREADS {
            let reason = InvalidValue::new(format!("must have 1 to {MAX_THREADS} ids"));
            return Err(FieldViolation::new("conversation_ids", reason).into());
        }
        let threads = request.conversation_ids.iter().enumerate();
        let threads = threads.map(|(index, id)| {
            let path = format!("conversation_ids[{index}]");
            scope.conversation_at(&path, id, &request.user_id)
        });
        let threads = threads.collect::<Result<Vec<_>, _>>()?;
        let mut deleted_checkpoints = 0;
        for thread in threads {
            if deletes {
                use_case("delete_thread", self.memory.delete_thread(thread)).await?;
            } else {
                let work = self.memory.prune_thread(thread);
                deleted_checkpoints += use_case("prune_thread", work).await?;
            }
        }
        Ok(Response::new(proto::PruneThreadsResponse {
            deleted_checkpoints,
        }))
    }
}

/// Upper bound on the threads of one call.
const MAX_THREADS: usize = 100;

/// Upper bound on the digests of one call.
const MAX_DIGESTS: usize = 1000;

fn optional_id(text: &str, path: &str) -> Result<Option<CheckpointId>, FieldViolation> {
    convert::optional(text, path, CheckpointId::parse)
}

fn digests(digests: &[Vec<u8>]) -> Result<Vec<ContentDigest>, FieldViolation> {
    if digests.is_empty() || digests.len() > MAX_DIGESTS {
        let reason = InvalidValue::new(format!("must have 1 to {MAX_DIGESTS} digests"));
        return Err(FieldViolation::new("digests", reason));
    }
    let digests = digests.iter().enumerate();
    let digests = digests.map(|(index, digest)| {
        let digest = ContentDigest::parse(digest);
        digest.in_field(&format!("digests[{index}]"))
    });
    digests.collect()
}
