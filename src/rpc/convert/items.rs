//! Conversion of operations on items.

use crate::{
    domain::{
        Embedding, InvalidValue, ItemFilter, ItemId, ItemKey, ItemOwner, ItemTtl, ItemValue,
        Namespace, NamespaceCondition, UserId, non_negative,
    },
    memory::{FoundItems, FoundNamespaces, ItemBatchOutcome, ItemOperation, ItemResult, Memory},
    proto::{
        self, NamespaceMatchType, item_operation::Operation, item_result::Result as ResultKind,
        timestamp,
    },
    rpc::{
        convert::parse::{clamp, optional},
        field::{FieldViolation, InField as _},
    },
    store::{ItemSearch, ItemWrite, MAX_EXAMINED, NamespaceQuery, NewItem, StoredItem},
};

const DEFAULT_SEARCH_LIMIT: u32 = 10;
const DEFAULT_LIST_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1_000;
const MAX_CONDITIONS: usize = 16;

/// Parses the owner of items: a user, or the application if there is none.
pub(crate) fn owner(user_id: &str) -> Result<ItemOwner, FieldViolation> {
    Ok(ItemOwner::new(optional(user_id, "user_id", UserId::parse)?))
}

/// Parser of items, with the limit on their values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ItemParser {
    pub(crate) max_value_bytes: usize,
}

impl ItemParser {
    /// Parses the operations of a batch.
    pub(crate) fn operations(
        self,
        owner: &ItemOwner,
        request: proto::BatchItemsRequest,
    ) -> Result<Vec<ItemOperation>, FieldViolation> {
        let max = Memory::MAX_ITEM_OPERATIONS;
        if request.operations.is_empty() || request.operations.len() > max {
            let reason = InvalidValue::new(format!("must have 1 to {max} operations"));
            return Err(FieldViolation::new("operations", reason));
        }
        let operations = request.operations.into_iter().enumerate();
        let operations = operations.map(|(index, operation)| {
            self.operation(owner, operation)
                .map_err(|violation| violation.below(&format!("operations[{index}]")))
        });
        let operations: Vec<ItemOperation> = operations.collect::<Result<_, _>>()?;
        let is_search = |operation: &&ItemOperation| {
            matches!(
                operation,
                ItemOperation::Search { .. } | ItemOperation::ListNamespaces(_)
            )
        };
        if operations.iter().filter(is_search).count() > Memory::MAX_ITEM_SEARCHES {
            let max = Memory::MAX_ITEM_SEARCHES;
            let reason = format!("must have at most {max} searches and lists of namespaces");
            return Err(FieldViolation::new("operations", InvalidValue::new(reason)));
        }
        Ok(operations)
    }

    fn operation(
        self,
        owner: &ItemOwner,
        operation: proto::ItemOperation,
    ) -> Result<ItemOperation, FieldViolation> {
        let (name, user_id) = match &operation.operation {
            Some(Operation::Get(it)) => ("get", &it.user_id),
            Some(Operation::Put(it)) => ("put", &it.user_id),
            Some(Operation::Delete(it)) => ("delete", &it.user_id),
            Some(Operation::Search(it)) => ("search", &it.user_id),
            Some(Operation::ListNamespaces(it)) => ("list_namespaces", &it.user_id),
            None => {
                let reason = InvalidValue::new("is required");
                return Err(FieldViolation::new("operation", reason));
            }
        };
        if !user_id.is_empty() && user_id != owner.as_str() {
            let reason = InvalidValue::new("must be empty or that of the batch");
            return Err(FieldViolation::new(format!("{name}.user_id"), reason));
        }
        let parsed = match operation.operation {
            Some(Operation::Get(request)) => get(owner, request),
            Some(Operation::Put(request)) => self.put(owner, request),
            Some(Operation::Delete(request)) => delete(owner, request),
            Some(Operation::Search(request)) => search(owner, request),
            Some(Operation::ListNamespaces(request)) => list_namespaces(owner, request),
            None => Err(FieldViolation::new("", InvalidValue::new("is required"))),
        };
        parsed.map_err(|violation| violation.below(name))
    }

