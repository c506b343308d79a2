"""Messages of OpenAI's Chat Completions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from . import common, plain, stored
from .pairing import paired

if TYPE_CHECKING:
    from .._types import Message, Role

FORM = "openai"

ROLES: dict[str, Role] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
}

_PLAIN_ROLES = frozenset({"user", "assistant", "system"})
"""Roles of messages that are a text and no more."""

_MESSAGE_FIELDS = {"parts", "contexts", "metadata"}
"""Keys that the API does not have, and that could be meant to be fields of `Message`."""

_AUDIO = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}
_AUDIO_TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg"}


def split(message: Mapping[str, Any]) -> tuple[Role, list[Part]]:
    """Returns the role and the parts of a message.

    Raises:
        ValueError: The role is unknown.
    """
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(
            f"a message's role must be one of {', '.join(ROLES)}; Message.from_responses converts"
            " other items"
        )
    content = message.get("content")
    parts = list(content_parts(content))
    if not parts:
        parts = common.text_parts(message.get("refusal"))
    if role in ("tool", "function"):
        return "tool", _result(message, parts)
    if role == "assistant":
        parts += calls(message)
    return ROLES[role], parts


def split_fields(message: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns a message without the fields that belong to the service, and these fields.

    Raises:
        ValueError: The message has a field that a dict cannot have, or one that is not valid.
    """
    if rejected := _MESSAGE_FIELDS & message.keys():
        raise ValueError(
            f"a dict must not have the key {min(rejected)}, which is a field of Message: add a"
            " Message instead"
        )
    own = {key: message[key] for key in ("pinned", "token_count") if message.get(key) is not None}
    if not isinstance(own.get("pinned", False), bool):
        raise ValueError("pinned must be a bool")
    if type(own.get("token_count", 0)) is not int:
        raise ValueError("token_count must be an int")
    return {key: message[key] for key in message if key not in ("pinned", "token_count")}, own


def plain_text(message: Mapping[str, Any]) -> str | None:
    """Returns the text of a dict that consists of a role and a text; `None` for any other.

    Such a dict is its message: `to_message` would return the same.
    """
    if type(message) is not dict or len(message) != 2:
        return None
    role, content = message.get("role"), message.get("content")
    if type(role) is not str or type(content) is not str or role not in _PLAIN_ROLES:
        return None
    return content if content and common.is_storable(content) else None


def to_message(message: Mapping[str, Any], **fields: Any) -> Message:
    """Returns the message of a dict. See `Message.from_openai` for the errors."""
    stored.validate(FORM, message)
    message = _with_chat_calls(message)
    role, parts = split(message)
    name = message.get("name")
    if message.get("role") != "function" and isinstance(name, str) and common.is_storable(name):
        fields.setdefault("name", name[: common.MAX_NAME])
    return stored.message_of(FORM, dict(message), role, parts, show=_show_one, **fields)


