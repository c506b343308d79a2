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
    path = Path(destination)
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        try:
            yield file  # type: ignore[misc]
            file.close()
            os.replace(file.name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file.name)
            raise


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
        self.failure: Exception | None = None

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
            return api.ImportConversationRequest(data=data) if data else None
        except Exception as failure:
            self.failure = failure
            raise


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
