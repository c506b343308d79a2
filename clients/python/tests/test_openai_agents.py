"""Session of the Agents SDK: the test cases of its own back ends, and its runner."""

from __future__ import annotations

import asyncio
import inspect
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

from .sidecar import TIMEOUT, Sidecar

QUIET = RunConfig(tracing_disabled=True)


@pytest.fixture
async def memory(sidecar: Sidecar) -> AsyncIterator[AsyncConversationMemory]:
    async with AsyncConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        yield memory


@pytest.fixture
def session(memory: AsyncConversationMemory, user: str) -> ConversationMemorySession:
    return ConversationMemorySession("thread", user_id=user, memory=memory)


def items(*given: dict[str, Any]) -> list[TResponseInputItem]:
    return cast("list[TResponseInputItem]", list(given))


def user_items(*texts: str) -> list[TResponseInputItem]:
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
    {"type": "function_call", "call_id": "call_2", "name": "look_up", "arguments": "{}"},
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
    {"role": "critic", "content": "a message with an unknown role"},
    {"role": "user", "content": ""},
    {"role": "user", "content": "x" * 70_000, "type": "message"},
    {"type": "function_call", "call_id": "call_3", "name": "look_up", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_3", "output": "ü" * 70_000},
)


def test_implements_the_session_protocol(session: ConversationMemorySession) -> None:
    it: Session = session
    assert isinstance(it, Session)


@pytest.mark.parametrize("name", ["get_items", "add_items", "pop_item", "clear_session"])
def test_methods_accept_the_context_of_the_run(
    session: ConversationMemorySession, name: str
) -> None:
    # The SDK passes it only to sessions whose four methods have the parameter.
    parameter = inspect.signature(getattr(session, name)).parameters["wrapper"]
    assert parameter.kind is parameter.KEYWORD_ONLY
    assert parameter.default is None


async def test_items_are_read_back_equal(session: ConversationMemorySession) -> None:
    assert await session.get_items() == []
    await session.add_items(EVERY_KIND)
    assert await session.get_items() == EVERY_KIND
    for item in reversed(EVERY_KIND):
        assert await session.pop_item() == item
    assert await session.pop_item() is None


async def test_other_clients_read_role_and_text(
    session: ConversationMemorySession, memory: AsyncConversationMemory, user: str
) -> None:
    await session.add_items(EVERY_KIND[:9])
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
        ("assistant", ""),
        ("tool", "parts"),
        ("assistant", "25 days.\nNo."),
    ]
    assert [hit.message.seq async for hit in memory.search_messages(user, "vacation")] == [1]


async def test_items_without_their_counterpart_are_left_out(
    session: ConversationMemorySession,
) -> None:
    """The model's API would reject the whole history."""
    call, output = EVERY_KIND[4], EVERY_KIND[5]
    await session.add_items([output, *user_items("one"), call, *user_items("two")])
    assert await session.get_items() == user_items("one", "two")
    await session.add_items([output])
    assert await session.get_items() == [*user_items("one"), call, output, *user_items("two")]
    await session.add_items([call])
    assert (await session.get_items())[-1] == call
    assert await session.pop_item() == call


@pytest.mark.parametrize("item", ["text", 1, None, object()])
async def test_items_that_are_not_dicts_are_rejected(
    session: ConversationMemorySession, item: Any
) -> None:
    with pytest.raises(TypeError, match=type(item).__name__):
        await session.add_items([item])


async def test_messages_of_other_clients_are_items(
    session: ConversationMemorySession, memory: AsyncConversationMemory, user: str
) -> None:
    await session.add_items(user_items("one"))
    async with memory.turn(user, conversation_id=session.conversation_id) as turn:
        assert turn.history_openai() == user_items("one")
        turn.user("two")
        turn.assistant("three")
    assert await session.get_items(2) == items(
        {"role": "user", "content": "two"}, {"role": "assistant", "content": "three"}
    )


async def test_latest_items_are_in_order(
    session: ConversationMemorySession, memory: AsyncConversationMemory, user: str
) -> None:
    await session.add_items(user_items(*"abcde"))
    assert await session.get_items(limit=2) == user_items("d", "e")
    assert await session.get_items(limit=5) == user_items(*"abcde")
    assert await session.get_items(limit=50) == user_items(*"abcde")
    assert await session.get_items(limit=0) == []
    limited = ConversationMemorySession(
        "thread", user_id=user, memory=memory, session_settings=SessionSettings(limit=3)
    )
    assert await limited.get_items() == user_items("c", "d", "e")
    assert await limited.get_items(limit=1) == user_items("e")


async def test_long_session_is_read_completely(session: ConversationMemorySession) -> None:
    texts = [str(number) for number in range(2150)]
    await session.add_items(user_items(*texts))
    assert await session.get_items() == user_items(*texts)
    assert await session.get_items(limit=1500) == user_items(*texts[-1500:])


async def test_compacted_session_starts_with_its_summary(
    session: ConversationMemorySession, memory: AsyncConversationMemory
) -> None:
    texts = [str(number) for number in range(1150)]
    await session.add_items(user_items(*texts))
    await memory.compact(session.conversation_id, 100, "They counted.")
    summary = items({"role": "system", "content": "They counted."})
    assert await session.get_items() == [*summary, *user_items(*texts[100:])]
    assert await session.get_items(limit=3) == [*summary, *user_items(*texts[-3:])]
    assert await session.get_items(limit=1100) == [*summary, *user_items(*texts[100:])]
    assert await session.pop_item() == user_items(texts[-1])[0]


