"""History provider of Microsoft's Agent Framework, compared with the one in memory."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

import pytest
from agent_framework import (
    Agent,
    AgentSession,
    BaseChatClient,
    ChatResponse,
    Content,
    FunctionInvocationLayer,
    InMemoryHistoryProvider,
    Message,
    _sessions,
)

import conversation_memory as cm
from conversation_memory import AsyncConversationMemory, NotFound, conversation_id_for
from conversation_memory.agent_framework import ConversationMemoryHistoryProvider

KNOWS_REPLAYS = hasattr(_sessions, "filter_new_messages")
"""Whether the framework's own providers recognise messages that they have saved already."""

PNG = b"\x89PNG" * 100


@pytest.fixture
def provider(aio: AsyncConversationMemory, user: str) -> ConversationMemoryHistoryProvider:
    return ConversationMemoryHistoryProvider(user_id=user, memory=aio)


def call(id_: str, **arguments: Any) -> Message:
    return Message("assistant", [Content.from_function_call(id_, "look_up", arguments=arguments)])


def result(id_: str, value: Any) -> Message:
    return Message("tool", [Content.from_function_result(id_, result=value)])


EVERY_KIND = [
    Message("system", ["Be brief."]),
    Message("user", ["What is our vacation policy?"], author_name="ana", message_id="m1"),
    Message(
        "user",
        [
            "And this?",
            Content.from_data(PNG, "image/png"),
            Content.from_uri("https://example.com/a.png", media_type="image/png"),
            Content.from_hosted_file("file-1"),
        ],
        additional_properties={"odd": [1, 2**60, float("inf"), None, "\0\ud800"]},
    ),
    Message("assistant", [Content.from_text_reasoning(text="Hm."), "Let me look."]),
    call("call_1", topic="vacation", days=2**60),
    result("call_1", {"days": 25}),
    Message(
        "assistant",
        [
            Content.from_function_call("call_2", "f", arguments="not JSON"),
            call("call_3").contents[0],
        ],
    ),
    Message("tool", [result("call_3", "three").contents[0], result("call_2", None).contents[0]]),
    Message("assistant", [Content.from_error(message="no", error_code="5")]),
    Message("critic", ["a role of its own"]),
    Message("assistant", ["x" * 70_000]),
    Message("user", []),
]


def plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [message.to_dict() for message in messages]


async def test_messages_are_read_back_equal(
    provider: ConversationMemoryHistoryProvider, aio: AsyncConversationMemory, user: str
) -> None:
    assert await provider.get_messages("s") == []
    await provider.save_messages("s", [])
    await provider.save_messages("s", EVERY_KIND)
    assert plain(await provider.get_messages("s")) == plain(EVERY_KIND)
    id_ = provider.conversation_id("s")
    assert id_ == conversation_id_for("s", framework="agent-framework", user_id=user)
    listed = [message async for message in aio.list_messages(id_)]
    assert [(each.role, each.content) for each in listed][1:6] == [
        ("user", "What is our vacation policy?"),
        ("user", "And this?"),
        ("assistant", "Let me look."),
        ("assistant", ""),
        ("tool", '{"days": 25}'),
    ]
    with pytest.raises(NotFound):
        await aio.get_conversation(id_, user_id=user + "'")


async def test_messages_of_other_clients_are_shown(
    provider: ConversationMemoryHistoryProvider, aio: AsyncConversationMemory, user: str
) -> None:
    await provider.save_messages("s", EVERY_KIND[:1])
    async with aio.turn(user, conversation_id=provider.conversation_id("s")) as turn:
        turn.user(["And this?", cm.BlobPart("image/png", PNG), cm.FilePart("file-1", "", "")])
        function = {"name": "f", "arguments": '{"a": 1}'}
        turn.assistant(tool_calls=[{"id": "c", "type": "function", "function": function}])
        turn.tool("25 days", tool_call_id="c")
        turn.add(cm.Message("assistant", "25 days.", name="hr"))
    shown = await provider.get_messages("s")
    assert [(each.role, each.text, each.author_name) for each in shown] == [
        ("system", "Be brief.", None),
        ("user", "And this?", None),
        ("assistant", "", None),
        ("tool", "", None),
        ("assistant", "25 days.", "hr"),
    ]
    kinds = [[content.type for content in each.contents] for each in shown]
    assert kinds[1:4] == [["text", "data", "hosted_file"], ["function_call"], ["function_result"]]
    assert shown[2].contents[0].parse_arguments() == {"a": 1}


async def test_a_message_of_an_unknown_kind_does_not_affect_the_others(
    provider: ConversationMemoryHistoryProvider, aio: AsyncConversationMemory, user: str
) -> None:
    from conversation_memory._forms import agent_framework as form
    from conversation_memory._forms import stored

    value = {"role": "user", "contents": [{"type": "text", "text": "Hi"}, {"type": 5}]}
    message = stored.message_of(form.FORM, value, *form.split(value))
    await provider.save_messages("s", EVERY_KIND[:2])
    await aio.save_messages(provider.conversation_id("s"), [message], user_id=user)
    shown = await provider.get_messages("s")
    assert plain(shown[:2]) == plain(EVERY_KIND[:2])
    assert shown[2].text.startswith("Hi")


