"""Conversion of messages in the form of OpenAI's chat completions.

`role` and a plain text are stored in the fields of a message. The message's original stores what
they cannot represent: all further keys, and a `content` that is not plain text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._types import Message

FORM = "openai"

ROLES = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
}


def parse(message: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a `Message`.

    Raises:
        TypeError: A value is not a JSON value.
        ValueError: The role is unknown, a number is not finite, or the nesting is too deep.
    """
    from ._types import Original

    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(f"a message's role must be one of {', '.join(ROLES)}")
    rest = dict(message)
    if ROLES[role] == role:
        del rest["role"]
    content = message.get("content")
    if isinstance(content, str) and content and is_storable(content):
        del rest["content"]
    fields: dict[str, Any] = {"role": ROLES[role], "content": text_of(content)}
    # The service rejects a message that has neither text nor metadata.
    if rest or not fields["content"]:
        fields["original"] = Original.of(FORM, rest)
    return fields


def render(message: Message) -> dict[str, Any]:
    """Returns the original of a message, or its role and content if it has none in this form."""
    plain: dict[str, Any] = {"role": message.role}
    if message.original is None or message.original.form != FORM:
        return plain | {"content": message.content}
    rest: dict[str, Any] = message.original.value
    # The original contains an empty text. If it has no content, the message had none.
    if message.content and "content" not in rest:
        plain["content"] = message.content
    return plain | rest


def text_of(content: Any) -> str:
    """Returns the text of a message's content, without characters that cannot be stored."""
    if isinstance(content, str):
        text = content
    elif isinstance(content, Iterable) and not isinstance(content, Mapping):
        text = "\n".join(_texts(content))
    else:
        text = ""
    return text if is_storable(text) else _replace_unstorable(text)


def is_storable(text: str) -> bool:
    """Whether the service accepts a text: valid Unicode without U+0000."""
    if "\0" in text:
        return False
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _replace_unstorable(text: str) -> str:
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _texts(parts: Iterable[Any]) -> Iterable[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
        elif isinstance(part, Mapping):
            text = part.get("text") or part.get("refusal")
            if isinstance(text, str):
                yield text
