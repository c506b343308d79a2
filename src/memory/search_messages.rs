use std::time::Duration;

use tokio::time::Instant;

use super::{Error, Memory, budget::Budget};
use crate::{
    domain::ConversationRef,
    store::{SearchPage, SearchQuery, StoreError},
};

/// Time after which a page is not continued. Each read of hits searches again.
const MAX_CONTINUATION: Duration = Duration::from_secs(1);

impl Memory {
    /// Searches a user's messages, and returns a page of hits, best first. A page that
    /// would be too large for a response, or takes long, ends early, after at least one hit.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::NotFound`] if the query is restricted to a conversation that does not
    /// exist or belongs to another user; with [`Error::SearchTooExpensive`] or
    /// [`Error::TooManySearches`] if a limit is reached; with [`Error::Unavailable`] if the store
    /// cannot be reached.
    pub async fn search_messages(&self, mut query: SearchQuery) -> Result<SearchPage, Error> {
        if let Some(id) = query.conversation_id {
            let user_id = Some(query.user_id.clone());
            self.get_conversation(&ConversationRef { id, user_id })
                .await?;
        }
        let started = Instant::now();
        let limit = query.limit;
        let mut page = SearchPage {
            hits: Vec::new(),
            more: false,
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
