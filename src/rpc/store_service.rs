use tonic::{Request, Response, Status, async_trait};

use super::{
    convert::items::{self, ItemParser},
    status,
    use_case::use_case,
};
use crate::{
    domain::ItemOwner,
    memory::{ItemBatchOutcome, ItemOperation, ItemResult, Memory},
    proto::{self, store_service_server},
};

/// Implementation of the service `StoreService`.
#[derive(Clone, Debug)]
pub(crate) struct StoreService {
    pub(crate) memory: Memory,
    pub(crate) parser: ItemParser,
}

impl StoreService {
    /// Executes one operation as a batch.
    async fn single(
        &self,
        name: &'static str,
        owner: ItemOwner,
        operation: ItemOperation,
    ) -> Result<ItemResult, Status> {
        let batch = self.memory.batch_items(owner, vec![operation]);
        let ItemBatchOutcome { mut results, .. } = use_case(name, batch).await?;
        results.pop().ok_or_else(status::internal)
    }
}

#[async_trait]
impl store_service_server::StoreService for StoreService {
    async fn put_item(
        &self,
        request: Request<proto::PutItemRequest>,
    ) -> Result<Response<proto::PutItemResponse>, Status> {
        let request = request.into_inner();
        let owner = items::owner(&request.user_id)?;
        let operation = self.parser.put(&owner, request)?;
        self.single("put_item", owner, operation).await?;
        Ok(Response::new(proto::PutItemResponse {}))
    }

    async fn get_item(
        &self,
        request: Request<proto::GetItemRequest>,
    ) -> Result<Response<proto::GetItemResponse>, Status> {
        let request = request.into_inner();
        let owner = items::owner(&request.user_id)?;
        let operation = items::get(&owner, request)?;
        let result = self.single("get_item", owner, operation).await?;
        Ok(Response::new(items::item_response(result)))
    }

    async fn delete_item(
        &self,
        request: Request<proto::DeleteItemRequest>,
    ) -> Result<Response<proto::DeleteItemResponse>, Status> {
        let request = request.into_inner();
        let owner = items::owner(&request.user_id)?;
        let operation = items::delete(&owner, request)?;
        self.single("delete_item", owner, operation).await?;
        Ok(Response::new(proto::DeleteItemResponse {}))
    }

    async fn search_items(
        &self,
        request: Request<proto::SearchItemsRequest>,
    ) -> Result<Response<proto::SearchItemsResponse>, Status> {
        let request = request.into_inner();
        let owner = items::owner(&request.user_id)?;
        let operation = items::search(&owner, request)?;
        let result = self.single("search_items", owner, operation).await?;
        Ok(Response::new(items::search_response(result)))
    }

    async fn list_namespaces(
        &self,
        request: Request<proto::ListNamespacesRequest>,
    ) -> Result<Response<proto::ListNamespacesResponse>, Status> {
        let request = request.into_inner();
        let owner = items::owner(&request.user_id)?;
        let operation = items::list_namespaces(&owner, request)?;
        let result = self.single("list_namespaces", owner, operation).await?;
        Ok(Response::new(items::namespaces_response(result)))
    }

    async fn batch_items(
        &self,
        request: Request<proto::BatchItemsRequest>,
    ) -> Result<Response<proto::BatchItemsResponse>, Status> {
        let request = request.into_inner();
        let owner = items::owner(&request.user_id)?;
        let operations = self.parser.operations(&owner, request)?;
        let batch = self.memory.batch_items(owner, operations);
        let outcome = use_case("batch_items", batch).await?;
        Ok(Response::new(items::batch_response(outcome)))
    }
}
