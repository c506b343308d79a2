"""Messages that an earlier version saved, with private JSON in their metadata, stay readable.

`legacy/messages.jsonl` has the messages as that version sent them, and the values they are from.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from langchain_core.messages import messages_from_dict

from conversation_memory import _adk_events as adk
from conversation_memory import _convert as convert
from conversation_memory import _types
from conversation_memory._adk import record_of
from conversation_memory._forms import anthropic, chat, responses
from conversation_memory._proto.v1 import resources_pb2 as resources
from conversation_memory.langchain import _to_langchain
from conversation_memory.openai_agents import _to_item

from .strict import check_anthropic, check_chat, check_responses

CASES: list[dict[str, Any]] = [
    json.loads(line)
    for line in (Path(__file__).parent / "legacy" / "messages.jsonl").read_text().splitlines()
]

PICTURE = {
    "type": "image_url",
    "image_url": {"url": "data:image/png;base64,iVBORw0KGgoA" + "A" * 66_000},
}


def beyond_the_metadata(form: str, value: Any, rest: Any, role: str, text: str) -> dict[str, Any]:
    """A message whose original exceeded the limit on metadata and followed the text."""
    stored: dict[str, Any] = {"form": form, "text": len(text)}
    if not text:
        stored["placeholder"] = len("(no text)")
    content = f"{text or '(no text)'}\n{json.dumps(rest, separators=(',', ':'))}"
    sent = {"role": role, "content": content, "metadata": {"_original": stored}}
    return {"form": form, "value": value, "stored": sent}


def large_cases() -> list[dict[str, Any]]:
    parts = [{"type": "text", "text": "What is this?"}, PICTURE]
    output = {"type": "function_call_output", "call_id": "call_3", "output": "u" * 66_000}
    question, picture = {"role": "user", "content": parts}, {"role": "user", "content": [PICTURE]}
    return [
        beyond_the_metadata("openai", question, {"content": parts}, "ROLE_USER", "What is this?"),
        beyond_the_metadata("openai", picture, {"content": [PICTURE]}, "ROLE_USER", ""),
        beyond_the_metadata("openai-agents", output, output, "ROLE_TOOL", "u" * 66_000),
    ]


CASES += large_cases()


def read(case: dict[str, Any]) -> _types.Message:
    return convert.read_message(json_format.ParseDict(case["stored"], resources.Message()))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['form']}")
def test_message_is_read_back_equal_by_its_framework(case: dict[str, Any]) -> None:
    message = read(case)
    assert "_original" not in message.metadata
    if case["form"] == "openai":
        assert message.to_openai() == case["value"]
    elif case["form"] == "openai-agents":
        assert _to_item(message) == case["value"]
    elif case["form"] == "langchain":
        if case["value"]["type"] not in ("tool", "function"):
            assert _to_langchain([message]) == messages_from_dict([case["value"]])
    else:
        assert record_of(message) == case["value"]


def test_messages_are_valid_in_every_other_form() -> None:
    messages = [read(case) for case in CASES]
    check_chat(chat.show_history(messages), types=False)
    check_responses(responses.show_history(messages), types=False)
    check_anthropic(anthropic.show_history(messages))
    assert len(_to_langchain(messages)) > 30
    assert sum(adk.event_of(message) is not None for message in messages) > 30


def test_messages_can_be_saved_in_another_conversation() -> None:
    for case in CASES:
        message = read(case)
        back = convert.read_message(convert.write_message(message, "other"))
        assert (back.parts, back.original) == (message.parts, message.original)
        assert back.content == message.content
