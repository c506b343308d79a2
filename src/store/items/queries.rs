//! Reads of items, for both databases. They are a macro, because the types of connections and rows
//! differ.

use chrono::{DateTime, Utc};
use sqlx::FromRow;

use crate::{
    domain::{ItemId, Namespace},
    store::{
        StoredItem,
        operation_error::{BackendError, ErrorKind},
    },
};

/// Number of items or namespaces that a statement examines.
pub(in crate::store) const CHUNK: i64 = 500;

/// Row of an item. The databases store times as different types.
#[derive(FromRow)]
pub(in crate::store) struct ItemRow<Time> {
    id: Vec<u8>,
    namespace: Vec<u8>,
    key: String,
    value: String,
    created_at: Time,
    updated_at: Time,
    expires_at: Option<Time>,
}

impl<Time: Into<DateTime<Utc>>> ItemRow<Time> {
    pub(in crate::store) fn decode(self) -> Result<(ItemId, StoredItem), BackendError> {
        let item = StoredItem {
            namespace: decode_namespace(&self.namespace)?,
            key: self.key,
            value: self.value,
            created_at: self.created_at.into(),
            updated_at: self.updated_at.into(),
            expires_at: self.expires_at.map(Into::into),
        };
        Ok((decode_id(&self.id)?, item))
    }
}

pub(in crate::store) fn decode_id(bytes: &[u8]) -> Result<ItemId, BackendError> {
    ItemId::from_slice(bytes).ok_or_else(|| invalid("id"))
}

pub(in crate::store) fn decode_namespace(bytes: &[u8]) -> Result<Namespace, BackendError> {
    Namespace::from_bytes(bytes).ok_or_else(|| invalid("namespace"))
}

fn invalid(column: &str) -> BackendError {
    let cause = format!("the stored value of column {column} is not valid");
    BackendError::new(ErrorKind::Internal, cause)
}

