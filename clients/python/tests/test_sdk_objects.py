"""Tool calls and contents as objects of the SDKs that return them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from anthropic.types import TextBlock, ToolUseBlock
from google.genai import types as genai
from langchain_core.messages import AIMessage
from openai.types.chat import (
    ChatCompletionContentPartTextParam,
    ChatCompletionMessage,
    ChatCompletionMessageCustomToolCall,
    ChatCompletionMessageFunctionToolCall,
)
from openai.types.chat.chat_completion_message_custom_tool_call import Custom
from openai.types.chat.chat_completion_message_function_tool_call import Function
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputText

from conversation_memory import AsyncConversationMemory, ConversationMemory, Message, TextPart
from conversation_memory.openai_agents import ConversationMemorySession

from .sidecar import TIMEOUT, Sidecar

ARGUMENTS = '{"topic":"vacation"}'
CHAT: dict[str, Any] = {
    "id": "c",
    "type": "function",
    "function": {"name": "look_up", "arguments": ARGUMENTS},
}
OPENAI = ChatCompletionMessageFunctionToolCall(
    id="c", type="function", function=Function(name="look_up", arguments=ARGUMENTS)
)
LANGCHAIN = AIMessage(
    "", tool_calls=[{"name": "look_up", "args": {"topic": "vacation"}, "id": "c"}]
).tool_calls[0]

CALLS: dict[str, Any] = {
    "a dict": CHAT,
    "a dict without type": {key: CHAT[key] for key in ("id", "function")},
    "OpenAI": OPENAI,
    "a dict with an object": {**CHAT, "function": OPENAI.function},
    "OpenAI Responses": ResponseFunctionToolCall(
        type="function_call", call_id="c", name="look_up", arguments=ARGUMENTS
    ),
    "LangChain": LANGCHAIN,
    "Anthropic": ToolUseBlock(type="tool_use", id="c", name="look_up", input={"topic": "vacation"}),
    "Gemini": genai.FunctionCall(id="c", name="look_up", args={"topic": "vacation"}),
}


@pytest.fixture
def blocking(sidecar: Sidecar) -> Iterator[ConversationMemory]:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        yield memory


@pytest.mark.parametrize("name", CALLS)
def test_tool_calls_of_every_sdk_are_stored(
    blocking: ConversationMemory, user: str, name: str
) -> None:
    expected = [
        {"role": "assistant", "content": None, "tool_calls": [CHAT]},
        {"role": "tool", "tool_call_id": "c", "content": "25"},
    ]
    for content in (None, [TextPart("Wait.")]):
        with blocking.turn(user) as turn:
            turn.assistant(content, tool_calls=[CALLS[name]])
            turn.tool("25", tool_call_id="c")
        shown = blocking.get_history(turn.conversation_id).to_openai()
        assert shown[0]["tool_calls"] == [CHAT]
        assert shown[1] == expected[1]
        if content is None:
            assert shown == expected


@pytest.mark.parametrize("name", CALLS)
def test_tool_calls_in_a_dict_are_stored(name: str) -> None:
    message = Message.from_openai(
        {"role": "assistant", "content": "", "tool_calls": [CALLS[name], OPENAI]}
    )
    (call, second) = message.to_openai()["tool_calls"]
    assert {**CHAT, **call} == second == CHAT


def test_mixed_tool_calls_are_stored_in_their_order(
    blocking: ConversationMemory, user: str
) -> None:
    custom = ChatCompletionMessageCustomToolCall(
        id="d", type="custom", custom=Custom(name="sql", input="SELECT 1")
    )
    second = {**LANGCHAIN, "id": "e"}
    with blocking.turn(user) as turn:
        turn.assistant("", tool_calls=(each for each in (OPENAI, custom, second)))
    (shown,) = blocking.get_history(turn.conversation_id).to_openai()
    assert [call["id"] for call in shown["tool_calls"]] == ["c", "d", "e"]
    assert shown["tool_calls"][1] == custom.model_dump()


@pytest.mark.parametrize(
    "call", ["c", 5, None, {}, {"id": "c"}, {"type": "function"}, {"name": ""}, object()]
)
def test_unknown_tool_call_is_rejected_by_its_index(
    blocking: ConversationMemory, user: str, call: Any
) -> None:
    with blocking.turn(user) as turn:
        turn.user("x")
        with pytest.raises(TypeError, match=r"tool_calls\[1\]"):
            turn.assistant(None, tool_calls=[CHAT, call])
    assert len(blocking.get_history(turn.conversation_id).messages) == 1


@dataclass
class Block:
    type: str
    text: str


def test_contents_of_sdks_are_stored(blocking: ConversationMemory, user: str) -> None:
    message = ChatCompletionMessage(role="assistant", content="one", tool_calls=None)
    with blocking.turn(user) as turn:
        turn.add(message)
        turn.assistant(message.content, tool_calls=message.tool_calls)
        turn.assistant([TextBlock(type="text", text="two", citations=None)])
        turn.assistant(TextBlock(type="text", text="three"))  # type: ignore[arg-type]
        turn.user([ChatCompletionContentPartTextParam(type="text", text="four"), "five"])
        turn.user([Block("text", "six")])  # type: ignore[list-item]
        turn.add({"role": "user", "content": [Block("text", "seven")]})
    contents = [
        message.content for message in blocking.get_history(turn.conversation_id, limit=9).messages
    ]
    assert contents == ["one", "one", "two", "three", "four\nfive", "six", "seven"]


@pytest.mark.parametrize("content", [5, {"text": "x"}, object(), b"x"])
def test_content_of_another_type_is_rejected_by_name(
    blocking: ConversationMemory, user: str, content: Any
) -> None:
    with blocking.turn(user) as turn:
        turn.user("x")
        with pytest.raises(TypeError, match="content"):
            turn.user(content)


def test_value_that_is_not_json_is_rejected_by_its_place() -> None:
    for value in (object(), b"x", {1}):
        with pytest.raises(TypeError, match=r"not \w+ \(at content\[0\]\.x\.y\)"):
            Message.from_openai({"role": "user", "content": [{"x": {"y": value}}]})
    with pytest.raises(TypeError, match=r"keys must be strings \(at x\)"):
        Message.from_openai({"role": "user", "content": "", "x": {1: 2}})


async def test_items_as_objects_are_stored(aio: AsyncConversationMemory, user: str) -> None:
    session = ConversationMemorySession("s", user_id=user, memory=aio)
    call = ResponseFunctionToolCall(type="function_call", call_id="c", name="f", arguments="{}")
    text = ResponseOutputText(type="output_text", text="x", annotations=[])
    items: list[Any] = [
        {"role": "user", "content": "x"},
        call,
        {"type": "function_call_output", "call_id": "c", "output": "y"},
        {"type": "message", "role": "assistant", "id": "m", "content": [text]},
    ]
    await session.add_items(items)
    found: list[Any] = await session.get_items()
    assert found[1] == call.model_dump(exclude_unset=True)
    assert found[3]["content"] == [text.model_dump(exclude_unset=True)]
    assert json.dumps(found)


async def test_session_settings_can_be_a_dict(aio: AsyncConversationMemory, user: str) -> None:
    settings: Any = {"limit": 2}
    session = ConversationMemorySession("s", user_id=user, memory=aio, session_settings=settings)
    items: list[Any] = [{"role": "user", "content": str(number)} for number in range(5)]
    await session.add_items(items)
    assert session.session_settings is not None
    assert session.session_settings.limit == 2
    assert await session.get_items() == items[-2:]
    assert await session.get_items(3) == items[-3:]
    session.session_settings = {"limit": 1}  # type: ignore[assignment]
    assert await session.get_items() == items[-1:]
    session.session_settings = None
    assert await session.get_items() == items


@pytest.mark.parametrize("settings", [{"limit": "many"}, {"limits": 2}, 5, "x"])
def test_invalid_session_settings_are_rejected(
    aio: AsyncConversationMemory, user: str, settings: Any
) -> None:
    from agents.memory import SQLiteSession

    with pytest.raises(Exception) as theirs:  # noqa: PT011
        SQLiteSession("s", session_settings=settings)
    with pytest.raises(theirs.type):
        ConversationMemorySession("s", user_id=user, memory=aio, session_settings=settings)
