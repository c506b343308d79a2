//! Items of the long-term memory: their storage contract, and the code that both stores share.

mod queries;
mod ranking;

use std::fmt::{self, Debug};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

pub(super) use self::{
    queries::{CHUNK, ItemRow, decode_id, decode_namespace, item_queries},
    ranking::{HitCollector, NamespaceCollector},
};
use super::StoreError;
use crate::domain::{
    Embedding, ItemFilter, ItemId, ItemKey, ItemOwner, ItemTtl, ItemValue, Namespace,
    NamespaceCondition,
};

/// Upper bound on the items that a search examines, and on the namespaces that a list examines.
pub const MAX_EXAMINED: usize = 100_000;

/// Durable storage of items. The contract of [`Store`](super::Store) applies.
///
/// Operations use the items of one owner. An expired item is treated as one that does not exist.
#[async_trait]
pub trait ItemStore: Send + Sync + Debug {
    /// Reads items, `None` for those that do not exist, in the order of `ids`. If the items are too
    /// large for a response, it returns those of the first ids, at least one.
    ///
    /// # Errors
    ///
    /// Fails only with the errors of all methods.
    async fn read_items(
        &self,
        owner: &ItemOwner,
        ids: &[ItemId],
    ) -> Result<Vec<Option<StoredItem>>, StoreError>;

    /// Creates, replaces and deletes items, all or none. No two writes concern the same item.
    /// Idempotent. Ends within [`APPEND_LIMIT`](super::APPEND_LIMIT).
    ///
    /// # Errors
    ///
    /// Fails only with the errors of all methods.
    async fn write_items(
        &self,
        owner: &ItemOwner,
        writes: &[ItemWrite],
        at: DateTime<Utc>,
    ) -> Result<(), StoreError>;

    /// Finds items. See [`ItemSearch`].
    ///
    /// # Errors
    ///
    /// - [`StoreError::SearchTooExpensive`] if the search exceeded its time limit or [`MAX_EXAMINED`].
    /// - [`StoreError::TooManySearches`] if others kept it waiting for too long.
    async fn search_items(&self, search: &ItemSearch) -> Result<ItemHits, StoreError>;

    /// Lists namespaces that contain items, in ascending order.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::search_items`] does.
    async fn list_namespaces(&self, query: &NamespaceQuery) -> Result<NamespacePage, StoreError>;

    /// Restarts the time to live of items, unless less than a percent of it has passed.
    ///
    /// # Errors
    ///
    /// Fails only with the errors of all methods.
    async fn extend_items(&self, owner: &ItemOwner, ids: &[ItemId]) -> Result<(), StoreError>;

    /// Removes some of the expired items of all owners. Returns whether there may be more.
    ///
    /// # Errors
    ///
    /// Fails only with the errors of all methods.
    async fn remove_expired_items(&self) -> Result<bool, StoreError>;
}

/// Item as it is stored.
#[derive(Clone, PartialEq)]
pub struct StoredItem {
    /// Namespace.
    pub namespace: Namespace,
    /// Key.
    pub key: String,
    /// Text of the JSON object.
    pub value: String,
    /// Time of the write that created it.
    pub created_at: DateTime<Utc>,
    /// Time of the latest write.
    pub updated_at: DateTime<Utc>,
    /// Time at which it expires.
    pub expires_at: Option<DateTime<Utc>>,
}

impl StoredItem {
    /// Bytes that a response accounts for the item.
    pub fn footprint(&self) -> usize {
        const OVERHEAD: usize = 128;
        let labels = self.namespace.labels().iter();
        let labels: usize = labels.map(|label| label.len() + 32).sum();
        self.value.len() + self.key.len() + labels + OVERHEAD
    }
}

impl fmt::Debug for StoredItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Key and value are content.
        f.debug_struct("StoredItem")
            .field("updated_at", &self.updated_at)
            .finish_non_exhaustive()
    }
}

/// Write of an item.
#[derive(Clone, Debug)]
pub struct ItemWrite {
    /// Identity of the item.
    pub id: ItemId,
    /// Namespace.
    pub namespace: Namespace,
    /// Key.
    pub key: ItemKey,
    /// New state; `None` deletes the item.
    pub put: Option<NewItem>,
}

/// New state of an item.
#[derive(Clone, Debug)]
pub struct NewItem {
    /// Value.
    pub value: ItemValue,
    /// Time to live; `None` if it does not expire.
    pub ttl: Option<ItemTtl>,
    /// Vectors by which the item is found.
    pub vectors: Vec<Embedding>,
}

/// Search for items. Without a vector, the hits are ordered by namespace, then by creation. With one,
/// those with the greatest similarity come first, and those without a vector of its dimension last.
#[derive(Clone, Debug)]
pub struct ItemSearch {
    /// Owner of the items.
    pub owner: ItemOwner,
    /// First labels of the namespaces.
    pub prefix: Namespace,
    /// Conditions on the values.
    pub filter: Option<ItemFilter>,
    /// Vector that determines the order.
    pub vector: Option<Embedding>,
    /// Maximum number of hits.
    pub limit: u32,
    /// Number of hits to skip.
    pub offset: u32,
}

/// Hits of a search for items.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ItemHits {
    /// Items in order.
    pub hits: Vec<ItemHit>,
    /// Whether more items match.
    pub more: bool,
}

/// Item that a search has found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ItemHit {
    /// Identity of the item.
    pub id: ItemId,
    /// Similarity to the vector of the search, if both have vectors.
    pub score: Option<f64>,
}

/// List of namespaces.
#[derive(Clone, Debug)]
pub struct NamespaceQuery {
    /// Owner of the items.
    pub owner: ItemOwner,
    /// Conditions that all must be fulfilled.
    pub conditions: Vec<NamespaceCondition>,
    /// Number of labels to which namespaces are shortened.
    pub max_depth: Option<usize>,
    /// Maximum number of namespaces.
    pub limit: u32,
    /// Number of namespaces to skip.
    pub offset: u32,
}

impl NamespaceQuery {
    /// First labels of every namespace that fulfils the conditions, as far as they are known.
    pub(super) fn prefix(&self) -> Namespace {
        let known = self.conditions.iter().map(NamespaceCondition::first_labels);
        known
            .max_by_key(|labels| labels.labels().len())
            .unwrap_or_else(Namespace::root)
    }
}

/// Page of namespaces.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamespacePage {
    /// Namespaces in ascending order.
    pub namespaces: Vec<Namespace>,
    /// Whether more namespaces fulfil the conditions.
    pub more: bool,
}
