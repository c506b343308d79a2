"""Memory service of ADK, compared with ADK's own one."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.events import Event
from google.adk.memory import InMemoryMemoryService
from google.adk.memory.base_memory_service import BaseMemoryService
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.models import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.adk.sessions import Session
from google.adk.tools.load_memory_tool import load_memory_tool
from google.genai import types

from conversation_memory import AsyncConversationMemory
from conversation_memory.google_adk import (
    ConversationMemoryMemoryService,
    ConversationMemorySessionService,
)

WORDS = ["vacation", "portal", "salary", "Lisbon", "Zürich", "lunch"]


@pytest.fixture
def service(aio: AsyncConversationMemory) -> ConversationMemoryMemoryService:
    return ConversationMemoryMemoryService(aio)


def event(content: str, id_: str = "", **fields: Any) -> Event:
    parts = [types.Part(text=content)] if content else []
    return Event(
        id=id_ or Event.new_id(),
        author="user",
        content=types.Content(role="user", parts=parts),
        **fields,
    )


def session(user: str, *events: Event, name: str = "s", app: str = "hr") -> Session:
    return Session(id=name, app_name=app, user_id=user, events=list(events))


async def found(service: BaseMemoryService, user: str, query: str, app: str = "hr") -> list[str]:
    response = await service.search_memory(app_name=app, user_id=user, query=query)
    return [(memory.content.parts or [types.Part()])[0].text or "" for memory in response.memories]


async def test_events_are_added_once_and_found_by_their_words(
    service: ConversationMemoryMemoryService, user: str
) -> None:
    first, second = event("The vacation policy", timestamp=5.5), event("A portal for vacation")
    assert await found(service, user, "vacation") == []
    await service.add_session_to_memory(session(user))
    await service.add_session_to_memory(session(user, first, event("")))
    await asyncio.gather(
        *[service.add_session_to_memory(session(user, first, second)) for _ in range(4)]
    )
    names: dict[str, Any] = {"app_name": "hr", "user_id": user}
    await service.add_events_to_memory(**names, session_id="s", events=[second, event("Lunch")])
    assert sorted(await found(service, user, "Vacation?")) == [
        "A portal for vacation",
        "The vacation policy",
    ]
    assert (await found(service, user, "portal vacation"))[0] == "A portal for vacation"
    assert await found(service, user, "lunch, anyone") == ["Lunch"]
    for query in ("", "?!", "the", '" or -', "missing", "x" * 600):
        assert await found(service, user, query) == [], query
    assert await found(service, user, " ".join(f"w{n}" for n in range(40))) == []
    # The same event of another session is another memory.
    await service.add_session_to_memory(session(user, first, name="t"))
    assert len(await found(service, user, "policy")) == 2
    response = await service.search_memory(**names, query="policy")
    assert [memory.content for memory in response.memories] == [first.content] * 2
    assert [memory.author for memory in response.memories] == ["user"] * 2
    assert [memory.custom_metadata for memory in response.memories] == [{}, {}]


async def test_memories_are_isolated_and_in_no_list(
    service: ConversationMemoryMemoryService, aio: AsyncConversationMemory, user: str
) -> None:
    await service.add_session_to_memory(session(user, event("My salary")))
    assert await found(service, user + "'", "salary") == []
    assert await found(service, user, "salary", app="it") == []
    assert [each async for each in aio.list_conversations(user)] == []
    assert [each async for each in aio.search_messages(user, "salary")] == []


async def test_more_events_than_a_save_takes(
    service: ConversationMemoryMemoryService, user: str
) -> None:
    events = [event(f"number n{n}") for n in range(230)]
    await service.add_session_to_memory(session(user, *events[:150]))
    await service.add_session_to_memory(session(user, *events))
    assert await found(service, user, "n229") == ["number n229"]
    assert len(await found(service, user, "number")) == 10


async def test_memories_can_be_added_and_deleted(
    service: ConversationMemoryMemoryService, aio: AsyncConversationMemory, user: str
) -> None:
    names: dict[str, Any] = {"app_name": "hr", "user_id": user}
    content = types.Content(role="user", parts=[types.Part(text="Lives in Lisbon")])
    entry = MemoryEntry(
        content=content, author="crm", timestamp="yesterday", custom_metadata={"k": 1}, id="m"
    )
    for _ in range(2):
        await service.add_memory(**names, memories=[entry], custom_metadata={"k": 0, "ttl": 5})
    (memory,) = (await service.search_memory(**names, query="lisbon")).memories
    assert memory.id is not None
    assert memory.id != "m"
    assert memory.model_copy(update={"id": "m"}) == entry.model_copy(
        update={"custom_metadata": {"k": 1, "ttl": 5}}
    )
    # Another user cannot delete it.
    await service.delete_memory(app_name="hr", user_id=user + "'", memory_id=memory.id)
    for invalid in (None, "", "x", "x:1", f"{memory.id}9", memory.id.partition(":")[0]):
        await service.delete_memory(**names, memory_id=invalid)
    assert len(await found(service, user, "lisbon")) == 1
    await service.delete_memory(**names, memory_id=memory.id)
    assert await found(service, user, "lisbon") == []
    await service.add_memory(**names, memories=[entry])
    assert await found(service, user, "lisbon") == []
    await service.add_events_to_memory(
        **names, events=[event("Eats lunch")], custom_metadata={"source": "chat"}
    )
    (memory,) = (await service.search_memory(**names, query="lunch")).memories
    assert memory.custom_metadata == {"source": "chat"}
    await service.delete_all_memories(**names)
    assert await found(service, user, "lunch") == []


async def test_media_of_memories_are_left_out(
    service: ConversationMemoryMemoryService, user: str
) -> None:
    image = types.Part(inline_data=types.Blob(data=b"png" * 100, mime_type="image/png"))
    parts = [types.Part(text="my lunch"), image]
    with_image = Event(author="user", content=types.Content(role="user", parts=parts))
    await service.add_session_to_memory(session(user, with_image))
    response = await service.search_memory(app_name="hr", user_id=user, query="lunch")
    assert [memory.content.parts for memory in response.memories] == [parts[:1]]


@pytest.mark.parametrize("seed", range(4))
async def test_services_agree(
    service: ConversationMemoryMemoryService, user: str, seed: int
) -> None:
    source = random.Random(seed)
    other = InMemoryMemoryService()
    sessions: dict[str, Session] = {}
    for step in range(40):
        name = source.choice("abc")
        current = sessions.setdefault(name, session(user, name=name))
        words = source.sample(WORDS, source.randrange(0, 4))
        current.events.append(event(" ".join([*words, f"event{step}"]) if words else ""))
        for each in (service, other):
            await each.add_session_to_memory(current)
        extra = [event(f"{source.choice(WORDS)} extra{step}", id_=f"e{step % 7}")]
        if step % 3 == 0:
            for each in (service, other):
                await each.add_events_to_memory(app_name="hr", user_id=user, events=extra)
        word = source.choice([*WORDS, "nothing", f"event{step}", f"extra{step - step % 3}"])
        mine, theirs = [set(await found(each, user, word)) for each in (service, other)]
        assert len(mine) == len(theirs), word
        if len(theirs) < 10:
            assert mine == theirs


class Remembering(BaseLlm):
    """Searches the memory, and answers with what it has found."""

    async def generate_content_async(self, request: LlmRequest, stream: bool = False) -> Any:
        parts = (request.contents[-1].parts or [])[0]
        if parts.function_response is None:
            call = types.FunctionCall(name="load_memory", args={"query": "vacation"})
            yield LlmResponse(
                content=types.Content(role="model", parts=[types.Part(function_call=call)])
            )
        else:
            answer = str(parts.function_response.response)
            yield LlmResponse(content=types.Content(role="model", parts=[types.Part(text=answer)]))


async def test_an_agent_finds_memories_of_earlier_sessions(
    service: ConversationMemoryMemoryService, aio: AsyncConversationMemory, user: str
) -> None:
    await service.add_session_to_memory(session(user, event("25 days of vacation"), name="old"))
    runner = Runner(
        agent=LlmAgent(name="hr", model=Remembering(model="m"), tools=[load_memory_tool]),
        app_name="hr",
        session_service=ConversationMemorySessionService(aio),
        memory_service=service,
        auto_create_session=True,
    )
    question = types.Content(role="user", parts=[types.Part(text="How many?")])
    texts = [
        part.text
        async for each in runner.run_async(user_id=user, session_id="new", new_message=question)
        for part in (each.content and each.content.parts) or []
        if part.text
    ]
    assert "25 days of vacation" in (texts[-1] or "")
