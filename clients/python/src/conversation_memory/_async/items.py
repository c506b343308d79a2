"""Methods of the asynchronous client for items of the long-term memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from .._items import (
    DeleteItem,
    FoundItem,
    GetItem,
    Item,
    ItemOperation,
    ItemResult,
    ListNamespaces,
    NamespaceCondition,
    PutItem,
    SearchItems,
    next_request,
    pending_operations,
)
from .._method import Method
from .._proto.v1 import methods
from .._proto.v1 import store_service_pb2 as api
from .base import AsyncBaseClient


class AsyncItems(AsyncBaseClient):
    """Items: JSON objects under a namespace and a key."""

    async def put_item(
        self,
        namespace: Sequence[str],
        key: str,
        value: Mapping[str, Any],
        *,
        user_id: str | None = None,
        ttl_minutes: float | None = None,
        vectors: Sequence[Sequence[float]] = (),
        timeout: float | None = None,
    ) -> None:
        """Creates or replaces an item. A retry has the same result.

        Args:
            namespace: Labels of the namespace, such as `("users", "ana")`.
            key: Key within the namespace.
            value: JSON object. It is read back equal.
            user_id: User whose item it is; `None` for an item of the application.
            ttl_minutes: Minutes after which the item expires; `None` if it does not.
            vectors: Vectors by which `search_items` finds the item, one for each text.
            timeout: Time limit in seconds; `None` uses the client's `timeout`.

        Raises:
            TypeError: A value is not a JSON value.
            ValueError: A value cannot be stored unchanged.
            ConversationMemoryError: The call failed; its class says what to do.
        """
        operation = PutItem(namespace, key, value, ttl_minutes, vectors)
        await self._execute(methods.PUT_ITEM, "put", operation, user_id, timeout)

    async def get_item(
        self,
        namespace: Sequence[str],
        key: str,
        *,
        user_id: str | None = None,
        refresh_ttl: bool = False,
        timeout: float | None = None,
    ) -> Item | None:
        """Reads an item.

        Args:
            namespace: Labels of the namespace.
            key: Key within the namespace.
            user_id: User whose item it is; `None` for an item of the application.
            refresh_ttl: Whether the time to live of the item starts again.
            timeout: Time limit in seconds; `None` uses the client's `timeout`.

        Returns:
            The item; `None` if there is none, or if it has expired.

        Raises:
            ConversationMemoryError: The call failed; its class says what to do.
        """
        operation = GetItem(namespace, key, refresh_ttl)
        result = await self._execute(methods.GET_ITEM, "get", operation, user_id, timeout)
        return cast("Item | None", result)

    async def delete_item(
        self,
        namespace: Sequence[str],
        key: str,
        *,
        user_id: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Deletes an item, if there is one.

        Args:
            namespace: Labels of the namespace.
            key: Key within the namespace.
            user_id: User whose item it is; `None` for an item of the application.
            timeout: Time limit in seconds; `None` uses the client's `timeout`.

        Raises:
            ConversationMemoryError: The call failed; its class says what to do.
        """
        operation = DeleteItem(namespace, key)
        await self._execute(methods.DELETE_ITEM, "delete", operation, user_id, timeout)

    async def search_items(
        self,
        namespace_prefix: Sequence[str] = (),
        *,
        user_id: str | None = None,
        filter: Mapping[str, Any] | None = None,
        query_vector: Sequence[float] | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool = False,
        timeout: float | None = None,
    ) -> list[FoundItem]:
        """Finds items below a namespace, ordered by namespace and creation, or by similarity.

        Args:
            namespace_prefix: First labels of the namespaces; empty for all.
            user_id: User whose items are searched; `None` for those of the application.
            filter: Conditions on members of the value: a value that must be equal, or operators
                such as `{"$gt": 3}` ($eq, $ne, $gt, $gte, $lt, $lte).
            query_vector: Vector; the items with the most similar vectors come first, and those
                without vectors last.
            limit: Maximum number of items.
            offset: Number of items to skip, at most 100,000.
            refresh_ttl: Whether the time to live of the items starts again.
            timeout: Time limit in seconds; `None` uses the client's `timeout`.

        Returns:
            The items.

        Raises:
            ResourceExhausted: More than 100,000 items would have to be examined: use a longer
                namespace.
            ConversationMemoryError: The call failed for another reason; its class says what to do.
        """
        operation = SearchItems(namespace_prefix, filter, query_vector, limit, offset, refresh_ttl)
        result = await self._execute(methods.SEARCH_ITEMS, "search", operation, user_id, timeout)
        return cast("list[FoundItem]", result)

    async def list_namespaces(
        self,
        *,
        user_id: str | None = None,
        prefix: Sequence[str] = (),
        suffix: Sequence[str] = (),
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[tuple[str, ...]]:
        """Lists the namespaces that contain items, in the order of their labels.

        Args:
            user_id: User whose namespaces are listed; `None` for those of the application.
            prefix: First labels; `*` matches any label.
            suffix: Last labels; `*` matches any label.
            max_depth: Number of labels to which namespaces are shortened; `None` for all labels.
            limit: Maximum number of namespaces.
            offset: Number of namespaces to skip, at most 100,000.
            timeout: Time limit in seconds; `None` uses the client's `timeout`.

        Returns:
            The labels of each namespace.

        Raises:
            ConversationMemoryError: The call failed; its class says what to do.
        """
        conditions: list[NamespaceCondition] = []
        if prefix:
            conditions.append(NamespaceCondition("prefix", prefix))
        if suffix:
            conditions.append(NamespaceCondition("suffix", suffix))
        operation = ListNamespaces(conditions, max_depth, limit, offset)
        result = await self._execute(
            methods.LIST_NAMESPACES, "list_namespaces", operation, user_id, timeout
        )
        return cast("list[tuple[str, ...]]", result)

    async def batch_items(
        self,
        operations: Sequence[ItemOperation],
        *,
        user_id: str | None = None,
        timeout: float | None = None,
    ) -> list[ItemResult]:
        """Executes operations on items, in one request if possible.

        All reads come first, and do not see the writes. Up to 1000 operations whose results fit in
        a response are one request, whose writes are executed completely or not at all. Of several
        writes of an item, the last one counts.

        Args:
            operations: Operations.
            user_id: User whose items are used; `None` for those of the application.
            timeout: Time limit in seconds; `None` uses the client's `timeout`.

        Returns:
            The result of each operation.

        Raises:
            TypeError: A value is not a JSON value.
            ValueError: A value cannot be stored unchanged, or a limit or an offset is negative.
            ConversationMemoryError: The call failed; its class says what to do.
        """
        pending = pending_operations(operations)
        # All operations are encoded before the first request: nothing is written if one is invalid.
        encoded = {each.index: each.write() for each in pending if each.is_write}
        operation = self._operation(timeout)
        while selected := next_request(pending):
            request = api.BatchItemsRequest(
                user_id=user_id or "",
                operations=[encoded.get(each.index) or each.write() for each in selected],
            )
            answer = await operation.call(methods.BATCH_ITEMS, request)
            for each, result in zip(selected, answer.results, strict=True):
                if not (each.is_write and answer.incomplete):
                    each.read(result)
        return [each.result for each in pending]

    async def _execute(
        self,
        method: Method[Any, Any],
        kind: str,
        operation: ItemOperation,
        user_id: str | None,
        timeout: float | None,
    ) -> ItemResult:
        """Executes an operation by the method for it, repeatedly if its results have pages."""
        [pending] = pending_operations([operation])
        calls = self._operation(timeout)
        while not pending.is_complete:
            request = getattr(pending.write(), kind)
            request.user_id = user_id or ""
            answer = await calls.call(method, request)
            pending.read(api.ItemResult(**{kind: answer}))
        return pending.result
