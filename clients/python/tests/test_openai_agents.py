"""The session of the Agents SDK: the cases of its own back ends, and its real runner."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from agents import Agent, ModelResponse, RunConfig, Runner, Usage, function_tool
from agents.items import TResponseInputItem
from agents.memory import Session, SessionSettings
from agents.models.interface import Model
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)

from conversation_memory import AsyncConversationMemory, NotFound
from conversation_memory.openai_agents import ConversationMemorySession

from .sidecar import Sidecar

QUIET = RunConfig(tracing_disabled=True)


@pytest.fixture
async def memory(sidecar: Sidecar) -> AsyncIterator[AsyncConversationMemory]:
    async with AsyncConversationMemory(sidecar.address, timeout=30) as memory:
        yield memory


@pytest.fixture
def session(memory: AsyncConversationMemory, user: str) -> ConversationMemorySession:
    return ConversationMemorySession("thread", user_id=user, memory=memory)


def items(*given: dict[str, Any]) -> list[TResponseInputItem]:
    return cast("list[TResponseInputItem]", list(given))


def said(*texts: str) -> list[TResponseInputItem]:
    return items(*[{"role": "user", "content": text} for text in texts])


EVERY_KIND = items(
    {"role": "user", "content": "What is our vacation policy?"},
    {"content": "Be brief.", "role": "developer"},
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "And this?"},
            {"type": "input_image", "image_url": "data:image/png;base64,iVBOR", "detail": "auto"},
        ],
    },
    {
        "id": "rs_1",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "Let me look."}],
        "encrypted_content": "gAAAA",
    },
    {
        "id": "fc_1",
        "type": "function_call",
        "call_id": "call_1",
        "name": "look_up",
        "arguments": '{"topic": "vacation", "days": 12345678901234567890}',
        "status": "completed",
    },
    {"type": "function_call_output", "call_id": "call_1", "output": "25 days"},
    {
        "type": "function_call_output",
        "call_id": "call_2",
        "output": [{"type": "input_text", "text": "parts"}],
    },
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [
            {"type": "output_text", "text": "25 days.", "annotations": [], "logprobs": []},
            {"type": "refusal", "refusal": "No."},
        ],
        "phase": None,
    },
    {"type": "item_reference", "id": "msg_2"},
    {"type": "mcp_call", "id": "m", "name": "n", "arguments": "{}", "output": "o", "x": 2**60},
    {"type": "of the future", "unknown": {"nested": [1, 1.5, None, True, "\0", "\ud800"]}},
    {"role": "critic", "content": "a role that nobody knows"},
    {"role": "user", "content": ""},
    {"role": "user", "content": "x" * 70_000, "type": "message"},
    {"type": "function_call_output", "call_id": "call_3", "output": "ü" * 70_000},
)


def test_it_is_a_session(session: ConversationMemorySession) -> None:
    it: Session = session
    assert isinstance(it, Session)


async def test_items_come_back_as_they_were(session: ConversationMemorySession) -> None:
    assert await session.get_items() == []
    await session.add_items(EVERY_KIND)
    assert await session.get_items() == EVERY_KIND
    for item in reversed(EVERY_KIND):
        assert await session.pop_item() == item
    assert await session.pop_item() is None


async def test_others_see_what_was_said(
    session: ConversationMemorySession, memory: AsyncConversationMemory, user: str
) -> None:
    await session.add_items(EVERY_KIND[:8])
    conversation = await memory.get_conversation(session.conversation_id, user_id=user)
    assert conversation.title == "What is our vacation policy?"
    messages = [message async for message in memory.list_messages(session.conversation_id)]
    assert [(message.role, message.content) for message in messages] == [
        ("user", "What is our vacation policy?"),
        ("system", "Be brief."),
        ("user", "And this?"),
        ("assistant", ""),
        ("assistant", ""),
        ("tool", "25 days"),
        ("tool", "parts"),
        ("assistant", "25 days.\nNo."),
    ]
    assert [hit.message.seq async for hit in memory.search_messages(user, "vacation")] == [1]


async def test_what_others_say_is_an_item(
    session: ConversationMemorySession, memory: AsyncConversationMemory, user: str
) -> None:
    await session.add_items(said("one"))
    async with memory.turn(user, conversation_id=session.conversation_id) as turn:
        assert turn.history_openai() == said("one")
        turn.user("two")
        turn.assistant("three")
    assert await session.get_items(2) == items(
        {"role": "user", "content": "two"}, {"role": "assistant", "content": "three"}
    )


async def test_the_latest_come_in_order(
    session: ConversationMemorySession, memory: AsyncConversationMemory, user: str
) -> None:
    await session.add_items(said(*"abcde"))
    assert await session.get_items(limit=2) == said("d", "e")
    assert await session.get_items(limit=5) == said(*"abcde")
    assert await session.get_items(limit=50) == said(*"abcde")
    assert await session.get_items(limit=0) == []
    limited = ConversationMemorySession(
        "thread", user_id=user, memory=memory, session_settings=SessionSettings(limit=3)
    )
    assert await limited.get_items() == said("c", "d", "e")
    assert await limited.get_items(limit=1) == said("e")


async def test_a_session_may_be_long(session: ConversationMemorySession) -> None:
    texts = [str(number) for number in range(2150)]
    await session.add_items(said(*texts))
    assert await session.get_items() == said(*texts)
    assert await session.get_items(limit=1500) == said(*texts[-1500:])


async def test_no_limit_of_size_hides_items(session: ConversationMemorySession) -> None:
    """An answer of the service has about 3 MiB at most."""
    texts = [str(number) + "x" * 900_000 for number in range(5)]
    for text in texts:
        await session.add_items(said(text))
    assert await session.get_items(limit=5) == said(*texts)
    assert await session.get_items(limit=4) == said(*texts[1:])


async def test_nothing_is_added_for_nothing(
    session: ConversationMemorySession, memory: AsyncConversationMemory
) -> None:
    await session.add_items([])
    await session.clear_session()
    with pytest.raises(NotFound):
        await memory.get_conversation(session.conversation_id)


async def test_clear_and_go_on(session: ConversationMemorySession) -> None:
    await session.add_items(said("a", "b"))
    await session.clear_session()
    assert await session.get_items() == []
    assert await session.pop_item() is None
    await session.add_items(said("c"))
    assert await session.get_items() == said("c")
    assert await session.get_items(limit=9) == said("c")


async def test_sessions_are_apart(memory: AsyncConversationMemory, user: str) -> None:
    sessions = [
        ConversationMemorySession(name, user_id=owner, memory=memory, app=app)
        for name, owner, app in [
            ("a", user, ""),
            ("b", user, ""),
            ("a", user + "'", ""),
            ("a", user, "b"),
            ("", user + "a", ""),
        ]
    ]
    for number, session in enumerate(sessions):
        await session.add_items(said(str(number)))
    await sessions[0].clear_session()
    for number, session in enumerate(sessions):
        assert await session.get_items() == (said(str(number)) if number else [])


async def test_many_append_at_once(memory: AsyncConversationMemory, user: str) -> None:
    async def write(name: str) -> None:
        session = ConversationMemorySession("shared", user_id=user, memory=memory)
        for number in range(10):
            await session.add_items(said(f"{name} {number} ?", f"{name} {number} !"))

    names = [f"writer {number}" for number in range(16)]
    await asyncio.gather(*[write(name) for name in names])
    session = ConversationMemorySession("shared", user_id=user, memory=memory)
    texts = [cast("dict[str, str]", item)["content"] for item in await session.get_items()]
    for name in names:
        mine = [text for text in texts if text.startswith(name + " ")]
        assert mine == [f"{name} {number} {end}" for number in range(10) for end in "?!"]
    for question, answer in zip(texts[::2], texts[1::2], strict=True):
        assert answer == question.replace("?", "!"), "what is added together stays together"


async def test_an_item_is_popped_once(memory: AsyncConversationMemory, user: str) -> None:
    async def pop() -> TResponseInputItem | None:
        session = ConversationMemorySession("shared", user_id=user, memory=memory)
        return await session.pop_item()

    session = ConversationMemorySession("shared", user_id=user, memory=memory)
    texts = [str(number) for number in range(20)]
    await session.add_items(said(*texts))
    popped = await asyncio.gather(*[pop() for _ in range(24)])
    taken = sorted(int(cast("dict[str, str]", item)["content"]) for item in popped if item)
    assert taken == list(range(20))
    assert popped.count(None) == 4


async def test_a_pop_takes_nothing_that_is_added_meanwhile(
    memory: AsyncConversationMemory, user: str
) -> None:
    session = ConversationMemorySession("shared", user_id=user, memory=memory)
    await session.add_items(said(*[f"old {number}" for number in range(20)]))

    async def add(number: int) -> None:
        await session.add_items(said(f"new {number}"))

    popped, _ = await asyncio.gather(
        asyncio.gather(*[session.pop_item() for _ in range(10)]),
        asyncio.gather(*[add(number) for number in range(10)]),
    )
    left = await session.get_items()
    assert len(left) == 20
    every = [cast("dict[str, str]", item)["content"] for item in (*popped, *left) if item]
    assert sorted(every) == sorted(
        [f"old {number}" for number in range(20)] + [f"new {number}" for number in range(10)]
    )


async def test_a_cancelled_save_is_whole_or_none(
    session: ConversationMemorySession, memory: AsyncConversationMemory, user: str
) -> None:
    saved = 0
    for steps in range(12):
        adding = asyncio.ensure_future(session.add_items(said(f"{steps} ?", f"{steps} !")))
        for _ in range(steps):
            await asyncio.sleep(0)
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
        found = await session.get_items()
        if steps:
            # Once it has begun it is done before the cancellation is heard.
            saved += 1
            assert found[-2:] == said(f"{steps} ?", f"{steps} !")
        assert len(found) == 2 * saved


@function_tool
def look_up(topic: str) -> str:
    return f"{topic}: 25 days a year, requested in the HR portal"


class Scripted(Model):
    """Calls the tool first, and then answers from what it was given alone."""

    def __init__(self) -> None:
        self.given: list[list[Any]] = []

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        given = kwargs["input"] if "input" in kwargs else args[1]
        self.given.append(list(given))
        number = len(self.given)
        known = json.dumps(given)
        output: Any
        if "25 days a year" not in known:
            output = ResponseFunctionToolCall(
                id=f"fc_{number}",
                type="function_call",
                call_id=f"call_{number}",
                name="look_up",
                arguments='{"topic": "vacation"}',
            )
        else:
            text = "In the HR portal." if "How do I request it?" in known else "25 days."
            output = ResponseOutputMessage(
                id=f"msg_{number}",
                type="message",
                role="assistant",
                status="completed",
                content=[ResponseOutputText(type="output_text", text=text, annotations=[])],
            )
        return ModelResponse(output=[output], usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


async def test_the_runner_goes_on_with_what_was_said(
    memory: AsyncConversationMemory, user: str
) -> None:
    model = Scripted()
    agent = Agent(name="HR", model=model, tools=[look_up])

    async def ask(question: str) -> str:
        # Another process would make its own session as well.
        session = ConversationMemorySession("thread", user_id=user, memory=memory)
        result = await Runner.run(agent, question, session=session, run_config=QUIET)
        return str(result.final_output)

    assert await ask("What is our vacation policy?") == "25 days."
    assert await ask("How do I request it?") == "In the HR portal."
    kinds = [item.get("type", item.get("role")) for item in model.given[-1]]
    assert kinds == ["user", "function_call", "function_call_output", "message", "user"]
    assert len(model.given) == 3, "the second turn had no need of the tool"


async def test_a_user_does_not_know_of_anothers_turn(
    memory: AsyncConversationMemory, user: str
) -> None:
    agent = Agent(name="HR", model=Scripted(), tools=[look_up])
    mine, other = (
        ConversationMemorySession("thread", user_id=owner, memory=memory)
        for owner in (user, user + "'")
    )
    await Runner.run(agent, "What is our vacation policy?", session=mine, run_config=QUIET)
    assert await other.get_items() == []
