"""States of Google's ADK: computed from their changes, snapshots, and changes of shared states."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from google.adk.sessions.state import State

from ._adapters import NamedConversation
from ._adk import (
    Record,
    app_conversation,
    base_of,
    earlier_user_conversation,
    record_of,
    split,
    state_delta_of,
    to_message,
    user_conversation,
)
from ._async import adapters
from ._async.base import AsyncOperation
from ._async.client import AsyncConversationMemory
from ._config import LONG_TIMEOUT
from ._convert import write_message
from ._errors import AlreadyExists, ConversationMemoryError, SeqMismatch, describe_for_log
from ._forms import template
from ._limits import Limits
from ._proto.v1 import resources_pb2 as resources
from ._types import Message
from ._validation import validate_message

SNAPSHOT_INTERVAL = 100
"""Number of messages between two snapshots of a state."""

MAX_SNAPSHOT_BYTES = 256 << 10
"""Upper bound on a snapshot. A larger state has none and is read from the first message on."""

MAX_DELTA_BYTES = 256 << 10
"""Size of a change of a shared state from which it is split into several messages."""

log = logging.getLogger("conversation_memory")


class StateReader:
    """Determines how far back a state must be read, and computes it from the messages."""

    def __init__(self, delta_of: Callable[[Record], Mapping[str, Any]]) -> None:
        self._delta_of = delta_of
        self._snapshot: Record | None = None

    @property
    def next_snapshot(self) -> int:
        """Number of the message that should have the next snapshot."""
        through: int = 0 if self._snapshot is None else self._snapshot["through"]
        return through + SNAPSHOT_INTERVAL

    def is_complete_at(self, message: Message) -> bool:
        """Takes messages, newest first; returns whether the state needs no earlier one."""
        if self._snapshot is None:
            self._snapshot = record_of(message).get("snapshot")
        return self._snapshot is not None and message.seq <= self._snapshot["through"] + 1

    def state(self, messages: Iterable[Message]) -> dict[str, Any]:
        """Computes the state after the messages, which are given oldest first."""
        snapshot = self._snapshot or {"state": {}, "through": 0}
        state: dict[str, Any] = dict(snapshot["state"])
        for message in messages:
            if message.seq > snapshot["through"]:
                state.update(self._delta_of(record_of(message)))
        return state


def own_delta(record: Record) -> dict[str, Any]:
    """Returns the change that a record of a session makes to the session's own state."""
    return split(state_delta_of(record), "")


def shared_delta(record: Record) -> dict[str, Any]:
    """Returns the change that a record of an app's or a user's state makes."""
    delta: dict[str, Any] = record.get("delta", {})
    return delta


async def read_state(
    operation: AsyncOperation,
    conversation: NamedConversation,
    delta_of: Callable[[Record], Mapping[str, Any]],
) -> tuple[dict[str, Any], int]:
    """Reads a state, and the number of the last message that it includes."""
    reader = StateReader(delta_of)
    messages, last_seq = await adapters.read_backwards(
        operation, conversation, 2 * SNAPSHOT_INTERVAL, reader.is_complete_at, with_blobs=False
    )
    return reader.state(messages), last_seq


def snapshot(state: Mapping[str, Any], through: int) -> Record:
    """Returns the snapshot of a state for a record; an empty record if it would be too large."""
    record = {"snapshot": {"state": dict(state), "through": through}}
    try:
        # Snapshots are an optimization: they have fewer levels than what they are stored with.
        template.validate(record, template.MAX_DEPTH - 2, is_finite=False)
    except ValueError:
        return {}
    return record if len(template.encode(record, ()).encode()) <= MAX_SNAPSHOT_BYTES else {}


