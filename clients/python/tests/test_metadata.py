from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversation_memory import ConversationMemory
from conversation_memory._structs import from_struct, to_struct

from .sidecar import TIMEOUT, Sidecar


def nested(levels: int) -> dict[str, Any]:
    """Objects and lists in turn."""
    value: Any = None
    for level in range(levels - 1):
        value = {"a": value} if level % 2 else [value]
    return {"a": value}


ENDLESS: dict[str, Any] = {}
ENDLESS["a"] = [ENDLESS]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), values, max_size=4))
def test_metadata_is_read_back_equal(metadata: dict[str, Any]) -> None:
    assert from_struct(to_struct(metadata)) == metadata


def test_service_accepts_the_maximum_depth(sidecar: Sidecar, user: str) -> None:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        assert memory.create_conversation(user, metadata=nested(32)).metadata == nested(32)


def test_whole_numbers_are_read_as_int() -> None:
    back = from_struct(to_struct({"n": 7, "x": 0.5, "zero": -0.0}))
    assert (type(back["n"]), type(back["x"])) == (int, float)
    assert str(back["zero"]) == "-0.0"


def test_integers_that_are_doubles_are_stored() -> None:
    metadata = {"n": [2**53, -(2**60), 10**22]}
    assert from_struct(to_struct(metadata)) == metadata


@pytest.mark.parametrize(
    "metadata",
    [
        {"n": 2**53 + 1},
        {"n": 1180000000000000123},
        {"n": 10**400},
        {"n": [float("nan")]},
        {"n": {"m": float("inf")}},
        {"n": b"secret"},
        {"n": {"secret"}},
        {1: "secret"},
        nested(33),
        ENDLESS,
    ],
)
def test_values_that_cannot_be_stored_exactly_are_rejected(metadata: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        to_struct(metadata)
    assert "metadata" in str(refused.value)
    assert "secret" not in str(refused.value)
