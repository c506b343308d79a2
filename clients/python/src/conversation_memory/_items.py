"""Items of the long-term memory: their types, and their conversion."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal

from ._limits import MAX_METADATA_DEPTH
from ._proto.v1 import store_service_pb2 as api

MAX_OPERATIONS = 1000
"""Upper bound on the operations of one request."""

MAX_SEARCHES = 50
"""Upper bound on the operations of one request that search or list namespaces."""

MAX_PAGE = 1000
"""Upper bound on the results of a search in one request."""


@dataclass(frozen=True, slots=True)
class Item:
    """A JSON object under a namespace and a key."""

    namespace: tuple[str, ...]
    """Labels of the namespace."""
    key: str
    """Key within the namespace."""
    value: dict[str, Any]
    """The object."""
    created_at: datetime
    """Time of the write that created the item."""
    updated_at: datetime
    """Time of the latest write."""
    expires_at: datetime | None = None
    """Time at which the item expires; `None` if it does not."""


@dataclass(frozen=True, slots=True)
class FoundItem:
    """An item that a search has found."""

    item: Item
    """The item."""
    score: float | None = None
    """Similarity to the query vector, -1 to 1; `None` without one, or if the item has no vector of
    its dimension."""


@dataclass(frozen=True, slots=True)
class GetItem:
    """Read of an item. Its result is an `Item`, or `None` if there is none."""

    namespace: Sequence[str]
    """Labels of the namespace."""
    key: str
    """Key of the item."""
    refresh_ttl: bool = False
    """Whether the time to live of the item starts again."""


@dataclass(frozen=True, slots=True)
class PutItem:
    """Creation or replacement of an item. Its result is `None`."""

    namespace: Sequence[str]
    """Labels of the namespace."""
    key: str
    """Key of the item."""
    value: Mapping[str, Any]
    """JSON object."""
    ttl_minutes: float | None = None
    """Minutes after which the item expires; `None` if it does not."""
    vectors: Sequence[Sequence[float]] = ()
    """Vectors by which the item is found."""


@dataclass(frozen=True, slots=True)
class DeleteItem:
    """Deletion of an item. Its result is `None`."""

    namespace: Sequence[str]
    """Labels of the namespace."""
    key: str
    """Key of the item."""


@dataclass(frozen=True, slots=True)
class SearchItems:
    """Search for items. Its result is a list of `FoundItem`."""

    namespace_prefix: Sequence[str] = ()
    """First labels of the namespaces."""
    filter: Mapping[str, Any] | None = None
    """Conditions on the values."""
    query_vector: Sequence[float] | None = None
    """Vector by which the items are ordered."""
    limit: int = 10
    """Maximum number of items."""
    offset: int = 0
    """Number of items to skip."""
    refresh_ttl: bool = False
    """Whether the time to live of the items starts again."""


@dataclass(frozen=True, slots=True)
class NamespaceCondition:
    """Condition on a namespace."""

    match: Literal["prefix", "suffix"]
    """Whether the labels are the first or the last ones."""
    labels: Sequence[str]
    """The labels; `*` matches any label."""


@dataclass(frozen=True, slots=True)
class ListNamespaces:
    """List of the namespaces that contain items. Its result is a list of tuples of labels."""

    conditions: Sequence[NamespaceCondition] = ()
    """Conditions that a namespace must fulfil."""
    max_depth: int | None = None
    """Number of labels to which namespaces are shortened."""
    limit: int = 100
    """Maximum number of namespaces."""
    offset: int = 0
    """Number of namespaces to skip."""


ItemOperation = GetItem | PutItem | DeleteItem | SearchItems | ListNamespaces
"""Operation of a batch."""

ItemResult = Item | list[FoundItem] | list[tuple[str, ...]] | None
"""Result of an operation."""


def write_json(value: Mapping[str, Any], path: str = "value") -> str:
    """Encodes a JSON object.

    Raises:
        TypeError: A value is not a JSON value, or a key is no text.
        ValueError: A number is not finite, a text has lone surrogates, or the nesting is too deep.
    """
    text = json.dumps(_plain(value, path, MAX_METADATA_DEPTH), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{path} has a text with a lone surrogate") from None
    return text


def _plain(value: Any, path: str, levels: int) -> Any:
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{path} must have finite numbers only")
        return value
    if isinstance(value, Mapping):
        _check_levels(levels, path)
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"{path} must have strings as keys")
        return {key: _plain(item, path, levels - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        _check_levels(levels, path)
        return [_plain(item, path, levels - 1) for item in value]
    raise TypeError(f"{path} must have JSON values only, not {type(value).__name__}")


def _check_levels(levels: int, path: str) -> None:
    if levels == 0:
        raise ValueError(f"{path} must be at most {MAX_METADATA_DEPTH} levels deep")


@dataclass(slots=True)
class Pending:
    """An operation whose result is not complete."""

    index: int
    """Position of the operation in the batch."""
    operation: ItemOperation
    found: list[Any] = field(default_factory=list)
    """Results that have been read so far."""
    next_offset: int | None = None
    """Offset of the results that are missing; `None` before the first request."""
    is_complete: bool = False
    result: ItemResult = None

    @property
    def is_write(self) -> bool:
        """Whether the operation writes."""
        return isinstance(self.operation, (PutItem, DeleteItem))

    @property
    def is_search(self) -> bool:
        """Whether the operation counts as a search."""
        return isinstance(self.operation, (SearchItems, ListNamespaces))

    @property
    def has_pages(self) -> bool:
        """Whether one request cannot return all results."""
        operation = self.operation
        return isinstance(operation, (SearchItems, ListNamespaces)) and operation.limit > MAX_PAGE

    def write(self) -> api.ItemOperation:
        """Encodes the operation, for the results that are missing.

        Raises:
            TypeError: A value is not a JSON value.
            ValueError: A value cannot be stored unchanged, or a limit or an offset is negative.
        """
        operation = self.operation
        if isinstance(operation, GetItem):
            get = api.GetItemRequest(
                namespace=operation.namespace,
                key=operation.key,
                refresh_ttl=operation.refresh_ttl,
            )
            return api.ItemOperation(get=get)
        if isinstance(operation, PutItem):
            put = api.PutItemRequest(
                namespace=operation.namespace,
                key=operation.key,
                value=write_json(operation.value),
                ttl_minutes=operation.ttl_minutes,
                vectors=[api.Vector(values=values) for values in operation.vectors],
            )
            return api.ItemOperation(put=put)
        if isinstance(operation, DeleteItem):
            delete = api.DeleteItemRequest(namespace=operation.namespace, key=operation.key)
            return api.ItemOperation(delete=delete)
        limit, offset = self._rest(operation.limit, operation.offset)
        if isinstance(operation, SearchItems):
            vector = operation.query_vector
            search = api.SearchItemsRequest(
                namespace_prefix=operation.namespace_prefix,
                filter=write_json(operation.filter, "filter") if operation.filter else "",
                limit=limit,
                offset=offset,
                query_vector=None if vector is None else api.Vector(values=vector),
                refresh_ttl=operation.refresh_ttl,
            )
            return api.ItemOperation(search=search)
        conditions = [
            api.NamespaceCondition(
                match_type=(
                    api.NAMESPACE_MATCH_TYPE_PREFIX
                    if condition.match == "prefix"
                    else api.NAMESPACE_MATCH_TYPE_SUFFIX
                ),
                labels=condition.labels,
            )
            for condition in operation.conditions
        ]
        listing = api.ListNamespacesRequest(
            conditions=conditions, max_depth=operation.max_depth, limit=limit, offset=offset
        )
        return api.ItemOperation(list_namespaces=listing)

    def _rest(self, limit: int, offset: int) -> tuple[int, int]:
        next_offset = offset if self.next_offset is None else self.next_offset
        return min(limit - len(self.found), MAX_PAGE), next_offset

    def read(self, result: api.ItemResult) -> None:
        """Decodes a result."""
        kind = result.WhichOneof("result")
        if kind == "get":
            self.is_complete = not result.get.omitted
            self.result = read_item(result.get.item) if result.get.HasField("item") else None
        elif kind == "search":
            self._add([read_found(found) for found in result.search.items], result.search)
        elif kind == "list_namespaces":
            listed = result.list_namespaces
            self._add([tuple(namespace.labels) for namespace in listed.namespaces], listed)
        else:
            self.is_complete = True

    def _add(
        self, found: list[Any], page: api.SearchItemsResponse | api.ListNamespacesResponse
    ) -> None:
        self.found += found
        assert isinstance(self.operation, (SearchItems, ListNamespaces))  # noqa: S101
        is_full = len(self.found) >= self.operation.limit
        self.is_complete = is_full or not page.HasField("next_offset")
        self.next_offset = page.next_offset
        self.result = self.found


def pending_operations(operations: Sequence[ItemOperation]) -> list[Pending]:
    """Returns the operations of a batch, those without results as complete.

    Raises:
        ValueError: A limit or an offset is negative.
    """
    pending = [Pending(index, operation) for index, operation in enumerate(operations)]
    for each in pending:
        operation = each.operation
        if isinstance(operation, (SearchItems, ListNamespaces)):
            if operation.limit < 0 or operation.offset < 0:
                raise ValueError("limit and offset must not be negative")
            each.is_complete, each.result = operation.limit == 0, each.found
    return pending


def next_request(pending: Sequence[Pending]) -> list[Pending]:
    """Selects the operations of the next request. Writes come after all reads have results."""
    reads = [each for each in pending if not each.is_write and not each.is_complete]
    writes = [each for each in pending if each.is_write and not each.is_complete]
    selected: list[Pending] = []
    searches = 0
    for each in reads:
        if each.is_search:
            if searches == MAX_SEARCHES:
                continue
            searches += 1
        selected.append(each)
        if len(selected) == MAX_OPERATIONS:
            break
    has_all_reads = len(selected) == len(reads) and not any(each.has_pages for each in reads)
    if has_all_reads:
        selected += writes[: MAX_OPERATIONS - len(selected)]
    return selected


def read_item(item: api.Item) -> Item:
    """Decodes an item."""
    return Item(
        namespace=tuple(item.namespace),
        key=item.key,
        value=json.loads(item.value),
        created_at=item.created_at.ToDatetime(timezone.utc),
        updated_at=item.updated_at.ToDatetime(timezone.utc),
        expires_at=(
            item.expires_at.ToDatetime(timezone.utc) if item.HasField("expires_at") else None
        ),
    )


def read_found(found: api.FoundItem) -> FoundItem:
    """Decodes an item that a search has found."""
    return FoundItem(read_item(found.item), found.score if found.HasField("score") else None)
