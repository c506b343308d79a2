"""Store of LangGraph, whose items are stored in conversation-memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._adapters import missing_framework
from ._arguments import validates_arguments

try:
    from langgraph.store.base import (
        BaseStore,
        GetOp,
        IndexConfig,
        Item,
        ListNamespacesOp,
        Op,
        PutOp,
        Result,
        SearchItem,
        SearchOp,
        TTLConfig,
        ensure_embeddings,
        get_text_at_path,
        tokenize_path,
    )
except ImportError as error:
    raise missing_framework("langgraph", error) from error

from . import _items as items
from ._async.client import AsyncConversationMemory
from ._sync.client import ConversationMemory

_OPERATORS = frozenset({"$eq", "$ne", "$gt", "$gte", "$lt", "$lte"})

_WHOLE = "$"
"""Path of the whole value."""


@validates_arguments
class ConversationMemoryStore(BaseStore):
    """A long-term memory of agents that survives restarts and that several processes share.

    Values are JSON objects and are read back equal, except that tuples become lists. Items have the
    order of their namespaces, and of their creation within a namespace.

    Comparisons of a filter are those of JSON: numbers are compared with numbers, texts with texts,
    and `True` is not 1. The service removes expired items, and no reads return them:
    `sweep_interval_minutes` and `omit_expired` have no effect.

    Searches by similarity need `index`, whose embedding functions run in this process. The service
    compares a query with at most 100,000 items: use a namespace for each user.

    With a `ConversationMemory`, the asynchronous methods run the blocking client in a thread. With
    an `AsyncConversationMemory`, a blocking method opens a connection for each call and cannot be
    used in a thread with a running event loop.
    """

    supports_ttl = True

    def __init__(
        self,
        memory: ConversationMemory | AsyncConversationMemory,
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        user_id: str = "",
    ) -> None:
        """Creates a store.

        Args:
            memory: Client to use. It is not closed with the store.
            index: Embedding function, fields and dimensions for searches by similarity; `None`
                ignores `index` of `put` and `query` of `search`.
            ttl: Default time to live, and whether reads restart it.
            user_id: User whose items the store uses; empty for those of the application, which
                are separated from the items of all users.
        """
        self._memory = memory
        self._user_id = user_id or None
        self.ttl_config = ttl
        self.index_config = index
        self.embeddings = None if index is None else ensure_embeddings(index.get("embed"))
        fields = None if index is None else index.get("fields")
        self._fields = [_tokenized(path) for path in (fields or [_WHOLE])]

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Executes operations in one request, the reads before the writes.

        Args:
            ops: Operations. Of several writes of an item, the last one counts.

        Returns:
            The result of each operation.

        Raises:
            TypeError: A value is not a JSON value, or an event loop runs in this thread and the
                store has an `AsyncConversationMemory`.
            ValueError: An operation, an operator or a limit is not valid.
        """
        ops = list(ops)
        memory = self._memory
        if isinstance(memory, AsyncConversationMemory):
            return _run(self._abatch_and_close(memory, ops))
        batch = self._prepare(ops)
        if self.embeddings is not None:
            if batch.texts:
                batch.add_vectors(self.embeddings.embed_documents(batch.texts))
            for query in batch.queries:
                batch.queries[query] = list(self.embeddings.embed_query(query))
        return batch.read(memory.batch_items(batch.operations(), user_id=self._user_id))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Executes operations like `batch`.

        Args:
            ops: Operations.
        """
        batch = self._prepare(list(ops))
        if self.embeddings is not None:
            if batch.texts:
                batch.add_vectors(await self.embeddings.aembed_documents(batch.texts))
            for query in batch.queries:
                batch.queries[query] = list(await self.embeddings.aembed_query(query))
        operations, user_id = batch.operations(), self._user_id
        if isinstance(self._memory, AsyncConversationMemory):
            results = await self._memory.batch_items(operations, user_id=user_id)
        else:
            results = await asyncio.to_thread(self._memory.batch_items, operations, user_id=user_id)
        return batch.read(results)

    async def _abatch_and_close(
        self, memory: AsyncConversationMemory, ops: list[Op]
    ) -> list[Result]:
        try:
            return await self.abatch(ops)
        finally:
            # The connection belongs to the event loop, which ends.
            await memory.close()

    def _prepare(self, ops: Sequence[Op]) -> _Batch:
        batch = _Batch(ops, None if self.index_config is None else self.index_config.get("dims"))
        for place, op in enumerate(ops):
            if isinstance(op, PutOp):
                if op.value is not None:
                    # An invalid value is rejected before anything is embedded.
                    items.write_json(op.value)
                    if self.embeddings is not None:
                        batch.put_texts[place] = self._texts(op)
            elif isinstance(op, SearchOp):
                _check_operators(op.filter)
                if op.query and self.embeddings is not None:
                    batch.queries[op.query] = []
            elif isinstance(op, ListNamespacesOp):
                if op.max_depth is not None and op.max_depth < 1:
                    raise ValueError("max_depth must be 1 or more")
            elif not isinstance(op, GetOp):
                raise ValueError(f"Unknown operation type: {type(op)}")
        batch.texts = list(dict.fromkeys(text for it in batch.put_texts.values() for text in it))
        return batch

    def _texts(self, op: PutOp) -> list[str]:
        if op.index is False:
            return []
        paths = self._fields if op.index is None else [_tokenized(path) for path in op.index]
        return [text for path in paths for text in get_text_at_path(op.value, path)]


@dataclass(slots=True)
class _Batch:
    """Operations of a batch with their embeddings."""

    ops: Sequence[Op]
    dimensions: int | None
    put_texts: dict[int, list[str]] = field(default_factory=dict)
    """Texts to embed, by the positions of the writes."""
    texts: list[str] = field(default_factory=list)
    """All different texts to embed."""
    queries: dict[str, list[float]] = field(default_factory=dict)
    """Embeddings of the queries."""
    vectors: dict[str, Sequence[float]] = field(default_factory=dict)
    """Embeddings of the texts."""

    def add_vectors(self, vectors: Sequence[Sequence[float]]) -> None:
        """Adds the embeddings of `texts`.

        Raises:
            ValueError: Their number, or that of their dimensions, is not the expected one.
        """
        if len(vectors) != len(self.texts):
            raise ValueError(
                f"the embedding function returned {len(vectors)} vectors for"
                f" {len(self.texts)} texts"
            )
        for vector in vectors:
            if self.dimensions is not None and len(vector) != self.dimensions:
                raise ValueError(
                    f"the embedding function returned a vector of {len(vector)} dimensions;"
                    f" the index has {self.dimensions}"
                )
        self.vectors = dict(zip(self.texts, vectors, strict=True))

    def operations(self) -> list[items.ItemOperation]:
        """Returns the operations for the service."""
        return [self._operation(place, op) for place, op in enumerate(self.ops)]

    def _operation(self, place: int, op: Op) -> items.ItemOperation:
        if isinstance(op, GetOp):
            return items.GetItem(op.namespace, op.key, op.refresh_ttl)
        if isinstance(op, PutOp):
            if op.value is None:
                return items.DeleteItem(op.namespace, op.key)
            vectors = [self.vectors[text] for text in self.put_texts.get(place, [])]
            return items.PutItem(op.namespace, op.key, op.value, op.ttl, vectors)
        if isinstance(op, SearchOp):
            return items.SearchItems(
                namespace_prefix=op.namespace_prefix,
                filter=op.filter,
                query_vector=self.queries.get(op.query) if op.query else None,
                limit=op.limit,
                offset=op.offset,
                refresh_ttl=op.refresh_ttl,
            )
        conditions = []
        for condition in op.match_conditions or ():
            if condition.match_type not in ("prefix", "suffix"):
                raise ValueError(f"Unsupported match type: {condition.match_type}")
            conditions.append(items.NamespaceCondition(condition.match_type, condition.path))
        return items.ListNamespaces(conditions, op.max_depth, op.limit, op.offset)

    def read(self, results: Sequence[items.ItemResult]) -> list[Result]:
        """Converts the results of the service."""
        return [_read(result) for result in results]


def _read(result: items.ItemResult) -> Result:
    if isinstance(result, items.Item):
        return Item(**_fields(result))
    if not isinstance(result, list):
        return None
    return [  # type: ignore[return-value]
        SearchItem(**_fields(each.item), score=each.score)
        if isinstance(each, items.FoundItem)
        else each
        for each in result
    ]


def _fields(item: items.Item) -> dict[str, Any]:
    return {
        "namespace": item.namespace,
        "key": item.key,
        "value": item.value,
        "created_at": item.created_at,
        "updated_at": item.updated_at,
    }


def _tokenized(path: str) -> str | list[str]:
    return path if path == _WHOLE else tokenize_path(path)


def _check_operators(condition: Any) -> None:
    if isinstance(condition, Mapping):
        has_operators = any(isinstance(key, str) and key.startswith("$") for key in condition)
        for key, value in condition.items():
            if has_operators and key not in _OPERATORS:
                raise ValueError(f"Unsupported operator: {key}")
            if not has_operators:
                _check_operators(value)
    elif isinstance(condition, (list, tuple)):
        for value in condition:
            _check_operators(value)


def _run(batch: Any) -> list[Result]:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        results: list[Result] = asyncio.run(batch)
        return results
    batch.close()
    raise TypeError(
        "this store has an AsyncConversationMemory, and an event loop runs in this thread: use"
        " the asynchronous methods, or give the store a ConversationMemory"
    )
