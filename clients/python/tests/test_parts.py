"""Typed parts: their values, and data that a response leaves out."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from typing import Any

import grpc
import pytest

from conversation_memory import (
    BlobPart,
    ConversationMemory,
    FilePart,
    GenericPart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolCallResponsePart,
    UriPart,
)
from conversation_memory import _convert as convert
from conversation_memory._proto.v1 import conversation_memory_pb2 as api
from conversation_memory._proto.v1 import resources_pb2 as resources

from .blocking import LoopThread
from .fake import CONVERSATION, FakeService, serving
from .sidecar import TIMEOUT

EVERY_PART = (
    TextPart("Look:"),
    ReasoningPart("Hm."),
    BlobPart("image/png", b"\x89PNG", "image"),
    UriPart("https://example.com/cat.jpg", "image/jpeg", "image"),
    FilePart("file-1", "application/pdf"),
    GenericPart("of_the_future", '{"a":1}'),
)


def encode_and_decode(message: Message) -> Message:
    sent = convert.write_message(message, "").SerializeToString()
    return convert.read_message(resources.Message.FromString(sent))


def test_parts_are_decoded_equal() -> None:
    user = Message("user", parts=EVERY_PART, name="ana", pinned=True, token_count=7)
    assert user.content == "Look:"
    call = Message("assistant", parts=(ToolCallPart("1", "f", "{"),))
    result = Message("tool", parts=(ToolCallResponsePart("1", "a"), ToolCallResponsePart("2", "b")))
    assert result.content == "a\nb"
    for message in (user, call, result):
        assert encode_and_decode(message) == message


def test_single_text_is_a_plain_message() -> None:
    assert Message("user", parts=(TextPart("hi"),)) == Message("user", "hi")
    picture = BlobPart("image/png", b"1")
    assert Message("user", "hi", parts=(picture,)).parts == (TextPart("hi"), picture)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"content": "x", "parts": (TextPart("y"), TextPart("z"))}, ValueError),
        ({"parts": ("text",)}, TypeError),
        ({"parts": ({"type": "text"},)}, TypeError),
    ],
)
def test_invalid_parts_are_rejected(fields: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Message("user", **fields)


@pytest.mark.parametrize(
    "part",
    [
        BlobPart("image/png", b"x" * ((8 << 20) + 1)),
        BlobPart("image/png"),
        ReasoningPart("half \ud800"),
    ],
    ids=["too large", "without data", "half a character"],
)
def test_parts_that_cannot_be_saved_are_rejected(part: Any) -> None:
    with pytest.raises(ValueError, match=r"bytes|missing|surrogates"):
        convert.write_message(Message("user", parts=(part,)), "")


def test_unknown_part_is_generic() -> None:
    sent = resources.Message(role=resources.ROLE_USER, parts=[resources.Part()])
    assert convert.read_message(sent).parts == (GenericPart("unknown"),)


class Blobs:
    """A service whose history has left out the data of eight blobs."""

    def __init__(self) -> None:
        self.fake = FakeService()
        self.fake.answers["GetHistory"] = lambda *_: self._history().SerializeToString()
        self.fake.streams["GetBlob"] = self._blob
        self.most = 0
        self._running = 0
        self._lock = threading.Lock()
        self._together = threading.Barrier(4)

    def _history(self) -> api.GetHistoryResponse:
        history = api.GetHistoryResponse(last_seq=8)
        for seq in range(1, 9):
            message = history.messages.add(seq=seq, role=resources.ROLE_USER)
            message.parts.add().text.content = "Look:"
            message.parts.add().blob.CopyFrom(
                resources.BlobPart(mime_type="image/png", size_bytes=6)
            )
        return history

    def _blob(self, request: bytes, context: grpc.ServicerContext) -> Iterable[bytes]:
        asked = api.GetBlobRequest.FromString(request)
        with self._lock:
            self._running += 1
            self.most = max(self.most, self._running)
        self._together.wait(TIMEOUT)
        for piece in (b"blob", f"{asked.seq}{asked.part}".encode()):
            yield api.GetBlobResponse(file={"data": piece}).SerializeToString()
        with self._lock:
            self._running -= 1


@pytest.mark.parametrize("client", ["blocking", "asyncio"])
def test_history_is_completed_with_blobs(client: str, event_loop_thread: LoopThread) -> None:
    from conversation_memory import AsyncConversationMemory

    blobs = Blobs()
    with serving(blobs.fake) as address:
        if client == "blocking":
            memory = ConversationMemory(address, timeout=TIMEOUT)
        else:
            memory = event_loop_thread.blocking(AsyncConversationMemory(address, timeout=TIMEOUT))
        with memory:
            messages = memory.get_history(CONVERSATION).messages
    data = [part.data for message in messages for part in message.parts[1:]]  # type: ignore[union-attr]
    assert data == [f"blob{seq}1".encode() for seq in range(1, 9)]
    assert blobs.most == 4


def test_blob_without_data_is_shown_as_text() -> None:
    missing = BlobPart("image/png", None, "image", 7)
    message = Message("user", parts=(TextPart("Look:"), missing))
    assert json.dumps(message.to_openai()).count("[image/png, 7 bytes]") == 1