/// Defines `read`, `search` and `list_namespaces` for a kind of connection and the type of its times.
/// `$now` is the current time, and `$requested` joins the items `i` with the requested ids `o` of $2,
/// whose order is `$order` and which `$bind_ids` converts.
macro_rules! item_queries {
    ($connection:ty, $time:ty, $now:expr, $requested:literal, $order:literal, $bind_ids:path) => {
        /// Parameters: $1 owner, $2 ids.
        const READ: &str = concat!(
            "SELECT i.id, i.namespace, i.key, i.value, i.created_at, i.updated_at, i.expires_at FROM ",
            $requested,
            " WHERE i.owner = $1 AND (i.expires_at IS NULL OR i.expires_at > ",
            $now,
            ") ORDER BY ",
            $order
        );

        /// Reads a page of ids in the order of the index. Parameters: $1 owner, $2 and $3 range of
        /// namespaces, $4 limit, $5 offset.
        const PAGE: &str = concat!(
            "SELECT i.id FROM items i \
             WHERE i.owner = $1 AND i.namespace >= $2 AND i.namespace < $3 \
               AND (i.expires_at IS NULL OR i.expires_at > ",
            $now,
            ") ORDER BY i.namespace, i.position \
             LIMIT CAST($4 AS BIGINT) OFFSET CAST($5 AS BIGINT)"
        );

        /// Reads the items after a place in the order of the index. Parameters: $1 owner, $2 namespace
        /// and $3 position of the place, $4 end of the namespaces, $5 whether to read values, $6
        /// whether to read vectors, $7 limit.
        const EXAMINED: &str = concat!(
            "SELECT i.id, i.namespace, i.position, \
                CASE WHEN $5 THEN i.value END AS value, CASE WHEN $6 THEN i.vectors END AS vectors \
             FROM items i \
             WHERE i.owner = $1 AND (i.namespace, i.position) > ($2, $3) AND i.namespace < $4 \
               AND (i.expires_at IS NULL OR i.expires_at > ",
            $now,
            ") ORDER BY i.namespace, i.position LIMIT CAST($7 AS BIGINT)"
        );

        /// Reads namespaces by one look-up in the index for each. Parameters: $1 owner, $2 and $3
        /// range of namespaces, $4 limit.
        const NAMESPACES: &str = concat!(
            "WITH RECURSIVE found (namespace, number) AS (\
                SELECT (SELECT i.namespace FROM items i WHERE i.owner = $1 \
                          AND i.namespace >= $2 AND i.namespace < $3 \
                          AND (i.expires_at IS NULL OR i.expires_at > ",
            $now,
            ") ORDER BY i.namespace LIMIT 1), CAST(1 AS BIGINT) \
                UNION ALL \
                SELECT (SELECT i.namespace FROM items i WHERE i.owner = $1 \
                          AND i.namespace > f.namespace AND i.namespace < $3 \
                          AND (i.expires_at IS NULL OR i.expires_at > ",
            $now,
            ") ORDER BY i.namespace LIMIT 1), f.number + 1 \
                FROM found f WHERE f.namespace IS NOT NULL AND f.number < $4) \
             SELECT f.namespace FROM found f WHERE f.namespace IS NOT NULL"
        );

        /// Reads items up to the size of a response.
        async fn read(
            connection: &mut $connection,
            owner: &ItemOwner,
            ids: &[ItemId],
        ) -> Result<Vec<Option<StoredItem>>, OperationError> {
            let mut rows = sqlx::query_as::<_, ItemRow<$time>>(READ)
                .bind(owner.as_str())
                .bind($bind_ids(ids))
                .fetch(connection);
            let (mut found, mut bytes, mut left_out) = (HashMap::new(), 0, None);
            // All rows are read, so that the connection can be used again.
            while let Some(row) = rows.try_next().await? {
                if left_out.is_some() {
                    continue;
                }
                let (id, item) = row.decode()?;
                bytes += item.footprint();
                if bytes > Message::MAX_BYTES_PER_RESPONSE && !found.is_empty() {
                    left_out = Some(id);
                } else {
                    found.insert(id, item);
                }
            }
            let complete = ids.iter().take_while(|id| Some(**id) != left_out);
            Ok(complete.map(|id| found.get(id).cloned()).collect())
        }

        /// Finds items. `deadline` ends a search of many statements.
        async fn search(
            connection: &mut $connection,
            search: &ItemSearch,
            deadline: Instant,
        ) -> Result<ItemHits, OperationError> {
            let mut hits = HitCollector::new(search);
            let (first, end) = search.prefix.range();
            if search.filter.is_none() && search.vector.is_none() {
                let mut rows = sqlx::query_scalar::<_, Vec<u8>>(PAGE)
                    .bind(search.owner.as_str())
                    .bind(first)
                    .bind(end)
                    .bind(i64::from(search.limit) + 1)
                    .bind(i64::from(search.offset))
                    .fetch(connection);
                let mut page = ItemHits::default();
                while let Some(id) = rows.try_next().await? {
                    page.more = page.hits.len() == search.limit as usize;
                    if !page.more {
                        let id = decode_id(&id)?;
                        page.hits.push(ItemHit { id, score: None });
                    }
                }
                return Ok(page);
            }
            let mut after = (first, 0_i64);
            loop {
                let mut rows = sqlx::query_as::<
                    _,
                    (Vec<u8>, Vec<u8>, i64, Option<String>, Option<Vec<u8>>),
                >(EXAMINED)
                .bind(search.owner.as_str())
                .bind(&after.0)
                .bind(after.1)
                .bind(&end)
                .bind(search.filter.is_some())
                .bind(search.vector.is_some())
                .bind(CHUNK)
                .fetch(&mut *connection);
                let (mut last, mut examined, mut is_open) = (None, 0, true);
                while let Some(row) = rows.try_next().await? {
                    let (id, namespace, position, value, vectors) = row;
                    examined += 1;
                    if is_open {
                        is_open = hits.add(decode_id(&id)?, value.as_deref(), vectors.as_deref())?;
                        // A value or a vector takes long to compare.
                        tokio::task::consume_budget().await;
                    }
                    last = Some((namespace, position));
                }
                drop(rows);
                match last {
                    Some(last) if is_open && examined == CHUNK => after = last,
                    _ => return Ok(hits.into_hits()),
                }
                if Instant::now() > deadline {
                    return Err(StoreError::SearchTooExpensive.into());
                }
            }
        }

        /// Lists namespaces. `deadline` is as in [`search`].
        async fn list_namespaces(
            connection: &mut $connection,
            query: &NamespaceQuery,
            deadline: Instant,
        ) -> Result<NamespacePage, OperationError> {
            let mut page = NamespaceCollector::new(query);
            let (mut first, end) = query.prefix().range();
            loop {
                let found: Vec<Vec<u8>> = sqlx::query_scalar(NAMESPACES)
                    .bind(query.owner.as_str())
                    .bind(&first)
                    .bind(&end)
                    .bind(CHUNK)
                    .fetch_all(&mut *connection)
                    .await?;
                let mut is_open = i64::try_from(found.len()) == Ok(CHUNK);
                for bytes in &found {
                    is_open &= page.add(decode_namespace(bytes)?)?;
                }
                match found.into_iter().next_back() {
                    // The next bytes in order are these and a zero.
                    Some(last) if is_open => first = [last.as_slice(), &[0]].concat(),
                    _ => return Ok(page.into_page()),
                }
                if Instant::now() > deadline {
                    return Err(StoreError::SearchTooExpensive.into());
                }
            }
        }
    };
}
pub(in crate::store) use item_queries;
