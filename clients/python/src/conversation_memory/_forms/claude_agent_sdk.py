"""Entries of the transcripts of Claude's Agent SDK."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .._parts import BlobPart, Part, TextPart
from . import anthropic, common, stored
from .template import to_json

if TYPE_CHECKING:
    from .._types import Message, Role

FORM = "claude-agent-sdk"

LARGE_ENTRY = "application/vnd.conversation-memory.claude-entry+json"
"""Media type of an entry that is too large for the texts of a message."""

MAX_TEXT = 400_000
"""Number of characters of an entry as JSON from which it is stored as data.

The text of a message and its details have 1.5 MiB at most, also if each character has three bytes.
"""


def to_message(entry: Mapping[str, Any], **fields: Any) -> Message:
    """Returns the message of an entry.

    Raises:
        TypeError: A value is not a JSON value.
        ValueError: A number is not finite, or the nesting is too deep.
    """
    stored.validate(FORM, entry)
    role, parts = _split(entry)
    if len(encoded := to_json(entry)) > MAX_TEXT:
        text = common.clean(common.join(parts))[:MAX_TEXT]
        shown = [TextPart(text)] if text else []
        role = "user" if role == "tool" else role
        return _message(role, [*shown, BlobPart(LARGE_ENTRY, encoded.encode())], fields)
    return stored.message_of(FORM, dict(entry), role, parts, **fields)


def _message(role: Role, parts: list[Part], fields: Mapping[str, Any]) -> Message:
    from .._types import Message

    return Message(role, parts=tuple(parts), **fields)


def _split(entry: Mapping[str, Any]) -> tuple[Role, list[Part]]:
    """Returns the role and the parts of an entry. Only those of a conversation have parts."""
    message = entry.get("message")
    if entry.get("type") not in ("user", "assistant") or not isinstance(message, Mapping):
        return "system", []
    try:
        return anthropic.split(message)
    except ValueError:
        return "system", []


def value_of(message: Message) -> dict[str, Any] | None:
    """Returns the entry that a message was saved as; `None` if another client has saved it."""
    value = stored.value_of(message, FORM)
    last = message.parts[-1] if message.parts and not message.redacted else None
    if isinstance(last, BlobPart) and last.mime_type == LARGE_ENTRY and last.data is not None:
        try:
            value = json.loads(last.data)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None
