"""What the adapters of agent frameworks share.

A framework names a session by any text, and with it a user and an application. The
conversation that keeps it is the UUID (version 5, in `NAMESPACE`) of those names: every
process finds the same one without looking anything up, and no two users or
applications share one.

Like the operations of the clients these are flows, so that the blocking and the asyncio
client run the same ones.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import _flows as flows
from ._client import LONG_TIMEOUT
from ._errors import AlreadyExists, NotFound, SeqMismatch
from ._flows import MAX_MESSAGES_PER_SAVE, Flow
from ._seen import Seen
from ._types import Message, SavedMessages

NAMESPACE = uuid.UUID("a8f12931-1738-5414-9644-362c0d1bafd1")
"""The namespace of the conversations' ids. It must never change: all would seem empty."""

PAGE = 1000
"""The most messages that one answer has."""


@dataclass(frozen=True, slots=True)
class Place:
    """A conversation with an id that is known before it exists."""

    id: str
    user_id: str
    dept_id: str | None = None
    title: str | None = None
    metadata: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, *names: str, user_id: str, **fields: Any) -> Place:
        """The conversation of a list of names, of which the framework's is the first."""
        return cls(str(uuid.uuid5(NAMESPACE, json.dumps(names))), user_id, **fields)


def append(seen: Seen, place: Place, messages: Sequence[Message]) -> Flow[None]:
    """Appends messages, by the hundred: each hundred is saved whole or not at all."""
    for start in range(0, len(messages), MAX_MESSAGES_PER_SAVE):
        yield from save(seen, place, messages[start : start + MAX_MESSAGES_PER_SAVE])


def timeout_of(messages: Sequence[Message]) -> float | None:
    """How long `append` may take: the client's own timeout where it is one save."""
    return None if len(messages) <= MAX_MESSAGES_PER_SAVE else LONG_TIMEOUT


def save(
    seen: Seen,
    place: Place,
    messages: Sequence[Message],
    request_id: str | None = None,
    expected_last_seq: int | None = None,
) -> Flow[SavedMessages]:
    """Saves messages, and creates the conversation first where there is none."""
    request_id = request_id or str(uuid.uuid4())

    def attempt() -> Flow[SavedMessages]:
        return flows.save_messages(
            seen, place.id, messages, place.user_id, None, request_id, expected_last_seq
        )

    try:
        return (yield from attempt())
    except NotFound:
        yield from create(place)
        return (yield from attempt())


def create(place: Place) -> Flow[None]:
    """Creates the conversation, unless another caller has done it at the same time."""
    try:
        yield from flows.create_conversation(
            place.user_id, place.title, place.dept_id, place.metadata, place.id
        )
    except AlreadyExists:
        # Somebody has changed its title since, which is as good. One that cannot be written
        # to, since it was deleted and branches keep its messages, is NotFound again.
        return


def newest(seen: Seen, place: Place, count: int | None) -> Flow[list[Message]]:
    """Reads the newest messages, oldest first; all of them without a count."""
    if count is not None and count <= 0:
        return []
    left = iter(range(count - 1, -1, -1)) if count is not None else None
    messages, _ = yield from read_back(
        seen, place, count or PAGE, lambda _: left is not None and next(left) == 0
    )
    return messages


def read_back(
    seen: Seen,
    place: Place,
    first: int,
    is_enough: Callable[[Message], bool],
    *,
    strong: bool = False,
) -> Flow[tuple[list[Message], int]]:
    """Reads from the newest message backwards, as far as is needed.

    Gives the messages, oldest first, and the number that the conversation ended at when the
    first of them were read; nothing and 0 where there is no conversation. `first` is how many
    will probably be needed.
    """
    found: list[Message] = []
    try:
        history = yield from flows.get_history(
            seen, place.id, place.user_id, min(first, PAGE), None, strong, None, False
        )
        for message in reversed(history.messages):
            found.append(message)
            if is_enough(message):
                return found[::-1], history.last_seq
        # A history has at most a page, and less where it would be too large.
        token = "" if found and found[-1].seq > 1 else None
        while token is not None:
            page, following = yield from flows.list_messages(
                place.id, place.user_id, True, False, PAGE, token
            )
            for message in page:
                if message.seq >= found[-1].seq:
                    continue
                found.append(message)
                if is_enough(message):
                    return found[::-1], history.last_seq
            token = following or None
    except NotFound:
        return [], 0
    return found[::-1], history.last_seq


def pop(seen: Seen, place: Place) -> Flow[Message | None]:
    """Removes the newest message, and gives it to one caller only."""
    while True:
        try:
            history = yield from flows.get_history(
                seen, place.id, place.user_id, 1, None, True, None, False
            )
            if not history.messages:
                return None
            message = history.messages[-1]
            truncated = yield from flows.truncate_conversation(
                seen, place.id, message.seq - 1, place.user_id, None, history.last_seq
            )
        except NotFound:
            return None
        except SeqMismatch:
            # Another message has been saved since.
            continue
        if truncated.removed_messages:
            return message
        # Another caller has it.


def clear(seen: Seen, place: Place) -> Flow[None]:
    """Removes all messages. The conversation stays, and so do its branches."""
    try:
        yield from flows.truncate_conversation(seen, place.id, 0, place.user_id, None, None)
    except NotFound:
        return


def not_installed(extra: str, error: ImportError) -> ImportError:
    """What is raised where an adapter's framework is not installed."""
    return ImportError(
        f"{error}: pip install 'conversation-memory[{extra}]'", name=error.name, path=error.path
    )
