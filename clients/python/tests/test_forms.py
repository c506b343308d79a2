"""Forms of models and frameworks: any value is read back equal, and nothing is stored twice."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from anthropic import types as anthropic_types
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessage
from openai.types.responses import ResponseFunctionToolCall

from conversation_memory import (
    ConversationMemory,
    GenericPart,
    Message,
    TextPart,
    ToolCallPart,
)
from conversation_memory import _convert as convert
from conversation_memory._adk_events import EventSelection
from conversation_memory._forms import (
    adk,
    anthropic,
    chat,
    langchain,
    responses,
    stored,
    template,
)
from conversation_memory._proto.v1 import resources_pb2 as resources
from conversation_memory.langchain import _to_langchain

from .sidecar import TIMEOUT, Sidecar
from .strict import check_anthropic, check_chat, check_responses
from .test_openai_messages import json_values, same, texts


def encode_and_decode(message: Message) -> Message:
    sent = convert.write_message(message, "").SerializeToString()
    return convert.read_message(resources.Message.FromString(sent))


def test_repeated_ids_are_one_part(memory: ConversationMemory, user: str) -> None:
    """The service rejects a message with two calls of the same id."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call, call]}
    with memory.turn(user) as turn:
        turn.add({"role": "user", "content": "?"}, message)
    assert memory.get_history(turn.conversation_id).messages[1].to_openai() == message


def test_nothing_is_stored_twice() -> None:
    """Of what is large, each form stores one copy."""
    text, data = "25 days. " * 10_000, bytes(range(256)) * 300
    encoded = base64.b64encode(data).decode()
    messages = [
        Message.from_openai({"role": "user", "content": text, "name": "a b", "x": 1}),
        Message.from_openai({"role": "assistant", "content": None, "refusal": text}),
        Message.from_openai(
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": text, "x": 1},
                    {"type": "image_url", "image_url": {"url": f"data:image/x;base64,{encoded}"}},
                ],
            }
        ),
        Message.from_responses({"type": "message", "role": "user", "content": text}),
        Message.from_responses(
            {"type": "image_generation_call", "id": "ig", "result": encoded, "status": "completed"}
        ),
        Message.from_responses({"type": "web_search_call", "id": "ws", "action": {"query": text}}),
        Message.from_responses(
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": [
                    {"type": "input_text", "text": text},
                    {"type": "input_text", "text": "two"},
                ],
            }
        ),
        Message.from_responses(
            {"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": text}
        ),
        Message.from_anthropic(
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"text": text}}],
            }
        ),
    ]
    for message in messages:
        sent = convert.write_message(message, "")
        largest = sorted(part.ByteSize() for part in sent.parts)[-1:]
        rest = sent.ByteSize() - sum(largest) - len(sent.content)
        assert rest < 600 or len(sent.parts) == 3
        assert sent.ByteSize() < 180_000


responses_items = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["message", "reasoning", "function_call", "a_output", "b_call"])
        | st.text(),
        "role": st.sampled_from(["user", "assistant", "developer", "critic"]),
        "content": texts | st.lists(json_values | st.builds(dict, type=texts, text=texts)),
        "call_id": texts | st.none(),
        "output": json_values,
        "summary": json_values,
        "$": json_values,
        "x": json_values,
    },
)


@given(responses_items)
def test_any_item_is_decoded_equal(item: dict[str, Any]) -> None:
    back = encode_and_decode(Message.from_responses(item))
    (found,) = responses.show(back)
    assert same(found, item)


anthropic_blocks = st.lists(
    json_values
    | st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "thinking", "tool_use", "tool_result", "image", "x"])},
        optional={
            "text": texts,
            "thinking": texts,
            "id": texts,
            "tool_use_id": texts,
            "name": texts,
            "input": json_values,
            "content": texts | json_values,
            "source": json_values,
        },
    ),
    max_size=4,
)


