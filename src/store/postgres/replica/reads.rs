//! Reads of the store that may use its replica. `None` means that the primary must be read.

use super::{READ_LIMIT, Replica, Subject, server::Required, snapshot};
use crate::{
    domain::{Conversation, ConversationRef, Message},
    store::{
        Bound, ConversationPage, ConversationQuery, MinState, SearchPage, SearchQuery, Snapshot,
        StoreError,
        operation_error::OperationError,
        postgres::{PostgresStore, conversations, correction, history, search},
    },
    text_analysis::Correction,
};

impl PostgresStore {
    /// Reads a page of a user's conversations.
    pub(in crate::store::postgres) async fn list_on_replica(
        &self,
        query: &ConversationQuery,
    ) -> Result<Option<ConversationPage>, StoreError> {
        let subject = Subject::User(&query.user_id);
        let Some((replica, required)) = self.admitted(query.state, subject).await else {
            return Ok(None);
        };
        let read = replica.read(required, READ_LIMIT, async |connection| {
            conversations::read_page(connection, query).await
        });
        let page = read.await?;
        Ok(page.map(|(page, state)| ConversationPage { state, ..page }))
    }

    /// Reads a page of messages, and the state that the next one needs.
    pub(in crate::store::postgres) async fn messages_on_replica(
        &self,
        state: MinState,
        conversation: &ConversationRef,
        from: Bound,
        limit: u32,
        contexts: bool,
    ) -> Result<Option<(Vec<Message>, MinState)>, StoreError> {
        let subject = Subject::Conversation(conversation.id);
        let Some((replica, required)) = self.admitted(state, subject).await else {
            return Ok(None);
        };
        let read = replica.read(required, READ_LIMIT, async |connection| {
            history::read_page(connection, conversation, from, limit, contexts).await
        });
        read.await
    }

    /// Takes a snapshot of a conversation.
    pub(in crate::store::postgres) async fn snapshot_on_replica(
        &self,
        conversation: &ConversationRef,
    ) -> Result<Option<(Conversation, Box<dyn Snapshot>)>, StoreError> {
        match &self.replica {
            Some(replica) => {
                snapshot::take(replica, conversation, &self.pool, &self.transfers).await
            }
            None => Ok(None),
        }
    }

    /// Reads a page of search hits.
    pub(in crate::store::postgres) async fn search_on_replica(
        &self,
        query: &SearchQuery,
    ) -> Result<Option<SearchPage>, StoreError> {
        let subject = Subject::of_search(query);
        let Some((replica, required)) = self.admitted(query.state, subject).await else {
            return Ok(None);
        };
        let languages = self.pool.languages;
        let found = replica.search(required, async |connection| {
            search::find(connection, languages, query).await
        });
        let page = found.await?;
        Ok(page.map(|(page, state)| SearchPage { state, ..page }))
    }

    /// Looks for a query that differs in one edit of a word and has hits.
    pub(in crate::store::postgres) async fn correct_on_replica(
        &self,
        query: &SearchQuery,
    ) -> Result<Option<Option<String>>, StoreError> {
        let subject = Subject::of_search(query);
        let Some((replica, required)) = self.admitted(query.state, subject).await else {
            return Ok(None);
        };
        let Some(correction) = Correction::new(query.text.as_str(), self.pool.languages) else {
            return Ok(Some(None));
        };
        let corrected = replica.search(required, async |connection| {
            let corrected = correction::examine(connection, query, correction).await;
            corrected.map_err(OperationError::of_search)
        });
        Ok(corrected.await?.map(|(corrected, _)| corrected))
    }

    /// Returns the replica, and what it must have applied, if a read may use it.
    async fn admitted(
        &self,
        state: MinState,
        subject: Subject<'_>,
    ) -> Option<(&Replica, Required)> {
        let replica = self.replica.as_ref()?;
        let required = replica.admit(state, subject).await?;
        Some((replica, required))
    }
}

impl<'a> Subject<'a> {
    fn of_search(query: &'a SearchQuery) -> Self {
        match query.conversation_id {
            Some(conversation) => Self::Conversation(conversation),
            None => Self::User(&query.user_id),
        }
    }
}
