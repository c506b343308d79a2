"""What a client has seen of conversations, so that it never reads an older state."""

from __future__ import annotations

import threading
from collections import OrderedDict

CAPACITY = 10_000
"""How many conversations are remembered; the one used least recently goes first."""


class Seen:
    """The highest number seen of each conversation. Safe to share among threads."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._last_seqs: OrderedDict[str, int] = OrderedDict()
        self._spares: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._lock = threading.Lock()

    def last_seq(self, conversation_id: str) -> int:
        """The highest number seen, 0 for a conversation that is not remembered."""
        with self._lock:
            return self._last_seqs.get(conversation_id.lower(), 0)

    def note(self, conversation_id: str, last_seq: int) -> None:
        """Remembers that a conversation has come to this number."""
        key = conversation_id.lower()
        with self._lock:
            self._last_seqs[key] = max(last_seq, self._last_seqs.get(key, 0))
            self._last_seqs.move_to_end(key)
            if len(self._last_seqs) > self._capacity:
                self._last_seqs.popitem(last=False)

    def forget(self, conversation_id: str) -> None:
        """Forgets a conversation that is gone."""
        with self._lock:
            self._last_seqs.pop(conversation_id.lower(), None)

    def keep_spare(self, user_id: str, dept_id: str | None, conversation_id: str) -> None:
        """Keeps the id of a user's conversation in which no turn could begin."""
        with self._lock:
            self._spares[user_id, dept_id or ""] = conversation_id
            if len(self._spares) > self._capacity:
                self._spares.popitem(last=False)

    def take_spare(self, user_id: str, dept_id: str | None) -> str | None:
        """Takes it, for one turn only."""
        with self._lock:
            return self._spares.pop((user_id, dept_id or ""), None)
