"""Export and import with links, pipes, raw files and files in non-blocking mode."""

from __future__ import annotations

import io
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from conversation_memory import AsyncConversationMemory, ConversationMemory, Message

from .fake import CONVERSATION, FakeService, serving
from .sidecar import TIMEOUT, Sidecar


@pytest.fixture
def conversation(memory: ConversationMemory, user: str) -> str:
    conversation = memory.create_conversation(user).id
    memory.save_messages(conversation, [Message("user", "x" * 300_000)] * 2)
    return conversation


@pytest.fixture
def exported(memory: ConversationMemory, conversation: str) -> bytes:
    file = io.BytesIO()
    memory.export_conversation(conversation, file, format="csv")
    return file.getvalue()


def test_export_replaces_the_target_of_a_symbolic_link(
    memory: ConversationMemory, conversation: str, exported: bytes, tmp_path: Path
) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("the previous file")
    link.symlink_to("real")
    memory.export_conversation(conversation, link, format="csv")
    assert link.is_symlink()
    assert real.read_bytes() == exported


def test_export_writes_to_a_pipe(
    memory: ConversationMemory, conversation: str, exported: bytes, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    memory.export_conversation(conversation, pipe, format="csv")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    reader.join(TIMEOUT)
    assert read == [exported]


def test_export_accepts_the_longest_file_name(
    memory: ConversationMemory, conversation: str, exported: bytes, tmp_path: Path
) -> None:
    path = tmp_path / ("n" * 255)
    memory.export_conversation(conversation, path, format="csv")
    assert path.read_bytes() == exported
    assert list(tmp_path.iterdir()) == [path]


async def test_invalid_destination_fails_before_the_call(tmp_path: Path) -> None:
    fake = FakeService()
    with serving(fake) as address:
        for path in (tmp_path / "none" / "leave.json", tmp_path):
            with (
                ConversationMemory(address, timeout=TIMEOUT) as memory,
                pytest.raises(OSError, match="directory"),
            ):
                memory.export_conversation(CONVERSATION, path)
            async with AsyncConversationMemory(address, timeout=TIMEOUT) as aio:
                with pytest.raises(OSError, match="directory"):
                    await aio.export_conversation(CONVERSATION, path)
    assert not fake.calls


class Raw(io.RawIOBase):
    """A raw file that accepts a part of the data at a time, or none."""

    def __init__(self, most: int | None) -> None:
        self.written = bytearray()
        self._most = most

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int | None:
        if self._most is None:
            return None
        part = bytes(data)[: self._most]
        self.written += part
        return len(part)


def test_export_writes_everything_to_a_raw_file(
    memory: ConversationMemory, conversation: str, exported: bytes
) -> None:
    raw = Raw(1000)
    memory.export_conversation(conversation, raw, format="csv")  # type: ignore[arg-type]
    assert raw.written == exported
    with pytest.raises(BlockingIOError):
        memory.export_conversation(conversation, Raw(None))  # type: ignore[arg-type]


class NonBlocking(io.RawIOBase):
    """A file in non-blocking mode: it returns the given pieces; `None` means no data."""

    def __init__(self, *pieces: bytes | SystemExit | None) -> None:
        self._pieces = list(pieces)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes | None:
        piece = self._pieces.pop(0) if self._pieces else b""
        if isinstance(piece, SystemExit):
            raise piece
        return piece


def test_import_of_a_non_blocking_file_creates_nothing(
    memory: ConversationMemory, user: str
) -> None:
    source = memory.create_conversation(user).id
    memory.save_messages(source, [Message("user", "one"), Message("user", "two")])
    file = io.BytesIO()
    memory.export_conversation(source, file, format="jsonl")
    first, second, third = file.getvalue().splitlines(keepends=True)
    file_without_data: Any = NonBlocking(first + second, None, third)
    with pytest.raises(BlockingIOError):
        memory.import_conversation(file_without_data)
    assert [found.id for found in memory.list_conversations(user)] == [source]
    whole: Any = NonBlocking(first + second, third)
    assert memory.import_conversation(whole).imported_messages == 2


def test_import_raises_the_exception_of_the_file_unchanged(sidecar: Sidecar, user: str) -> None:
    broken: Any = NonBlocking(b"{", SystemExit(3))
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory, pytest.raises(SystemExit):
        memory.import_conversation(broken, user_id=user)
