"""Parts that the adapters of agent frameworks share.

A framework identifies a session by an arbitrary text, together with a user and an application.
The id of its conversation is the UUID (version 5, in `NAMESPACE`) of these names. Every process
therefore derives the same id without a lookup, and two users or applications never share one.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ._config import LONG_TIMEOUT
from ._limits import MAX_MESSAGES_PER_SAVE
from ._types import Message

NAMESPACE = uuid.UUID("a8f12931-1738-5414-9644-362c0d1bafd1")
"""Namespace of the derived ids. It must never change: all conversations would appear empty."""


@dataclass(frozen=True, slots=True)
class NamedConversation:
    """A conversation whose id is derived from names, so that it is known before it exists."""

    id: str
    user_id: str
    dept_id: str | None = None
    title: str | None = None
    metadata: Mapping[str, Any] | None = None

    @classmethod
    def from_names(cls, *names: str, user_id: str, **fields: Any) -> NamedConversation:
        """Derives the id from a list of names, the first of which is the framework's."""
        return cls(str(uuid.uuid5(NAMESPACE, json.dumps(names))), user_id, **fields)

    def with_id(self, conversation_id: str | None) -> NamedConversation:
        """Returns the conversation with another id; `None` keeps the derived one."""
        return self if conversation_id is None else replace(self, id=conversation_id)


def append_timeout(messages: Sequence[Message]) -> float | None:
    """Returns the time limit for appending: `None`, the client's timeout, if it is one save."""
    return None if len(messages) <= MAX_MESSAGES_PER_SAVE else LONG_TIMEOUT


def missing_framework(extra: str, error: ImportError) -> ImportError:
    """Returns the error of an adapter whose framework is not installed."""
    return ImportError(
        f"{error}: install it with pip install 'conversation-memory[{extra}]'",
        name=error.name,
        path=error.path,
    )
