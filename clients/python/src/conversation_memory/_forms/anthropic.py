"""Messages of Anthropic's API."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from .._parts import (
    BlobPart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolCallResponsePart,
    UriPart,
)
from . import common, langchain, stored
from .pairing import paired, renamed
from .template import to_json

if TYPE_CHECKING:
    from .._types import Message, Role

FORM = "anthropic"

BEGINNING = "[The conversation continues.]"
"""Text of the user's message before a history that starts with another one."""

_IMAGES = {"image/jpeg", "image/png", "image/gif", "image/webp"}
_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_RESULT_TYPES = {"text", "image", "document"}


def to_message(message: Mapping[str, Any], **fields: Any) -> Message:
    """Returns the message of a dict. See `Message.from_anthropic` for the errors."""
    value = {key: message[key] for key in ("role", "content") if key in message}
    stored.validate(FORM, value)
    role, parts = split(value)
    return stored.message_of(FORM, value, role, parts, show=_show_one, **fields)


def split(message: Mapping[str, Any]) -> tuple[Role, list[Part]]:
    """Returns the role and the parts of a message.

    Raises:
        ValueError: The role is unknown.
    """
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant", "system"):
        raise ValueError("a message's role must be one of user, assistant, system")
    if not isinstance(content, (list, tuple)):
        return cast("Role", role), common.text_parts(content)
    parts = [part for block in content for part in _parts(block)]
    if any(isinstance(part, ToolCallResponsePart) for part in parts):
        return "tool", parts
    return cast("Role", role), parts


def show_history(messages: Iterable[Message]) -> dict[str, Any]:
    """Returns messages as the API accepts them, see `Turn.to_anthropic`."""
    system: list[str] = []
    shown: list[dict[str, Any]] = []
    for message in renamed(paired(messages), _valid_id):
        if message.role == "system":
            system.append(common.join(common.portable_parts(message)))
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if blocks := _blocks(message):
            if shown and shown[-1]["role"] == role:
                shown[-1]["content"] += blocks
            else:
                shown.append({"role": role, "content": blocks})
    for each in shown:
        # Results come first, also if the user has written before the last one.
        each["content"].sort(key=lambda block: block.get("type") != "tool_result")
    if shown and shown[0]["role"] != "user":
        shown.insert(0, {"role": "user", "content": [{"type": "text", "text": BEGINNING}]})
    if shown and shown[-1]["role"] == "assistant":
        _strip_end(shown[-1]["content"])
    input_: dict[str, Any] = {"messages": [_compact(each) for each in shown]}
    text = "\n\n".join(text for text in system if text.strip())
    return {"system": text, **input_} if text else input_


def _valid_id(call_id: str) -> str:
    if _ID.fullmatch(call_id):
        return call_id
    return f"call_{hashlib.sha256(call_id.encode()).hexdigest()[:32]}"


def _strip_end(blocks: list[dict[str, Any]]) -> None:
    """Removes white space at the end of the last text, which the API rejects."""
    if _is_text(blocks[-1]):
        blocks[-1] = {**blocks[-1], "text": blocks[-1]["text"].rstrip()}


def _compact(message: dict[str, Any]) -> dict[str, Any]:
    """Returns a message whose content is a string if it is one plain text."""
    blocks = message["content"]
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"} and _is_text(blocks[0]):
        return {**message, "content": blocks[0]["text"]}
    return message


def _parts(block: Any) -> list[Part]:
    if not isinstance(block, Mapping):
        return common.text_parts(block)
    kind = block.get("type")
    if kind == "text":
        return common.text_parts(block.get("text"))
    if kind == "thinking":
        return [ReasoningPart(common.clean(block.get("thinking")))]
    if kind == "redacted_thinking":
        return [ReasoningPart()]
    if kind == "tool_use":
        name = common.short(block.get("name"), "tool")
        arguments = common.clean(to_json(block.get("input")))
        return [ToolCallPart(common.call_id(block.get("id"), name), name, arguments)]
    if kind == "tool_result":
        return _result(block)
    if kind in ("image", "document") and (part := _media(block.get("source"), str(kind))):
        return [part]
    return [common.generic(block, "block")]


