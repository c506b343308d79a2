"""Messages that other clients, versions and frameworks have written: every reader shows them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from google.adk.events import Event
from google.adk.sessions import Session
from google.adk.sessions.base_session_service import GetSessionConfig
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, RemoveMessage

from conversation_memory import (
    AsyncConversationMemory,
    ConversationMemory,
    GenericPart,
    Message,
    TextPart,
    _adk,
    _adk_events,
    _adk_state,
)
from conversation_memory._convert import read_message
from conversation_memory._forms import anthropic, chat, responses
from conversation_memory._proto.v1 import resources_pb2 as resources
from conversation_memory._structs import to_struct
from conversation_memory.google_adk import ConversationMemorySessionService
from conversation_memory.langchain import ConversationMemoryChatMessageHistory, _to_langchain
from conversation_memory.openai_agents import ConversationMemorySession, _to_item

from .sidecar import TIMEOUT, Sidecar

FORMS: dict[str, list[Any]] = {
    "openai": [
        {
            "role": "assistant",
            "content": "hi",
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": "x"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    ],
    "openai-agents": [
        {"role": "user", "content": "x"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "x"},
        {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "x"}]},
    ],
    "anthropic": [
        {"role": "user", "content": "x"},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c"}]},
    ],
    "langchain": [
        {"type": "human", "data": {"content": "x", "type": "human"}},
        {
            "type": "ai",
            "data": {"content": "", "tool_calls": [{"name": "f", "args": {}, "id": "c"}]},
        },
        {"type": "tool", "data": {"content": "x", "tool_call_id": "c"}},
        {"type": "chat", "data": {"content": "x", "role": "critic"}},
        {"type": "remove", "data": {"id": "x", "content": ""}},
    ],
    "google-adk": [
        {
            "event": {
                "author": "user",
                "id": "e",
                "timestamp": 1.0,
                "content": {
                    "role": "user",
                    "parts": [
                        {"text": "x"},
                        {"function_call": {"id": "c", "name": "f", "args": {}}},
                        {"inline_data": {"data": "aGk=", "mime_type": "image/png"}},
                    ],
                },
                "actions": {"state_delta": {"a": 1, "user:b": 2}},
            },
            "snapshot": {"state": {"a": 1}, "through": 1},
            "base": {"user:": 3},
        },
        {"session": {"created": 1.0, "state_delta": {"a": 1}}},
        {"delta": {"a": 1}},
        {"user": "ana"},
    ],
    "a future form": [{"a": 1}],
}

TEXTS = [
    "",
    "x",
    "c",
    "{}",
    '{"a":1}',
    "[1]",
    "nul",
    "NaN",
    '{"a":NaN}',
    '{"a":1e999}',
    '{"\\ud800":"\\ud800"}',
    '{"a":' * 400 + "1" + "}" * 400,
    "1" * 5000,
    "[" * 3000,
    "image/png",
    "https://memory.example",
    "data:x",
]


class Foreign:
    """A generator of messages as the service could return them, valid or not."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def conversation(self) -> list[resources.Message]:
        return [self._message(seq + 1) for seq in range(self._random.randrange(1, 7))]

    def _message(self, seq: int) -> resources.Message:
        chance = self._random.random
        message = resources.Message(
            id=f"0198a2f0-7c4e-7b1e-9d5a-{seq:012x}",
            seq=seq,
            role=self._random.choice([1, 2, 2, 3, 4, 4, 0, 9]),  # type: ignore[arg-type]
            name=self._random.choice(["", "ana", "Ana B."]),
            pinned=chance() < 0.1,
            redacted=chance() < 0.05,
            is_summary=chance() < 0.05,
        )
        if chance() < 0.1:
            message.created_at.seconds = self._random.choice([0, 10**15, -(10**15)])
        message.parts.extend(self._part() for _ in range(self._random.choice([0, 1, 1, 2, 3])))
        if chance() < 0.6:
            form = self._random.choice(list(FORMS))
            value = self._changed(self._random.choice(FORMS[form]))
            text = json.dumps(value) if chance() < 0.95 else "{bad"
            if chance() < 0.7:
                generic = resources.GenericPart(type=f"delta:{form}", json=text)
                message.parts.append(resources.Part(generic=generic))
            else:
                message.metadata.CopyFrom(to_struct({"_original": {"form": form, "json": text}}))
        if not message.parts:
            message.content = self._random.choice(["", "hello"])
        return message

    def _part(self) -> resources.Part:
        text = self._random.choice(TEXTS)
        call_id, data = self._random.choice(["c", "d"]), self._random.choice([b"", b"hi"])
        mime_type = self._random.choice(["image/png", "audio/wav", "application/pdf", "x/y", ""])
        future = self._random.choice(["x", "delta:", "delta:future", "future.part"])
        response = resources.ToolCallResponsePart(id=call_id, response=text)
        return self._random.choice(
            [
                resources.Part(text=resources.TextPart(content=text)),
                resources.Part(reasoning=resources.ReasoningPart(content=text)),
                resources.Part(
                    tool_call=resources.ToolCallPart(id=call_id, name=text, arguments=text)
                ),
                resources.Part(tool_call_response=response),
                resources.Part(blob=resources.BlobPart(mime_type=mime_type, data=data)),
                resources.Part(uri=resources.UriPart(uri=text, mime_type=mime_type)),
                resources.Part(file=resources.FilePart(file_id=text)),
                resources.Part(generic=resources.GenericPart(type=future, json=text)),
                # A part of a kind that this version does not know.
                resources.Part.FromString(b"\xfa\x01\x01x"),
            ]
        )

    def _changed(self, value: Any) -> Any:
        if self._random.random() < 0.15:
            return self._random.choice(
                [None, 0, 2**70, 1.5, "x", "\ud800", [], {}, ["x"], {"$": 1}]
            )
        if isinstance(value, dict):
            return {
                key: self._changed(item)
                for key, item in value.items()
                if self._random.random() > 0.1
            }
        if isinstance(value, list):
            return [self._changed(item) for item in value if self._random.random() > 0.1]
        return value


