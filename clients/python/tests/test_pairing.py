"""Histories are valid for the APIs of models, whatever was saved."""

from __future__ import annotations

import pytest
from langchain_core.messages import ToolMessage

from conversation_memory import Message, ToolCallPart, ToolCallResponsePart
from conversation_memory import _adk_events as adk
from conversation_memory._forms import anthropic, chat, responses
from conversation_memory._forms.pairing import paired
from conversation_memory.langchain import _to_langchain, from_langchain_message

from .conversations import Conversations
from .strict import check_anthropic, check_chat, check_events, check_langchain, check_responses

RANDOM_CONVERSATIONS = 2_000


def call(*ids: str, text: str = "") -> Message:
    return Message("assistant", text, parts=tuple(ToolCallPart(each, "f", "{}") for each in ids))


def result(*ids: str) -> Message:
    return Message("tool", parts=tuple(ToolCallResponsePart(each, f"of {each}") for each in ids))


USER, ANSWER = Message("user", "u"), Message("assistant", "a")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([USER, call("1"), result("1"), ANSWER], [USER, call("1"), result("1"), ANSWER]),
        ([call("1"), USER], [USER]),
        ([USER, call("1")], [USER, call("1")]),
        ([call("1", "2"), result("2")], [call("1", "2"), result("2")]),
        ([call("1", "2"), result("2"), USER], [call("2"), result("2"), USER]),
        ([call("1", text="t"), USER], [Message("assistant", "t"), USER]),
        ([result("1"), USER], [USER]),
        ([call("1"), result("1"), result("1")], [call("1"), result("1")]),
        ([call("1"), USER, result("1")], [call("1"), result("1"), USER]),
        ([call("1"), ANSWER, result("1")], [call("1"), result("1"), ANSWER]),
        ([call("1"), call("2"), result("1"), result("2")],) * 2,
        ([call("1"), result("1"), call("2")], [call("1"), result("1"), call("2")]),
        ([call("1"), call("2"), result("2"), USER], [call("2"), result("2"), USER]),
        ([call("1"), Message("tool", "of 1"), USER], [call("1"), result("1"), USER]),
        ([USER, Message("tool", "of 1")], [USER, Message("tool", "of 1")]),
        ([call("1"), result("1"), call("1"), result("1")],) * 2,
        (
            [call("1"), USER, call("2"), result("2", "1")],
            [call("1"), result("1"), USER, call("2"), result("2")],
        ),
    ],
)
def test_calls_and_results_are_paired(given: list[Message], expected: list[Message]) -> None:
    assert list(paired(given)) == expected


def test_complete_conversations_are_not_changed() -> None:
    given = [USER, call("1", "2"), result("1"), result("2"), ANSWER, call("3"), result("3")]
    for one, other in zip(paired(given), given, strict=True):
        assert one is other


def test_calls_of_single_items_are_one_message_of_chat_completions() -> None:
    messages = chat.show_history([call("1"), call("2"), result("2"), result("1")])
    assert [message["role"] for message in messages] == ["assistant", "tool", "tool"]
    assert [each["id"] for each in messages[0]["tool_calls"]] == ["1", "2"]


def test_items_do_not_refer_to_redacted_ones() -> None:
    """The API rejects reasoning without the item that followed it, and the reverse."""
    redacted = Message("assistant", redacted=True)
    reasoning = Message.from_responses({"type": "reasoning", "id": "rs_1", "summary": []})
    answer = Message.from_responses(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "25 days.", "annotations": []}],
        }
    )
    shown = {"role": "assistant", "content": "[redacted]"}
    assert responses.show_history([reasoning, redacted]) == [shown]
    plain = {"role": "assistant", "content": "25 days."}
    assert responses.show_history([redacted, answer]) == [shown, plain]
    assert [item["id"] for item in responses.show_history([reasoning, answer])] == ["rs_1", "msg_1"]


def test_redacted_result_without_its_call_is_left_out() -> None:
    redacted = Message("tool", redacted=True)
    for messages in ([USER, redacted, ANSWER], [redacted, USER, ANSWER]):
        assert len(responses.show_history(messages)) == 2
        assert len(chat.show_history(messages)) == 2
        assert "tool result" not in str(anthropic.show_history(messages))
    answered = responses.show_history([USER, call("1"), redacted, ANSWER])
    assert answered[2] == {"type": "function_call_output", "call_id": "1", "output": "[redacted]"}


def test_failure_of_a_tool_is_an_error_for_anthropic() -> None:
    for status in ("error", "success"):
        failed = from_langchain_message(ToolMessage("no", tool_call_id="1", status=status))
        (_, _, shown) = anthropic.show_history([USER, call("1"), failed])["messages"]
        assert shown["content"][0].get("is_error", False) is (status == "error")


def test_random_conversations_are_valid_for_every_api() -> None:
    for seed in range(RANDOM_CONVERSATIONS):
        messages = Conversations(seed).conversation()
        try:
            check_chat(chat.show_history(messages))
            check_responses(responses.show_history(messages))
            check_anthropic(anthropic.show_history(messages))
            check_langchain(_to_langchain(messages))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {messages}") from error


def test_random_conversations_are_valid_events() -> None:
    for seed in range(RANDOM_CONVERSATIONS):
        messages = Conversations(seed).conversation()
        selection = adk.EventSelection(None)
        for message in reversed(messages):
            selection.is_full_at(message)
        events = selection.events()
        try:
            check_events(events)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {messages}") from error


def test_texts_and_their_order_are_preserved() -> None:
    for seed in range(200):
        messages = Conversations(seed).conversation()
        plain = [each.content for each in messages if each.content and not each.parts]
        shown = [
            each.content
            for each in paired(messages)
            if each.content and each in messages and not each.parts
        ]
        kept = [text for text in plain if text != "without an id"]
        assert [text for text in shown if text != "without an id"] == kept
