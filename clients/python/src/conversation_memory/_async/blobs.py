"""Data of blobs that a response has left out because of its size."""

from __future__ import annotations

from dataclasses import replace

from .._concurrency_async import map_concurrently
from .._errors import NotFound
from .._limits import MAX_CONCURRENT_BLOBS
from .._parts import BlobPart, Part
from .._proto.v1 import conversation_memory_pb2 as api
from .._proto.v1 import methods
from .._types import Message
from .base import AsyncOperation

Place = tuple[int, int]
"""Index of a message, and index of a part in it."""


async def get_blob(
    operation: AsyncOperation, conversation_id: str, seq: int, part: int, *, user_id: str | None
) -> bytes:
    """Reads the data of a blob."""
    request = api.GetBlobRequest(
        conversation_id=conversation_id, user_id=user_id or "", seq=seq, part=part
    )
    responses = await operation.read_stream(methods.GET_BLOB, request)
    return b"".join(response.file.data for response in responses)


async def with_blobs(
    operation: AsyncOperation,
    conversation_id: str,
    messages: tuple[Message, ...],
    *,
    user_id: str | None,
) -> tuple[Message, ...]:
    """Returns messages with the data that their response has left out.

    If it has left out none, it returns the same tuple. Data that has been removed since stays
    `None`.
    """
    missing = [
        (index, position)
        for index, message in enumerate(messages)
        for position, part in enumerate(message.parts)
        if isinstance(part, BlobPart) and part.data is None
    ]
    if not missing:
        return messages

    async def read(place: Place) -> bytes | None:
        index, position = place
        seq = messages[index].seq
        try:
            return await get_blob(operation, conversation_id, seq, position, user_id=user_id)
        except NotFound:
            return None

    data = await map_concurrently(read, missing, MAX_CONCURRENT_BLOBS)
    found: dict[int, list[Part]] = {}
    for (index, position), each in zip(missing, data, strict=True):
        parts = found.setdefault(index, list(messages[index].parts))
        part = parts[position]
        if isinstance(part, BlobPart) and each:
            parts[position] = replace(part, data=each)
    return tuple(
        replace(message, parts=tuple(found[index])) if index in found else message
        for index, message in enumerate(messages)
    )