def _result(block: Mapping[str, Any]) -> list[Part]:
    content = block.get("content")
    if isinstance(content, (list, tuple)):
        inner = [part for element in content for part in _parts(element)]
    else:
        inner = common.text_parts(content)
    text = "\n".join(part.content for part in inner if isinstance(part, TextPart))
    rest = [part for part in inner if not isinstance(part, (TextPart, ToolCallResponsePart))]
    return [ToolCallResponsePart(common.call_id(block.get("tool_use_id"), "result"), text), *rest]


def _media(source: Any, kind: str) -> Part | None:
    if not isinstance(source, Mapping):
        return None
    modality = "image" if kind == "image" else ""
    if source.get("type") == "base64":
        return common.blob(source.get("data"), str(source.get("media_type")))
    if source.get("type") == "url":
        return common.from_url(source.get("url"), modality)
    return None


# From parts.


def _show_one(message: Message) -> dict[str, Any]:
    role = "assistant" if message.role == "assistant" else "user"
    return _compact({"role": role, "content": _shown_blocks(message)})


def _blocks(message: Message) -> list[dict[str, Any]]:
    value = None if common.is_result_as_text(message) else stored.value_of(message, FORM)
    if not isinstance(value, dict):
        return _shown_blocks(message)
    content = value.get("content")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        return _shown_blocks(message)
    return [block for block in blocks if block.get("type") != "text" or _is_text(block)]


def _is_text(block: Mapping[str, Any]) -> bool:
    """Whether a block has a text that the API accepts."""
    text = block.get("text")
    return block.get("type") == "text" and isinstance(text, str) and bool(text.strip())


def _shown_blocks(message: Message) -> list[dict[str, Any]]:
    parts = common.portable_parts(message)
    if common.is_result_as_text(message):
        return _text_blocks(f"{common.TOOL_RESULT}\n{common.join(parts)}")
    results = [part for part in parts if isinstance(part, ToolCallResponsePart)]
    rest = [part for part in parts if not isinstance(part, ToolCallResponsePart)]
    is_user = message.role != "assistant"
    blocks = [block for part in rest for block in _show_part(part, is_user=is_user)]
    if not results:
        return blocks
    shown = [_show_result(part) for part in results]
    if _is_error(message):
        shown = [{**block, "is_error": True} for block in shown]
    inner = [block for block in blocks if block["type"] in _RESULT_TYPES]
    if inner:
        shown[-1]["content"] = [*_text_blocks(results[-1].response), *inner]
    return shown


def _is_error(message: Message) -> bool:
    """Whether LangChain has saved the message as the failure of a tool."""
    value = stored.value_of(message, langchain.FORM)
    return langchain.is_message(value) and value["data"].get("status") == "error"


def _show_result(part: ToolCallResponsePart) -> dict[str, Any]:
    shown: dict[str, Any] = {"type": "tool_result", "tool_use_id": part.id}
    if part.response.strip():
        shown["content"] = part.response
    return shown


def _show_part(part: Part, *, is_user: bool) -> list[dict[str, Any]]:
    if isinstance(part, ToolCallPart):
        arguments = common.parse_object(part.arguments)
        if arguments is None:
            arguments = {"input": part.arguments}
        name = common.function_name(part.name)
        return [{"type": "tool_use", "id": part.id, "name": name, "input": arguments}]
    if is_user and (source := _source(part)):
        return [source]
    return _text_blocks(common.as_text(part))


def _source(part: Part) -> dict[str, Any] | None:
    if isinstance(part, BlobPart) and part.data is not None:
        data = {"type": "base64", "media_type": part.mime_type, "data": common.encoded(part)}
        if part.mime_type in _IMAGES:
            return {"type": "image", "source": data}
        if part.mime_type == "application/pdf":
            return {"type": "document", "source": data}
    if isinstance(part, UriPart) and part.uri.startswith(("https://", "http://")):
        source = {"type": "url", "url": part.uri}
        if common.is_image(part):
            return {"type": "image", "source": source}
        if part.mime_type == "application/pdf":
            return {"type": "document", "source": source}
    return None


def _text_blocks(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}] if text.strip() else []
