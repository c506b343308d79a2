"""Ids that the client generates."""

from __future__ import annotations

import os
import time
import uuid


def new_conversation_id() -> str:
    """Returns a UUIDv7, so that ids generated in sequence are stored next to each other."""
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return str(uuid.UUID(int=value))
