"""Seeded random conversations in all forms, also ones that no API accepts as they are."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from conversation_memory import (
    BlobPart,
    FilePart,
    GenericPart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolCallResponsePart,
    UriPart,
)

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40


class Conversations:
    """A generator of conversations."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._number = 0
        self._late: list[str] = []

    def conversation(self) -> list[Message]:
        """Returns a conversation, or the end of one."""
        kinds = (self._plain, self._plain, self._turn, self._turn, self._media, self._broken)
        messages: list[Message] = []
        for _ in range(self._random.randrange(1, 8)):
            messages += self._random.choice(kinds)()
        if self._random.random() < 0.3:
            messages = messages[self._random.randrange(len(messages)) :]
        if self._random.random() < 0.3:
            messages = messages[: self._random.randrange(len(messages)) + 1]
        if self._random.random() < 0.1:
            index = self._random.randrange(len(messages))
            removed = Message(messages[index].role, redacted=True)
            messages[index] = replace(removed, redacted=True)
        if self._random.random() < 0.1:
            messages.insert(0, Message("system", "They talked.", is_summary=True))
        return [replace(message, seq=seq) for seq, message in enumerate(messages, 1)]

    def _id(self) -> str:
        self._number += 1
        odd = self._random.choice(["call_{}", "toolu_{}", "odd:{}", "x" * 70 + "{}"])
        # Some ids are used again, as some frameworks do.
        return odd.format(self._random.choice([self._number, self._number, self._number % 3]))

    def _text(self) -> str:
        return self._random.choice(["25 days.", "In the portal.", "two\nlines ", "ü"])

    def _plain(self) -> list[Message]:
        question = Message("user", "How many?", name=self._random.choice(["", "ana", "Ana B."]))
        answers = [
            Message("assistant", self._text()),
            Message.from_responses(
                {
                    "id": "msg_1",
                    "type": "message",
                    "role": "assistant",
                    "status": "completed",
                    "content": [{"type": "output_text", "text": "25 days.", "annotations": []}],
                }
            ),
            Message.from_anthropic(
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"},
                        {"type": "text", "text": "25 days."},
                    ],
                }
            ),
        ]
        return [question, self._random.choice(answers)][self._random.randrange(2) :]

    def _turn(self) -> list[Message]:
        messages = [Message("user", "And now?")]
        for _ in range(self._random.randrange(1, 4)):
            messages += self._calls([self._id() for _ in range(self._random.choice([1, 1, 2, 3]))])
        return [*messages, Message("assistant", self._text())]

    def _calls(self, ids: list[str]) -> list[Message]:
        form = self._random.choice(["parts", "chat", "items", "anthropic"])
        answered = [call_id for call_id in ids if self._random.random() < 0.95]
        self._random.shuffle(answered)
        if form == "items":
            calls = [Message.from_responses({"type": "reasoning", "id": "rs", "summary": []})]
            calls += [Message.from_responses(call_item(call_id)) for call_id in ids]
        elif form == "chat":
            tool_calls = [chat_call(call_id) for call_id in ids]
            content = self._random.choice([None, "Let me look."])
            message = {"role": "assistant", "content": content, "tool_calls": tool_calls}
            calls = [Message.from_openai(message)]
        elif form == "anthropic":
            blocks = [
                {"type": "tool_use", "id": call_id, "name": "look_up", "input": {"n": 1}}
                for call_id in ids
            ]
            calls = [Message.from_anthropic({"role": "assistant", "content": blocks})]
        else:
            parts = [ToolCallPart(call_id, "look up!", '{"n": 1}') for call_id in ids]
            calls = [Message("assistant", self._random.choice(["", "I look."]), parts=tuple(parts))]
        if form == "items":
            return calls + [Message.from_responses(output_item(each)) for each in answered]
        if form == "anthropic" and answered:
            results = [
                {"type": "tool_result", "tool_use_id": call_id, "content": "25"}
                for call_id in answered
            ]
            return [*calls, Message.from_anthropic({"role": "user", "content": results})]
        if form == "parts" and answered and self._random.random() < 0.5:
            responses = tuple(ToolCallResponsePart(call_id, "25") for call_id in answered)
            image = (BlobPart("image/png", PNG, "image"),)
            return [*calls, Message("tool", parts=responses + self._random.choice([(), image]))]
        return calls + [
            Message.from_openai({"role": "tool", "tool_call_id": call_id, "content": "25"})
            for call_id in answered
        ]

    def _media(self) -> list[Message]:
        parts: list[Any] = [
            TextPart("Look:"),
            BlobPart("image/png", PNG, "image"),
            BlobPart("audio/wav", PNG, "audio"),
            BlobPart("application/pdf", PNG),
            BlobPart("video/mp4", None, "video", 7),
            UriPart("https://example.com/cat.jpg", "image/jpeg", "image"),
            FilePart("file-1"),
            ReasoningPart("Hm."),
            GenericPart("of_the_future", '{"a":1}'),
        ]
        chosen = self._random.sample(parts, self._random.randrange(1, 5))
        role = self._random.choice(["user", "user", "assistant", "system"])
        return [Message(role, parts=tuple(chosen))]  # type: ignore[arg-type]

    def _broken(self) -> list[Message]:
        """Calls and results that are not paired, or whose result is late."""
        call_id = self._id()
        call = Message("assistant", parts=(ToolCallPart(call_id, "f", "not JSON"),))
        result = Message("tool", parts=(ToolCallResponsePart(call_id, "late"),))
        text = Message("user", "Stop.")
        return self._random.choice(
            [
                [call],
                [call, text],
                [result],
                [call, text, result],
                [call, result, result],
                [call, Message("tool", "without an id")],
                [Message("tool", "without a call")],
                [call, call, result],
                [Message("user", metadata={"k": 1})],
                [
                    Message.from_responses(
                        {
                            "type": "computer_call",
                            "id": "cu",
                            "call_id": call_id,
                            "action": {"type": "screenshot"},
                            "pending_safety_checks": [],
                            "status": "completed",
                        }
                    ),
                    text,
                ],
            ]
        )


def chat_call(call_id: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "look_up", "arguments": "{}"}}


def call_item(call_id: str) -> dict[str, Any]:
    return {
        "id": "fc_1",
        "type": "function_call",
        "call_id": call_id,
        "name": "look_up",
        "arguments": "{}",
        "status": "completed",
    }


def output_item(call_id: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": "25"}
