"""Saving of ADK's events: at the place that the caller expects, once, and with snapshots."""

from __future__ import annotations

import contextlib

from google.adk.errors import StaleSessionError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events import Event
from google.adk.sessions import Session

from . import _adk_state as state_of
from ._adapters import NamedConversation
from ._adk import Record, record_of
from ._adk_events import event_message, event_of, update_time
from ._async import adapters, operations
from ._async.client import AsyncConversationMemory
from ._convert import write_message
from ._errors import (
    AlreadyExists,
    ConversationMemoryError,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    SeqMismatch,
)
from ._forms import template
from ._limits import Limits
from ._proto.v1 import resources_pb2 as resources
from ._types import Message, SavedMessages
from ._validation import validate_message

_STALE = (
    "The session has been modified in storage since it was loaded. "
    "Please reload the session before appending more events."
)


def set_position(session: Session, last_seq: int, next_snapshot: int) -> None:
    """Stores in the session the number that its conversation ends with.

    The second number is that of the message that should have the next snapshot.
    """
    session._storage_update_marker = f"{last_seq}:{next_snapshot}"


def validated(
    conversation: NamedConversation, message: Message, name: str, limits: Limits
) -> resources.Message:
    """Encodes a message, before anything is written.

    Raises:
        ValueError: The service would reject it. The text names the argument and the limit.
    """
    encoded = write_message(message, conversation.id, limits)
    try:
        validate_message(encoded, limits)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return encoded


class EventWriter:
    """Saves events at the places that their callers expect."""

    def __init__(self, memory: AsyncConversationMemory) -> None:
        self._memory = memory

    async def position(self, conversation: NamedConversation, session: Session) -> tuple[int, int]:
        """Returns what `set_position` stored when the session was loaded.

        Raises:
            SessionNotFoundError: The session does not exist.
            StaleSessionError: Another caller has appended to the session.
        """
        last_seq, _, next_snapshot = (session._storage_update_marker or "").partition(":")
        if last_seq.isdecimal() and next_snapshot.isdecimal():
            return int(last_seq), int(next_snapshot)
        # The caller constructed the session or deserialized it: its last event decides.
        messages, found = await adapters.read_backwards(
            self._memory._operation(None), conversation, 1, lambda _: True, with_blobs=False
        )
        if not found:
            raise SessionNotFoundError(f"Session {session.id} not found.")
        if messages and update_time(messages[-1]) > session.last_update_time:
            newest = event_of(messages[-1])
            known = session.events[-1].id if session.events else None
            if known != (newest.id if newest else None):
                raise StaleSessionError(_STALE)
        interval = state_of.SNAPSHOT_INTERVAL
        return found, (found // interval + 1) * interval

    async def snapshot(self, conversation: NamedConversation, expected: int) -> Record:
        """Returns a snapshot of the session's state; an empty record if there can be none now."""
        try:
            state, through = await state_of.read_state(
                self._memory._operation(None), conversation, state_of.own_delta
            )
        except ConversationMemoryError:
            # An event does not need it.
            return {}
        return state_of.snapshot(state, through) if through == expected else {}

    async def save(
        self,
        conversation: NamedConversation,
        session: Session,
        event: Event,
        record: Record,
        snapshot: Record,
        request_id: str,
        expected: int,
    ) -> SavedMessages | None:
        """Saves an event if the session is as expected; returns `None` if it is saved already."""
        try:
            if snapshot:
                # An event whose message is too large with the snapshot is saved without it. A
                # later event takes it.
                with contextlib.suppress(ValueError, InvalidArgument, ResourceExhausted):
                    message = event_message(event, record | snapshot)
                    encoded = validated(conversation, message, "event", self._memory._config.limits)
                    return await self._save_message(conversation, encoded, request_id, expected)
            message = event_message(event, record)
            return await self._save_message(conversation, message, request_id, expected)
        except NotFound:
            raise SessionNotFoundError(f"Session {session.id} not found.") from None
        except SeqMismatch:
            raise StaleSessionError(_STALE) from None
        except AlreadyExists:
            # The same event was saved before, with other details than now.
            if event in session.events:
                return None
            return await self._saved_before(conversation, record, request_id, expected)

    async def _save_message(
        self,
        conversation: NamedConversation,
        message: Message | resources.Message,
        request_id: str,
        expected: int,
    ) -> SavedMessages:
        return await operations.save_messages(
            self._memory._operation(None),
            conversation.id,
            [message],
            user_id=conversation.user_id,
            request_id=request_id,
            expected_last_seq=expected,
        )

    async def _saved_before(
        self, conversation: NamedConversation, record: Record, request_id: str, expected: int
    ) -> SavedMessages:
        """Returns the outcome of an earlier save of an event at the expected place."""
        messages, _ = await adapters.read_backwards(
            self._memory._operation(None),
            conversation,
            1,
            lambda message: message.seq <= expected + 1,
        )
        if messages and messages[0].seq == expected + 1:
            found = record_of(messages[0]).get("event")
            if template.is_same(found, record["event"]):
                return SavedMessages(
                    messages=(messages[0],),
                    last_seq=messages[0].seq,
                    replayed=True,
                    request_id=request_id,
                )
        raise StaleSessionError(_STALE)
