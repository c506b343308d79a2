use std::time::Duration;

use tokio::time::Instant;

use super::{Error, Memory, budget::Budget};
use crate::{
    domain::{ConversationRef, SearchText},
    store::{SearchPage, SearchQuery, StoreError},
};

/// Time after which a page is not continued. Each read of hits searches again.
const MAX_CONTINUATION: Duration = Duration::from_secs(1);

/// Outcome of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Searched {
    /// Hits of the query, or of the corrected one.
    pub page: SearchPage,
    /// Query that was searched instead, because the other one matches nothing.
    pub corrected_query: Option<SearchText>,
}

impl Memory {
    /// Searches a user's messages, and returns a page of hits, best first. A page that
    /// would be too large for a response, or takes long, ends early, after at least one hit. If the
    /// query matches nothing, it is corrected.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::NotFound`] if the query is restricted to a conversation that does not
    /// exist or belongs to another user; with [`Error::SearchTooExpensive`] or
    /// [`Error::TooManySearches`] if a limit is reached; with [`Error::Unavailable`] if the store
    /// cannot be reached.
    pub async fn search_messages(&self, query: SearchQuery) -> Result<Searched, Error> {
        if let Some(id) = query.conversation_id {
            let user_id = Some(query.user_id.clone());
            self.get_conversation(&ConversationRef { id, user_id })
                .await?;
        }
        let page = self.search_page(query.clone()).await?;
        if page.hits.is_empty()
            && query.after.is_none()
            && let Some(corrected) = self.correct(&query).await?
        {
            let query = SearchQuery {
                text: corrected.clone(),
                ..query
            };
            let page = self.search_page(query).await?;
            if !page.hits.is_empty() {
                return Ok(Searched {
                    page,
                    corrected_query: Some(corrected),
                });
            }
        }
        Ok(Searched {
            page,
            corrected_query: None,
        })
    }

    /// Corrects a query that matches nothing. A correction that would take too long is omitted.
    async fn correct(&self, query: &SearchQuery) -> Result<Option<SearchText>, Error> {
        match self.0.store.correct(query).await {
            Ok(corrected) => Ok(corrected.and_then(|text| SearchText::parse(text).ok())),
            Err(StoreError::SearchTooExpensive | StoreError::TooManySearches) => Ok(None),
            Err(error) => Err(Error::from_query(error)),
        }
    }

    async fn search_page(&self, mut query: SearchQuery) -> Result<SearchPage, Error> {
        let started = Instant::now();
        let limit = query.limit;
        let mut page = SearchPage {
            hits: Vec::new(),
            more: false,
            state: query.state,
        };
        let mut budget = Budget::default();
        loop {
            let missing = limit - u32::try_from(page.hits.len()).unwrap_or(limit);
            query.limit = budget.next_read(missing);
            let found = match self.0.store.search(&query).await {
                // The next page continues after the hits that were found.
                Err(StoreError::SearchTooExpensive | StoreError::TooManySearches)
                    if !page.hits.is_empty() =>
                {
                    return Ok(page);
                }
                found => found.map_err(Error::from_query)?,
            };
            page.more = found.more;
            page.state = found.state;
            query.state = found.state;
            for hit in found.hits {
                if !budget.admits_bytes(hit.footprint()) {
                    page.more = true;
                    return Ok(page);
                }
                query.after = Some(hit.key);
                page.hits.push(hit);
            }
            if !page.more || missing == query.limit || started.elapsed() > MAX_CONTINUATION {
                return Ok(page);
            }
        }
    }
}