class SharedStates:
    """States of the apps and users that a session shares with others."""

    def __init__(self, memory: AsyncConversationMemory) -> None:
        self._memory = memory

    async def of(self, app_name: str, user_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Reads the states of an app and of a user in it."""
        app, user = await asyncio.gather(self.of_app(app_name), self.of_user(app_name, user_id))
        return app, user

    async def of_user(self, app_name: str, user_id: str) -> dict[str, Any]:
        """Reads the state of a user in an app."""
        earlier, current = await asyncio.gather(
            self.read(earlier_user_conversation(app_name, user_id)),
            self.read(user_conversation(app_name, user_id)),
        )
        return {**earlier, **current}

    async def of_app(self, app_name: str) -> dict[str, Any]:
        """Reads the state of an app."""
        return await self.read(app_conversation(app_name))

    async def read(self, conversation: NamedConversation) -> dict[str, Any]:
        """Reads the state of a conversation."""
        state, _ = await read_state(
            self._memory._operation(LONG_TIMEOUT), conversation, shared_delta
        )
        return state

    async def base(self, app_name: str, user_id: str, record: Record) -> Record:
        """Returns the field `base` of a record, which is to be saved; an empty one if it has none.

        Raises:
            ValueError: A change of a shared state could not be saved.
        """
        base: dict[str, int] = {}
        for part in _shared_parts(app_name, user_id, record):
            encode_delta(part.delta, part.conversation, self._memory._config.limits)
            operation = self._memory._operation(None)
            base[part.base_key] = await adapters.end(operation, part.conversation)
        return {"base": base} if base else {}

    async def apply(self, app_name: str, user_id: str, message_id: str, record: Record) -> None:
        """Applies the changes of a record right after it was saved as a message."""
        for part in _shared_parts(app_name, user_id, record):
            await change_shared_state(
                self._memory._operation(None),
                part.conversation,
                part.delta,
                f"{message_id}:{part.prefix}",
            )

    async def recover(self, app_name: str, user_id: str, message_id: str, record: Record) -> None:
        """Applies the changes of a record that was saved before, unless they are applied."""
        for part in _shared_parts(app_name, user_id, record, is_saved=True):
            try:
                await recover_shared_state(
                    self._memory._operation(None),
                    part.conversation,
                    part.delta,
                    f"{message_id}:{part.prefix}",
                    base_of(record, part.base_key),
                )
            except (ConversationMemoryError, ValueError) as failure:
                # The session can be read without them.
                log.warning(
                    "changes of shared state by message %s are not applied: %s",
                    message_id,
                    describe_for_log(failure),
                )


class _SharedPart(NamedTuple):
    """The part of a change that concerns one shared state."""

    prefix: str
    base_key: str
    conversation: NamedConversation
    delta: dict[str, Any]


_USER_BASE = "user_state"
"""Key of a record's base for the state of a user. Earlier versions used the prefix."""


def _shared_parts(
    app_name: str, user_id: str, record: Record, *, is_saved: bool = False
) -> Iterable[_SharedPart]:
    delta = state_delta_of(record)
    if part := split(delta, State.APP_PREFIX):
        yield _SharedPart(State.APP_PREFIX, State.APP_PREFIX, app_conversation(app_name), part)
    if part := split(delta, State.USER_PREFIX):
        if is_saved and _USER_BASE not in record.get("base", {}):
            # An earlier version has saved the record.
            conversation, key = earlier_user_conversation(app_name, user_id), State.USER_PREFIX
        else:
            conversation, key = user_conversation(app_name, user_id), _USER_BASE
        yield _SharedPart(State.USER_PREFIX, key, conversation, part)


def encode_delta(
    delta: Mapping[str, Any], conversation: NamedConversation, limits: Limits
) -> list[resources.Message]:
    """Returns a change of a shared state as the messages of one save.

    Raises:
        ValueError: The change is too large. The text names the limit.
    """
    parts: list[dict[str, Any]] = [{}]
    size = 0
    for key, value in delta.items():
        value_size = len(template.encode({key: value}, ()))
        if parts[-1] and size + value_size > MAX_DELTA_BYTES:
            parts.append({})
            size = 0
        parts[-1][key] = value
        size += value_size
    messages = [
        write_message(to_message({"delta": part}), conversation.id, limits) for part in parts
    ]
    for message in messages:
        try:
            validate_message(message, limits)
        except ValueError as error:
            raise ValueError(f"state_delta: {error}") from None
    return messages


async def change_shared_state(
    operation: AsyncOperation,
    conversation: NamedConversation,
    delta: Mapping[str, Any],
    request_id: str,
) -> None:
    """Applies a change to an app's or a user's state: once for a key, even if repeated."""
    messages = encode_delta(delta, conversation, operation.limits)
    saved = await adapters.save(operation, conversation, messages, request_id=request_id)
    first_seq = saved.last_seq - len(messages)
    if saved.replayed or saved.last_seq // SNAPSHOT_INTERVAL == first_seq // SNAPSHOT_INTERVAL:
        return
    with contextlib.suppress(ConversationMemoryError):
        # Changes that other callers apply before the snapshot is saved come after `through`, so
        # that they are not lost. The state can be read without a snapshot.
        state, through = await read_state(operation, conversation, shared_delta)
        if record := snapshot(state, through):
            await adapters.save(
                operation, conversation, [to_message(record)], request_id=f"{request_id}:snapshot"
            )


async def recover_shared_state(
    operation: AsyncOperation,
    conversation: NamedConversation,
    delta: Mapping[str, Any],
    request_id: str,
    base: int | None,
) -> None:
    """Applies a change of a shared state unless it is applied, and no older value over a newer one.

    Args:
        operation: Operation that the calls belong to.
        conversation: Conversation of the state.
        delta: The change.
        request_id: Idempotency key of the change.
        base: Number of the last older change. If it is `None`, every value that exists is newer.
    """
    remaining, last_seq = dict(delta), base or 0
    while True:
        messages = encode_delta(remaining, conversation, operation.limits)
        try:
            # If the change is applied, its key returns the first outcome whatever the number is.
            await adapters.save(
                operation,
                conversation,
                messages,
                request_id=request_id,
                expected_last_seq=last_seq,
            )
            return
        except AlreadyExists:
            # It is applied, without the values that were newer.
            return
        except SeqMismatch:
            newer, last_seq = await _newer_values(operation, conversation, base)
            remaining = {key: delta[key] for key in delta if key not in newer}


async def _newer_values(
    operation: AsyncOperation, conversation: NamedConversation, base: int | None
) -> tuple[Mapping[str, Any], int]:
    """Returns the values that were changed after `base`, and the last message's number."""
    if base is None:
        return await read_state(operation, conversation, shared_delta)
    first_seq = base + 1
    messages, last_seq = await adapters.read_backwards(
        operation,
        conversation,
        SNAPSHOT_INTERVAL,
        lambda message: message.seq <= first_seq,
        with_blobs=False,
    )
    newer: dict[str, Any] = {}
    for message in messages:
        if message.seq >= first_seq:
            newer.update(shared_delta(record_of(message)))
    return newer, last_seq
