//! Items of the long-term memory.

use std::{collections::HashMap, time::Instant};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;
use sqlx::query;

use super::{
    PostgresPool, PostgresStore, attempts, connection::PooledConnection, search::begin_search,
    store_connection::StoreConnection,
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

item_queries!(
    StoreConnection,
    DateTime<Utc>,
    "now()",
    "unnest($2) WITH ORDINALITY AS o (id, number) JOIN items i ON i.id = o.id",
    "o.number",
    to_bytes
);

/// Writes items. Rows are locked in the order of their ids, so that concurrent writes do not wait for
/// each other in a circle, and positions are in the order of the writes.
///
/// A deletion, whose value is NULL, writes a row that has expired: the row is locked also if another
/// transaction is creating it, so that batches of the same items take effect one after the other. An
/// expired row is replaced by a new item. Parameters: $1 owner, $2 time, $3 to $8 arrays of ids,
/// namespaces, keys, values, vectors and times to live.
const WRITE: &str = "
WITH numbered AS MATERIALIZED (
    SELECT n.*, nextval('item_positions') AS position
    FROM unnest($3, $4, $5, $6, $7, $8) AS n (id, namespace, key, value, vectors, ttl)
)
INSERT INTO items AS i (id, owner, namespace, position, key, value, vectors, ttl, expires_at,
                        created_at, updated_at)
SELECT n.id, $1, n.namespace, n.position, n.key, coalesce(n.value, ''), n.vectors,
       CASE WHEN n.value IS NULL THEN 1 ELSE n.ttl END,
       CASE WHEN n.value IS NULL THEN '-infinity' ELSE now() + n.ttl * interval '1 microsecond' END,
       $2, $2
FROM numbered n ORDER BY n.id
ON CONFLICT (id) DO UPDATE SET
    value = excluded.value, vectors = excluded.vectors, ttl = excluded.ttl,
    expires_at = excluded.expires_at,
    position = CASE WHEN i.expires_at <= now() THEN excluded.position ELSE i.position END,
    created_at = CASE WHEN i.expires_at <= now() THEN excluded.created_at ELSE i.created_at END,
    updated_at = CASE WHEN i.expires_at <= now() THEN excluded.updated_at
                      ELSE greatest(i.updated_at, excluded.updated_at) END
WHERE i.owner = $1";

/// Removes the rows of deleted items. A row that another write has locked is an item again, or is
/// removed with the expired ones. Parameter: $1 ids.
const REMOVE_DELETED: &str = "
DELETE FROM items WHERE id IN (
    SELECT i.id FROM items i WHERE i.id = ANY($1) AND i.expires_at = '-infinity'
    FOR UPDATE SKIP LOCKED)";

/// Deletes an item that belongs to the owner. Parameters: $1 owner, $2 id.
const DELETE: &str = "DELETE FROM items WHERE id = $2 AND owner = $1";

/// Restarts times to live. A row that another write has locked is skipped: that write sets it, or
/// deletes the item. Parameters: $1 owner, $2 ids.
const EXTEND: &str = "
UPDATE items SET expires_at = now() + ttl * interval '1 microsecond' WHERE id IN (
    SELECT i.id FROM items i WHERE i.owner = $1 AND i.id = ANY($2)
      AND i.expires_at > now() AND i.expires_at < now() + 0.99 * i.ttl * interval '1 microsecond'
    FOR UPDATE SKIP LOCKED)";

/// Removes expired items. Parameter: $1 limit.
const REMOVE_EXPIRED: &str = "
DELETE FROM items WHERE id IN (
    SELECT i.id FROM items i WHERE i.expires_at <= now()
    ORDER BY i.expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)";

/// Number of expired items that a statement removes.
const REMOVED_AT_ONCE: i64 = 500;

#[async_trait]
impl ItemStore for PostgresStore {
    async fn read_items(
        &self,
        owner: &ItemOwner,
        ids: &[ItemId],
    ) -> Result<Vec<Option<StoredItem>>, StoreError> {
        attempts::read(&self.pool, || read_items(&self.pool, owner, ids)).await
    }

    async fn write_items(
        &self,
        owner: &ItemOwner,
        writes: &[ItemWrite],
        at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        attempts::write(&self.pool, |_| write(&self.pool, owner, writes, at)).await
    }

    async fn search_items(&self, search: &ItemSearch) -> Result<ItemHits, StoreError> {
        attempts::read(&self.pool, || search_items(&self.pool, search)).await
    }

    async fn list_namespaces(&self, query: &NamespaceQuery) -> Result<NamespacePage, StoreError> {
        attempts::read(&self.pool, || list(&self.pool, query)).await
    }

    async fn extend_items(&self, owner: &ItemOwner, ids: &[ItemId]) -> Result<(), StoreError> {
        attempts::write(&self.pool, |_| extend(&self.pool, owner, ids)).await
    }

    async fn remove_expired_items(&self) -> Result<bool, StoreError> {
        attempts::write(&self.pool, |_| remove_expired(&self.pool)).await
    }
}

async fn read_items(
    pool: &PostgresPool,
    owner: &ItemOwner,
    ids: &[ItemId],
) -> Result<Vec<Option<StoredItem>>, OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let items = read(&mut connection, owner, ids).await;
    connection.release(items).await
}