async def test_the_user_can_be_in_the_session(aio: AsyncConversationMemory, user: str) -> None:
    provider = ConversationMemoryHistoryProvider(memory=aio)
    with pytest.raises(ValueError, match="a user is required"):
        await provider.get_messages("s", state={})
    with pytest.raises(ValueError, match="a session id is required"):
        await provider.save_messages(None, EVERY_KIND, state={"user_id": user})
    await provider.save_messages("s", EVERY_KIND[:2], state={"user_id": user})
    assert len(await provider.get_messages("s", state={"user_id": user})) == 2
    assert await provider.get_messages("s", state={"user_id": user + "'"}) == []
    fixed = ConversationMemoryHistoryProvider(memory=aio, user_id=user)
    assert fixed.conversation_id("s") == provider.conversation_id("s", user_id=user)


async def test_messages_that_cannot_be_read_back_are_rejected(
    provider: ConversationMemoryHistoryProvider,
) -> None:
    class Special(Message):
        pass

    with pytest.raises(TypeError, match="Special cannot be read back"):
        await provider.save_messages("s", [EVERY_KIND[0], Special("user", ["x"])])
    assert await provider.get_messages("s") == []


async def test_concurrent_runs_save_whole_turns(
    provider: ConversationMemoryHistoryProvider,
) -> None:
    turns = [[Message("user", [f"q{n}"]), Message("assistant", [f"a{n}"])] for n in range(10)]
    await asyncio.gather(*[provider.save_messages("s", turn) for turn in turns])
    texts = [message.text for message in await provider.get_messages("s")]
    assert sorted(zip(texts[::2], texts[1::2], strict=True)) == [
        (f"q{n}", f"a{n}") for n in range(10)
    ]


@pytest.mark.parametrize("seed", range(6))
async def test_providers_agree(provider: ConversationMemoryHistoryProvider, seed: int) -> None:
    source = random.Random(seed)
    other, state = InMemoryHistoryProvider(), dict[str, Any]()
    said: list[Message] = []
    for step in range(25):
        id_ = source.choice([None, str(uuid.uuid4())])
        text = source.choice(["Hi", "How many?", f"step {step}"])
        group = source.choice(
            [
                [Message("user", [text], message_id=id_)],
                [Message("user", [text]), Message("assistant", [text], message_id=id_)],
                [call(f"c{step}", n=step), result(f"c{step}", text)],
                [Message("user", [text, Content.from_data(PNG, "image/png")])],
            ]
        )
        said += group
        # An agent can give the whole transcript, or its end, again.
        overlap = source.choice([0, 0, len(said), 1, 2, 5]) if KNOWS_REPLAYS else 0
        given = said[-(len(group) + overlap) :] if overlap else group
        if given[0].role == "tool":
            given = group
        for each in (provider, other):
            await each.save_messages("s", given, state=state)
        expected = plain(await other.get_messages("s", state=state))
        assert plain(await provider.get_messages("s", state=state)) == expected, step
        said = [*(await other.get_messages("s", state=state))]


class Model(FunctionInvocationLayer, BaseChatClient):
    """Calls a tool, and answers with what it knows."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[list[Message]] = []

    def _inner_get_response(
        self, *, messages: Sequence[Message], stream: bool, options: Mapping[str, Any], **_: Any
    ) -> Any:
        async def answer() -> ChatResponse[Any]:
            self.inputs.append(list(messages))
            if messages[-1].role == "user" and len(messages) == 1:
                return ChatResponse(messages=[call("c", topic="vacation")])
            known = " ".join(
                str(content.result)
                for each in messages
                for content in each.contents
                if content.result
            )
            return ChatResponse(messages=[Message("assistant", [f"I know: {known}"])])

        return answer()


def look_up(topic: str) -> str:
    """Looks up a policy."""
    return f"{topic}: 25 days"


async def test_an_agent_remembers(aio: AsyncConversationMemory, user: str) -> None:
    for question in ("What is our vacation policy?", "How many days?"):
        # Each run is that of another process.
        model = Model()
        provider = ConversationMemoryHistoryProvider(user_id=user, memory=aio)
        agent = Agent(model, tools=[look_up], context_providers=[provider])
        run: Awaitable[Any] = agent.run(question, session=AgentSession(session_id="s"))
        assert "vacation: 25 days" in (await run).text
    assert [message.role for message in model.inputs[0]] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]
    shown = await provider.get_messages("s")
    assert [each.text for each in shown if each.role == "user"] == [
        "What is our vacation policy?",
        "How many days?",
    ]
    assert json.dumps(plain(shown))


async def test_an_agent_serves_the_users_of_its_sessions(
    aio: AsyncConversationMemory, user: str
) -> None:
    provider = ConversationMemoryHistoryProvider(memory=aio)
    agent = Agent(Model(), tools=[look_up], context_providers=[provider])
    for owner in (user, user + "'"):
        session = agent.create_session(session_id="s")
        session.state["conversation_memory"] = {"user_id": owner}
        await agent.run(f"What is the policy of {owner}?", session=session)
    for owner in (user, user + "'"):
        id_ = provider.conversation_id("s", user_id=owner)
        first = await anext(aio.list_messages(id_, user_id=owner))
        assert first.content == f"What is the policy of {owner}?"


async def test_a_negative_limit_is_rejected(aio: AsyncConversationMemory, user: str) -> None:
    """It must not hide the history."""
    with pytest.raises(ValueError, match="limit"):
        ConversationMemoryHistoryProvider(user_id=user, memory=aio, limit=-1)
    provider = ConversationMemoryHistoryProvider(user_id=user, memory=aio, limit=0)
    assert await provider.get_messages("s") == []
