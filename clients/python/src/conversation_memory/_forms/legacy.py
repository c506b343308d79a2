"""Messages that earlier versions saved: a text, and the rest as JSON in the metadata."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from . import adk, chat, langchain, responses, stored
from .template import validate

if TYPE_CHECKING:
    from .._types import Message

ORIGINAL_KEY = "_original"
"""Key of a message's metadata that contains its original.

The value is `{"form", "json"}`. If that would exceed the limit on metadata, it is
`{"form", "text"}`: `content` then consists of the text, which has `text` characters, a line feed
and the JSON. If there is no text, a placeholder is in its place, and `placeholder` is its
length."""


def split_original(content: str, metadata: dict[str, Any]) -> tuple[str, str, str] | None:
    """Returns the text, the form and the JSON of an original; `None` if there is no valid one."""
    kept = metadata.get(ORIGINAL_KEY)
    if not isinstance(kept, dict) or not isinstance(form := kept.get("form"), str):
        return None
    text, at, skipped = kept.get("json"), kept.get("text"), kept.get("placeholder", 0)
    plain = content
    if isinstance(at, int) and isinstance(skipped, int) and 0 <= at <= at + skipped < len(content):
        plain, text = content[:at], content[at + skipped + 1 :]
    if not isinstance(text, str) or not _is_valid(form, text):
        return None
    return plain, form, text


def _is_valid(form: str, text: str) -> bool:
    """Whether an original can be parsed. Other clients' metadata must not fail a history."""
    try:
        value = json.loads(text)
        validate(value)
    except (ValueError, TypeError, RecursionError):
        return False
    return form != chat.FORM or isinstance(value, dict)


def upgrade(message: Message, form: str, text: str, **fields: Any) -> Message | None:
    """Returns a message with the parts of its original; `None` if its form is not known here.

    Args:
        message: The message with its plain text, and without the original.
        form: Name of the form.
        text: The original as JSON.
        fields: Fields that the message keeps.
    """
    value = json.loads(text)
    try:
        if form == chat.FORM:
            return _upgrade_chat(message, value, fields)
        if form == responses.FORM and isinstance(value, dict):
            return responses.to_message(value, **fields)
        if form == langchain.FORM and langchain.is_message(value):
            value["data"].setdefault("content", message.content)
            role, parts = langchain.split(value)
            return stored.message_of(form, value, role, parts, **fields)
        if form == adk.FORM and adk.is_event(value):
            role, parts = adk.split(value)
            return stored.message_of(form, value, role, parts, **fields)
    except (ValueError, TypeError):
        # Another client has written it.
        return None
    return None


def _upgrade_chat(message: Message, rest: dict[str, Any], fields: dict[str, Any]) -> Message:
    value: dict[str, Any] = {"role": message.role}
    # The original contains an empty text. If it has no content, the message had none.
    if message.content and "content" not in rest:
        value["content"] = message.content
    value |= rest
    if responses.is_item(value):
        return responses.to_message(value, **fields)
    return chat.to_message(value, **fields)
