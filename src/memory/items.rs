use std::{collections::HashMap, time::Duration};

use tokio::time::sleep;

use super::{Error, Memory, budget::Budget};
use crate::{
    domain::{ItemId, ItemOwner, Namespace},
    store::{ItemHits, ItemSearch, ItemWrite, NamespaceQuery, StoredItem},
};

/// Time between two looks for expired items.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);

/// Time between two steps of the removal of many expired items, in which other writes proceed.
const SWEEP_PAUSE: Duration = Duration::from_millis(50);

/// Operation on the items of an owner.
#[derive(Debug)]
pub enum ItemOperation {
    /// Read of an item.
    Get {
        /// Identity of the item.
        id: ItemId,
        /// Whether its time to live starts again.
        refresh: bool,
    },
    /// Creation, replacement or deletion of an item.
    Write(ItemWrite),
    /// Search for items.
    Search {
        /// Search.
        search: ItemSearch,
        /// Whether the time to live of the hits starts again.
        refresh: bool,
    },
    /// List of namespaces.
    ListNamespaces(NamespaceQuery),
}

/// Result of an [`ItemOperation`].
#[derive(Debug)]
pub enum ItemResult {
    /// The item; `None` if there is none.
    Get(Option<StoredItem>),
    /// The response has no room for the item.
    Omitted,
    /// The item was written.
    Put,
    /// The item does not exist.
    Deleted,
    /// Items that a search has found.
    Found(FoundItems),
    /// Namespaces.
    Namespaces(FoundNamespaces),
}

/// Items that a search has found.
#[derive(Debug)]
pub struct FoundItems {
    /// Items with their similarities.
    pub items: Vec<(StoredItem, Option<f64>)>,
    /// Offset of the next item, if more match.
    pub next_offset: Option<u32>,
}

/// Namespaces of a page.
#[derive(Debug)]
pub struct FoundNamespaces {
    /// Namespaces.
    pub namespaces: Vec<Namespace>,
    /// Offset of the next namespace, if there are more.
    pub next_offset: Option<u32>,
}

/// Results of a batch.
#[derive(Debug)]
pub struct ItemBatchOutcome {
    /// Results in the order of the operations.
    pub results: Vec<ItemResult>,
    /// Whether the response has no room for all reads. No write was executed then.
    pub is_incomplete: bool,
}

impl Memory {
    /// Upper bound on the operations of a batch.
    pub const MAX_ITEM_OPERATIONS: usize = 1_000;

    /// Upper bound on the operations of a batch that search or list namespaces.
    pub const MAX_ITEM_SEARCHES: usize = 50;

    /// Executes the reads, and then the writes, of which the last one of each item counts.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::SearchTooExpensive`] or [`Error::TooManySearches`] if a limit is reached,
    /// with [`Error::Unavailable`] if the store cannot be reached, and with the errors of writes. No write
    /// was executed if a read fails.
    pub async fn batch_items(
        &self,
        owner: ItemOwner,
        operations: Vec<ItemOperation>,
    ) -> Result<ItemBatchOutcome, Error> {
        let mut reads = ItemReads::new(self, &owner);
        let mut results = reads.execute(&operations).await?;
        let (is_full, refreshed) = (reads.is_full, reads.refreshed);
        if !refreshed.is_empty() {
            self.extend_items(owner.clone(), refreshed).await;
        }
        if !is_full {
            let writes = last_writes(operations);
            if !writes.is_empty() {
                self.write_items(owner, writes).await?;
            }
        }
        results.shrink_to_fit();
        Ok(ItemBatchOutcome {
            results,
            is_incomplete: is_full,
        })
    }

    async fn write_items(&self, owner: ItemOwner, writes: Vec<ItemWrite>) -> Result<(), Error> {
        let memory = self.clone();
        self.uninterrupted(async move {
            let at = memory.0.clock.now();
            let written = memory.0.store.write_items(&owner, &writes, at).await;
            written.map_err(Error::from_item_write)
        })
        .await
    }

    /// Restarts times to live. A store that accepts no writes does not fail the reads that ask for it.
    async fn extend_items(&self, owner: ItemOwner, ids: Vec<ItemId>) {
        let memory = self.clone();
        let extended = self.uninterrupted(async move {
            let extended = memory.0.store.extend_items(&owner, &ids).await;
            extended.map_err(Error::from_item_write)
        });
        if let Err(error) = extended.await {
            tracing::debug!(%error, "the time to live of items was not restarted");
        }
    }

    /// Removes expired items in small steps, until the future is dropped. A step takes none of the
    /// permits that limit the writes of callers.
    pub async fn remove_expired_items(&self) {
        let mut may_be_more = false;
        loop {
            sleep(if may_be_more {
                SWEEP_PAUSE
            } else {
                SWEEP_INTERVAL
            })
            .await;
            let memory = self.clone();
            let step = async move { memory.0.store.remove_expired_items().await };
            may_be_more = match self.0.writes.spawn(step).await {
                Ok(Ok(may_be_more)) => may_be_more,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "cannot remove expired items; trying again");
                    false
                }
                // The step panicked; the log has its location.
                Err(_) => false,
            };
        }
    }
}

/// Reads of a batch, whose results share the size of a response.
struct ItemReads<'a> {
    memory: &'a Memory,
    owner: &'a ItemOwner,
    budget: Budget,
    /// Whether a result did not fit.
    is_full: bool,
    /// Items whose time to live starts again.
    refreshed: Vec<ItemId>,
}

