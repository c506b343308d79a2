"""Ids that are derived from the names of frameworks."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from conversation_memory import AsyncConversationMemory, conversation_id_for
from conversation_memory.google_adk import ConversationMemorySessionService
from conversation_memory.langchain import ConversationMemoryChatMessageHistory
from conversation_memory.openai_agents import ConversationMemorySession

UUID = "0f1d4c8e-8a63-4a1e-9d3b-6a1b8f6f2c11"


def test_ids_never_change() -> None:
    # Other values would make stored conversations unreachable.
    assert conversation_id_for("thread-1") == "e606074e-b582-55a3-b72f-4a4effc6ddbb"
    assert (
        conversation_id_for("thread-1", framework="openai-agents", app="hr", user_id="ana")
        == "d9f63683-2ef2-516c-8036-4c6c51a92185"
    )


@pytest.mark.parametrize("name", ["thread-1", "", "ü\0\ud800", UUID, " padded "])
async def test_ids_are_those_of_the_adapters(name: str) -> None:
    async with AsyncConversationMemory() as memory:
        session = ConversationMemorySession(name, user_id="ana", memory=memory, app="hr")
        history = ConversationMemoryChatMessageHistory(name, user_id="ana", memory=memory, app="hr")
    adk = ConversationMemorySessionService.conversation_id(
        app_name="hr", user_id="ana", session_id=name
    )
    for framework, id_ in (
        ("openai-agents", session.conversation_id),
        ("langchain", history.conversation_id),
        ("google-adk", adk),
    ):
        assert conversation_id_for(name, framework=framework, app="hr", user_id="ana") == id_


def test_a_canonical_uuid_is_the_id_of_a_thread() -> None:
    assert conversation_id_for(UUID) == UUID
    others = [UUID.upper(), f"{{{UUID}}}", UUID.replace("-", ""), f"urn:uuid:{UUID}", f" {UUID}"]
    ids = {conversation_id_for(other) for other in others}
    assert len(ids) == len(others)
    assert UUID not in ids


def test_names_do_not_run_into_each_other() -> None:
    def ids(framework: str) -> set[str]:
        return {
            conversation_id_for("b", framework=framework, user_id="a"),
            conversation_id_for("ab", framework=framework),
            conversation_id_for("b", framework=framework, app="a"),
            conversation_id_for("", framework=framework, app="a", user_id="b"),
        }

    assert len(ids("openai-agents") | ids("mine")) == 8


@pytest.mark.parametrize("argument", ["name", "framework", "app", "user_id"])
def test_a_name_of_another_type_is_rejected(argument: str) -> None:
    arguments: dict[str, Any] = {"name": "thread-1", argument: 42}
    with pytest.raises(TypeError, match=f"^{argument} must be a str, not int$"):
        conversation_id_for(**arguments)


def test_a_thread_has_no_owner() -> None:
    with pytest.raises(ValueError, match="neither an app nor a user_id"):
        conversation_id_for("thread-1", user_id="ana")


async def test_a_listing_shows_the_names(aio: AsyncConversationMemory, user: str) -> None:
    session = ConversationMemorySession("thread-1", user_id=user, memory=aio, app="hr")
    await session.add_items([{"role": "user", "content": "Hi"}])
    history = ConversationMemoryChatMessageHistory("thread-2", user_id=user, memory=aio)
    await history.aadd_messages([HumanMessage("Hi")])
    sessions = ConversationMemorySessionService(aio)
    await sessions.create_session(app_name="hr", user_id=user, session_id="thread-3")
    # Names that cannot be stored are left out.
    for odd in ("\0", "x" * 5000):
        other = ConversationMemorySession(odd, user_id=user, memory=aio)
        await other.add_items([{"role": "user", "content": "Hi"}])
    listed = [found async for found in aio.list_conversations(user)]
    assert [found.metadata.get("framework_session") for found in listed[::-1]] == [
        {"framework": "openai-agents", "app": "hr", "name": "thread-1"},
        {"framework": "langchain", "app": "", "name": "thread-2"},
        {"framework": "google-adk", "app": "hr", "name": "thread-3"},
        None,
        None,
    ]
    assert listed[-1].id == conversation_id_for(
        "thread-1", framework="openai-agents", app="hr", user_id=user
    )


async def test_conversations_of_earlier_versions_are_used(
    aio: AsyncConversationMemory, user: str
) -> None:
    id_ = conversation_id_for("thread-1", framework="openai-agents", user_id=user)
    await aio.create_conversation(user, conversation_id=id_)
    session = ConversationMemorySession("thread-1", user_id=user, memory=aio)
    await session.add_items([{"role": "user", "content": "Hi"}])
    assert await session.get_items() == [{"role": "user", "content": "Hi"}]
