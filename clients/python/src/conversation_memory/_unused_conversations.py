"""Ids of conversations that were created for turns that could not begin."""

from __future__ import annotations

import threading
from collections import OrderedDict

CAPACITY = 10_000
"""Number of ids that are kept; the oldest one is evicted first."""


class UnusedConversations:
    """Conversation ids that the next new turn of the same user reuses. Thread-safe.

    Without them each failed attempt to begin a turn would leave an empty conversation.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._ids: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, user_id: str, dept_id: str | None, conversation_id: str) -> None:
        """Keeps the id of a user's conversation in which no turn could begin."""
        with self._lock:
            self._ids[user_id, dept_id or ""] = conversation_id
            if len(self._ids) > self._capacity:
                self._ids.popitem(last=False)

    def take(self, user_id: str, dept_id: str | None) -> str | None:
        """Removes and returns the user's id, so that only one turn uses it; `None` if none."""
        with self._lock:
            return self._ids.pop((user_id, dept_id or ""), None)
