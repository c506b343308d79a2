//! The store in a file, for a sidecar that needs no service beside it.
//!
//! All writes of a process go through one connection, each in a transaction
//! that takes the file's write lock at its beginning. Readers have connections of
//! their own and see the last commit. Several processes may share a file.

mod append;
mod branches;
mod codes;
mod connection;
mod conversations;
mod history;
mod import;
mod prepare;
mod removal;
mod search;
mod search_syntax;
mod snapshot;

use std::{fmt, io, path::Path, sync::Arc};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::{Sqlite, sqlite::SqliteConnectOptions};

use super::{
    Append, Appended, Bound, Branch, ConversationPage, ConversationQuery, Import, SchemaError,
    SearchPage, SearchQuery, Snapshot, Store, StoreError, Truncated, Truncation,
    failure::OperationError, files::Files, pool, sql,
};
use crate::domain::{
    Conversation, ConversationChanges, ConversationRef, Message, NewConversation, SessionId,
    TextSearch, UserId,
};

pub(super) use self::codes::failure;

type Pool = pool::Pool<Sqlite>;
type ConversationRow = super::rows::ConversationRow<uuid::fmt::Hyphenated, connection::Micros>;
type MessageRow = super::rows::MessageRow<uuid::fmt::Hyphenated, connection::Micros>;

/// Conversations in an SQLite file.
pub struct SqliteStore {
    options: SqliteConnectOptions,
    writer: Arc<Pool>,
    readers: Pool,
    /// How many more exports and imports there may be.
    files: Files,
    text_search: TextSearch,
}

impl SqliteStore {
    /// A store in this file, which [`Store::prepare`] creates. Makes the folder
    /// that the file is in, for nobody else to look into. Needs a Tokio runtime
    /// around it.
    pub fn open(file: &Path) -> io::Result<Self> {
        Self::with_text_search(file, TextSearch::default())
    }

    /// The same, where messages are to be searched in this way. Where they were in
    /// another one, [`Store::prepare`] makes their index anew.
    pub fn with_text_search(file: &Path, text_search: TextSearch) -> io::Result<Self> {
        connection::make_folder(file)?;
        let options = connection::options(file);
        Ok(Self {
            writer: Arc::new(connection::writer(options.clone())),
            readers: connection::readers(options.clone()),
            files: Files::new(connection::FILES),
            options,
            text_search,
        })
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("file", &self.options.get_filename())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn prepare(&self, migrate: bool) -> Result<(), SchemaError> {
        prepare::prepare(&self.options, self.text_search, migrate).await
    }

    async fn create(
        &self,
        new: &NewConversation,
        at: DateTime<Utc>,
    ) -> Result<Conversation, StoreError> {
        conversations::create(&self.writer, new, at)
            .await
            .map_err(OperationError::of_read)
    }

    async fn get(&self, conversation: &ConversationRef) -> Result<Conversation, StoreError> {
        conversations::get(&self.readers, conversation)
            .await
            .map_err(OperationError::of_read)
    }

    async fn attach_session(
        &self,
        conversation: &ConversationRef,
        session: SessionId,
    ) -> Result<Conversation, StoreError> {
        conversations::attach_session(&self.readers, &self.writer, conversation, session)
            .await
            .map_err(OperationError::of_read)
    }

    async fn conversation_of_session(
        &self,
        session: SessionId,
        user: &UserId,
    ) -> Result<Option<Conversation>, StoreError> {
        conversations::of_session(&self.readers, session, user)
            .await
            .map_err(OperationError::of_read)
    }

    async fn list(&self, query: &ConversationQuery) -> Result<ConversationPage, StoreError> {
        conversations::list(&self.readers, query)
            .await
            .map_err(OperationError::of_read)
    }

    async fn update(
        &self,
        conversation: &ConversationRef,
        changes: &ConversationChanges,
        at: DateTime<Utc>,
    ) -> Result<Conversation, StoreError> {
        conversations::update(&self.readers, &self.writer, conversation, changes, at)
            .await
            .map_err(OperationError::of_read)
    }

    async fn delete(&self, conversation: &ConversationRef) -> Result<(), StoreError> {
        removal::delete(&self.writer, conversation)
            .await
            .map_err(OperationError::of_read)
    }

    async fn append(&self, append: &Append) -> Result<Appended, StoreError> {
        append::append(&self.writer, append)
            .await
            .map_err(OperationError::of_read)
    }

    async fn branch(&self, branch: &Branch) -> Result<Conversation, StoreError> {
        branches::branch(&self.writer, branch)
            .await
            .map_err(OperationError::of_read)
    }

    async fn branches(
        &self,
        conversation: &ConversationRef,
        after: Option<i64>,
        limit: u32,
    ) -> Result<ConversationPage, StoreError> {
        branches::list(&self.readers, conversation, after, limit)
            .await
            .map_err(OperationError::of_read)
    }

    async fn truncate(&self, truncation: &Truncation) -> Result<Truncated, StoreError> {
        removal::truncate(&self.writer, truncation)
            .await
            .map_err(OperationError::of_read)
    }

    async fn newest(
        &self,
        conversation: &ConversationRef,
        limit: u32,
        contexts: bool,
    ) -> Result<(Conversation, Vec<Message>), StoreError> {
        history::newest(&self.readers, conversation, limit, contexts)
            .await
            .map_err(OperationError::of_read)
    }

    async fn messages(
        &self,
        conversation: &ConversationRef,
        from: Bound,
        limit: u32,
        contexts: bool,
    ) -> Result<Vec<Message>, StoreError> {
        history::messages(&self.readers, conversation, from, limit, contexts)
            .await
            .map_err(OperationError::of_read)
    }

    async fn snapshot(
        &self,
        conversation: &ConversationRef,
    ) -> Result<(Conversation, Box<dyn Snapshot>), StoreError> {
        let file = self.files.open()?;
        snapshot::take(&self.options, conversation, file)
            .await
            .map_err(OperationError::of_read)
    }

    async fn import(&self, conversation: &Conversation) -> Result<Box<dyn Import>, StoreError> {
        let file = self.files.open()?;
        import::begin(&self.options, &self.writer, conversation, file)
            .await
            .map_err(OperationError::of_read)
    }

    async fn search(&self, query: &SearchQuery) -> Result<SearchPage, StoreError> {
        search::search(&self.readers, self.text_search, query)
            .await
            .map_err(OperationError::of_read)
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}
