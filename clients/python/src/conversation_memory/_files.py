"""Conversations as files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from ._proto.v1 import conversation_memory_pb2 as api

ExportFormat = Literal["json", "jsonl", "csv"]
ImportFormat = Literal["json", "jsonl"]

Destination = str | os.PathLike[str] | BinaryIO
"""A path, or a file that is open for writing bytes."""

FileSource = str | os.PathLike[str] | BinaryIO
"""A path, or a file that is open for reading bytes."""

PIECE_BYTES = 256 << 10

_FORMATS = {
    "json": api.EXPORT_FORMAT_JSON,
    "jsonl": api.EXPORT_FORMAT_JSONL,
    "csv": api.EXPORT_FORMAT_CSV,
}


def format_number(format: str | None) -> api.ExportFormat:
    """A format's number, 0 for none; an unknown one is a ValueError."""
    if format is None:
        return api.EXPORT_FORMAT_UNSPECIFIED
    if format not in _FORMATS:
        raise ValueError(f"format must be one of {', '.join(_FORMATS)}")
    return _FORMATS[format]


def export_request(
    conversation_id: str, format: str, user_id: str | None
) -> api.ExportConversationRequest:
    """Asks for a conversation as a file."""
    return api.ExportConversationRequest(
        conversation_id=conversation_id, user_id=user_id or "", format=format_number(format)
    )


@contextlib.contextmanager
def open_destination(destination: Destination) -> Iterator[BinaryIO]:
    """Opens a file that gets its name when all of it has been written."""
    if not isinstance(destination, (str, os.PathLike)):
        yield destination
        return
    # What a link names is replaced, not the link.
    path = Path(os.path.realpath(destination))
    if path.exists() and not path.is_file():
        # A pipe or a device is written to; a folder is an error.
        with path.open("wb") as file:
            yield file
        return
    # Not named after the file, whose name may be as long as names can be.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".export-", delete=False) as part:
        try:
            yield part  # type: ignore[misc]
            part.close()
            os.replace(part.name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part.name)
            raise


def write_all(file: BinaryIO, data: bytes) -> None:
    """Writes everything: a raw file may take a part at a time."""
    rest = memoryview(data)
    while rest:
        written = file.write(rest)
        if written is None:
            raise BlockingIOError("the file takes nothing now: it must be a blocking one")
        rest = rest[written:]


class ImportRequests:
    """The requests of an import: what is to be done with the file, then the file.

    gRPC cancels a call whose requests cannot be made, and does not say why: `failure` does.
    """

    def __init__(
        self, file: BinaryIO, format: str | None, user_id: str | None, dept_id: str | None
    ) -> None:
        self._file = file
        self._options = api.ImportConversationRequest.Options(
            user_id=user_id or "", dept_id=dept_id or "", format=format_number(format)
        )
        self.failure: BaseException | None = None

    def __iter__(self) -> Iterator[api.ImportConversationRequest]:
        yield api.ImportConversationRequest(options=self._options)
        while (piece := self._read()) is not None:
            yield piece

    async def __aiter__(self) -> AsyncIterator[api.ImportConversationRequest]:
        yield api.ImportConversationRequest(options=self._options)
        while (piece := await asyncio.to_thread(self._read)) is not None:
            yield piece

    def _read(self) -> api.ImportConversationRequest | None:
        try:
            data = self._file.read(PIECE_BYTES)
            if data is None:
                # Not the end: half a file must not become a conversation.
                raise BlockingIOError("the file has nothing now: it must be a blocking one")
            return api.ImportConversationRequest(data=data) if data else None
        except BaseException as failure:
            self.failure = failure
            # gRPC takes an Exception only for the end of a call; others would leave it waiting.
            raise RuntimeError("the file cannot be read") from failure


@contextlib.contextmanager
def import_requests(
    source: FileSource, format: str | None, user_id: str | None, dept_id: str | None
) -> Iterator[ImportRequests]:
    """Opens a file to be imported."""
    if isinstance(source, (str, os.PathLike)):
        with Path(source).open("rb") as file:
            yield ImportRequests(file, format, user_id, dept_id)
    else:
        yield ImportRequests(source, format, user_id, dept_id)
