"""Parts that the adapters of agent frameworks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

from ._config import LONG_TIMEOUT
from ._forms.common import is_storable
from ._limits import MAX_MESSAGES_PER_SAVE, MAX_VALUES_PER_SAVE, Limits
from ._names import derived_id
from ._parts import BlobPart, text_of
from ._proto.v1 import resources_pb2 as resources
from ._types import Message
from ._validation import validate_message, weight


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
        return cls(derived_id(*names), user_id, **fields)

    @classmethod
    def of_session(
        cls, framework: str, *, app: str, user_id: str, name: str, dept_id: str | None = None
    ) -> NamedConversation:
        """Returns the conversation of a framework's session; its metadata has the names."""
        metadata = session_metadata(framework, app=app, name=name)
        return cls.from_names(
            framework, app, user_id, name, user_id=user_id, dept_id=dept_id, metadata=metadata
        )

    def with_metadata(self, metadata: Mapping[str, Any]) -> NamedConversation:
        """Returns the conversation with further metadata."""
        return replace(self, metadata={**(self.metadata or {}), **metadata})

    def with_id(self, conversation_id: str | None) -> NamedConversation:
        """Returns the conversation with another id; `None` keeps the derived one."""
        return self if conversation_id is None else replace(self, id=conversation_id)


SESSION_KEY = "framework_session"
"""Key of a conversation's metadata with the names that a framework knows it by."""

MAX_SESSION_NAME = 4096
"""Upper bound on the characters of a name that is stored with a conversation."""


def session_metadata(framework: str, *, app: str, name: str) -> dict[str, Any] | None:
    """Returns the metadata of a session's conversation, so that a listing shows whose it is.

    A name that cannot be stored, or is too long, is left out: the id is derived from it anyway.
    """
    names = {"framework": framework, "app": app, "name": name}
    is_stored = all(is_storable(text) and len(text) <= MAX_SESSION_NAME for text in names.values())
    return {SESSION_KEY: names} if is_stored else None


MAX_QUICK_BYTES = 4 << 20
"""Number of bytes up to which an append has the client's timeout."""


def append_timeout(messages: Sequence[Message]) -> float | None:
    """Returns the time limit for appending: `None`, the client's timeout, if it is quick."""
    is_quick = len(messages) <= MAX_MESSAGES_PER_SAVE and sum(map(_size, messages)) <= (
        MAX_QUICK_BYTES
    )
    return None if is_quick else LONG_TIMEOUT


def _size(message: Message) -> int:
    """Returns the approximate size of a message in bytes."""
    return len(message.content) + sum(
        part.size_bytes if isinstance(part, BlobPart) else len(text_of(part))
        for part in message.parts
    )


_MESSAGE_OVERHEAD_BYTES = 8
"""Upper bound on the bytes that a message needs in a request beside its own."""


def split_into_saves(
    messages: Sequence[resources.Message], limits: Limits
) -> list[list[resources.Message]]:
    """Splits encoded messages so that each list fits into one save.

    Raises:
        ValueError: There are several lists, and the service would reject one of them: the earlier
            ones would stay saved. The text names the message, the field and the limit.
    """
    saves: list[list[resources.Message]] = []
    size = values = 0
    for message in messages:
        message_size = message.ByteSize() + _MESSAGE_OVERHEAD_BYTES
        size, values = size + message_size, values + weight(message)
        is_full = size > limits.turn_bytes or values > MAX_VALUES_PER_SAVE
        if not saves or len(saves[-1]) == MAX_MESSAGES_PER_SAVE or is_full:
            saves.append([])
            size, values = message_size, weight(message)
        saves[-1].append(message)
    if len(saves) > 1:
        for index, message in enumerate(messages):
            try:
                validate_message(message, limits)
            except ValueError as error:
                raise ValueError(f"messages[{index}]: {error}") from None
    return saves


def missing_framework(extra: str, error: ImportError) -> ImportError:
    """Returns the error of an adapter whose framework is not installed, or too old."""
    # The framework itself is installed: this package need not be in an index.
    return ImportError(
        f"{error}: install it with pip install '{_requirement_of(extra)}'",
        name=error.name,
        path=error.path,
    )


def _requirement_of(extra: str) -> str:
    """Returns the requirement of an extra: the framework and its versions."""
    try:
        requirements = metadata.requires("conversation-memory") or ()
    except metadata.PackageNotFoundError:
        requirements = ()
    for requirement in requirements:
        name, _, marker = requirement.partition(";")
        if marker.replace("'", '"').strip() == f'extra == "{extra}"':
            return name.strip()
    return extra
