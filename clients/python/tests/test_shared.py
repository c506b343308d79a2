"""Adapters that share a conversation with each other and with turns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from conversation_memory import AsyncConversationMemory, ConversationMemory, NotFound
from conversation_memory.google_adk import ConversationMemorySessionService
from conversation_memory.langchain import ConversationMemoryChatMessageHistory
from conversation_memory.openai_agents import ConversationMemorySession

from .sidecar import TIMEOUT, Sidecar


@pytest.fixture
def blocking(sidecar: Sidecar) -> Iterator[ConversationMemory]:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        yield memory


async def test_adapters_use_a_given_conversation(
    aio: AsyncConversationMemory, blocking: ConversationMemory, user: str
) -> None:
    service = ConversationMemorySessionService(aio)
    names: dict[str, Any] = {"app_name": f"app of {user}", "user_id": user, "session_id": "s"}
    await service.create_session(**names)
    shared = service.conversation_id(**names)
    async with aio.turn(user, conversation_id=shared) as turn:
        turn.user("one")
        turn.assistant("two")
    session = ConversationMemorySession("a", user_id=user, memory=aio, conversation_id=shared)
    await session.add_items([{"role": "user", "content": "three"}])
    history = ConversationMemoryChatMessageHistory(
        "b", user_id=user, memory=blocking, conversation_id=shared
    )
    history.add_ai_message("four")
    assert {session.conversation_id, history.conversation_id} == {shared}
    expected = ["one", "two", "three", "four"]
    found = await service.get_session(**names)
    assert found is not None
    parts = [event.content.parts for event in found.events if event.content is not None]
    assert [each[0].text for each in parts if each] == expected
    assert [item["content"] for item in await session.get_items()][-4:] == expected  # type: ignore[typeddict-item]
    assert [message.content for message in history.messages][-4:] == expected


async def test_conversation_of_another_user_is_not_found(
    aio: AsyncConversationMemory, blocking: ConversationMemory, user: str
) -> None:
    async with aio.turn(user) as turn:
        turn.user("secret")
    fields: dict[str, Any] = {"user_id": f"not {user}", "conversation_id": turn.conversation_id}
    session = ConversationMemorySession("a", memory=aio, **fields)
    history = ConversationMemoryChatMessageHistory("b", memory=blocking, **fields)
    assert await session.get_items() == []
    assert history.messages == []
    with pytest.raises(NotFound):
        await session.add_items([{"role": "user", "content": "x"}])
    with pytest.raises(NotFound):
        history.add_user_message("x")
    assert len(blocking.get_history(turn.conversation_id).messages) == 1