@given(st.sampled_from(["user", "assistant"]), texts | anthropic_blocks)
def test_any_message_of_anthropic_is_kept(role: str, content: Any) -> None:
    value = {"role": role, "content": content}
    back = encode_and_decode(Message.from_anthropic(value))
    found = stored.value_of(back, anthropic.FORM)
    assert same(anthropic._show_one(back) if found is None else found, value)


@given(st.text(), st.dictionaries(st.text(), json_values, max_size=4))
def test_any_value_of_a_framework_is_kept(kind: str, value: dict[str, Any]) -> None:
    for form, split, wrapped in (
        (langchain.FORM, langchain.split, {"type": kind, "data": value}),
        (adk.FORM, adk.split, {"event": value}),
    ):
        role, parts = split(wrapped)
        message = stored.message_of(form, wrapped, role, parts)
        assert same(stored.value_of(encode_and_decode(message), form), wrapped)


@pytest.mark.parametrize(
    "json_text",
    [
        "{",
        '{"$":[0]}',
        '{"$":[9,"text"]}',
        '{"$":[-1,"text"]}',
        '{"$":[0,"unknown"]}',
        '{"$":["a","text"]}',
        '{"$":[0,"json"]}',
        '{"$":[0,"b64",""]}',
        '{"$":1}',
        "[" * 30_000,
        "[" * 201 + "]" * 201,
        '{"role":"critic"}',
        "[]",
        "1",
    ],
)
def test_invalid_details_do_not_fail_a_history(json_text: str) -> None:
    for form in ("openai", "openai-agents", "langchain", "google-adk", "anthropic"):
        parts = (TextPart("hi"), GenericPart(f"delta:{form}", json_text))
        message = encode_and_decode(Message("user", parts=parts))
        expected = {"role": "user", "content": "hi"}
        if json_text != '{"role":"critic"}' or form == "openai":
            assert message.to_openai() == expected
        if form != "openai-agents" or json_text in ("[]", "1"):
            assert responses.show(message) == [expected]
        assert anthropic.show_history([message])["messages"][0]["role"] == "user"


media = st.one_of(
    st.builds(lambda head, data: f"data:{head};base64,{data}", st.text(), st.just("AAAA")),
    st.sampled_from(["https://a/b.png", "data:", "data:;base64,AAAA", ""]),
    st.text(),
)
chat_messages = st.builds(
    lambda role, content, calls, call_id: {
        "role": role,
        "content": content,
        "tool_calls": calls,
        "tool_call_id": call_id,
    },
    st.sampled_from(["user", "assistant", "system", "tool"]),
    texts
    | st.lists(
        st.builds(lambda url: {"type": "image_url", "image_url": {"url": url}}, media)
        | st.builds(
            lambda kind: {"type": "input_audio", "input_audio": {"data": "AAAA", "format": kind}},
            st.text(),
        )
        | st.builds(lambda file_id: {"type": "file", "file": {"file_id": file_id}}, st.text())
        | json_values,
        max_size=3,
    ),
    st.lists(
        st.builds(
            lambda call_id, name: {"id": call_id, "function": {"name": name, "arguments": "{"}},
            st.sampled_from(["1", "2", "", None]),
            st.text(),
        ),
        max_size=3,
    ),
    st.text(),
)


def test_service_accepts_any_message(sidecar: Sidecar, user: str) -> None:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        conversation = memory.create_conversation(user).id

        @given(
            chat_messages,
            responses_items,
            st.sampled_from(["user", "assistant"]),
            texts | anthropic_blocks,
            st.text(),
            st.dictionaries(st.text(), json_values),
        )
        def save(
            chat_message: Any, item: Any, role: str, content: Any, kind: str, value: Any
        ) -> None:
            messages = [
                Message.from_openai(chat_message),
                Message.from_responses(item),
                Message.from_anthropic({"role": role, "content": content}),
            ]
            for form, split, wrapped in (
                (langchain.FORM, langchain.split, {"type": kind, "data": value}),
                (adk.FORM, adk.split, {"event": value}),
            ):
                author, parts = split(wrapped)
                messages.append(stored.message_of(form, wrapped, author, parts))
            saved = memory.save_messages(conversation, messages)
            for sent, back in zip(messages, saved.messages, strict=True):
                assert (back.content, len(back.parts)) == (sent.content, len(sent.parts))
            assert saved.messages[0].role == messages[0].role

        save()