    /// Parses the creation or replacement of an item.
    pub(crate) fn put(
        self,
        owner: &ItemOwner,
        request: proto::PutItemRequest,
    ) -> Result<ItemOperation, FieldViolation> {
        let (id, namespace, key) = address(owner, request.namespace, request.key)?;
        let value = ItemValue::parse(request.value, self.max_value_bytes).in_field("value")?;
        let ttl = request.ttl_minutes.map(ItemTtl::from_minutes);
        let max = Embedding::MAX_PER_ITEM;
        if request.vectors.len() > max {
            let reason = InvalidValue::new(format!("must have at most {max} vectors"));
            return Err(FieldViolation::new("vectors", reason));
        }
        let vectors = request.vectors.into_iter().enumerate();
        let vectors =
            vectors.map(|(index, vector)| embedding(vector, &format!("vectors[{index}]")));
        Ok(ItemOperation::Write(ItemWrite {
            id,
            namespace,
            key,
            put: Some(NewItem {
                value,
                ttl: ttl.transpose().in_field("ttl_minutes")?,
                vectors: vectors.collect::<Result<_, _>>()?,
            }),
        }))
    }
}

/// Parses the read of an item.
pub(crate) fn get(
    owner: &ItemOwner,
    request: proto::GetItemRequest,
) -> Result<ItemOperation, FieldViolation> {
    let (id, ..) = address(owner, request.namespace, request.key)?;
    Ok(ItemOperation::Get {
        id,
        refresh: request.refresh_ttl,
    })
}

/// Parses the deletion of an item.
pub(crate) fn delete(
    owner: &ItemOwner,
    request: proto::DeleteItemRequest,
) -> Result<ItemOperation, FieldViolation> {
    let (id, namespace, key) = address(owner, request.namespace, request.key)?;
    Ok(ItemOperation::Write(ItemWrite {
        id,
        namespace,
        key,
        put: None,
    }))
}

/// Parses a search for items.
pub(crate) fn search(
    owner: &ItemOwner,
    request: proto::SearchItemsRequest,
) -> Result<ItemOperation, FieldViolation> {
    let vector = request.query_vector;
    let search = ItemSearch {
        owner: owner.clone(),
        prefix: Namespace::parse_prefix(request.namespace_prefix).in_field("namespace_prefix")?,
        filter: optional(&request.filter, "filter", ItemFilter::parse)?,
        vector: vector
            .map(|vector| embedding(vector, "query_vector"))
            .transpose()?,
        limit: limit(request.limit, DEFAULT_SEARCH_LIMIT)?,
        offset: offset(request.offset)?,
    };
    Ok(ItemOperation::Search {
        search,
        refresh: request.refresh_ttl,
    })
}

/// Parses a list of namespaces.
pub(crate) fn list_namespaces(
    owner: &ItemOwner,
    request: proto::ListNamespacesRequest,
) -> Result<ItemOperation, FieldViolation> {
    if request.conditions.len() > MAX_CONDITIONS {
        let reason = InvalidValue::new(format!("must have at most {MAX_CONDITIONS} conditions"));
        return Err(FieldViolation::new("conditions", reason));
    }
    let conditions = request.conditions.into_iter().enumerate();
    let conditions = conditions.map(|(index, it)| {
        condition(it).map_err(|violation| violation.below(&format!("conditions[{index}]")))
    });
    let max_depth = match request.max_depth {
        None => None,
        Some(depth @ 1..) => usize::try_from(depth).ok(),
        Some(_) => {
            let reason = InvalidValue::new("must be 1 or more");
            return Err(FieldViolation::new("max_depth", reason));
        }
    };
    Ok(ItemOperation::ListNamespaces(NamespaceQuery {
        owner: owner.clone(),
        conditions: conditions.collect::<Result<_, _>>()?,
        max_depth,
        limit: limit(request.limit, DEFAULT_LIST_LIMIT)?,
        offset: offset(request.offset)?,
    }))
}

fn condition(condition: proto::NamespaceCondition) -> Result<NamespaceCondition, FieldViolation> {
    let is_suffix = match NamespaceMatchType::try_from(condition.match_type) {
        Ok(NamespaceMatchType::Prefix) => false,
        Ok(NamespaceMatchType::Suffix) => true,
        Ok(NamespaceMatchType::Unspecified) | Err(_) => {
            let reason = InvalidValue::new("must be PREFIX or SUFFIX");
            return Err(FieldViolation::new("match_type", reason));
        }
    };
    let labels = Namespace::parse_prefix(condition.labels).in_field("labels")?;
    Ok(NamespaceCondition { labels, is_suffix })
}

