use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::ObservedStore;
use crate::{
    domain::{ItemId, ItemOwner},
    store::{
        ItemHits, ItemSearch, ItemStore, ItemWrite, NamespacePage, NamespaceQuery, StoreError,
        StoredItem,
    },
};

const ITEMS: &str = "items";

#[async_trait]
impl ItemStore for ObservedStore {
    async fn read_items(
        &self,
        owner: &ItemOwner,
        ids: &[ItemId],
    ) -> Result<Vec<Option<StoredItem>>, StoreError> {
        self.observe("get", ITEMS, self.inner.read_items(owner, ids))
            .await
    }

    async fn write_items(
        &self,
        owner: &ItemOwner,
        writes: &[ItemWrite],
        at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let work = self.inner.write_items(owner, writes, at);
        self.observe("write", ITEMS, work).await
    }

    async fn search_items(&self, search: &ItemSearch) -> Result<ItemHits, StoreError> {
        self.observe("search", ITEMS, self.inner.search_items(search))
            .await
    }

    async fn list_namespaces(&self, query: &NamespaceQuery) -> Result<NamespacePage, StoreError> {
        let work = self.inner.list_namespaces(query);
        self.observe("list_namespaces", ITEMS, work).await
    }

    async fn extend_items(&self, owner: &ItemOwner, ids: &[ItemId]) -> Result<(), StoreError> {
        self.observe("extend", ITEMS, self.inner.extend_items(owner, ids))
            .await
    }

    async fn remove_expired_items(&self) -> Result<bool, StoreError> {
        let work = self.inner.remove_expired_items();
        self.observe("remove_expired", ITEMS, work).await
    }
}