async def test_items_beyond_the_size_of_an_answer_are_read(
    session: ConversationMemorySession,
) -> None:
    """A response of the service has about 3 MiB at most."""
    texts = [str(number) + "x" * 900_000 for number in range(5)]
    for text in texts:
        await session.add_items(user_items(text))
    assert await session.get_items(limit=5) == user_items(*texts)
    assert await session.get_items(limit=4) == user_items(*texts[1:])


async def test_adding_no_items_creates_no_conversation(
    session: ConversationMemorySession, memory: AsyncConversationMemory
) -> None:
    await session.add_items([])
    await session.clear_session()
    with pytest.raises(NotFound):
        await memory.get_conversation(session.conversation_id)


async def test_session_can_be_used_after_clear(session: ConversationMemorySession) -> None:
    await session.add_items(user_items("a", "b"))
    await session.clear_session()
    assert await session.get_items() == []
    assert await session.pop_item() is None
    await session.add_items(user_items("c"))
    assert await session.get_items() == user_items("c")
    assert await session.get_items(limit=9) == user_items("c")


async def test_sessions_are_isolated(memory: AsyncConversationMemory, user: str) -> None:
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
        await session.add_items(user_items(str(number)))
    await sessions[0].clear_session()
    for number, session in enumerate(sessions):
        assert await session.get_items() == (user_items(str(number)) if number else [])


async def test_concurrent_appends_stay_together(memory: AsyncConversationMemory, user: str) -> None:
    async def write(name: str) -> None:
        session = ConversationMemorySession("shared", user_id=user, memory=memory)
        for number in range(10):
            await session.add_items(user_items(f"{name} {number} ?", f"{name} {number} !"))

    names = [f"writer {number}" for number in range(16)]
    await asyncio.gather(*[write(name) for name in names])
    session = ConversationMemorySession("shared", user_id=user, memory=memory)
    texts = [cast("dict[str, str]", item)["content"] for item in await session.get_items()]
    for name in names:
        mine = [text for text in texts if text.startswith(name + " ")]
        assert mine == [f"{name} {number} {end}" for number in range(10) for end in "?!"]
    for question, answer in zip(texts[::2], texts[1::2], strict=True):
        assert answer == question.replace("?", "!"), "items that are added together are adjacent"


async def test_concurrent_pops_return_each_item_once(
    memory: AsyncConversationMemory, user: str
) -> None:
    async def pop() -> TResponseInputItem | None:
        session = ConversationMemorySession("shared", user_id=user, memory=memory)
        return await session.pop_item()

    session = ConversationMemorySession("shared", user_id=user, memory=memory)
    texts = [str(number) for number in range(20)]
    await session.add_items(user_items(*texts))
    popped = await asyncio.gather(*[pop() for _ in range(24)])
    taken = sorted(int(cast("dict[str, str]", item)["content"]) for item in popped if item)
    assert taken == list(range(20))
    assert popped.count(None) == 4


async def test_pop_does_not_remove_items_added_concurrently(
    memory: AsyncConversationMemory, user: str
) -> None:
    session = ConversationMemorySession("shared", user_id=user, memory=memory)
    await session.add_items(user_items(*[f"old {number}" for number in range(20)]))

    async def add(number: int) -> None:
        await session.add_items(user_items(f"new {number}"))

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


async def test_cancelled_save_is_atomic(
    session: ConversationMemorySession, memory: AsyncConversationMemory, user: str
) -> None:
    saved = 0
    for steps in range(12):
        adding = asyncio.ensure_future(session.add_items(user_items(f"{steps} ?", f"{steps} !")))
        for _ in range(steps):
            await asyncio.sleep(0)
        if adding.cancel():
            with pytest.raises(asyncio.CancelledError):
                await adding
        found = await session.get_items()
        if steps:
            # A save that has begun is completed before the cancellation is raised.
            saved += 1
            assert found[-2:] == user_items(f"{steps} ?", f"{steps} !")
        assert len(found) == 2 * saved


@function_tool
def look_up(topic: str) -> str:
    return f"{topic}: 25 days a year, requested in the HR portal"


class Scripted(Model):
    """Calls the tool first, and then answers from its input only."""

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


async def test_runner_continues_a_stored_session(
    memory: AsyncConversationMemory, user: str
) -> None:
    model = Scripted()
    agent = Agent(name="HR", model=model, tools=[look_up])

    async def ask(question: str) -> str:
        # A separate process would create its own session too.
        session = ConversationMemorySession("thread", user_id=user, memory=memory)
        result = await Runner.run(agent, question, session=session, run_config=QUIET)
        return str(result.final_output)

    assert await ask("What is our vacation policy?") == "25 days."
    assert await ask("How do I request it?") == "In the HR portal."
    kinds = [item.get("type", item.get("role")) for item in model.given[-1]]
    assert kinds == ["user", "function_call", "function_call_output", "message", "user"]
    assert len(model.given) == 3, "the second turn does not call the tool"


async def test_sessions_of_different_users_are_isolated(
    memory: AsyncConversationMemory, user: str
) -> None:
    agent = Agent(name="HR", model=Scripted(), tools=[look_up])
    mine, other = (
        ConversationMemorySession("thread", user_id=owner, memory=memory)
        for owner in (user, user + "'")
    )
    await Runner.run(agent, "What is our vacation policy?", session=mine, run_config=QUIET)
    assert await other.get_items() == []
