"""Files of exported conversations."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from ._proto.v1 import conversation_memory_pb2 as api

ExportFormat = Literal["json", "jsonl", "csv", "markdown"]
ImportFormat = Literal["json", "jsonl"]

Destination = str | os.PathLike[str] | BinaryIO
"""Path, or file that is open for writing bytes."""

FileSource = str | os.PathLike[str] | BinaryIO
"""Path, or file that is open for reading bytes."""

CHUNK_BYTES = 256 << 10
"""Upper bound on the bytes of a file that one request carries."""

_FORMATS = {
    "json": api.EXPORT_FORMAT_JSON,
    "jsonl": api.EXPORT_FORMAT_JSONL,
    "csv": api.EXPORT_FORMAT_CSV,
    "markdown": api.EXPORT_FORMAT_MARKDOWN,
}


def export_request(
    conversation_id: str, format: str, user_id: str | None
) -> api.ExportConversationRequest:
    """Returns the request of an export.

    Raises:
        ValueError: The format is unknown.
    """
    return api.ExportConversationRequest(
        conversation_id=conversation_id, user_id=user_id or "", format=_format_number(format)
    )


def import_options(
    format: str | None, user_id: str | None, dept_id: str | None, keep_ids: bool
) -> api.ImportConversationRequest.Options:
    """Returns the first request of an import.

    Raises:
        ValueError: The format is unknown.
    """
    return api.ImportConversationRequest.Options(
        user_id=user_id or "",
        dept_id=dept_id or "",
        format=_format_number(format),
        keep_ids=keep_ids,
    )


def _format_number(format: str | None) -> api.ExportFormat:
    if format is None:
        return api.EXPORT_FORMAT_UNSPECIFIED
    if format not in _FORMATS:
        raise ValueError(f"format must be one of {', '.join(_FORMATS)}")
    return _FORMATS[format]


@contextlib.contextmanager
def open_destination(destination: Destination) -> Iterator[BinaryIO]:
    """Opens the destination of an export. A file at a path appears when it is complete."""
    if not isinstance(destination, (str, os.PathLike)):
        yield destination
        return
    # The target of a symbolic link is replaced, not the link.
    path = Path(os.path.realpath(destination))
    if path.exists() and not path.is_file():
        # A pipe or a device is written directly; a directory is an error.
        with path.open("wb") as file:
            yield file
        return
    # The temporary name is not derived from the file's name, which may have the maximum length.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".export-", delete=False) as part:
        try:
            yield part  # type: ignore[misc]
            part.close()
            os.replace(part.name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part.name)
            raise


@contextlib.contextmanager
def open_source(source: FileSource) -> Iterator[BinaryIO]:
    """Opens the source of an import. A file that the caller opened stays open."""
    if isinstance(source, (str, os.PathLike)):
        with Path(source).open("rb") as file:
            yield file
    else:
        yield source


def write_all(file: BinaryIO, data: bytes) -> None:
    """Writes all bytes: a raw file may accept only a part of them at a time."""
    rest = memoryview(data)
    while rest:
        written = file.write(rest)
        if written is None:
            raise BlockingIOError("the file accepts no data now: open it in blocking mode")
        rest = rest[written:]


def write_chunk(file: BinaryIO, response: api.ExportConversationResponse) -> None:
    """Writes the chunk of the file that a response of an export carries."""
    write_all(file, response.file.data)


def read_chunk(file: BinaryIO) -> api.ImportConversationRequest | None:
    """Reads the next chunk as a request of an import; `None` at the end of the file."""
    data: bytes | None = file.read(CHUNK_BYTES)
    if data is None:
        # This is not the end of the file, and half a file must not become a conversation.
        raise BlockingIOError("the file has no data now: open it in blocking mode")
    return api.ImportConversationRequest(file={"data": data}) if data else None
