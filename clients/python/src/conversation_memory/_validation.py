"""Validation of the messages of a turn with the rules and the limits of the service.

A turn is saved as a whole at its end. A message that the service rejects would cause the loss of
all others, so that it is rejected when it is added.
"""

from __future__ import annotations

import json
import math
import re

from google.protobuf.struct_pb2 import Struct, Value

from ._limits import (
    DEFAULT_LIMITS,
    MAX_CONTEXTS,
    MAX_DOC_ID_CHARS,
    MAX_NAME_CHARS,
    MAX_PARTS,
    Limits,
)
from ._proto.v1 import resources_pb2 as resources
from ._structs import from_struct

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_OBJECT_WEIGHT = 4
"""Number of values that an object in metadata counts as."""


def validate_message(message: resources.Message, limits: Limits = DEFAULT_LIMITS) -> None:
    """Rejects a message that the service would reject with these limits.

    Raises:
        ValueError: A field is invalid. The text names it, and the limit.
    """
    if message.id and not _UUID.fullmatch(message.id):
        raise ValueError(
            "a message's id must be a UUID such as 0198a2f0-7c4e-7b1e-9d5a-3f1c2b4d5e6f"
        )
    if message.name:
        _validate_name("name", message.name)
    _validate_parts(message, limits)
    has_metadata = message.HasField("metadata") and bool(message.metadata.fields)
    if not message.content and not message.parts and not has_metadata:
        raise ValueError("a message must have content, parts or metadata")
    if message.pinned and _is_grouped(message):
        raise ValueError(
            "a message with tool calls, their results, or reasoning alone must not be pinned"
        )
    for field in ("token_count", "tokens_used", "latency_ms"):
        if getattr(message, field) < 0:
            raise ValueError(f"a message's {field} must not be negative")
    if has_metadata:
        _validate_metadata("metadata", message.metadata, limits)
    if len(message.contexts) > MAX_CONTEXTS:
        raise ValueError(f"a message must have at most {MAX_CONTEXTS} contexts")
    for index, context in enumerate(message.contexts):
        _validate_context(f"contexts[{index}]", context, limits)


def weight(message: resources.Message) -> int:
    """Returns the number of values in the metadata of a message and of its contexts."""
    if not message.HasField("metadata") and not message.contexts:
        return 0
    structs = [message.metadata, *(context.metadata for context in message.contexts)]
    return sum(_weight(value) for struct in structs for value in struct.fields.values())


def _weight(value: Value) -> int:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _OBJECT_WEIGHT + sum(map(_weight, value.struct_value.fields.values()))
    if kind == "list_value":
        return 1 + sum(map(_weight, value.list_value.values))
    return 1


def _validate_parts(message: resources.Message, limits: Limits) -> None:
    if not message.parts:
        _validate_text("content", message.content, limit=limits.content_bytes)
        return
    if len(message.parts) > MAX_PARTS:
        raise ValueError(f"a message must have at most {MAX_PARTS} parts")
    texts = [message.content] if message.content else []
    own_bytes = 0
    ids: set[tuple[str, str]] = set()
    for index, part in enumerate(message.parts):
        kind = str(part.WhichOneof("kind"))
        path = f"parts[{index}].{kind}"
        if kind == "text":
            texts.append(part.text.content)
        elif kind == "tool_call_response":
            texts.append(part.tool_call_response.response)
        if kind in ("tool_call", "tool_call_response"):
            given = (kind, getattr(part, kind).id)
            if given in ids:
                raise ValueError(f"{path}.id is the id of an earlier part of the message")
            ids.add(given)
        own_bytes += _validate_part(path, part, message.role, limits)
    if own_bytes > limits.content_bytes:
        raise ValueError(
            f"the parts of a message must have at most {limits.content_bytes} bytes of text beside"
            f" the content; these have {own_bytes}"
        )
    size = own_bytes + _validate_text("content", "\n".join(texts), limit=limits.content_bytes)
    if size > limits.text_bytes:
        raise ValueError(
            f"a message must have at most {limits.text_bytes} bytes of text in its content and its"
            f" other parts together; this one has {size}"
        )


