"""A service whose operator has raised its limits, and appends that need several saves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from conversation_memory import (
    AsyncConversationMemory,
    BlobPart,
    ConversationMemory,
    Limits,
    Message,
)
from conversation_memory.langchain import ConversationMemoryChatMessageHistory
from conversation_memory.openai_agents import ConversationMemorySession

from .sidecar import TIMEOUT, Backend, Sidecar

MIB = 1 << 20
RAISED = Limits(
    request_bytes=48 * MIB, blob_bytes=32 * MIB, content_bytes=20 * MIB, metadata_bytes=2 * MIB
)


@pytest.fixture(scope="module")
def raised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    settings = {
        "DATA_DIR": str(tmp_path_factory.mktemp("raised")),
        "MAX_REQUEST_BYTES": str(RAISED.request_bytes),
        "MAX_BLOB_BYTES": str(RAISED.blob_bytes),
        "MAX_CONTENT_BYTES": str(RAISED.content_bytes),
        "MAX_METADATA_BYTES": str(RAISED.metadata_bytes),
    }
    sidecar = Sidecar(Backend("raised", settings))
    yield sidecar
    sidecar.stop()


LARGE = {
    "content": Message("user", "x" * (10 * MIB)),
    "data": Message("user", "x", parts=(BlobPart("image/png", b"y" * (20 * MIB)),)),
    "metadata": Message("user", "x", metadata={"k": "x" * MIB}),
}


@pytest.mark.parametrize("name", LARGE)
def test_client_with_the_limits_of_the_service_saves_and_reads_what_it_accepts(
    raised: Sidecar, user: str, name: str
) -> None:
    message = LARGE[name]
    with ConversationMemory(raised.address, timeout=TIMEOUT, limits=RAISED) as memory:
        with memory.turn(user) as turn:
            turn.add(message)
        (found,) = memory.get_history(turn.conversation_id).messages
        assert (found.content, found.parts) == (message.content, message.parts)
        assert found.metadata == message.metadata
    # Reads need no limits.
    with ConversationMemory(raised.address, timeout=TIMEOUT) as memory:
        assert memory.get_history(turn.conversation_id).messages == (found,)
        with memory.turn(user) as turn, pytest.raises(ValueError, match="at most"):
            turn.add(message)


def test_turn_has_the_size_of_a_request(raised: Sidecar, user: str) -> None:
    with ConversationMemory(raised.address, timeout=TIMEOUT, limits=RAISED) as memory:
        with memory.turn(user) as turn:
            for _ in range(23):
                turn.user("x" * (2 * MIB))
            with pytest.raises(ValueError, match="a turn has at most"):
                turn.user("x" * (2 * MIB))
        saved = turn.saved
        assert saved is not None
        assert saved.last_seq == 23


async def test_adapters_read_a_message_with_raised_limits(raised: Sidecar, user: str) -> None:
    item: Any = {"role": "user", "content": [{"type": "input_text", "text": "x" * (10 * MIB)}]}
    async with AsyncConversationMemory(raised.address, timeout=TIMEOUT, limits=RAISED) as aio:
        session = ConversationMemorySession("s", user_id=user, memory=aio)
        await session.add_items([item, item])
        assert await session.get_items() == [item, item]


@pytest.mark.parametrize(
    "fields", [{"request_bytes": 0}, {"content_bytes": -1}, {"blob_bytes": 1.5}]
)
def test_invalid_limit_is_rejected(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        Limits(**fields)
    assert Limits(blob_bytes=0).blob_bytes == 0


def large_messages() -> list[BaseMessage]:
    return [HumanMessage(f"{number} " + "x" * 200_000) for number in range(130)]


def test_append_beyond_the_size_of_a_request_is_split(sidecar: Sidecar, user: str) -> None:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        history = ConversationMemoryChatMessageHistory("t", user_id=user, memory=memory)
        history.add_messages(large_messages())
        assert history.messages == large_messages()


@pytest.mark.parametrize("position", [0, 101, 129])
def test_append_that_needs_several_saves_is_validated_before_the_first(
    sidecar: Sidecar, user: str, position: int
) -> None:
    messages: list[BaseMessage] = [AIMessage(str(number)) for number in range(130)]
    messages[position] = AIMessage("x" * (MIB + 1))
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        history = ConversationMemoryChatMessageHistory("t", user_id=user, memory=memory)
        with pytest.raises(ValueError, match=rf"messages\[{position}\]: content must have at most"):
            history.add_messages(messages)
        assert history.messages == []
