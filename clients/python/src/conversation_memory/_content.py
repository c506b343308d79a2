"""Messages from the arguments of a turn's methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast, get_args

from ._forms import chat, plain
from ._parts import Part, TextPart, ToolCallResponsePart
from ._types import Message, Role, SupportsModelDump

ToolCallLike = Mapping[str, Any] | SupportsModelDump
"""A tool call as a dict or an object of an SDK: in the form of Chat Completions, the Responses API,
LangChain, Anthropic or Gemini."""

Content = str | Sequence[str | Part | Mapping[str, Any] | SupportsModelDump]
"""Content of a message: a text, a list of texts and parts of this package such as `BlobPart`, or a
list of texts and parts in the form of OpenAI's Chat Completions, also as objects of an SDK."""

_PARTS = get_args(Part)


def message_of(
    role: Role,
    content: Content | None,
    *,
    tool_calls: Iterable[ToolCallLike] | None = None,
    tool_call_id: str | None = None,
    **fields: Any,
) -> Message:
    """Returns a message with a content.

    Args:
        role: Role of the message.
        content: The content; `None` for none.
        tool_calls: Tool calls, see `ToolCallLike`; `None` for none.
        tool_call_id: Id of the call that the content is the result of.
        fields: Further fields of the message.

    Raises:
        TypeError: The content has parts of this package and of the OpenAI form, or an argument is
            of another type.
        ValueError: The message is not valid in the OpenAI form.
    """
    if type(content) is str and tool_calls is None and tool_call_id is None:
        return Message.from_openai({"role": role, "content": content}, **fields)
    calls = _calls(tool_calls)
    content = _as_content(content)
    if parts := _own_parts(content):
        if tool_call_id is not None:
            texts = [part.content for part in parts if isinstance(part, TextPart)]
            rest = [part for part in parts if not isinstance(part, TextPart)]
            parts = [ToolCallResponsePart(tool_call_id, "\n".join(texts)), *rest]
        parts += chat.calls({"tool_calls": calls})
        return Message(role, parts=tuple(parts), **fields)
    message: dict[str, Any] = {"role": role, "content": content}
    if calls:
        message["tool_calls"] = calls
    if tool_call_id is not None:
        message["tool_call_id"] = tool_call_id
    return Message.from_openai(message, **fields)


def _calls(tool_calls: Iterable[ToolCallLike] | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for index, given in enumerate(tool_calls or ()):
        call = plain.chat_call(plain.to_plain(given))
        if call is None:
            raise TypeError(
                f"tool_calls[{index}] must be a tool call of an API or of LangChain, not a"
                f" {type(given).__name__} without their keys"
            )
        found.append(call)
    return found


def _as_content(content: Any) -> Content | None:
    """Returns a content whose elements are values of this package or JSON values."""
    if content is None or isinstance(content, (str, *_PARTS)):
        return cast("Content | None", content)
    if isinstance(content, (list, tuple)):
        return [each if isinstance(each, _PARTS) else plain.to_plain(each) for each in content]
    element = plain.to_plain(content)
    if isinstance(element, Mapping) and isinstance(element.get("type"), str):
        return [element]
    raise TypeError(f"content must be a text or a list of parts, not {type(content).__name__}")


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
