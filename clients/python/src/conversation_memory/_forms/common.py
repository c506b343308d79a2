"""Functions that the forms share: texts, ids and media."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .._limits import MAX_NAME_CHARS
from .._parts import (
    BlobPart,
    FilePart,
    GenericPart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolCallResponsePart,
    UriPart,
    is_delta,
)
from .template import to_json, validate

if TYPE_CHECKING:
    from .._types import Message

MAX_NAME = MAX_NAME_CHARS
"""Upper bound on the characters of names, ids and media types."""

MAX_SHOWN_JSON = 1000
"""Upper bound on the characters of a value that is shown as text."""

REDACTED = "[redacted]"
"""Text of a message whose text has been removed."""

EMPTY = "[empty message]"
"""Text of a message that cannot be shown, and has no text."""

TOOL_RESULT = "[tool result]"
"""Heading of a result that is shown as text, because its call is unknown."""

INSTRUCTIONS = "[system]"
"""Heading of instructions that are shown as a text of the user."""

_NAME = re.compile(r"[^a-zA-Z0-9_-]")


def is_storable(text: str) -> bool:
    """Whether the service accepts a text: valid Unicode without U+0000."""
    if "\0" in text:
        return False
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def clean(text: Any) -> str:
    """Returns a text without the characters that cannot be stored."""
    if not isinstance(text, str):
        return ""
    if is_storable(text):
        return text
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def short(text: Any, default: str = "") -> str:
    """Returns a name, id or media type as it can be stored."""
    return clean(text)[:MAX_NAME] or default


def media_type(given: Any, default: str = "") -> str:
    """Returns a media type; `default` if the service would reject it."""
    if not isinstance(given, str) or "/" not in given or len(given) > MAX_NAME:
        return default
    return given if given.isascii() and given.isprintable() else default


def call_id(given: Any, *seed: Any) -> str:
    """Returns the id of a tool call, or one derived from `seed` if it has none."""
    if isinstance(given, str) and 0 < len(given) <= MAX_NAME and is_storable(given):
        return given
    if isinstance(given, str) and given:
        seed = (given,)
    text = json.dumps(seed, sort_keys=True, default=str)
    return f"call_{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def function_name(name: str) -> str:
    """Returns a name as the model APIs accept it for a function."""
    return _NAME.sub("_", name)[:64]


def author_name(name: str) -> str:
    """Returns the name of an author if the model APIs accept it; otherwise an empty text."""
    return name if name and len(name) <= 64 and not _NAME.search(name) else ""


def portable_parts(message: Message) -> tuple[Part, ...]:
    """Returns the parts that every form can show; a plain text is one part."""
    if message.redacted:
        return (TextPart(REDACTED),)
    parts = tuple(part for part in message.parts if not is_delta(part))
    if parts or not message.content:
        return parts
    return (TextPart(message.content),)


def text_parts(content: Any) -> list[Part]:
    """Returns the text of a content that is a string."""
    return [TextPart(clean(content))] if isinstance(content, str) and content else []


def join(parts: Iterable[Part]) -> str:
    """Returns all parts as one text."""
    return "\n".join(text for part in parts if (text := as_text(part)))


def as_text(part: Part) -> str:
    """Returns a part as text, for a form that cannot express it; reasoning is left out."""
    if isinstance(part, TextPart):
        return part.content
    if isinstance(part, ReasoningPart):
        return ""
    if isinstance(part, ToolCallPart):
        return f"[tool call {part.name}] {part.arguments}"
    if isinstance(part, ToolCallResponsePart):
        return f"{TOOL_RESULT} {part.response}"
    if isinstance(part, BlobPart):
        return f"[{part.mime_type}, {part.size_bytes} bytes]"
    if isinstance(part, UriPart):
        kind = part.modality or part.mime_type or "file"
        return f"[{kind}]" if part.uri.startswith("data:") else f"[{kind} {part.uri}]"
    if isinstance(part, FilePart):
        return f"[file {part.file_id}]"
    text = part.json
    if len(text) > MAX_SHOWN_JSON:
        text = text[:MAX_SHOWN_JSON] + "…"
    return f"[{part.type}] {text}".strip()


def generic(value: Any, default: str) -> GenericPart:
    """Returns a value that no other part can express."""
    kind = value.get("type") if isinstance(value, Mapping) else None
    return GenericPart(short(kind, default), to_json(value))


def is_result_as_text(message: Message) -> bool:
    """Whether a message with the role tool does not name the call that it belongs to."""
    return message.role == "tool" and not any(
        isinstance(part, ToolCallResponsePart) for part in portable_parts(message)
    )


# Media.


def modality_of(mime_type: str) -> str:
    """Returns the kind of data of a media type."""
    kind = mime_type.partition("/")[0]
    return kind if kind in ("image", "audio", "video") else ""


def decode_base64(text: Any, *, urlsafe: bool = False) -> bytes | None:
    """Returns the data; `None` if encoding it again would yield another text."""
    if not isinstance(text, str) or not text.isascii():
        return None
    try:
        data = (base64.urlsafe_b64decode if urlsafe else base64.b64decode)(text)
    except (ValueError, binascii.Error):
        return None
    encoded = (base64.urlsafe_b64encode if urlsafe else base64.b64encode)(data)
    return data if data and encoded.decode() == text else None


def blob(text: Any, mime_type: str, *, urlsafe: bool = False) -> BlobPart | None:
    """Returns data in Base64 as a part; `None` if it is not valid."""
    data = decode_base64(text, urlsafe=urlsafe)
    if data is None:
        return None
    mime_type = media_type(mime_type, "application/octet-stream")
    return BlobPart(mime_type, data, modality_of(mime_type))


def from_url(url: Any, modality: str = "") -> Part | None:
    """Returns a URL as a part; a data URL as its data."""
    if not isinstance(url, str) or not url:
        return None
    if url.startswith("data:"):
        head, _, text = url.removeprefix("data:").partition(",")
        mime_type, *parameters = head.split(";")
        if parameters[-1:] == ["base64"] and (part := blob(text, mime_type)):
            return part
    return UriPart(clean(url), "", modality)


def data_url(part: BlobPart) -> str:
    """Returns data that a response included as a data URL."""
    return f"data:{part.mime_type};base64,{encoded(part)}"


def encoded(part: BlobPart) -> str:
    """Returns data that a response included in Base64."""
    return base64.b64encode(part.data or b"").decode()


def is_image(part: Part) -> bool:
    """Whether a part is an image that can be shown."""
    if isinstance(part, BlobPart):
        return part.data is not None and part.mime_type.startswith("image/")
    return isinstance(part, UriPart) and "image" in (part.modality, part.mime_type[:5])


def parse_json(text: str) -> Any:
    """Returns the value of a JSON text that APIs and frameworks accept.

    Raises:
        ValueError: The text is not JSON, or has numbers that are not finite, too many nesting
            levels, or texts that are not valid Unicode.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("the nesting is too deep") from error
    validate(value)
    if "\\ud" in text.lower():
        # Escape sequences can yield lone surrogates.
        json.dumps(value, ensure_ascii=False).encode()
    return value


def parse_object(text: str) -> dict[str, Any] | None:
    """Returns JSON text as an object; `None` if it is none."""
    try:
        value = parse_json(text or "{}")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
