"""Read-your-writes consistency: a client never reads a state older than one that it has seen."""

from __future__ import annotations

import threading
from collections import OrderedDict

CAPACITY = 10_000
"""Number of conversations that are tracked; the least recently used one is evicted first."""


class ObservedSeqs:
    """Highest message number that a client has observed in each conversation. Thread-safe."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._last_seqs: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def last_seq(self, conversation_id: str) -> int:
        """Returns the highest number observed; 0 if the conversation is not tracked."""
        with self._lock:
            return self._last_seqs.get(conversation_id.lower(), 0)

    def record(self, conversation_id: str, last_seq: int) -> None:
        """Records that the conversation has reached `last_seq`; a lower number is ignored."""
        key = conversation_id.lower()
        with self._lock:
            self._last_seqs[key] = max(last_seq, self._last_seqs.get(key, 0))
            self._last_seqs.move_to_end(key)
            if len(self._last_seqs) > self._capacity:
                self._last_seqs.popitem(last=False)

    def forget(self, conversation_id: str) -> None:
        """Stops tracking a conversation that no longer exists."""
        with self._lock:
            self._last_seqs.pop(conversation_id.lower(), None)
