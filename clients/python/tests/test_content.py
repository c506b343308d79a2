"""Contents that the methods of a turn accept, and the fields of dicts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from conversation_memory import (
    BlobPart,
    ConversationMemory,
    Message,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolCallResponsePart,
    UriPart,
)

from .fake import FakeService, begun, serving
from .sidecar import TIMEOUT

PNG = BlobPart("image/png", b"x")
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.fixture
def memory() -> Iterator[ConversationMemory]:
    fake = FakeService()
    fake.answers["BeginTurn"] = lambda *_: begun(last_seq=0)
    with serving(fake) as address, ConversationMemory(address, timeout=TIMEOUT) as memory:
        yield memory


def test_parts_of_the_package_are_contents(memory: ConversationMemory) -> None:
    link = UriPart("https://example.com/a.png")
    with memory.turn("ana") as turn:
        turn.user([TextPart("What is this?"), PNG])
        turn.user(["And this?", PNG])
        turn.system([TextPart("Be brief.")])
        turn.assistant(["Hm."])
        turn.assistant([ReasoningPart("hm"), "I look."], tool_calls=[CALL], tokens_used=3)
        turn.tool(["one", TextPart("two"), link], tool_call_id="1")
    assert turn.added == (
        Message("user", parts=(TextPart("What is this?"), PNG)),
        Message("user", parts=(TextPart("And this?"), PNG)),
        Message("system", "Be brief."),
        turn.added[3],
        Message(
            "assistant",
            parts=(ReasoningPart("hm"), TextPart("I look."), ToolCallPart("1", "f", "{}")),
            tokens_used=3,
        ),
        Message("tool", parts=(ToolCallResponsePart("1", "one\ntwo"), link)),
    )
    assert turn.added[3].content == "Hm."


def test_parts_of_both_forms_are_rejected_together(memory: ConversationMemory) -> None:
    with memory.turn("ana") as turn:
        with pytest.raises(TypeError, match="parts"):
            turn.user([PNG, {"type": "text", "text": "x"}])
    assert turn.added == ()


def test_pinned_and_token_count_of_a_dict_are_those_of_the_message(
    memory: ConversationMemory,
) -> None:
    plain = {"role": "system", "content": "Ana lives in Lisbon."}
    with memory.turn("ana") as turn:
        turn.add({**plain, "pinned": True, "token_count": 7})
        turn.add({**plain, "pinned": False, "token_count": None})
    assert turn.added == (
        Message("system", "Ana lives in Lisbon.", pinned=True, token_count=7),
        Message("system", "Ana lives in Lisbon."),
    )
    assert turn.to_openai() == [plain, plain]


@pytest.mark.parametrize(
    "extra",
    [
        {"parts": [{"type": "text", "text": "x"}]},
        {"contexts": []},
        {"metadata": {"k": 1}},
        {"pinned": "yes"},
        {"token_count": "7"},
        {"token_count": True},
        {"token_count": -1},
    ],
    ids=str,
)
def test_other_fields_of_a_message_are_rejected_in_a_dict(
    memory: ConversationMemory, extra: dict[str, Any]
) -> None:
    with memory.turn("ana") as turn:
        with pytest.raises(ValueError, match=f"{next(iter(extra))}") as rejected:
            turn.add({"role": "user", "content": "x", **extra})
    assert turn.added == ()
    if next(iter(extra)) in ("parts", "contexts", "metadata"):
        assert "Message" in str(rejected.value)