async fn write(
    pool: &PostgresPool,
    owner: &ItemOwner,
    writes: &[ItemWrite],
    at: DateTime<Utc>,
) -> Result<(), OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let written = match writes {
        [ItemWrite { id, put: None, .. }] => {
            let deletion = query(DELETE).bind(owner.as_str()).bind(id.as_bytes());
            deletion.execute(&mut *connection).await.map(drop)
        }
        _ => write_all(&mut connection, owner, writes, at).await,
    };
    connection
        .release(written.map_err(OperationError::from))
        .await
}

async fn write_all(
    connection: &mut StoreConnection,
    owner: &ItemOwner,
    writes: &[ItemWrite],
    at: DateTime<Utc>,
) -> sqlx::Result<()> {
    let ids: Vec<&[u8]> = writes.iter().map(|it| it.id.as_bytes()).collect();
    let namespaces: Vec<Vec<u8>> = writes.iter().map(|it| it.namespace.to_bytes()).collect();
    let keys: Vec<&str> = writes.iter().map(|it| it.key.as_str()).collect();
    let puts = || writes.iter().map(|it| it.put.as_ref());
    let values: Vec<Option<&str>> = puts().map(|put| Some(put?.value.as_str())).collect();
    let vectors = puts().map(|put| Embedding::encode(put.map_or(&[], |put| &put.vectors)));
    let ttls = puts().map(|put| put?.ttl.map(ItemTtl::as_micros));
    query(WRITE)
        .bind(owner.as_str())
        .bind(at)
        .bind(ids)
        .bind(namespaces)
        .bind(keys)
        .bind(values)
        .bind(vectors.collect::<Vec<Vec<u8>>>())
        .bind(ttls.collect::<Vec<Option<i64>>>())
        .execute(&mut *connection)
        .await?;
    let deleted = writes.iter().filter(|write| write.put.is_none());
    let deleted: Vec<&[u8]> = deleted.map(|write| write.id.as_bytes()).collect();
    if !deleted.is_empty() {
        let removal = query(REMOVE_DELETED).bind(deleted);
        removal.execute(connection).await?;
    }
    Ok(())
}

async fn search_items(pool: &PostgresPool, query: &ItemSearch) -> Result<ItemHits, OperationError> {
    let (permit, mut connection) = begin_search(pool).await?;
    let hits = search(&mut connection, query, Instant::now() + SEARCH_TIME).await;
    permit.end();
    connection
        .release(hits.map_err(OperationError::of_search))
        .await
}

async fn list(
    pool: &PostgresPool,
    query: &NamespaceQuery,
) -> Result<NamespacePage, OperationError> {
    let (permit, mut connection) = begin_search(pool).await?;
    let page = list_namespaces(&mut connection, query, Instant::now() + SEARCH_TIME).await;
    permit.end();
    connection
        .release(page.map_err(OperationError::of_search))
        .await
}

async fn extend(
    pool: &PostgresPool,
    owner: &ItemOwner,
    ids: &[ItemId],
) -> Result<(), OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let extended = query(EXTEND)
        .bind(owner.as_str())
        .bind(to_bytes(ids))
        .execute(&mut *connection)
        .await;
    connection
        .release(extended.map(drop).map_err(OperationError::from))
        .await
}

async fn remove_expired(pool: &PostgresPool) -> Result<bool, OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let removed = query(REMOVE_EXPIRED)
        .bind(REMOVED_AT_ONCE)
        .execute(&mut *connection)
        .await;
    let removed = connection
        .release(removed.map_err(OperationError::from))
        .await?;
    Ok(removed.rows_affected() == REMOVED_AT_ONCE.unsigned_abs())
}

fn to_bytes(ids: &[ItemId]) -> Vec<&[u8]> {
    ids.iter().map(ItemId::as_bytes).collect()
}