def _with_chat_calls(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a message whose tool calls of other APIs have the form of this one."""
    given = message.get("tool_calls")
    if not isinstance(given, (list, tuple)):
        return message
    converted = [call if _is_call(call) else plain.chat_call(call) or call for call in given]
    if all(call is old for call, old in zip(converted, given, strict=True)):
        return message
    return {**message, "tool_calls": converted}


def _is_call(call: Any) -> bool:
    return isinstance(call, Mapping) and isinstance(
        call.get(str(call.get("type") or "function")), Mapping
    )


def show(message: Message) -> dict[str, Any]:
    """Returns a message as one dict: the dict that it was saved as, or its parts."""
    value = _value(message)
    return _show_one(message) if value is None else value


def show_history(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Returns messages as the API accepts them: each call directly before its results."""
    messages = tuple(messages)
    if all(map(_is_plain, messages)):
        return [_show_plain(message) for message in messages if message.content]
    shown: list[dict[str, Any]] = []
    media: list[Part] = []
    for message in paired(messages):
        parts = common.portable_parts(message)
        value = None if common.is_result_as_text(message) else _value(message)
        if value is not None and not _is_accepted(value):
            value = None
        if message.role == "tool" and not common.is_result_as_text(message):
            shown += [value] if value is not None else _results(parts)
            media += [] if value is not None else _without_results(parts)
            continue
        # Media of a result follow the last result, because a result consists of text.
        shown += _media(media)
        media = []
        if value is None:
            if not any(common.as_text(part) for part in parts):
                continue
            value = _show_one(message)
        if shown and value.get("tool_calls") and shown[-1].get("tool_calls"):
            shown[-1] = _merge(shown[-1], value)
        else:
            shown.append(value)
    # While other results are still to follow, nothing may come between.
    return shown if _has_open_call(shown) else shown + _media(media)


def _is_plain(message: Message) -> bool:
    """Whether a message is a text that belongs to no call."""
    return not message.parts and not message.redacted and message.role != "tool"


def _show_plain(message: Message) -> dict[str, Any]:
    shown: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name and (name := common.author_name(message.name)):
        shown["name"] = name
    return shown


def _has_open_call(messages: list[dict[str, Any]]) -> bool:
    """Whether messages end with calls that do not all have their results."""
    answered = set()
    for message in reversed(messages):
        if message.get("role") != "tool":
            calls = message.get("tool_calls") or ()
            return any(call.get("id") not in answered for call in calls)
        answered.add(message.get("tool_call_id"))
    return False


def _value(message: Message) -> dict[str, Any] | None:
    value = stored.value_of(message, FORM)
    role = value.get("role") if isinstance(value, dict) else None
    return value if isinstance(role, str) and role in ROLES else None


def _is_accepted(value: Mapping[str, Any]) -> bool:
    """Whether a value that a message was saved as has the types of the API.

    Another client can have written it.
    """
    content, given = value.get("content"), value.get("tool_calls")
    if isinstance(content, list):
        if not all(isinstance(element, (str, Mapping)) for element in content):
            return False
    elif not (content is None or isinstance(content, str)):
        return False
    if value["role"] == "tool" and not isinstance(value.get("tool_call_id"), str):
        return False
    return given is None or (
        isinstance(given, list)
        and all(_is_call(call) and isinstance(call.get("id"), str) for call in given)
    )


def content_parts(content: Any) -> Iterable[Part]:
    """Returns the parts of the `content` of a message."""
    if isinstance(content, str):
        yield from common.text_parts(content)
    elif isinstance(content, (list, tuple)):
        for element in content:
            if part := _content_part(element):
                yield part


def _content_part(element: Any) -> Part | None:
    if isinstance(element, str):
        return TextPart(common.clean(element)) if element else None
    if not isinstance(element, Mapping):
        return common.generic(element, "json")
    kind = element.get("type")
    part: Part | None = None
    inner = element.get(kind) if isinstance(kind, str) else None
    if kind == "image_url":
        url = inner.get("url") if isinstance(inner, Mapping) else inner
        part = common.from_url(url, "image")
    elif kind == "input_audio" and isinstance(inner, Mapping):
        mime_type = _AUDIO_TYPES.get(str(inner.get("format")), f"audio/{inner.get('format')}")
        part = common.blob(inner.get("data"), mime_type)
    elif kind == "file" and isinstance(inner, Mapping):
        part = _file(inner)
    if part is not None:
        return part
    text = element.get("text") or element.get("refusal")
    if isinstance(text, str):
        return TextPart(common.clean(text))
    if kind in ("text", "refusal"):
        return None
    return common.generic(element, "json")


def _file(inner: Mapping[str, Any]) -> Part | None:
    file_id = inner.get("file_id")
    if isinstance(file_id, str) and file_id:
        return FilePart(common.clean(file_id))
    data = inner.get("file_data")
    if isinstance(data, str) and not data.startswith("data:"):
        return common.blob(data, "application/octet-stream")
    return common.from_url(data)


def _result(message: Mapping[str, Any], parts: list[Part]) -> list[Part]:
    """Returns a result whose texts are one, followed by its other parts."""
    given = message.get("tool_call_id")
    if message.get("role") == "function":
        given = common.call_id(None, message.get("name"), 0)
    if not isinstance(given, str) or not given:
        # Without an id it is a plain text. It belongs to the call that it follows.
        return parts
    texts = [part.content for part in parts if isinstance(part, TextPart)]
    response = ToolCallResponsePart(common.call_id(given), "\n".join(texts))
    return [response, *(part for part in parts if not isinstance(part, TextPart))]


def calls(message: Mapping[str, Any]) -> Iterable[Part]:
    """Returns the tool calls of a message."""
    given = message.get("tool_calls")
    for index, call in enumerate(given if isinstance(given, (list, tuple)) else ()):
        if isinstance(call, Mapping):
            inner = call.get(str(call.get("type") or "function"))
            if isinstance(inner, Mapping):
                yield _call(inner, common.call_id(call.get("id"), inner, index))
    call = message.get("function_call")
    if isinstance(call, Mapping):
        yield _call(call, common.call_id(None, call.get("name"), 0))


def _call(inner: Mapping[str, Any], call_id: str) -> ToolCallPart:
    arguments = inner.get("arguments", inner.get("input"))
    return ToolCallPart(call_id, common.short(inner.get("name"), "tool"), common.clean(arguments))


# From parts.


def _show_one(message: Message) -> dict[str, Any]:
    parts = common.portable_parts(message)
    if message.role == "tool":
        if common.is_result_as_text(message):
            return _as_user_text(parts)
        results = _results(parts)
        if len(results) > 1:
            results[0]["content"] = "\n".join(str(result["content"]) for result in results)
        return results[0]
    shown: dict[str, Any] = {"role": message.role}
    if message.role == "user":
        shown["content"] = _user_content(parts)
    else:
        texts = _texts(part for part in parts if not isinstance(part, ToolCallPart))
        calls = [_show_call(part) for part in parts if isinstance(part, ToolCallPart)]
        shown["content"] = _text_content(texts) if texts or not calls else None
        if calls and message.role == "assistant":
            shown["tool_calls"] = calls
    if name := common.author_name(message.name):
        shown["name"] = name
    return shown


def _as_user_text(parts: Iterable[Part]) -> dict[str, Any]:
    """Returns a result whose call is unknown: the API accepts it only as a text."""
    return {"role": "user", "content": f"{common.TOOL_RESULT}\n{common.join(parts)}"}


def _results(parts: Iterable[Part]) -> list[dict[str, Any]]:
    return [
        {"role": "tool", "tool_call_id": part.id, "content": part.response}
        for part in parts
        if isinstance(part, ToolCallResponsePart)
    ]


def _without_results(parts: Iterable[Part]) -> list[Part]:
    return [part for part in parts if not isinstance(part, (ToolCallResponsePart, ReasoningPart))]


def _media(parts: list[Part]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": _user_content(parts)}] if parts else []


def _show_call(part: ToolCallPart) -> dict[str, Any]:
    function = {"name": common.function_name(part.name), "arguments": part.arguments}
    return {"id": part.id, "type": "function", "function": function}


def _texts(parts: Iterable[Part]) -> list[str]:
    return [text for part in parts if (text := common.as_text(part))]


def _text_content(texts: list[str]) -> str | list[dict[str, Any]]:
    if len(texts) > 1:
        return [{"type": "text", "text": text} for text in texts]
    return texts[0] if texts else ""


def _user_content(parts: Iterable[Part]) -> str | list[dict[str, Any]]:
    shown = [element for part in parts if (element := _user_element(part))]
    if len(shown) == 1 and shown[0]["type"] == "text":
        return cast("str", shown[0]["text"])
    return shown or ""


def _user_element(part: Part) -> dict[str, Any] | None:
    if common.is_image(part):
        url = common.data_url(part) if isinstance(part, BlobPart) else cast("UriPart", part).uri
        return {"type": "image_url", "image_url": {"url": url}}
    if isinstance(part, BlobPart) and part.data is not None:
        if part.mime_type in _AUDIO:
            audio = {"data": common.encoded(part), "format": _AUDIO[part.mime_type]}
            return {"type": "input_audio", "input_audio": audio}
        if part.mime_type == "application/pdf":
            file = {"filename": "file.pdf", "file_data": common.data_url(part)}
            return {"type": "file", "file": file}
    if isinstance(part, FilePart):
        return {"type": "file", "file": {"file_id": part.file_id}}
    text = common.as_text(part)
    return {"type": "text", "text": text} if text else None


def _merge(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Returns two messages with calls as one: results follow all calls of a message."""
    contents = [content for each in (one, other) if (content := each.get("content"))]
    merged = {**other, **one, "tool_calls": [*one["tool_calls"], *other["tool_calls"]]}
    if len(contents) == 2:
        merged["content"] = [element for content in contents for element in _elements(content)]
    elif contents:
        merged["content"] = contents[0]
    return merged


def _elements(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
