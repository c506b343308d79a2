"""Strict checks that a history is valid for the API of a model: types, and pairs of calls."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import anthropic.types
import openai.types.chat
import openai.types.responses
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from pydantic import TypeAdapter

_CHAT: TypeAdapter[Any] = TypeAdapter(openai.types.chat.ChatCompletionMessageParam)
_RESPONSES: TypeAdapter[Any] = TypeAdapter(openai.types.responses.ResponseInputItemParam)
_ANTHROPIC: TypeAdapter[Any] = TypeAdapter(anthropic.types.MessageParam)

_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def _validate(adapter: TypeAdapter[Any], value: Any) -> None:
    _consume(adapter.validate_python(value))


def _consume(value: Any) -> None:
    """Reads iterators to their end, because their items are validated only then."""
    if isinstance(value, Mapping):
        for item in value.values():
            _consume(item)
    elif isinstance(value, (list, Iterator)):
        for item in value:
            _consume(item)


def check_chat(messages: Sequence[Mapping[str, Any]], *, types: bool = True) -> None:
    """Checks messages of Chat Completions."""
    open_calls: list[str] = []
    can_answer = False
    for message in messages:
        if types:
            _validate(_CHAT, message)
            _check_chat_content(message)
        if message["role"] in ("tool", "function"):
            call_id = message.get("tool_call_id", "function")
            assert can_answer, "a result follows its call, or another result of it"
            assert call_id in open_calls, "a result names an open call of the message before"
            open_calls.remove(call_id)
            continue
        assert not open_calls, "a call is answered before another message"
        calls = message.get("tool_calls") or []
        open_calls = [call["id"] for call in calls]
        if message.get("function_call"):
            open_calls.append("function")
        can_answer = bool(open_calls)


def _check_chat_content(message: Mapping[str, Any]) -> None:
    content = message.get("content")
    assert content != [], "a content is not an empty list"
    if message["role"] == "assistant":
        assert content or message.get("tool_calls") or message.get("refusal")
    if message["role"] in ("assistant", "system", "tool") and isinstance(content, list):
        assert all(part["type"] in ("text", "refusal") for part in content)


def check_responses(items: Sequence[Mapping[str, Any]], *, types: bool = True) -> None:
    """Checks items of the Responses API."""
    open_calls: list[str] = []
    is_tail = True
    for index, item in enumerate(items):
        following = items[index + 1] if index + 1 < len(items) else None
        if types:
            _validate(_RESPONSES, item)
        kind = str(item.get("type") or "message")
        if kind == "reasoning":
            assert following is not None, "reasoning precedes an item"
            assert not str(following.get("type")).endswith("_output")
            assert following.get("role", "assistant") == "assistant"
        elif kind.endswith("_output"):
            assert item["call_id"] in open_calls, "an output follows its open call"
            open_calls.remove(item["call_id"])
            is_tail = False
        elif kind.endswith("_call") and "call_id" in item:
            if not is_tail:
                assert not open_calls, "calls are answered before the next call"
            is_tail = True
            open_calls.append(item["call_id"])
        else:
            # The model may write a text together with the next one of parallel calls.
            is_with_call = item.get("role") == "assistant" and "call_id" in (following or {})
            assert not open_calls or (is_tail and is_with_call), "calls are answered first"
            is_tail = True


def check_anthropic(arguments: Mapping[str, Any]) -> None:
    """Checks arguments of Anthropic's `messages.create`."""
    assert arguments.keys() <= {"messages", "system"}
    assert arguments.get("system", "x").strip()
    messages = arguments["messages"]
    used: set[str] = set()
    calls: list[str] = []
    for index, message in enumerate(messages):
        _validate(_ANTHROPIC, message)
        assert message["role"] == ("assistant" if index % 2 else "user"), "roles alternate"
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        assert blocks, "a content is not empty"
        for block in blocks:
            assert block["type"] != "text" or block["text"].strip(), "a text is not blank"
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        kinds = [block["type"] == "tool_result" for block in blocks]
        assert kinds == sorted(kinds, reverse=True), "results come first"
        assert len(set(results)) == len(results)
        assert set(results) <= set(calls), "a result belongs to a call of the message before"
        is_end = index == len(messages) - 1 and all(kinds)
        assert is_end or set(results) == set(calls), "all calls are answered in the next message"
        calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
        for call in calls:
            assert _ID.fullmatch(call)
            assert call not in used, "ids are unique"
            used.add(call)
    if messages and messages[-1]["role"] == "assistant":
        content = messages[-1]["content"]
        text = content if isinstance(content, str) else content[-1].get("text", "")
        assert text == text.rstrip()


def check_langchain(messages: Sequence[BaseMessage]) -> None:
    """Checks messages of LangChain."""
    open_calls: list[str | None] = []
    can_answer = False
    for message in messages:
        if isinstance(message, ToolMessage):
            assert can_answer
            assert message.tool_call_id in open_calls
            open_calls.remove(message.tool_call_id)
            continue
        assert not open_calls, "a call is answered before another message"
        open_calls = []
        if isinstance(message, AIMessage):
            open_calls = [call["id"] for call in message.tool_calls]
        can_answer = bool(open_calls)


def check_agent_framework(messages: Sequence[Any]) -> None:
    """Checks messages of Agent Framework: each call is answered directly after its message."""
    open_calls: list[str] = []
    can_answer = False
    for message in messages:
        assert message.contents
        kinds = [content.type for content in message.contents]
        if message.role == "tool":
            assert can_answer
            for content in message.contents:
                if content.type == "function_result":
                    open_calls.remove(content.call_id)
            continue
        assert "function_result" not in kinds
        assert not open_calls, "a call is answered before another message"
        calls = [content for content in message.contents if content.type == "function_call"]
        assert message.role == "assistant" or not calls
        open_calls = [content.call_id for content in calls]
        can_answer = bool(open_calls)


def check_events(events: Sequence[Any]) -> None:
    """Checks contents of Gemini's API: as many results as calls, directly after them."""
    calls: list[str] = []
    for index, event in enumerate(events):
        parts = event.content.parts
        assert parts
        results = [part.function_response for part in parts if part.function_response]
        if results:
            ids = sorted(result.id for result in results)
            is_end = index == len(events) - 1 and set(ids) <= set(calls)
            assert is_end or ids == sorted(calls), "all calls are answered in one event"
            assert all(result.name for result in results)
            calls = []
            continue
        assert not calls, "calls are answered before another event"
        calls = [part.function_call.id for part in parts if part.function_call]
        assert event.content.role == ("model" if event.author != "user" else "user")