def check_adk(messages: list[Message]) -> None:
    for config in (None, GetSessionConfig(num_recent_events=2)):
        selection = _adk_events.EventSelection(config, "app")
        own = _adk_state.StateReader(_adk_state.own_delta)
        shared = _adk_state.StateReader(_adk_state.shared_delta)
        for message in messages[::-1]:
            selection.is_full_at(message)
            own.is_complete_at(message)
            shared.is_complete_at(message)
        session = Session(id="s", app_name="a", user_id="u", events=selection.events())
        json.dumps(session.model_dump(mode="json"))
        assert all(isinstance(key, str) for key in own.state(messages) | shared.state(messages))
    _adk_events.update_time(messages[-1])
    _adk.state_delta_of(_adk.record_of(messages[-1]))


@pytest.mark.parametrize("seed", range(8))
def test_every_reader_shows_any_messages(seed: int) -> None:
    foreign = Foreign(seed)
    for _ in range(250):
        raw = foreign.conversation()
        messages = [read_message(each) for each in raw]
        chat.show_history(messages)
        [chat.show(message) for message in messages]
        responses.show_history(messages)
        anthropic.show_history(messages)
        [_to_item(message) for message in messages]
        found = _to_langchain(messages)
        assert not any(isinstance(message, RemoveMessage) for message in found)
        check_adk(messages)


@pytest.fixture
def blocking(sidecar: Sidecar) -> Iterator[ConversationMemory]:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        yield memory


def details(form: str, value: Any) -> GenericPart:
    text = value if isinstance(value, str) else json.dumps(value)
    return GenericPart(f"delta:{form}", text)


ODD: dict[str, Message] = {
    "a class that is not importable": Message(
        "user",
        parts=(
            TextPart("odd"),
            details("langchain", {"type": "custom", "data": {"content": "odd", "x": 1}}),
        ),
    ),
    "a role that is missing": Message(
        "assistant",
        parts=(TextPart("odd"), details("langchain", {"type": "chat", "data": {"content": "odd"}})),
    ),
    "a newer version": Message(
        "assistant",
        parts=(
            TextPart("odd"),
            details("langchain", {"type": "ai", "data": {"content": {"v2": "odd"}}}),
        ),
    ),
    "a newer event": Message(
        "assistant",
        parts=(
            TextPart("odd"),
            details(
                "google-adk",
                {
                    "event": {
                        "author": "hr",
                        "content": {"role": "model", "parts": [{"text": "odd"}]},
                        "actions": {"from_the_future": 1, "state_delta": {"k": 1}},
                    }
                },
            ),
        ),
    ),
    "another framework": Message(
        "assistant", parts=(TextPart("odd"), details("a future form", {"any": "thing"}))
    ),
    "a corrupted form": Message("assistant", parts=(TextPart("odd"), details("openai", "{"))),
    "wrong types": Message(
        "assistant",
        parts=(
            TextPart("odd"),
            details("openai", {"role": "assistant", "content": 5, "tool_calls": [3]}),
        ),
    ),
    "an unknown part": Message("user", parts=(TextPart("odd"), GenericPart("future.part", "{}"))),
}


