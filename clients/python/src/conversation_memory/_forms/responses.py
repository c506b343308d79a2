"""Items of OpenAI's Responses API, which are those of the Agents SDK too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

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
from . import chat, common, stored
from .pairing import paired
from .template import to_json

if TYPE_CHECKING:
    from .._types import Message, Role

FORM = "openai-agents"

_MESSAGE_KEYS = {"role", "content", "type", "id", "status", "phase"}
_INPUT_TYPES = {"input_text", "input_image", "input_file", "output_text"}
_MEDIA_MODALITIES = {"input_image": "image", "input_file": ""}


def is_item(message: Mapping[str, Any]) -> bool:
    """Whether a message is an item and not one of Chat Completions."""
    content = message.get("content")
    elements = content if isinstance(content, list) else ()
    return message.get("type") == "message" or any(
        isinstance(element, Mapping) and element.get("type") in _INPUT_TYPES for element in elements
    )


def to_message(item: Mapping[str, Any], **fields: Any) -> Message:
    """Returns the message of an item. See `Message.from_responses` for the errors."""
    stored.validate(FORM, item)
    role, parts = split(item)
    return stored.message_of(FORM, dict(item), role, parts, show=_show_one, **fields)


def split(item: Mapping[str, Any]) -> tuple[Role, list[Part]]:
    """Returns the role and the parts of an item."""
    kind = str(item.get("type") or "message")
    call_id = item.get("call_id")
    if "role" in item and kind == "message":
        role = chat.ROLES.get(str(item["role"]), "assistant")
        if role != "tool":
            return role, list(_content_parts(item.get("content")))
    if kind == "reasoning":
        return "assistant", [ReasoningPart(_reasoning_text(item))]
    if kind == "image_generation_call" and (part := common.blob(item.get("result"), "image/png")):
        return "assistant", [part]
    if call_id and kind.endswith("_output"):
        return "tool", _result_parts(item, call_id)
    if call_id and kind.endswith("_call"):
        return "assistant", [_call(item, kind, call_id)]
    return "assistant", [common.generic(item, "item")]


def value_of(message: Message) -> dict[str, Any] | None:
    """Returns the item that a message was saved as; `None` if it was none."""
    value = stored.value_of(message, FORM)
    if isinstance(value, dict):
        return value
    # A message of Chat Completions with a plain text is an item too.
    value = stored.value_of(message, chat.FORM)
    if isinstance(value, dict) and value.keys() <= _MESSAGE_KEYS and message.role != "tool":
        return value if isinstance(value.get("content"), str) else None
    return None


def show(message: Message) -> list[dict[str, Any]]:
    """Returns a message as items: the item that it was saved as, or its parts."""
    value = value_of(message)
    return _show_all(message) if value is None else [value]


def show_history(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Returns messages as the API accepts them: each call before its results."""
    shown: list[dict[str, Any]] = []
    is_after_redacted = False
    for message in paired(messages):
        if message.redacted:
            while shown and shown[-1].get("type") == "reasoning":
                shown.pop()
        # An item that the API has produced with a redacted one is not valid without it.
        is_own = not is_after_redacted and not common.is_result_as_text(message)
        shown += show(message) if is_own else _show_all(message)
        is_after_redacted = message.redacted and message.role == "assistant"
    return _without_lone_reasoning(shown)


