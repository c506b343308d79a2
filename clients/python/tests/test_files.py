"""Files that are no plain files, and those that give or take a part at a time."""

from __future__ import annotations

import io
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from conversation_memory import AsyncConversationMemory, ConversationMemory, Message

from .fake import CONVERSATION, Fake, serving
from .sidecar import Sidecar


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


def test_a_link_stays_and_what_it_names_is_replaced(
    memory: ConversationMemory, conversation: str, exported: bytes, tmp_path: Path
) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("the one before")
    link.symlink_to("real")
    memory.export_conversation(conversation, link, format="csv")
    assert link.is_symlink()
    assert real.read_bytes() == exported


def test_a_pipe_is_written_to(
    memory: ConversationMemory, conversation: str, exported: bytes, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    memory.export_conversation(conversation, pipe, format="csv")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    reader.join(30)
    assert read == [exported]


def test_a_name_may_be_long(
    memory: ConversationMemory, conversation: str, exported: bytes, tmp_path: Path
) -> None:
    path = tmp_path / ("n" * 255)
    memory.export_conversation(conversation, path, format="csv")
    assert path.read_bytes() == exported
    assert list(tmp_path.iterdir()) == [path]


async def test_a_destination_that_is_none_costs_no_call(tmp_path: Path) -> None:
    fake = Fake()
    with serving(fake) as address:
        for path in (tmp_path / "none" / "leave.json", tmp_path):
            with (
                ConversationMemory(address) as memory,
                pytest.raises(OSError, match="directory"),
            ):
                memory.export_conversation(CONVERSATION, path)
            async with AsyncConversationMemory(address) as aio:
                with pytest.raises(OSError, match="directory"):
                    await aio.export_conversation(CONVERSATION, path)
    assert not fake.calls


class Raw(io.RawIOBase):
    """A file that takes a part at a time, or nothing."""

    def __init__(self, most: int | None) -> None:
        self.taken = bytearray()
        self._most = most

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int | None:
        if self._most is None:
            return None
        part = bytes(data)[: self._most]
        self.taken += part
        return len(part)


def test_a_raw_file_gets_everything(
    memory: ConversationMemory, conversation: str, exported: bytes
) -> None:
    raw = Raw(1000)
    memory.export_conversation(conversation, raw, format="csv")  # type: ignore[arg-type]
    assert raw.taken == exported
    with pytest.raises(BlockingIOError):
        memory.export_conversation(conversation, Raw(None))  # type: ignore[arg-type]


class Slow(io.RawIOBase):
    """A file that does not block: it gives what is there, then None."""

    def __init__(self, *pieces: bytes | SystemExit | None) -> None:
        self._pieces = list(pieces)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes | None:
        piece = self._pieces.pop(0) if self._pieces else b""
        if isinstance(piece, SystemExit):
            raise piece
        return piece


def test_half_a_file_is_not_imported(memory: ConversationMemory, user: str) -> None:
    source = memory.create_conversation(user).id
    memory.save_messages(source, [Message("user", "one"), Message("user", "two")])
    file = io.BytesIO()
    memory.export_conversation(source, file, format="jsonl")
    first, second, third = file.getvalue().splitlines(keepends=True)
    slow: Any = Slow(first + second, None, third)
    with pytest.raises(BlockingIOError):
        memory.import_conversation(slow)
    assert [found.id for found in memory.list_conversations(user)] == [source]
    whole: Any = Slow(first + second, third)
    assert memory.import_conversation(whole).imported_messages == 2


def test_what_ends_a_program_is_raised_as_it_is(sidecar: Sidecar, user: str) -> None:
    broken: Any = Slow(b"{", SystemExit(3))
    with ConversationMemory(sidecar.address, timeout=30) as memory, pytest.raises(SystemExit):
        memory.import_conversation(broken, user_id=user)