fn address(
    owner: &ItemOwner,
    namespace: Vec<String>,
    key: String,
) -> Result<(ItemId, Namespace, ItemKey), FieldViolation> {
    let namespace = Namespace::parse(namespace).in_field("namespace")?;
    let key = ItemKey::parse(key).in_field("key")?;
    Ok((ItemId::new(owner, &namespace, &key), namespace, key))
}

fn embedding(vector: proto::Vector, path: &str) -> Result<Embedding, FieldViolation> {
    Embedding::parse(vector.values).in_field(&format!("{path}.values"))
}

fn limit(limit: i32, default: u32) -> Result<u32, FieldViolation> {
    let limit = non_negative(limit.into()).in_field("limit")?;
    Ok(if limit == 0 {
        default
    } else {
        clamp(limit, MAX_LIMIT)
    })
}

fn offset(offset: i32) -> Result<u32, FieldViolation> {
    let offset = u32::try_from(offset).ok();
    let offset = offset.filter(|offset| *offset as usize <= MAX_EXAMINED);
    offset
        .ok_or_else(|| InvalidValue::new(format!("must be 0 to {MAX_EXAMINED}")))
        .in_field("offset")
}

/// Renders the results of a batch.
pub(crate) fn batch_response(outcome: ItemBatchOutcome) -> proto::BatchItemsResponse {
    let results = outcome.results.into_iter().map(|result| {
        let result = match result {
            ItemResult::Get(_) | ItemResult::Omitted => ResultKind::Get(item_response(result)),
            ItemResult::Put => ResultKind::Put(proto::PutItemResponse {}),
            ItemResult::Deleted => ResultKind::Delete(proto::DeleteItemResponse {}),
            ItemResult::Found(_) => ResultKind::Search(search_response(result)),
            ItemResult::Namespaces(_) => ResultKind::ListNamespaces(namespaces_response(result)),
        };
        proto::ItemResult {
            result: Some(result),
        }
    });
    proto::BatchItemsResponse {
        results: results.collect(),
        incomplete: outcome.is_incomplete,
    }
}

/// Renders the result of the read of an item.
pub(crate) fn item_response(result: ItemResult) -> proto::GetItemResponse {
    let omitted = matches!(result, ItemResult::Omitted);
    let item = match result {
        ItemResult::Get(item) => item.map(item_message),
        _ => None,
    };
    proto::GetItemResponse { item, omitted }
}

/// Renders the result of a search.
pub(crate) fn search_response(result: ItemResult) -> proto::SearchItemsResponse {
    let ItemResult::Found(FoundItems { items, next_offset }) = result else {
        return proto::SearchItemsResponse::default();
    };
    let items = items.into_iter().map(|(item, score)| proto::FoundItem {
        item: Some(item_message(item)),
        score,
    });
    proto::SearchItemsResponse {
        items: items.collect(),
        next_offset: next_offset.and_then(|offset| offset.try_into().ok()),
    }
}

/// Renders the result of a list of namespaces.
pub(crate) fn namespaces_response(result: ItemResult) -> proto::ListNamespacesResponse {
    let ItemResult::Namespaces(FoundNamespaces {
        namespaces,
        next_offset,
    }) = result
    else {
        return proto::ListNamespacesResponse::default();
    };
    let namespaces = namespaces.into_iter().map(|namespace| proto::Namespace {
        labels: namespace.into_labels(),
    });
    proto::ListNamespacesResponse {
        namespaces: namespaces.collect(),
        next_offset: next_offset.and_then(|offset| offset.try_into().ok()),
    }
}

fn item_message(item: StoredItem) -> proto::Item {
    proto::Item {
        namespace: item.namespace.into_labels(),
        key: item.key,
        value: item.value,
        created_at: Some(timestamp(item.created_at)),
        updated_at: Some(timestamp(item.updated_at)),
        expires_at: item.expires_at.map(timestamp),
    }
}