impl<'a> ItemReads<'a> {
    fn new(memory: &'a Memory, owner: &'a ItemOwner) -> Self {
        Self {
            memory,
            owner,
            budget: Budget::default(),
            is_full: false,
            refreshed: Vec::new(),
        }
    }

    /// Returns the results of all operations, those of writes as if they had been executed.
    async fn execute(&mut self, operations: &[ItemOperation]) -> Result<Vec<ItemResult>, Error> {
        let has_reads = operations
            .iter()
            .any(|operation| !matches!(operation, ItemOperation::Write(_)));
        let _permit = if has_reads {
            Some(self.memory.read_permit().await?)
        } else {
            None
        };
        let gets: Vec<(ItemId, bool)> = operations.iter().filter_map(requested).collect();
        let mut items = self.read(&gets).await?.into_iter();
        let mut results = Vec::with_capacity(operations.len());
        for operation in operations {
            results.push(match operation {
                ItemOperation::Get { .. } => {
                    items.next().map_or(ItemResult::Omitted, ItemResult::Get)
                }
                ItemOperation::Write(ItemWrite { put: Some(_), .. }) => ItemResult::Put,
                ItemOperation::Write(_) => ItemResult::Deleted,
                ItemOperation::Search { search, refresh } => {
                    ItemResult::Found(self.search(search, *refresh).await?)
                }
                ItemOperation::ListNamespaces(query) => {
                    ItemResult::Namespaces(self.list_namespaces(query).await?)
                }
            });
        }
        Ok(results)
    }

    /// Reads items, as far as they fit. Each is given with whether its time to live starts again.
    async fn read(&mut self, ids: &[(ItemId, bool)]) -> Result<Vec<Option<StoredItem>>, Error> {
        let mut items = Vec::new();
        while items.len() < ids.len() && !self.is_full {
            let missing = u32::try_from(ids.len() - items.len()).unwrap_or(u32::MAX);
            let end = items.len() + self.budget.next_read(missing) as usize;
            let chunk: Vec<ItemId> = ids[items.len()..end].iter().map(|(id, _)| *id).collect();
            let read = self.memory.0.store.read_items(self.owner, &chunk).await;
            for item in read.map_err(Error::from_query)? {
                let bytes = item.as_ref().map_or(0, StoredItem::footprint);
                if !self.admits(bytes) {
                    break;
                }
                let (id, refresh) = ids[items.len()];
                if refresh && item.as_ref().is_some_and(|it| it.expires_at.is_some()) {
                    self.refreshed.push(id);
                }
                items.push(item);
            }
        }
        Ok(items)
    }

    async fn search(&mut self, search: &ItemSearch, refresh: bool) -> Result<FoundItems, Error> {
        if self.is_full {
            return Ok(FoundItems {
                items: Vec::new(),
                next_offset: Some(search.offset),
            });
        }
        let found = self.memory.0.store.search_items(search).await;
        let ItemHits { hits, more } = found.map_err(Error::from_query)?;
        let ids: Vec<_> = hits.iter().map(|hit| (hit.id, refresh)).collect();
        let read = self.read(&ids).await?;
        let next_offset = next_offset(search.offset, read.len(), more || read.len() < ids.len());
        // An item that was deleted since it was found is left out.
        let items = read.into_iter().zip(hits);
        let items = items.filter_map(|(item, hit)| Some((item?, hit.score)));
        Ok(FoundItems {
            items: items.collect(),
            next_offset,
        })
    }

    async fn list_namespaces(&mut self, query: &NamespaceQuery) -> Result<FoundNamespaces, Error> {
        if self.is_full {
            return Ok(FoundNamespaces {
                namespaces: Vec::new(),
                next_offset: Some(query.offset),
            });
        }
        let listed = self.memory.0.store.list_namespaces(query).await;
        let page = listed.map_err(Error::from_query)?;
        let found = page.namespaces.len();
        let mut namespaces = page.namespaces;
        let fitting = namespaces.iter().take_while(|namespace| {
            let labels = namespace.labels().iter();
            self.admits(labels.map(|label| label.len() + 32).sum())
        });
        let fitting = fitting.count();
        namespaces.truncate(fitting);
        Ok(FoundNamespaces {
            namespaces,
            next_offset: next_offset(query.offset, fitting, page.more || fitting < found),
        })
    }

    fn admits(&mut self, bytes: usize) -> bool {
        self.is_full = self.is_full || !self.budget.admits_bytes(bytes);
        !self.is_full
    }
}

fn requested(operation: &ItemOperation) -> Option<(ItemId, bool)> {
    match operation {
        ItemOperation::Get { id, refresh } => Some((*id, *refresh)),
        _ => None,
    }
}

fn next_offset(offset: u32, read: usize, more: bool) -> Option<u32> {
    more.then(|| offset.saturating_add(u32::try_from(read).unwrap_or(u32::MAX)))
}

/// Returns the last write of each item, in the order of their first writes.
fn last_writes(operations: Vec<ItemOperation>) -> Vec<ItemWrite> {
    let mut writes: Vec<ItemWrite> = Vec::new();
    let mut places = HashMap::new();
    for operation in operations {
        let ItemOperation::Write(write) = operation else {
            continue;
        };
        let place = *places.entry(write.id).or_insert(writes.len());
        match writes.get_mut(place) {
            Some(earlier) => *earlier = write,
            None => writes.push(write),
        }
    }
    writes
}
