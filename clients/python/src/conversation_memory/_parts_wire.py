"""Conversion between the parts of the contract and the values of this package."""

from __future__ import annotations

from ._parts import (
    BlobPart,
    FilePart,
    GenericPart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolCallResponsePart,
    UriPart,
)
from ._proto.v1 import resources_pb2 as resources


def write_part(part: Part) -> resources.Part:
    """Encodes a part.

    Raises:
        ValueError: A text contains lone surrogates.
    """
    text = validated_text
    if isinstance(part, TextPart):
        return resources.Part(text=resources.TextPart(content=text(part.content)))
    if isinstance(part, ReasoningPart):
        return resources.Part(reasoning=resources.ReasoningPart(content=text(part.content)))
    if isinstance(part, ToolCallPart):
        call = resources.ToolCallPart(
            id=text(part.id), name=text(part.name), arguments=text(part.arguments)
        )
        return resources.Part(tool_call=call)
    if isinstance(part, ToolCallResponsePart):
        response = resources.ToolCallResponsePart(id=text(part.id), response=text(part.response))
        return resources.Part(tool_call_response=response)
    if isinstance(part, BlobPart):
        blob = resources.BlobPart(
            mime_type=text(part.mime_type), modality=text(part.modality), data=part.data or b""
        )
        return resources.Part(blob=blob)
    if isinstance(part, UriPart):
        uri = resources.UriPart(
            mime_type=text(part.mime_type), modality=text(part.modality), uri=text(part.uri)
        )
        return resources.Part(uri=uri)
    if isinstance(part, FilePart):
        file = resources.FilePart(
            mime_type=text(part.mime_type), modality=text(part.modality), file_id=text(part.file_id)
        )
        return resources.Part(file=file)
    generic = resources.GenericPart(type=text(part.type), json=text(part.json))
    return resources.Part(generic=generic)


def read_part(part: resources.Part) -> Part:
    """Decodes a part. One that this version does not know is generic and empty."""
    kind = part.WhichOneof("kind")
    if kind == "text":
        return TextPart(part.text.content)
    if kind == "reasoning":
        return ReasoningPart(part.reasoning.content)
    if kind == "tool_call":
        call = part.tool_call
        return ToolCallPart(call.id, call.name, call.arguments)
    if kind == "tool_call_response":
        return ToolCallResponsePart(part.tool_call_response.id, part.tool_call_response.response)
    if kind == "blob":
        blob = part.blob
        return BlobPart(blob.mime_type, blob.data or None, blob.modality, blob.size_bytes)
    if kind == "uri":
        return UriPart(part.uri.uri, part.uri.mime_type, part.uri.modality)
    if kind == "file":
        return FilePart(part.file.file_id, part.file.mime_type, part.file.modality)
    return GenericPart(part.generic.type or "unknown", part.generic.json)


def validated_text(text: str) -> str:
    """Returns a text that can be encoded.

    Raises:
        ValueError: The text contains lone surrogates.
    """
    if str.isascii(text):
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        # The text of the codec's own error would contain the content.
        raise ValueError("a message's content must be Unicode without lone surrogates") from None
    return text
