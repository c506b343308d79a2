"""Messages that the service would reject are rejected when they are added to a turn."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

import conversation_memory as cm
from conversation_memory import (
    BlobPart,
    ConversationMemory,
    FilePart,
    GenericPart,
    Message,
    ReasoningPart,
    RetrievedContext,
    TextPart,
    ToolCallPart,
    ToolCallResponsePart,
    UriPart,
)

from .sidecar import TIMEOUT, Sidecar

MIB = 1 << 20
CALL = ToolCallPart("1", "search", "{}")
RESULT = ToolCallResponsePart("1", "found")
PNG = BlobPart("image/png", b"x")


@pytest.fixture
def blocking(sidecar: Sidecar) -> Iterator[ConversationMemory]:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        yield memory


def of_parts(*parts: Any, role: Any = "user", **fields: Any) -> Message:
    return Message(role, parts=parts, **fields)


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"k": value}
    return value


REJECTED = {
    "content too large": Message("user", "é" * (MIB // 2) + "x"),
    "texts too large": of_parts(TextPart("x" * MIB), TextPart("")),
    "result too large": of_parts(RESULT, ToolCallResponsePart("2", "x" * MIB), role="tool"),
    "arguments too large": of_parts(ToolCallPart("1", "f", "x" * MIB), role="assistant"),
    "reasoning too large": of_parts(ReasoningPart("x" * MIB), ReasoningPart("x"), role="assistant"),
    "texts too large together": of_parts(
        ReasoningPart("x" * MIB), TextPart("x" * (MIB // 2 + 1)), role="assistant"
    ),
    "blob too large": of_parts(BlobPart("image/png", b"x" * (8 * MIB + 1))),
    "blob empty": of_parts(BlobPart("image/png", b"")),
    "blob without media type": of_parts(BlobPart("", b"x")),
    "media type invalid": of_parts(BlobPart("png", b"x")),
    "modality too long": of_parts(BlobPart("image/png", b"x", "m" * 256)),
    "empty message": Message("user"),
    "call without id": of_parts(ToolCallPart("", "f"), role="assistant"),
    "call without name": of_parts(ToolCallPart("1", ""), role="assistant"),
    "call of a user": of_parts(CALL),
    "result of a user": of_parts(RESULT),
    "result without id": of_parts(ToolCallResponsePart("", "x"), role="tool"),
    "call id too long": of_parts(ToolCallPart("i" * 256, "f"), role="assistant"),
    "call name too long": of_parts(ToolCallPart("1", "é" * 256), role="assistant"),
    "repeated call": of_parts(CALL, CALL, role="assistant"),
    "repeated result": of_parts(RESULT, RESULT, role="tool"),
    "pinned call": of_parts(CALL, role="assistant", pinned=True),
    "pinned result": of_parts(RESULT, role="tool", pinned=True),
    "pinned reasoning": of_parts(ReasoningPart("x"), role="assistant", pinned=True),
    "pinned tool text": Message("tool", "x", pinned=True),
    "name too long": Message("user", "x", name="n" * 256),
    "negative tokens_used": Message("assistant", "x", tokens_used=-1),
    "negative latency_ms": Message("assistant", "x", latency_ms=-1),
    "negative token_count": Message("user", "x", token_count=-1),
    "metadata too large": Message("user", "x", metadata={"k": "x" * 65529}),
    "metadata too deep": Message("user", "x", metadata=nested(33)),
    "too many parts": of_parts(*[TextPart("x")] * 201),
    "URI empty": of_parts(UriPart("")),
    "file id empty": of_parts(FilePart("")),
    "type empty": of_parts(GenericPart("", "{}")),
    "id is no UUID": Message("user", "x", id="1"),
    "id without hyphens": Message("user", "x", id="0198a2f07c4e7b1e9d5a3f1c2b4d5e6f"),
    "NUL in content": Message("user", "a\0b"),
    "NUL in name": Message("user", "x", name="a\0"),
    "NUL in a text": of_parts(TextPart("a\0"), PNG),
    "NUL in arguments": of_parts(ToolCallPart("1", "f", "\0"), role="assistant"),
    "NUL in metadata": Message("user", "x", metadata={"k": [{"n": "a\0"}]}),
    "NUL in a key": Message("user", "x", metadata={"\0": 1}),
    "context too large": Message("user", "x", contexts=[RetrievedContext("x" * (MIB + 1))]),
    "too many contexts": Message("user", "x", contexts=[RetrievedContext("x")] * 101),
    "document id too long": Message("user", "x", contexts=[RetrievedContext(doc_id="d" * 513)]),
    "score not finite": Message("user", "x", contexts=[RetrievedContext(score=float("nan"))]),
    "metadata of a context": Message(
        "user", "x", contexts=[RetrievedContext(metadata={"k": "x" * 65529})]
    ),
}

ACCEPTED = {
    "content": Message("user", "é" * (MIB // 2)),
    "texts": of_parts(TextPart("x" * (MIB - 1)), TextPart("")),
    "arguments": of_parts(ToolCallPart("1", "f", "x" * (MIB - 2)), role="assistant"),
    "own text beside content": of_parts(
        ReasoningPart("x" * MIB), TextPart("x" * (MIB // 2)), role="assistant"
    ),
    "ids and names": of_parts(ToolCallPart("é" * 255, "é" * 255), role="assistant", name="é" * 255),
    "numbers": Message("user", "x", tokens_used=0, latency_ms=0, token_count=0),
    "metadata only": Message("user", metadata={"k": "é" * 32764}),
    "metadata levels": Message("user", "x", metadata=nested(32)),
    "escaped text in metadata": Message("user", "x", metadata={"k": "\\u0000"}),
    "parts": of_parts(*[TextPart("x")] * 200),
    "pinned": of_parts(PNG, pinned=True),
    "document": Message(
        "user", "x", contexts=[RetrievedContext("x" * MIB, doc_id="é" * 512, score=0.5)] * 2
    ),
    "many contexts": Message("user", "x", contexts=[RetrievedContext("x")] * 100),
    "id": Message("user", "x", id=str(uuid.uuid4()).upper()),
}


@pytest.mark.parametrize("message", REJECTED.values(), ids=REJECTED)
def test_message_that_the_service_rejects_is_not_added(
    blocking: ConversationMemory, user: str, message: Message
) -> None:
    with blocking.turn(user) as turn:
        turn.user("question")
        with pytest.raises(ValueError) as rejected:  # noqa: PT011
            turn.add(Message("user", "beside it"), message)
        turn.assistant("answer")
    assert "xxxx" not in str(rejected.value)
    stored = blocking.list_messages(turn.conversation_id)
    assert [each.content for each in stored] == ["question", "answer"]
    # The rule is the service's.
    with pytest.raises((cm.InvalidArgument, ValueError)):
        blocking.save_messages(turn.conversation_id, [message])


@pytest.mark.parametrize("message", ACCEPTED.values(), ids=ACCEPTED)
def test_message_within_the_limits_is_saved(
    blocking: ConversationMemory, user: str, message: Message
) -> None:
    with blocking.turn(user) as turn:
        turn.add(message)
    assert turn.saved is not None
    assert turn.saved.last_seq == 1


def test_messages_that_are_invalid_together_are_not_added(
    blocking: ConversationMemory, user: str
) -> None:
    id_ = str(uuid.uuid4())
    values = {"k": [0] * 32_000}
    with blocking.turn(user) as turn:
        turn.add(Message("user", "question", id=id_))
        with pytest.raises(ValueError, match="id"):
            turn.add(Message("user", "again", id=id_.upper()))
        with pytest.raises(ValueError, match="values"):
            turn.add(*[Message("user", "x", metadata=values)] * 10)
        turn.add(*[Message("user", "x", metadata=values)] * 9)
        with pytest.raises(ValueError, match="values"):
            turn.add(Message("user", "x", metadata=values))
    assert turn.saved is not None
    assert turn.saved.last_seq == 10
