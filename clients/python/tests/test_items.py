"""Items of the long-term memory."""

from __future__ import annotations

import math
from typing import Any

import pytest

import conversation_memory as cm
from conversation_memory import ConversationMemory

VALUE = {
    "text": "é😀'\"\\",
    "large": 123456789012345678901234567890,
    "number": 1.0,
    "zero": -0.0,
    "huge": 1e308,
    "nested": {"list": [1, None, True, {}]},
}


def test_items_round_trip(memory: ConversationMemory, user: str) -> None:
    namespace = ("users", "ana é", "*")
    memory.put_item(namespace, "k", VALUE, user_id=user)
    item = memory.get_item(namespace, "k", user_id=user)
    assert item is not None
    assert item.value == VALUE
    assert list(item.value) == list(VALUE)
    assert type(item.value["number"]) is float
    assert math.copysign(1, item.value["zero"]) == -1
    assert (item.namespace, item.key, item.expires_at) == (namespace, "k", None)
    memory.put_item(namespace, "k", {}, user_id=user, ttl_minutes=60)
    replaced = memory.get_item(namespace, "k", user_id=user, refresh_ttl=True)
    assert replaced is not None
    assert replaced.created_at == item.created_at <= replaced.updated_at
    assert replaced.expires_at is not None
    assert memory.get_item(namespace, "k") is None
    assert memory.get_item(namespace, "k", user_id=user + "2") is None
    for _ in range(2):
        memory.delete_item(namespace, "k", user_id=user)
    assert memory.get_item(namespace, "k", user_id=user) is None


def test_items_are_searched(memory: ConversationMemory, user: str) -> None:
    for number in range(5):
        vectors = [[math.cos(number), math.sin(number)]] if number else []
        memory.put_item(("a", str(number % 2)), str(number), {"n": number}, user_id=user,
                        vectors=vectors)  # fmt: skip
    found = memory.search_items(("a",), user_id=user)
    assert [each.item.key for each in found] == list("02413")
    assert all(each.score is None for each in found)
    found = memory.search_items(("a",), user_id=user, filter={"n": {"$gte": 3}})
    assert [each.item.key for each in found] == list("43")
    found = memory.search_items(user_id=user, query_vector=[1.0, 0.0], limit=4, offset=1)
    assert [each.item.key for each in found] == list("2430")
    assert found[0].score == pytest.approx(math.cos(2))
    assert memory.search_items(user_id=user, limit=0) == []
    assert memory.list_namespaces(user_id=user) == [("a", "0"), ("a", "1")]
    assert memory.list_namespaces(user_id=user, prefix=("*",), suffix=("1",)) == [("a", "1")]
    assert memory.list_namespaces(user_id=user, max_depth=1) == [("a",)]
    with pytest.raises(ValueError, match="negative"):
        memory.search_items(user_id=user, limit=-1)


def test_batches_of_any_size_are_executed(memory: ConversationMemory, user: str) -> None:
    puts = [cm.PutItem(("a",), str(number), {"n": number}) for number in range(1203)]
    assert memory.batch_items([], user_id=user) == []
    assert memory.batch_items(puts, user_id=user) == [None] * 1203
    found = memory.search_items(("a",), user_id=user, limit=2000)
    assert [each.item.value["n"] for each in found] == list(range(1203))
    operations: list[cm.ItemOperation] = [cm.SearchItems(("a",), limit=2000, offset=number)
                                          for number in range(60)]  # fmt: skip
    operations += [cm.DeleteItem(("a",), "0"), cm.GetItem(("a",), "0")]
    results = memory.batch_items(operations, user_id=user)
    lengths = [len(each) for each in results[:60] if isinstance(each, list)]
    assert lengths == [1203 - number for number in range(60)]
    # Reads do not see the writes of their batch.
    assert isinstance(results[61], cm.Item)
    assert memory.get_item(("a",), "0", user_id=user) is None


def test_large_results_are_read_in_parts(memory: ConversationMemory, user: str) -> None:
    text = "x" * 1_000_000
    for number in range(5):
        memory.put_item(("a",), str(number), {"text": text}, user_id=user)
    operations: list[cm.ItemOperation] = [cm.GetItem(("a",), str(number)) for number in range(5)]
    operations += [cm.SearchItems(("a",)), cm.ListNamespaces(), cm.DeleteItem(("a",), "4")]
    results = memory.batch_items(operations, user_id=user)
    assert all(isinstance(each, cm.Item) for each in results[:5])
    assert isinstance(results[5], list)
    assert [each.item.key for each in results[5] if isinstance(each, cm.FoundItem)] == list("01234")
    assert results[6:] == [[("a",)], None]
    assert memory.get_item(("a",), "4", user_id=user) is None


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"a": {1}}, TypeError),
        ({"a": object()}, TypeError),
        ({"a": b"x"}, TypeError),
        ({1: 2}, TypeError),
        ({"a": math.nan}, ValueError),
        ({"a": "\ud800"}, ValueError),
        ({"a": "\0"}, cm.InvalidArgument),
    ],
)
def test_values_that_are_not_json_are_rejected(
    memory: ConversationMemory, user: str, value: dict[Any, Any], error: type[Exception]
) -> None:
    valid = cm.PutItem(("a",), "valid", {})
    with pytest.raises(error):
        memory.batch_items([valid, cm.PutItem(("a",), "k", value)], user_id=user)
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"a": deep}
    with pytest.raises(ValueError, match="32 levels"):
        memory.put_item(("a",), "k", deep, user_id=user)
    assert memory.search_items(user_id=user) == []
