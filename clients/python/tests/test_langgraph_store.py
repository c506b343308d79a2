"""The store of LangGraph, compared with LangGraph's store in memory."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolCall
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import InjectedStore, ToolNode
from langgraph.runtime import Runtime
from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchItem,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore

from conversation_memory import AsyncConversationMemory, ConversationMemory
from conversation_memory.langgraph import ConversationMemoryStore

from .sidecar import TIMEOUT, Backend, Sidecar

OPERATIONS = int(os.environ.get("STORE_OPERATIONS", "2500"))
"""Number of random operations for each store and each kind of index."""

LABELS = ["a", "b", "é", "😀 x", "*", "users"]
KEYS = ["1", "2", "k é", "x" * 300]
WORDS = ["sun", "moon", "star", "Œuvre", "日本"]
VECTORS = [list(each) for each in itertools.product((-1.0, 0.0, 1.0), repeat=3) if any(each)]


def embed(texts: Sequence[str]) -> list[list[float]]:
    return [VECTORS[zlib.crc32(text.encode()) % len(VECTORS)] for text in texts]


async def aembed(texts: Sequence[str]) -> list[list[float]]:
    return embed(texts)


INDEX: IndexConfig = {"dims": 3, "embed": embed, "fields": ["text", "tags[*]"]}


class Reference(InMemoryStore):
    """LangGraph's store in memory without its known deviations from its documentation.

    It keeps vectors of earlier values, fails if two texts of a batch are equal, ignores the offset
    for items without vectors, and lists namespaces that have been read only. Its order is that of
    the first access to a namespace; here it is that of the labels.
    """

    def _sort(self) -> None:
        self._data = defaultdict(
            dict, sorted((name, items) for name, items in self._data.items() if items)
        )

    def _filter_items(self, op: SearchOp) -> Any:
        self._sort()
        return super()._filter_items(op)

    def _handle_list_namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        self._sort()
        return super()._handle_list_namespaces(op)

    def _batch_search(self, ops: Any, queries: Any, results: list[Any]) -> None:
        everything = {
            place: (op._replace(limit=10**6, offset=0), candidates)
            if op.query and queries
            else (op, candidates)
            for place, (op, candidates) in ops.items()
        }
        super()._batch_search(everything, queries, results)
        for place, (op, _) in ops.items():
            if op.query and queries:
                results[place] = results[place][op.offset : op.offset + op.limit]

    def _extract_texts(self, put_ops: Any) -> Any:
        for name, key in put_ops:
            self._vectors[name].pop(key, None)
        return super()._extract_texts(put_ops)

    def _insertinmem_store(self, to_embed: Any, embeddings: Any) -> None:
        for places, vector in zip(to_embed.values(), embeddings, strict=True):
            for name, key, path in places:
                self._vectors[name][key][path] = vector


def random_value(rng: random.Random) -> dict[str, Any]:
    value: dict[str, Any] = {
        "number": rng.choice(
            [rng.randint(-3, 3), rng.randint(-3, 3) / 2, 2**63 + rng.randint(0, 2)]
        ),
        "text": " ".join(rng.choices(WORDS, k=rng.randint(1, 3))),
        "kind": rng.choice(["x", "y", None, True]),
        "tags": rng.choices(WORDS, k=rng.randint(0, 3)),
        "nested": {"number": rng.randint(0, 2), "list": [rng.randint(0, 1), {"a": "é"}]},
    }
    if rng.random() < 0.3:
        del value["kind"]
    return value


def random_filter(rng: random.Random) -> dict[str, Any] | None:
    # The store in memory rounds large numbers when it compares their order.
    number = rng.choice([0, 1, 1.5, -1])
    operator = rng.choice(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"])
    return rng.choice(
        [
            None,
            None,
            {},
            {"number": rng.choice([number, 2**63 + 1])},
            {"number": {operator: number}},
            {"number": {"$gt": -2, "$lte": number}},
            {"kind": rng.choice(["x", None, {"$ne": "x"}, {"$eq": True}])},
            {"nested": {"number": {operator: 1}}},
            {"nested": {"list": [rng.randint(0, 1), {"a": "é"}]}},
            {"tags": rng.choices(WORDS, k=1)},
            {"text": "sun", "kind": "x"},
        ]
    )


def random_namespace(rng: random.Random, least: int) -> tuple[str, ...]:
    return tuple(rng.choices(LABELS, k=rng.randint(least, 3)))


def random_operation(rng: random.Random) -> Op:
    kind = rng.random()
    if kind < 0.2:
        return GetOp(random_namespace(rng, 1), rng.choice(KEYS))
    if kind < 0.3:
        return PutOp(random_namespace(rng, 1), rng.choice(KEYS), None)
    if kind < 0.6:
        index: Any = rng.choice([None, None, None, False, ["nested.list[*].a"], ["text"]])
        return PutOp(random_namespace(rng, 1), rng.choice(KEYS), random_value(rng), index)
    if kind < 0.9:
        return SearchOp(
            random_namespace(rng, 0),
            random_filter(rng),
            limit=rng.choice([0, 1, 3, 10, 2000]),
            offset=rng.choice([0, 0, 1, 5, 100]),
            query=rng.choice([None, *WORDS]),
        )
    conditions = [
        MatchCondition(rng.choice(["prefix", "suffix"]), random_namespace(rng, 0))
        for _ in range(rng.randint(0, 2))
    ]
    return ListNamespacesOp(
        tuple(conditions),
        max_depth=rng.choice([None, 1, 2, 5]),
        limit=rng.choice([0, 2, 100, 3000]),
        offset=rng.choice([0, 1, 7]),
    )


def comparable(result: Any) -> Any:
    if isinstance(result, list):
        return [comparable(each) for each in result]
    if result is None or isinstance(result, tuple):
        return result
    score = getattr(result, "score", None)
    rounded = None if score is None else round(score, 6) + 0.0
    return (type(result), result.namespace, result.key, result.value, rounded)


@pytest.mark.parametrize("is_indexed", [False, True])
async def test_store_behaves_like_the_store_in_memory(
    sidecar: Sidecar, aio: AsyncConversationMemory, user: str, is_indexed: bool
) -> None:
    rng = random.Random(f"{is_indexed}")
    index = INDEX if is_indexed else None
    reference = Reference(index=index)
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as blocking:
        stores = [
            ConversationMemoryStore(blocking, index=index, user_id=user),
            ConversationMemoryStore(aio, index=index, user_id=user),
        ]
        done = 0
        while done < OPERATIONS:
            ops = [random_operation(rng) for _ in range(rng.choice([1, 1, 2, 10]))]
            expected = comparable(reference.batch(ops))
            store = rng.choice(stores)
            found = store.batch(ops) if store is stores[0] else await store.abatch(ops)
            assert comparable(found) == expected, ops
            done += len(ops)


@pytest.fixture(params=["blocking", "asyncio"])
def store(request: pytest.FixtureRequest, sidecar: Sidecar, user: str) -> Iterator[BaseStore]:
    """A store whose blocking methods are used, with each client."""
    if request.param == "asyncio":
        client = AsyncConversationMemory(sidecar.address, timeout=TIMEOUT)
        yield ConversationMemoryStore(client, user_id=user)
    else:
        with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
            yield ConversationMemoryStore(memory, user_id=user)


def test_derived_methods_work(store: BaseStore) -> None:
    store.put(("a", "b"), "k", {"n": 1}, ttl=10)
    store.put(("a",), "l", {"n": 2})
    item = store.get(("a", "b"), "k")
    assert item is not None
    assert (item.namespace, item.key, item.value) == (("a", "b"), "k", {"n": 1})
    assert item.created_at.tzinfo is not None
    assert [each.key for each in store.search(("a",), filter={"n": {"$gt": 1}})] == ["l"]
    assert isinstance(store.search(())[0], SearchItem)
    assert store.list_namespaces(suffix=("b",)) == [("a", "b")]
    store.delete(("a", "b"), "k")
    assert store.get(("a", "b"), "k") is None


def test_errors_are_those_of_the_store_in_memory(store: BaseStore) -> None:
    for each in (store, InMemoryStore()):
        each.put(("a",), "k", {"n": 1})
        for namespace in ((), ("",), ("a.b",), ("langgraph",), (1,)):
            with pytest.raises(InvalidNamespaceError):
                each.put(namespace, "k", {})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="Unsupported operator"):
            each.search(("a",), filter={"n": {"$in": [1]}})
        with pytest.raises(ValueError, match="Unknown operation type"):
            each.batch([object()])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="JSON values only, not set"):
        store.put(("a",), "k", {"n": {1}})
    with pytest.raises(ValueError, match="negative"):
        store.search(("a",), limit=-1)
    with pytest.raises(ValueError, match="max_depth"):
        store.list_namespaces(max_depth=0)
    assert store.get(("a",), "k") is not None


async def test_time_to_live_is_configured(aio: AsyncConversationMemory, user: str) -> None:
    store = ConversationMemoryStore(
        aio, ttl={"default_ttl": 0.001, "refresh_on_read": False}, user_id=user
    )
    await store.aput(("a",), "short", {})
    await store.aput(("a",), "long", {}, ttl=60)
    await store.aput(("a",), "endless", {}, ttl=None)
    while True:
        if await store.aget(("a",), "short") is None:
            break
        await asyncio.sleep(0.01)
    assert [each.key for each in await store.asearch(("a",))] == ["long", "endless"]
    stored = await aio.get_item(("a",), "long", user_id=user)
    assert stored is not None
    assert stored.expires_at is not None


async def test_embedding_functions_are_checked(
    sidecar: Sidecar, aio: AsyncConversationMemory, user: str
) -> None:
    index: IndexConfig = {"dims": 3, "embed": aembed}
    store = ConversationMemoryStore(aio, index=index, user_id=user)
    await store.aput(("a",), "whole", {"text": "sun"})
    await store.aput(("a",), "none", {"text": "sun"}, index=False)
    found = await store.asearch(("a",), query='{"text": "sun"}')
    assert [(each.key, each.score) for each in found] == [
        ("whole", pytest.approx(1)),
        ("none", None),
    ]
    await asyncio.to_thread(store.put, ("a",), "thread", {"text": "x"})
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        blocking = ConversationMemoryStore(memory, index=index, user_id=user)
        assert len(await blocking.asearch(("a",), query="x")) == 3
        with pytest.raises(ValueError, match="async function"):
            blocking.put(("a",), "k", {"text": "x"})
    with pytest.raises(TypeError, match="event loop"):
        store.get(("a",), "whole")
    wrong = ConversationMemoryStore(aio, index={"dims": 4, "embed": aembed}, user_id=user)
    with pytest.raises(ValueError, match="3 dimensions"):
        await wrong.aput(("a",), "k", {"text": "x"})
    assert await store.aget(("a",), "k") is None


class State(TypedDict, total=False):
    messages: list[Any]
    found: list[str]


@tool
def remember(fact: str, store: Annotated[BaseStore, InjectedStore()]) -> str:
    """Remembers a fact."""
    store.put(("facts",), str(len(store.search(("facts",), limit=100))), {"fact": fact})
    return "done"


def write_fact(state: State, runtime: Runtime[None]) -> State:
    assert runtime.store is not None
    runtime.store.put(("facts",), "node", {"fact": "from a node"})
    return {}


async def read_facts(state: State, runtime: Runtime[None]) -> State:
    assert runtime.store is not None
    found = await runtime.store.asearch(("facts",), limit=100)
    return {"found": [each.value["fact"] for each in found]}


def agent(model: Any) -> StateGraph[State]:
    graph = StateGraph(State)
    graph.add_node("model", lambda state: {"messages": [model.invoke("remember")]})
    graph.add_node("tools", ToolNode([remember]))
    graph.add_node("write", write_fact)
    graph.add_node("read", read_facts)
    graph.add_edge(START, "model")
    graph.add_edge("model", "tools")
    graph.add_edge("tools", "write")
    graph.add_edge("write", "read")
    graph.add_edge("read", END)
    return graph


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_agent_remembers_across_a_restart(
    backend: Backend, tmp_path: Path, user: str, is_async: bool
) -> None:
    own = Backend.embedded(tmp_path) if backend.name == "embedded" else backend
    facts: list[str] = []
    for turn in range(2):
        sidecar = Sidecar(own)
        try:
            kind = AsyncConversationMemory if is_async else ConversationMemory
            memory = kind(sidecar.address, timeout=TIMEOUT)
            call = ToolCall(name="remember", args={"fact": f"turn {turn}"}, id="1")
            model = GenericFakeChatModel(messages=iter([AIMessage("", tool_calls=[call])]))
            compiled = agent(model).compile(store=ConversationMemoryStore(memory, user_id=user))
            facts = (await compiled.ainvoke({"messages": []}))["found"]
            closed = memory.close()
            if closed is not None:
                await closed
        finally:
            sidecar.stop()
    assert facts == ["turn 0", "from a node", "turn 1"]
