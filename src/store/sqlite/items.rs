//! Items of the long-term memory.

use std::{collections::HashMap, time::Instant};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use data_encoding::HEXUPPER;
use futures_util::TryStreamExt as _;
use sqlx::{SqliteConnection, query};

use super::{
    SqlitePool, SqliteStore,
    connection::{self, Micros},
    read as read_only,
    search::LimitedSearcher,
};
use crate::{
    domain::{Embedding, ItemId, ItemOwner, ItemTtl, Message},
    store::{
        ItemHit, ItemHits, ItemSearch, ItemStore, ItemWrite, NamespacePage, NamespaceQuery,
        StoreError, StoredItem,
        items::{
            CHUNK, HitCollector, ItemRow, NamespaceCollector, decode_id, decode_namespace,
            item_queries,
        },
        operation_error::OperationError,
        search_limit::SEARCH_TIME,
    },
};

/// Current time in microseconds.
macro_rules! now {
    () => {
        "CAST(unixepoch('subsec') * 1000000 AS INTEGER)"
    };
}

item_queries!(
    SqliteConnection,
    Micros,
    now!(),
    "json_each($2) o CROSS JOIN items i ON i.id = unhex(o.value)",
    "o.key",
    to_json
);

/// Parameters: $1 id, $2 owner.
const DELETE: &str = "DELETE FROM items WHERE id = $1 AND owner = $2";

/// Parameter: $1 id.
const DELETE_EXPIRED: &str = concat!("DELETE FROM items WHERE id = $1 AND expires_at <= ", now!());

/// Parameters: $1 id, $2 owner, $3 namespace, $4 key, $5 value, $6 vectors, $7 time to live, $8 time.
const PUT: &str = concat!(
    "INSERT INTO items (id, owner, namespace, key, value, vectors, ttl, expires_at, created_at, \
                        updated_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $7 + ",
    now!(),
    ", $8, $8) ON CONFLICT (id) DO UPDATE SET \
        value = excluded.value, vectors = excluded.vectors, ttl = excluded.ttl, \
        expires_at = excluded.expires_at, updated_at = max(updated_at, excluded.updated_at)"
);

/// Parameters: $1 owner, $2 ids.
const EXTEND: &str = concat!(
    "UPDATE items SET expires_at = ttl + ",
    now!(),
    " WHERE owner = $1 AND id IN (SELECT unhex(o.value) FROM json_each($2) o) AND expires_at > ",
    now!(),
    " AND expires_at < ttl * 0.99 + ",
    now!()
);

/// Parameter: $1 limit.
const REMOVE_EXPIRED: &str = concat!(
    "DELETE FROM items WHERE position IN (SELECT i.position FROM items i WHERE i.expires_at <= ",
    now!(),
    " ORDER BY i.expires_at LIMIT CAST($1 AS INTEGER))"
);

/// Number of expired items that a transaction removes. Their bytes are overwritten, for which other
/// writes wait.
const REMOVED_AT_ONCE: i64 = 32;

#[async_trait]
impl ItemStore for SqliteStore {
    async fn read_items(
        &self,
        owner: &ItemOwner,
        ids: &[ItemId],
    ) -> Result<Vec<Option<StoredItem>>, StoreError> {
        read_only(async {
            let mut reader = connection::reader(&self.readers).await?;
            read(&mut reader, owner, ids).await
        })
        .await
    }

    async fn write_items(
        &self,
        owner: &ItemOwner,
        writes: &[ItemWrite],
        at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        self.write(|| write(&self.writer, owner, writes, at)).await
    }

    async fn search_items(&self, query: &ItemSearch) -> Result<ItemHits, StoreError> {
        read_only(async {
            let mut searcher = LimitedSearcher::acquire(&self.searchers, &self.searches).await?;
            let deadline = Instant::now() + SEARCH_TIME;
            let hits = search(&mut searcher.connection, query, deadline).await;
            searcher.end(hits)
        })
        .await
    }

    async fn list_namespaces(&self, query: &NamespaceQuery) -> Result<NamespacePage, StoreError> {
        read_only(async {
            let mut searcher = LimitedSearcher::acquire(&self.searchers, &self.searches).await?;
            let deadline = Instant::now() + SEARCH_TIME;
            let page = list_namespaces(&mut searcher.connection, query, deadline).await;
            searcher.end(page)
        })
        .await
    }

    async fn extend_items(&self, owner: &ItemOwner, ids: &[ItemId]) -> Result<(), StoreError> {
        self.write(|| async move {
            let statement = query(EXTEND).bind(owner.as_str()).bind(to_json(ids));
            let mut transaction = connection::begin(&self.writer).await?;
            let extended = statement.execute(&mut *transaction).await;
            connection::end(transaction, extended.map(drop).map_err(Into::into)).await
        })
        .await
    }

    async fn remove_expired_items(&self) -> Result<bool, StoreError> {
        self.write(|| async move {
            let mut transaction = connection::begin(&self.writer).await?;
            let removed = query(REMOVE_EXPIRED)
                .bind(REMOVED_AT_ONCE)
                .execute(&mut *transaction)
                .await;
            let removed = connection::end(transaction, removed.map_err(Into::into)).await?;
            Ok(removed.rows_affected() == REMOVED_AT_ONCE.unsigned_abs())
        })
        .await
    }
}

async fn write(
    writer: &SqlitePool,
    owner: &ItemOwner,
    writes: &[ItemWrite],
    at: DateTime<Utc>,
) -> Result<(), OperationError> {
    let mut transaction = connection::begin(writer).await?;
    let written = write_each(&mut transaction, owner, writes, at).await;
    connection::end(transaction, written).await
}

async fn write_each(
    connection: &mut SqliteConnection,
    owner: &ItemOwner,
    writes: &[ItemWrite],
    at: DateTime<Utc>,
) -> Result<(), OperationError> {
    for write in writes {
        let id = write.id.as_bytes();
        let Some(item) = &write.put else {
            let deletion = query(DELETE).bind(id).bind(owner.as_str());
            deletion.execute(&mut *connection).await?;
            continue;
        };
        query(DELETE_EXPIRED)
            .bind(id)
            .execute(&mut *connection)
            .await?;
        query(PUT)
            .bind(id)
            .bind(owner.as_str())
            .bind(write.namespace.to_bytes())
            .bind(write.key.as_str())
            .bind(item.value.as_str())
            .bind(Embedding::encode(&item.vectors))
            .bind(item.ttl.map(ItemTtl::as_micros))
            .bind(Micros::from(at))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

fn to_json(ids: &[ItemId]) -> String {
    let ids = ids.iter().map(|id| HEXUPPER.encode(id.as_bytes()));
    ids.collect::<serde_json::Value>().to_string()
}
