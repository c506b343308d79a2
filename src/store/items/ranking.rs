use std::{cmp::Ordering, collections::BinaryHeap};

use super::{ItemHit, ItemHits, ItemSearch, MAX_EXAMINED, NamespacePage, NamespaceQuery};
use crate::{
    domain::{ItemId, Namespace},
    store::{StoreError, operation_error::OperationError},
};

/// Collects the hits of a search from the items of its namespaces, in their order. It keeps as many
/// as the page needs, whatever the number of items.
#[derive(Debug)]
pub(in crate::store) struct HitCollector<'a> {
    search: &'a ItemSearch,
    /// Number of hits up to the end of the page, and one more.
    wanted: usize,
    examined: usize,
    /// Best hits, of which the greatest is the last one.
    best: BinaryHeap<RankedHit>,
}

impl<'a> HitCollector<'a> {
    pub(in crate::store) fn new(search: &'a ItemSearch) -> Self {
        Self {
            search,
            wanted: search.offset as usize + search.limit as usize + 1,
            examined: 0,
            best: BinaryHeap::new(),
        }
    }

    /// Adds the next item, with its value if the search has a filter, and its vectors if it has one.
    /// Returns whether later items can still be hits.
    ///
    /// # Errors
    ///
    /// Fails if the search has examined too many items.
    pub(in crate::store) fn add(
        &mut self,
        id: ItemId,
        value: Option<&str>,
        vectors: Option<&[u8]>,
    ) -> Result<bool, OperationError> {
        let order = self.examined;
        if order == MAX_EXAMINED {
            return Err(StoreError::SearchTooExpensive.into());
        }
        self.examined += 1;
        let ItemSearch { filter, vector, .. } = self.search;
        if let Some(filter) = filter
            && !value.is_some_and(|value| filter.matches(value))
        {
            return Ok(true);
        }
        let score = vector.as_ref().zip(vectors);
        let score = score.and_then(|(vector, vectors)| vector.similarity(vectors));
        self.best.push(RankedHit {
            hit: ItemHit { id, score },
            order,
        });
        if vector.is_none() {
            return Ok(self.best.len() < self.wanted);
        }
        if self.best.len() > self.wanted {
            self.best.pop();
        }
        Ok(true)
    }

    pub(in crate::store) fn into_hits(self) -> ItemHits {
        let more = self.best.len() == self.wanted;
        let hits = self.best.into_sorted_vec().into_iter();
        let page = hits
            .skip(self.search.offset as usize)
            .take(self.search.limit as usize);
        ItemHits {
            hits: page.map(|ranked| ranked.hit).collect(),
            more,
        }
    }
}

/// Hit with its place among hits of the same similarity. The best hit is the least one.
#[derive(Debug)]
struct RankedHit {
    hit: ItemHit,
    order: usize,
}

impl Ord for RankedHit {
    fn cmp(&self, other: &Self) -> Ordering {
        let (one, another) = (self.hit.score, other.hit.score);
        let by_score = match (one, another) {
            (Some(one), Some(another)) => another.total_cmp(&one),
            // A hit without a similarity follows those with one.
            _ => another.is_some().cmp(&one.is_some()),
        };
        by_score.then(self.order.cmp(&other.order))
    }
}

impl PartialOrd for RankedHit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for RankedHit {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for RankedHit {}

/// Collects a page of namespaces from those of an owner, in their order.
#[derive(Debug)]
pub(in crate::store) struct NamespaceCollector<'a> {
    query: &'a NamespaceQuery,
    examined: usize,
    skipped: u32,
    last: Option<Namespace>,
    page: NamespacePage,
}

impl<'a> NamespaceCollector<'a> {
    pub(in crate::store) fn new(query: &'a NamespaceQuery) -> Self {
        Self {
            query,
            examined: 0,
            skipped: 0,
            last: None,
            page: NamespacePage::default(),
        }
    }

    /// Adds the next namespace. Returns whether later ones can still be part of the page.
    ///
    /// # Errors
    ///
    /// Fails if too many namespaces have been examined.
    pub(in crate::store) fn add(&mut self, namespace: Namespace) -> Result<bool, OperationError> {
        if self.page.more {
            return Ok(false);
        }
        if self.examined == MAX_EXAMINED {
            return Err(StoreError::SearchTooExpensive.into());
        }
        self.examined += 1;
        let mut conditions = self.query.conditions.iter();
        if !conditions.all(|condition| condition.matches(&namespace)) {
            return Ok(true);
        }
        let namespace = match self.query.max_depth {
            Some(depth) => namespace.shortened(depth),
            None => namespace,
        };
        // Shortened namespaces that are equal follow each other.
        if self.last.as_ref() == Some(&namespace) {
            return Ok(true);
        }
        self.last = Some(namespace.clone());
        if self.skipped < self.query.offset {
            self.skipped += 1;
        } else if self.page.namespaces.len() < self.query.limit as usize {
            self.page.namespaces.push(namespace);
        } else {
            self.page.more = true;
        }
        Ok(!self.page.more)
    }

    pub(in crate::store) fn into_page(self) -> NamespacePage {
        self.page
    }
}
