"""Events of Google's ADK as JSON values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .._parts import (
    BlobPart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolCallResponsePart,
    UriPart,
)
from . import common
from .template import to_json

if TYPE_CHECKING:
    from .._types import Message, Role

FORM = "google-adk"


def is_event(record: Any) -> bool:
    """Whether a record of a session contains an event."""
    return isinstance(record, Mapping) and isinstance(record.get("event"), Mapping)


def split(record: Mapping[str, Any]) -> tuple[Role, list[Part]]:
    """Returns the role and the parts of a record with an event."""
    event = record["event"]
    content = event.get("content")
    given = content.get("parts") if isinstance(content, Mapping) else None
    parts: list[Part] = []
    counts: Counter[str] = Counter()
    for value in given if isinstance(given, (list, tuple)) else ():
        if isinstance(value, Mapping) and (part := _part(value, counts)):
            parts.append(part)
    if any(isinstance(part, ToolCallResponsePart) for part in parts):
        # A call cannot be in the same message as a result.
        return "tool", [part for part in parts if not isinstance(part, ToolCallPart)]
    if event.get("author") != "user":
        return "assistant", parts
    return "user", [part for part in parts if not isinstance(part, ToolCallPart)]


def _part(value: Mapping[str, Any], counts: Counter[str]) -> Part | None:
    text = value.get("text")
    if isinstance(text, str) and text:
        cleaned = common.clean(text)
        return ReasoningPart(cleaned) if value.get("thought") else TextPart(cleaned)
    if isinstance(call := value.get("function_call"), Mapping):
        name = common.short(call.get("name"), "tool")
        arguments = common.clean(to_json(call.get("args") or {}))
        return ToolCallPart(_call_id(call, name, counts), name, arguments)
    if isinstance(result := value.get("function_response"), Mapping):
        name = common.short(result.get("name"), "tool")
        response = common.clean(to_json(result.get("response")))
        return ToolCallResponsePart(_call_id(result, name, counts), response)
    if isinstance(data := value.get("inline_data"), Mapping):
        part = common.blob(data.get("data"), str(data.get("mime_type") or ""), urlsafe=True)
        return part or common.generic(value, "inline_data")
    if isinstance(file := value.get("file_data"), Mapping) and isinstance(
        file.get("file_uri"), str
    ):
        mime_type = common.media_type(file.get("mime_type"))
        return UriPart(common.clean(file["file_uri"]), mime_type, common.modality_of(mime_type))
    kinds = [key for key in value if key not in ("thought", "thought_signature", "text")]
    return common.generic(value, common.short(kinds[0])) if kinds else None


def _call_id(value: Mapping[str, Any], name: str, counts: Counter[str]) -> str:
    """Returns an id. Without one, the n-th result of a tool belongs to its n-th call."""
    counts[name] += 1
    return common.call_id(value.get("id"), name, counts[name] - 1)


# From parts.


def show(message: Message, tools: Mapping[str, str], agent: str) -> dict[str, Any] | None:
    """Returns the author and the content of an event; `None` if it would have no parts.

    Args:
        message: The message, which another client has saved.
        tools: Names of the tools by the ids of their calls.
        agent: Author of the assistant's messages.
    """
    parts = common.portable_parts(message)
    if message.role == "system" and (text := common.join(parts)):
        # Instructions are no event of ADK, and must not be words of the user.
        parts = (TextPart(f"{common.INSTRUCTIONS}\n{text}"),)
    is_agent = message.role == "assistant"
    shown: list[dict[str, Any]] = []
    if common.is_result_as_text(message):
        shown.append({"text": f"{common.TOOL_RESULT}\n{common.join(parts)}"})
    else:
        shown += [value for part in parts for value in _show_part(part, tools)]
    if not shown:
        return None
    is_user = message.role in ("user", "system") or common.is_result_as_text(message)
    return {
        "author": "user" if is_user else agent,
        "content": {"role": "model" if is_agent else "user", "parts": shown},
    }


def _show_part(part: Part, tools: Mapping[str, str]) -> Iterable[dict[str, Any]]:
    if isinstance(part, ReasoningPart):
        if part.content:
            yield {"text": part.content, "thought": True}
    elif isinstance(part, ToolCallPart):
        arguments = common.parse_object(part.arguments)
        if arguments is None:
            arguments = {"input": part.arguments}
        yield {"function_call": {"id": part.id, "name": part.name, "args": arguments}}
    elif isinstance(part, ToolCallResponsePart):
        name = tools.get(part.id, "tool")
        response = {"id": part.id, "name": name, "response": _response(part.response)}
        yield {"function_response": response}
    elif isinstance(part, BlobPart) and part.data is not None:
        yield {"inline_data": {"data": part.data, "mime_type": part.mime_type}}
    elif isinstance(part, UriPart) and not part.uri.startswith("data:") and part.mime_type:
        yield {"file_data": {"file_uri": part.uri, "mime_type": part.mime_type}}
    elif text := common.as_text(part):
        yield {"text": text}


def _response(text: str) -> dict[str, Any]:
    try:
        value = common.parse_json(text)
    except ValueError:
        value = text
    return value if isinstance(value, dict) else {"result": value}