FORMS = ("openai", "openai-agents", "anthropic", "langchain", "google-adk")
KEYS = st.sampled_from(["content", "tool_calls", "tool_call_id", "author", "timestamp", "role"])
kinds = st.sampled_from(["text", "reasoning", "a_call", "a_output", "human", "tool", "ai"])
details = st.fixed_dictionaries(
    {}, optional={"type": kinds, "data": st.dictionaries(KEYS, json_values | anthropic_blocks)}
) | st.builds(lambda event: {"event": event}, st.dictionaries(KEYS, json_values))
details |= st.dictionaries(
    st.sampled_from(["role", "content", "type", "tool_calls", "call_id", "data", "event", "x"]),
    json_values | kinds | anthropic_blocks,
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["user", "assistant", "tool"]),
            st.sampled_from(FORMS),
            json_values | details,
        ),
        max_size=4,
    )
)
def test_no_details_fail_a_history(saved: list[tuple[Any, str, Any]]) -> None:
    messages = [
        Message(role, parts=(TextPart("hi"), GenericPart(f"delta:{form}", json.dumps(value))))
        for role, form, value in saved
    ]
    chat.show_history(messages)
    responses.show_history(messages)
    anthropic.show_history(messages)
    _to_langchain(messages)
    selection = EventSelection(None)
    for message in reversed(messages):
        selection.is_full_at(message)
    selection.events()


def test_responses_of_the_sdks_can_be_added(memory: ConversationMemory, user: str) -> None:
    chat_answer = ChatCompletionMessage.model_validate(
        {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        }
    )
    item = ResponseFunctionToolCall(
        id="fc", type="function_call", call_id="2", name="f", arguments="{}"
    )
    answer = anthropic_types.Message.model_validate(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [
                {"type": "text", "text": "Let me look.", "citations": None},
                {"type": "tool_use", "id": "3", "name": "f", "input": {"n": 1}},
            ],
            "stop_reason": "tool_use",
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 2},
        }
    )
    with memory.turn(user) as turn:
        turn.user("?")
        turn.add(chat_answer)
        turn.tool("one", tool_call_id="1")
        turn.add(Message.from_responses(item))
        turn.tool("two", tool_call_id="2")
        turn.add(Message.from_anthropic(answer, tokens_used=2))
        turn.tool("three", tool_call_id="3")
        assert not turn.is_complete
    history = memory.get_history(turn.conversation_id, limit=9)
    check_chat(history.to_openai())
    check_responses(history.to_responses())
    check_anthropic(history.to_anthropic())
    calls = [
        part for each in history.messages for part in each.parts if isinstance(part, ToolCallPart)
    ]
    assert [call.id for call in calls] == ["1", "2", "3"]
    assert history.to_responses()[3]["id"] == "fc"
    assert history.to_anthropic()["messages"][5]["content"][0]["text"] == "Let me look."


def test_reference_in_a_value_is_no_reference() -> None:
    value = {"$": [0, "text"], "a": {"$": {"$": 1}}, "text": "x" * 30}
    parts = (TextPart("x" * 30),)
    assert template.decode(template.encode(value, parts), parts) == value


def test_references_cannot_multiply_a_text() -> None:
    references = ",".join(['{"$":[0,"text"]}'] * 10_000)
    parts = (TextPart("x" * 100_000), GenericPart("delta:openai", f'{{"role":[{references}]}}'))
    assert Message("user", parts=parts).to_openai()["content"] == "x" * 100_000