@pytest.mark.parametrize("name", ODD)
async def test_one_odd_message_is_shown_as_text_between_the_others(
    blocking: ConversationMemory, aio: AsyncConversationMemory, user: str, name: str
) -> None:
    service = ConversationMemorySessionService(aio)
    names: dict[str, Any] = {"app_name": "hr", "user_id": user, "session_id": "s"}
    await service.create_session(**names)
    shared = service.conversation_id(**names)
    fields: dict[str, Any] = {"user_id": user, "conversation_id": shared}
    session = ConversationMemorySession("s", memory=aio, **fields)
    history = ConversationMemoryChatMessageHistory("s", memory=blocking, **fields)
    history.add_messages([HumanMessage("first")])
    blocking.save_messages(shared, [ODD[name]])
    history.add_messages([AIMessage("last")])

    found = history.messages
    assert [message.text for message in found][::2] == ["first", "last"]
    assert found[1].text.startswith("odd")
    assert "odd" in str(history)
    items: list[Any] = await session.get_items()
    assert [str(item["content"])[:60] for item in items][::2] == ["first", "last"]
    assert "odd" in str(items[1])
    loaded = await service.get_session(**names)
    assert loaded is not None
    texts = [
        "".join(part.text or "" for part in (event.content and event.content.parts) or [])
        for event in loaded.events
    ]
    assert texts[::2] == ["first", "last"]
    assert "odd" in texts[1]
    shown = blocking.get_history(shared)
    for text in (shown.to_openai(), shown.to_responses(), shown.to_anthropic()):
        assert str(text).index("first") < str(text).index("odd") < str(text).index("last")


@pytest.mark.parametrize("change", ["pinned", "compacted", "redacted"])
async def test_adapters_read_conversations_that_other_calls_have_changed(
    blocking: ConversationMemory, aio: AsyncConversationMemory, user: str, change: str
) -> None:
    service = ConversationMemorySessionService(aio)
    names: dict[str, Any] = {"app_name": "hr", "user_id": user, "session_id": "s"}
    await service.create_session(**names, state={"k": 1})
    shared = service.conversation_id(**names)
    fields: dict[str, Any] = {"user_id": user, "conversation_id": shared}
    session = ConversationMemorySession("s", memory=aio, **fields)
    history = ConversationMemoryChatMessageHistory("s", memory=blocking, **fields)
    call = {"name": "f", "args": {}, "id": "c", "type": "tool_call"}
    with blocking.turn(user, conversation_id=shared) as turn:
        turn.add(Message("system", "note", pinned=change == "pinned"))
        turn.user("question")
        turn.assistant(tool_calls=[call])
        turn.tool("result", tool_call_id="c")
        turn.assistant("answer")
    if change == "compacted":
        blocking.compact(shared, 3, "summary")
    if change == "redacted":
        blocking.redact_messages(shared, [1, 2, 3, 4, 5])
    last = "answer"
    assert history.messages[-1].content == last
    items: list[Any] = await session.get_items()
    assert items[-1]["content"] == last
    loaded = await service.get_session(**names)
    assert loaded is not None
    assert loaded.events[-1].content is not None
    assert loaded.state == ({} if change == "redacted" else {"k": 1})


async def test_session_whose_messages_another_client_has_removed_can_be_continued(
    aio: AsyncConversationMemory, user: str
) -> None:
    service = ConversationMemorySessionService(aio)
    names: dict[str, Any] = {"app_name": "hr", "user_id": user, "session_id": "s"}
    await service.create_session(**names, state={"k": 1})
    shared = service.conversation_id(**names)
    await ConversationMemorySession(
        "s", user_id=user, memory=aio, conversation_id=shared
    ).clear_session()
    loaded = await service.get_session(**names)
    assert loaded is not None
    assert (loaded.events, loaded.state) == ([], {})
    event = Event(author="user", invocation_id="i")
    await service.append_event(loaded, event)
    again = await service.get_session(**names)
    assert again is not None
    assert again.events == [event]


def test_remove_message_is_rejected_before_anything_is_saved(
    blocking: ConversationMemory, user: str
) -> None:
    history = ConversationMemoryChatMessageHistory("s", user_id=user, memory=blocking)
    messages: list[BaseMessage] = [HumanMessage("x"), RemoveMessage(id="1")]
    with pytest.raises(TypeError, match="RemoveMessage"):
        history.add_messages(messages)
    assert history.messages == []