def _without_lone_reasoning(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leaves out reasoning that does not directly precede an item of the model."""
    kept: list[dict[str, Any]] = []
    for item in reversed(items):
        if item.get("type") == "reasoning":
            following = kept[-1] if kept else {}
            kind = str(following.get("type") or "message")
            is_output = kind.endswith("_output")
            if not kept or is_output or following.get("role") in ("user", "system", "developer"):
                continue
        kept.append(item)
    return kept[::-1]


def _content_parts(content: Any) -> Iterable[Part]:
    if isinstance(content, str):
        yield from common.text_parts(content)
    elif isinstance(content, (list, tuple)):
        for element in content:
            if part := _content_part(element):
                yield part


def _content_part(element: Any) -> Part | None:
    if not isinstance(element, Mapping):
        yielded = chat.content_parts([element])
        return next(iter(yielded), None)
    kind = str(element.get("type"))
    if kind in _MEDIA_MODALITIES:
        if part := _media_part(element, _MEDIA_MODALITIES[kind]):
            return part
        return common.generic(element, kind)
    return next(iter(chat.content_parts([element])), None)


def _media_part(element: Mapping[str, Any], modality: str) -> Part | None:
    file_id = element.get("file_id")
    if isinstance(file_id, str) and file_id:
        return FilePart(common.clean(file_id), "", modality)
    data = element.get("file_data")
    if isinstance(data, str) and not data.startswith("data:"):
        return common.blob(data, "application/octet-stream")
    url = element.get("image_url") or data or element.get("file_url")
    return common.from_url(url, modality)


def _reasoning_text(item: Mapping[str, Any]) -> str:
    texts: list[str] = []
    for key in ("summary", "content"):
        elements = item.get(key)
        for element in elements if isinstance(elements, (list, tuple)) else ():
            if isinstance(element, Mapping) and isinstance(element.get("text"), str):
                texts.append(element["text"])
    return common.clean("\n".join(texts))


def _call(item: Mapping[str, Any], kind: str, call_id: Any) -> ToolCallPart:
    arguments = item.get("arguments", item.get("input"))
    if not isinstance(arguments, str):
        value: Any = next(
            (item[key] for key in ("action", "operation", "actions") if key in item), {}
        )
        arguments = to_json(value)
    name = common.short(item.get("name"), kind)
    return ToolCallPart(common.call_id(call_id), name, common.clean(arguments))


def _result_parts(item: Mapping[str, Any], call_id: Any) -> list[Part]:
    output = item.get("output")
    rest: list[Part] = []
    if isinstance(output, str):
        text = common.clean(output)
    elif isinstance(output, (list, tuple)):
        parts = list(_content_parts(output))
        text = "\n".join(part.content for part in parts if isinstance(part, TextPart))
        rest = [part for part in parts if not isinstance(part, TextPart)]
    elif isinstance(output, Mapping) and (
        part := common.from_url(output.get("image_url"), "image")
    ):
        text, rest = "", [part]
    else:
        text = to_json(output)
    return [ToolCallResponsePart(common.call_id(call_id), text), *rest]


# From parts.


def _show_one(message: Message) -> dict[str, Any] | None:
    items = _show_all(message)
    return items[0] if len(items) == 1 else None


def _show_all(message: Message) -> list[dict[str, Any]]:
    parts = common.portable_parts(message)
    if message.role == "tool":
        if common.is_result_as_text(message):
            text = f"{common.TOOL_RESULT}\n{common.join(parts)}"
            return [{"role": "user", "content": text}]
        return _outputs(parts)
    shown: list[dict[str, Any]] = []
    rest = [part for part in parts if not isinstance(part, (ToolCallPart, ReasoningPart))]
    if message.role == "user":
        if elements := [element for part in rest if (element := _element(part))]:
            is_text = len(elements) == 1 and elements[0]["type"] == "input_text"
            content = elements[0]["text"] if is_text else elements
            shown.append({"role": "user", "content": content})
    elif text := common.join(rest):
        shown.append({"role": message.role, "content": text})
    for part in parts:
        if isinstance(part, ToolCallPart):
            shown.append(
                {
                    "type": "function_call",
                    "call_id": part.id,
                    "name": common.function_name(part.name),
                    "arguments": part.arguments,
                }
            )
    return shown


def _outputs(parts: Sequence[Part]) -> list[dict[str, Any]]:
    outputs: list[dict[str, Any]] = [
        {"type": "function_call_output", "call_id": part.id, "output": part.response}
        for part in parts
        if isinstance(part, ToolCallResponsePart)
    ]
    rest = [part for part in parts if not isinstance(part, ToolCallResponsePart)]
    if elements := [element for part in rest if (element := _element(part))]:
        text = outputs[-1]["output"]
        texts = [{"type": "input_text", "text": text}] if text else []
        outputs[-1]["output"] = [*texts, *elements]
    return outputs


def _element(part: Part) -> dict[str, Any] | None:
    if common.is_image(part):
        url = common.data_url(part) if isinstance(part, BlobPart) else cast("UriPart", part).uri
        return {"type": "input_image", "image_url": url, "detail": "auto"}
    if isinstance(part, BlobPart) and part.data and part.mime_type == "application/pdf":
        data = common.data_url(part)
        return {"type": "input_file", "filename": "file.pdf", "file_data": data}
    if isinstance(part, UriPart) and part.mime_type == "application/pdf":
        return {"type": "input_file", "file_url": part.uri}
    if isinstance(part, FilePart):
        if part.modality == "image":
            return {"type": "input_image", "file_id": part.file_id, "detail": "auto"}
        return {"type": "input_file", "file_id": part.file_id}
    text = common.as_text(part)
    return {"type": "input_text", "text": text} if text else None
