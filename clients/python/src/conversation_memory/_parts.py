"""Parts of messages as immutable values.

The types are those of OpenTelemetry's GenAI message schema.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

DELTA = "delta:"
"""Prefix of the type of a generic part that restores the form which a message was saved in."""


@dataclass(frozen=True, slots=True)
class TextPart:
    """A text that the author wrote."""

    content: str
    """The text."""


@dataclass(frozen=True, slots=True)
class ReasoningPart:
    """A model's reasoning, which preceded its answer or tool call."""

    content: str = ""
    """The reasoning as text; empty if the model does not disclose it."""


@dataclass(frozen=True, slots=True)
class ToolCallPart:
    """A call of a tool that the model requested, in a message of the assistant."""

    id: str
    """Id that the result names, 1 to 255 characters."""
    name: str
    """Name of the tool, 1 to 255 characters."""
    arguments: str = ""
    """Arguments as JSON text, as the model wrote them."""


@dataclass(frozen=True, slots=True)
class ToolCallResponsePart:
    """The result of a tool call, in a message with the role tool."""

    id: str
    """Id of the call, 1 to 255 characters."""
    response: str = ""
    """Result, as text or as JSON text."""


@dataclass(frozen=True, slots=True)
class BlobPart:
    """Binary data, such as an image."""

    mime_type: str
    """Media type, such as image/jpeg."""
    data: bytes | None = field(default=None, repr=False)
    """The data; `None` if the response left it out. `get_blob` reads it."""
    modality: str = ""
    """Kind of data, such as image, audio or video."""
    size_bytes: int = 0
    """Size of the data, also if `data` is `None`."""

    def __post_init__(self) -> None:
        if self.data is not None:
            object.__setattr__(self, "size_bytes", len(self.data))


@dataclass(frozen=True, slots=True)
class UriPart:
    """A reference to data by URI."""

    uri: str
    """The URI."""
    mime_type: str = ""
    """Media type; empty if unknown."""
    modality: str = ""
    """Kind of data, such as image, audio or video."""


@dataclass(frozen=True, slots=True)
class FilePart:
    """A reference to a file that was uploaded to the model's provider."""

    file_id: str
    """The provider's id of the file."""
    mime_type: str = ""
    """Media type; empty if unknown."""
    modality: str = ""
    """Kind of data, such as image, audio or video."""


@dataclass(frozen=True, slots=True)
class GenericPart:
    """A part of another type, or the details of a framework that the other types cannot express."""

    type: str
    """Name of the type, 1 to 255 characters."""
    json: str = ""
    """Content as JSON text."""


Part = (
    TextPart
    | ReasoningPart
    | ToolCallPart
    | ToolCallResponsePart
    | BlobPart
    | UriPart
    | FilePart
    | GenericPart
)
"""A part of a message."""


def is_delta(part: Part) -> bool:
    """Whether a part has no content of its own, but restores a framework's form."""
    return isinstance(part, GenericPart) and part.type.startswith(DELTA)


def texts_of(parts: Iterable[Part]) -> list[str]:
    """Returns the texts and results, which the content of a message consists of."""
    texts = []
    for part in parts:
        if isinstance(part, TextPart):
            texts.append(part.content)
        elif isinstance(part, ToolCallResponsePart):
            texts.append(part.response)
    return texts


def text_of(part: Part) -> str:
    """Returns the text that a part consists of; an empty one for binary data."""
    if isinstance(part, (TextPart, ReasoningPart)):
        return part.content
    if isinstance(part, ToolCallPart):
        return part.arguments
    if isinstance(part, ToolCallResponsePart):
        return part.response
    if isinstance(part, UriPart):
        return part.uri
    if isinstance(part, FilePart):
        return part.file_id
    return part.json if isinstance(part, GenericPart) else ""
