"""Messages from the arguments of a turn's methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from ._forms import chat
from ._parts import Part, TextPart, ToolCallResponsePart
from ._types import Message, Role

Content = str | Sequence[str | Part | Mapping[str, Any]]
"""Content of a message: a text, a list of texts and parts of this package such as `BlobPart`, or a
list of texts and parts in the form of OpenAI's Chat Completions."""

_PARTS = get_args(Part)


def message_of(
    role: Role,
    content: Content | None,
    *,
    tool_calls: Sequence[Mapping[str, Any]] = (),
    tool_call_id: str | None = None,
    **fields: Any,
) -> Message:
    """Returns a message with a content.

    Args:
        role: Role of the message.
        content: The content; `None` for none.
        tool_calls: Tool calls in the OpenAI form.
        tool_call_id: Id of the call that the content is the result of.
        fields: Further fields of the message.

    Raises:
        TypeError: The content has parts of this package and of the OpenAI form.
        ValueError: The message is not valid in the OpenAI form.
    """
    if parts := _own_parts(content):
        if tool_call_id is not None:
            texts = [part.content for part in parts if isinstance(part, TextPart)]
            rest = [part for part in parts if not isinstance(part, TextPart)]
            parts = [ToolCallResponsePart(tool_call_id, "\n".join(texts)), *rest]
        parts += chat.calls({"tool_calls": tool_calls})
        return Message(role, parts=tuple(parts), **fields)
    message: dict[str, Any] = {"role": role, "content": content}
    if tool_calls:
        message["tool_calls"] = list(tool_calls)
    if tool_call_id is not None:
        message["tool_call_id"] = tool_call_id
    return Message.from_openai(message, **fields)


def _own_parts(content: Content | None) -> list[Part]:
    """Returns the parts of a content that has parts of this package; otherwise an empty list."""
    if isinstance(content, _PARTS):
        return [cast("Part", content)]
    if content is None or isinstance(content, str):
        return []
    if not any(isinstance(element, _PARTS) for element in content):
        return []
    found: list[Part] = []
    for element in content:
        if isinstance(element, str):
            found.append(TextPart(element))
        elif isinstance(element, _PARTS):
            found.append(cast("Part", element))
        else:
            raise TypeError(
                "a content must not have parts of this package together with"
                f" {type(element).__name__}"
            )
    return found
