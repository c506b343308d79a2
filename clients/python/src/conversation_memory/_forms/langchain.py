"""Messages of LangChain as dicts: `{"type", "data"}`, as `message_to_dict` returns them."""

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

FORM = "langchain"

_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "function": "tool",
    "tool": "tool",
}

_MEDIA = {"image", "audio", "video", "file"}
_CALLS = {"tool_use", "tool_call", "function_call", "tool_call_chunk", "server_tool_call"}


def is_message(value: Any) -> bool:
    """Whether a value is a message as a dict."""
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("type"), str)
        and isinstance(value.get("data"), Mapping)
    )


def split(value: Mapping[str, Any]) -> tuple[Role, list[Part]]:
    """Returns the role and the parts of a message."""
    data = value["data"]
    # The type of a chunk, which can be added as well, ends in "MessageChunk".
    kind = str(value["type"]).removesuffix("MessageChunk").lower()
    # A message of the type "chat" has a role of its own.
    role = _ROLES.get(str(data.get("role", kind)), "assistant")
    parts = list(_content_parts(data.get("content")))
    if kind in ("tool", "function"):
        texts = [part.content for part in parts if isinstance(part, TextPart)]
        rest = [part for part in parts if not isinstance(part, TextPart)]
        given = data.get("tool_call_id")
        call_id = common.call_id(given, data.get("name"), 0)
        return "tool", [ToolCallResponsePart(call_id, "\n".join(texts)), *rest]
    if kind == "ai":
        return "assistant", parts + list(_calls(data))
    return role, parts


def _calls(data: Mapping[str, Any]) -> Iterable[Part]:
    calls = data.get("tool_calls")
    for index, call in enumerate(calls if isinstance(calls, (list, tuple)) else ()):
        if isinstance(call, Mapping):
            name = common.short(call.get("name"), "tool")
            arguments = common.clean(to_json(call.get("args")))
            yield ToolCallPart(common.call_id(call.get("id"), call, index), name, arguments)
    extra = data.get("additional_kwargs")
    call = extra.get("function_call") if isinstance(extra, Mapping) and not calls else None
    if isinstance(call, Mapping):
        name = common.short(call.get("name"), "tool")
        call_id = common.call_id(None, call.get("name"), 0)
        yield ToolCallPart(call_id, name, common.clean(call.get("arguments")))


def _content_parts(content: Any) -> Iterable[Part]:
    if not isinstance(content, (list, tuple)):
        yield from common.text_parts(content)
        return
    for element in content:
        if not isinstance(element, Mapping):
            yield from chat.content_parts([element])
            continue
        kind = str(element.get("type"))
        if kind in _CALLS:
            # It is one of `tool_calls` too.
            continue
        if kind in ("reasoning", "thinking"):
            text = element.get("reasoning") or element.get("thinking")
            yield ReasoningPart(common.clean(text))
        elif kind in _MEDIA and (part := _media(element, kind)):
            yield part
        else:
            yield from chat.content_parts([element])


def _media(element: Mapping[str, Any], kind: str) -> Part | None:
    modality = "" if kind == "file" else kind
    mime_type = element.get("mime_type") or element.get("media_type")
    source = element.get("source")
    if isinstance(source, Mapping):
        # A block of Anthropic's API.
        element, mime_type = source, source.get("media_type")
    data = element.get("base64") or element.get("data")
    default = f"{kind}/*" if modality else "application/octet-stream"
    if part := common.blob(data, str(mime_type or default)):
        return part
    file_id = element.get("file_id") or element.get("id")
    if isinstance(element.get("url"), str):
        part_ = common.from_url(element["url"], modality)
        if isinstance(part_, UriPart) and isinstance(mime_type, str):
            return UriPart(part_.uri, common.media_type(mime_type), modality)
        return part_
    if isinstance(file_id, str) and "file_id" in element and file_id:
        return FilePart(common.clean(file_id), common.media_type(mime_type), modality)
    return None


# From parts.


def show(message: Message) -> list[dict[str, Any]]:
    """Returns the messages of parts: the type of each, and the arguments of its class."""
    parts = common.portable_parts(message)
    if message.role == "tool":
        if common.is_result_as_text(message):
            text = f"{common.TOOL_RESULT}\n{common.join(parts)}"
            return [{"type": "human", "content": text}]
        return _results(parts)
    calls = [part for part in parts if isinstance(part, ToolCallPart)]
    rest = [part for part in parts if not isinstance(part, ToolCallPart)]
    kind = {"user": "human", "assistant": "ai"}.get(message.role, "system")
    shown: dict[str, Any] = {"type": kind, "content": _content(rest)}
    if calls:
        shown["tool_calls"] = [_show_call(part) for part in calls]
    if message.name:
        shown["name"] = message.name
    return [shown] if shown["content"] or calls else []


def as_text(shown: Mapping[str, Any]) -> str:
    """Returns a message that LangChain rejects as a text."""
    content, calls = shown.get("content"), shown.get("tool_calls") or ()
    texts = [content if isinstance(content, str) else to_json(content)] if content else []
    texts += [f"[tool call {call['name']}] {to_json(call['args'])}" for call in calls]
    return "\n".join(texts)


def _results(parts: Iterable[Part]) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    rest: list[Part] = []
    for part in parts:
        if isinstance(part, ToolCallResponsePart):
            shown.append({"type": "tool", "content": part.response, "tool_call_id": part.id})
        else:
            rest.append(part)
    if rest:
        text = common.text_parts(shown[-1]["content"])
        shown[-1]["content"] = _content([*text, *rest])
    return shown


def _show_call(part: ToolCallPart) -> dict[str, Any]:
    arguments = common.parse_object(part.arguments)
    if arguments is None:
        arguments = {"input": part.arguments}
    return {"name": part.name, "args": arguments, "id": part.id, "type": "tool_call"}


def _content(parts: Iterable[Part]) -> str | list[dict[str, Any]]:
    blocks = [block for part in parts if (block := _block(part))]
    if len(blocks) == 1 and blocks[0]["type"] == "text":
        return str(blocks[0]["text"])
    return blocks or ""


def _block(part: Part) -> dict[str, Any] | None:
    if isinstance(part, ReasoningPart):
        return {"type": "reasoning", "reasoning": part.content} if part.content else None
    if common.is_image(part) and isinstance(part, (BlobPart, UriPart)):
        url = common.data_url(part) if isinstance(part, BlobPart) else part.uri
        return {"type": "image_url", "image_url": {"url": url}}
    if isinstance(part, BlobPart) and part.data is not None:
        kind = common.modality_of(part.mime_type) or "file"
        return {"type": kind, "base64": common.encoded(part), "mime_type": part.mime_type}
    if isinstance(part, UriPart) and not part.uri.startswith("data:"):
        block = {"type": part.modality if part.modality in _MEDIA else "file", "url": part.uri}
        return {**block, "mime_type": part.mime_type} if part.mime_type else block
    if isinstance(part, FilePart):
        kind = part.modality if part.modality in _MEDIA else "file"
        return {"type": kind, "file_id": part.file_id}
    text = common.as_text(part)
    return {"type": "text", "text": text} if text else None