def _validate_part(path: str, part: resources.Part, role: int, limits: Limits) -> int:
    """Validates a part; returns the bytes of its text that is not part of the content."""
    kind = part.WhichOneof("kind")
    if kind == "reasoning":
        return _validate_text(f"{path}.content", part.reasoning.content)
    if kind == "tool_call":
        if role != resources.ROLE_ASSISTANT:
            raise ValueError(f"{path} is only valid in a message of the role assistant")
        call = part.tool_call
        size = _validate_name(f"{path}.id", call.id, is_required=True)
        size += _validate_name(f"{path}.name", call.name, is_required=True)
        return size + _validate_text(f"{path}.arguments", call.arguments)
    if kind == "tool_call_response":
        if role != resources.ROLE_TOOL:
            raise ValueError(f"{path} is only valid in a message of the role tool")
        return _validate_name(f"{path}.id", part.tool_call_response.id, is_required=True)
    if kind == "blob":
        blob = part.blob
        if not blob.data:
            raise ValueError(f"{path}.data must not be empty")
        if len(blob.data) > limits.blob_bytes:
            raise ValueError(
                f"{path}.data must have at most {limits.blob_bytes} bytes: store larger data"
                " elsewhere and save its URI"
            )
        if not blob.mime_type:
            raise ValueError(f"{path}.mime_type must not be empty")
        return _validate_media(path, blob.mime_type, blob.modality)
    if kind == "uri":
        size = _validate_media(path, part.uri.mime_type, part.uri.modality)
        return size + _validate_reference(f"{path}.uri", part.uri.uri)
    if kind == "file":
        size = _validate_media(path, part.file.mime_type, part.file.modality)
        return size + _validate_reference(f"{path}.file_id", part.file.file_id)
    if kind == "generic":
        size = _validate_name(f"{path}.type", part.generic.type, is_required=True)
        return size + _validate_text(f"{path}.json", part.generic.json)
    return 0


def _validate_media(path: str, mime_type: str, modality: str) -> int:
    is_printable = mime_type.isascii() and mime_type.isprintable()
    if mime_type and ("/" not in mime_type or not is_printable):
        raise ValueError(f"{path}.mime_type must be a media type, such as image/jpeg")
    size = _validate_name(f"{path}.mime_type", mime_type)
    return size + _validate_name(f"{path}.modality", modality)


def _validate_name(
    path: str, name: str, *, is_required: bool = False, limit: int = MAX_NAME_CHARS
) -> int:
    if is_required and not name:
        raise ValueError(f"{path} must not be empty")
    if len(name) > limit:
        raise ValueError(f"{path} must have at most {limit} characters")
    return _validate_text(path, name)


def _validate_reference(path: str, text: str) -> int:
    if not text:
        raise ValueError(f"{path} must not be empty")
    return _validate_text(path, text)


def _validate_text(path: str, text: str, *, limit: int | None = None) -> int:
    """Validates a text; returns its size in bytes."""
    size = len(text) if text.isascii() else len(text.encode())
    if limit is not None and size > limit:
        raise ValueError(f"{path} must have at most {limit} bytes; it has {size}")
    if "\0" in text:
        raise ValueError(f"{path} must not contain U+0000")
    return size


def _validate_metadata(path: str, struct: Struct, limits: Limits) -> None:
    if not struct.fields:
        return
    text = json.dumps(from_struct(struct), ensure_ascii=False, separators=(",", ":"))
    if len(text.encode()) > limits.metadata_bytes:
        raise ValueError(f"{path} must have at most {limits.metadata_bytes} bytes as JSON")
    if "\\u0000" in text and _has_nul(from_struct(struct)):
        raise ValueError(f"{path} must not contain U+0000")


def _has_nul(value: object) -> bool:
    if isinstance(value, dict):
        return any("\0" in key or _has_nul(item) for key, item in value.items())
    if isinstance(value, list):
        return any(map(_has_nul, value))
    return isinstance(value, str) and "\0" in value


def _validate_context(path: str, context: resources.RetrievedContext, limits: Limits) -> None:
    _validate_name(f"{path}.doc_id", context.doc_id, limit=MAX_DOC_ID_CHARS)
    _validate_text(f"{path}.content", context.content, limit=limits.content_bytes)
    if not math.isfinite(context.score):
        raise ValueError(f"{path}.score must be finite")
    _validate_metadata(f"{path}.metadata", context.metadata, limits)


def _is_grouped(message: resources.Message) -> bool:
    kinds = [part.WhichOneof("kind") for part in message.parts]
    return (
        message.role == resources.ROLE_TOOL
        or "tool_call" in kinds
        or "tool_call_response" in kinds
        or (bool(kinds) and set(kinds) == {"reasoning"})
    )
