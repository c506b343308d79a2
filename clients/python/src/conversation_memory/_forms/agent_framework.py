"""Messages of Microsoft's Agent Framework as dicts, as `Message.to_dict` returns them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .._parts import (
    BlobPart,
    FilePart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolCallResponsePart,
    UriPart,
)
from . import chat, common
from .template import to_json

if TYPE_CHECKING:
    from .._types import Message, Role

FORM = "agent-framework"


def is_message(value: Any) -> bool:
    """Whether a value is a message as a dict."""
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("role"), str)
        and isinstance(value.get("contents"), list)
    )


def split(value: Mapping[str, Any]) -> tuple[Role, list[Part]]:
    """Returns the role and the parts of a message."""
    parts: list[Part] = []
    for index, content in enumerate(value["contents"]):
        if isinstance(content, Mapping):
            parts += _parts(content, index)
    if any(isinstance(part, ToolCallResponsePart) for part in parts):
        # A call cannot be in the same message as a result.
        return "tool", [part for part in parts if not isinstance(part, ToolCallPart)]
    return chat.ROLES.get(str(value["role"]), "assistant"), parts


def _parts(content: Mapping[str, Any], index: int) -> list[Part]:
    kind = content.get("type")
    if kind == "text":
        return common.text_parts(content.get("text"))
    if kind == "text_reasoning":
        return [ReasoningPart(common.clean(content.get("text")))]
    if kind == "function_call":
        name = common.short(content.get("name"), "tool")
        arguments = content.get("arguments")
        text = arguments if isinstance(arguments, str) else to_json(arguments or {})
        call_id = common.call_id(content.get("call_id"), name, index)
        return [ToolCallPart(call_id, name, common.clean(text))]
    if kind == "function_result":
        return _result(content, index)
    if kind in ("data", "uri") and (part := common.from_url(content.get("uri"))):
        if isinstance(part, UriPart):
            media_type = common.media_type(content.get("media_type"))
            part = UriPart(part.uri, media_type, common.modality_of(media_type))
        return [part]
    file_id = content.get("file_id")
    if kind == "hosted_file" and isinstance(file_id, str) and file_id:
        return [FilePart(common.clean(file_id), common.media_type(content.get("media_type")), "")]
    return [common.generic(content, "content")]


def _result(content: Mapping[str, Any], index: int) -> list[Part]:
    result, items = content.get("result"), content.get("items")
    media: list[Part] = []
    for item in items if isinstance(items, list) else ():
        if isinstance(item, Mapping) and item.get("type") in ("data", "uri"):
            media += _parts(item, index)
    text = result if isinstance(result, str) else "" if result is None else to_json(result)
    call_id = common.call_id(content.get("call_id"), "result", index)
    return [ToolCallResponsePart(call_id, common.clean(text)), *media]


# From parts.


def show(message: Message) -> dict[str, Any] | None:
    """Returns the message of parts; `None` if it would be empty."""
    parts = common.portable_parts(message)
    role: str = message.role
    if common.is_result_as_text(message):
        role, parts = "user", (TextPart(f"{common.TOOL_RESULT}\n{common.join(parts)}"),)
    contents = [content for part in parts if (content := _content(part))]
    if not contents:
        return None
    shown: dict[str, Any] = {"type": "message", "role": role, "contents": contents}
    return {**shown, "author_name": message.name} if message.name else shown


def as_text(shown: Mapping[str, Any]) -> str:
    """Returns a message that Agent Framework rejects as a text."""
    texts: Iterable[str] = (
        content["text"] if content.get("type") == "text" else to_json(content)
        for content in shown["contents"]
    )
    return "\n".join(texts)


def _content(part: Part) -> dict[str, Any] | None:
    if isinstance(part, ReasoningPart):
        return {"type": "text_reasoning", "text": part.content} if part.content else None
    if isinstance(part, ToolCallPart):
        arguments: Any = common.parse_object(part.arguments)
        if arguments is None:
            arguments = part.arguments
        return {
            "type": "function_call",
            "call_id": part.id,
            "name": part.name,
            "arguments": arguments,
        }
    if isinstance(part, ToolCallResponsePart):
        return {"type": "function_result", "call_id": part.id, "result": part.response}
    if isinstance(part, BlobPart) and part.data is not None:
        return {"type": "data", "uri": common.data_url(part), "media_type": part.mime_type}
    if isinstance(part, UriPart) and not part.uri.startswith("data:") and part.mime_type:
        return {"type": "uri", "uri": part.uri, "media_type": part.mime_type}
    if isinstance(part, FilePart):
        return {"type": "hosted_file", "file_id": part.file_id}
    text = common.as_text(part)
    return {"type": "text", "text": text} if text else None
