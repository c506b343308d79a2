"""States of ADK's sessions in the metadata of their conversations, which listings return.

A listing therefore reads no messages. The description of a session's conversation has
`{"listed": {"state", "seq", "time"}}`: the session's own state as JSON, the number of the message
that it was computed after, and the session's last update. The state is written after each event
that changes it. If the process ends in between, the next load of the session writes it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from google.adk.sessions import Session

from ._adapters import NamedConversation
from ._adk import METADATA_KEY, description_of
from ._adk_append import set_position
from ._adk_state import SNAPSHOT_INTERVAL, own_delta, read_state
from ._async.client import AsyncConversationMemory
from ._errors import ConversationMemoryError, describe_for_log
from ._forms import template
from ._types import Conversation

LISTED_KEY = "listed"

TOO_LARGE = {"is_too_large": True}
"""Value instead of a state that is too large. The session is loaded for each listing."""

MAX_LISTED_BYTES = 32 << 10
"""Upper bound on a listed state as JSON. A larger one is read from the messages."""

log = logging.getLogger("conversation_memory")


class ListedStates:
    """Writes the states of sessions for listings."""

    def __init__(self, memory: AsyncConversationMemory) -> None:
        self._memory = memory
        # Operators can allow less metadata, which other clients use as well.
        self._max_bytes = min(MAX_LISTED_BYTES, memory._config.limits.metadata_bytes // 2)

    def described(
        self, conversation: NamedConversation, state: Mapping[str, Any], time: float
    ) -> NamedConversation:
        """Returns the conversation of a new session with its state in the metadata."""
        return replace(
            conversation, metadata=self._with_state(conversation.metadata or {}, state, 1, time)
        )

    async def change(
        self, conversation: NamedConversation, delta: Mapping[str, Any], seq: int, time: float
    ) -> None:
        """Writes the state after an event that has changed it, and is saved."""
        try:
            found = await self._memory.get_conversation(
                conversation.id, user_id=conversation.user_id
            )
            if _listed(found) == TOO_LARGE:
                return
            if (state := listed_state(found)) is None:
                operation = self._memory._operation(None)
                state, seq = await read_state(operation, conversation, own_delta)
            await self._write(found, {**state, **delta}, seq, time)
        except ConversationMemoryError as failure:
            # The event is saved. The next load of the session writes the state.
            self._log_failure(conversation.id, failure)

    async def correct(
        self, found: Conversation, state: Mapping[str, Any], seq: int, time: float
    ) -> None:
        """Writes the state of a loaded session if the listed one is another."""
        listed = listed_state(found)
        if listed is None or template.is_same(listed, dict(state)):
            return
        try:
            await self._write(found, state, seq, time)
        except ConversationMemoryError as failure:
            self._log_failure(found.id, failure)

    async def _write(
        self, found: Conversation, state: Mapping[str, Any], seq: int, time: float
    ) -> None:
        if description_of(found).get("kind") != "session":
            # The conversation was created by another client.
            return
        metadata = self._with_state(found.metadata, state, seq, time)
        if metadata != found.metadata:
            await self._memory.update_conversation(
                found.id, metadata=metadata, user_id=found.user_id
            )

    def _with_state(
        self, metadata: Mapping[str, Any], state: Mapping[str, Any], seq: int, time: float
    ) -> dict[str, Any]:
        description = {
            key: value for key, value in metadata[METADATA_KEY].items() if key != LISTED_KEY
        }
        encoded = template.encode(dict(state), ())
        is_listed = len(encoded.encode()) <= self._max_bytes
        listed = {"state": encoded, "seq": seq, "time": time}
        description[LISTED_KEY] = listed if is_listed else TOO_LARGE
        return {**metadata, METADATA_KEY: description}

    @staticmethod
    def _log_failure(conversation_id: str, failure: ConversationMemoryError) -> None:
        log.warning(
            "lists show an earlier state of conversation %s until it is loaded: %s",
            conversation_id,
            describe_for_log(failure),
        )


def _listed(conversation: Conversation) -> Mapping[str, Any]:
    found = description_of(conversation).get(LISTED_KEY)
    return found if isinstance(found, Mapping) else {}


def listed_state(conversation: Conversation) -> dict[str, Any] | None:
    """Returns the state in a conversation's metadata; `None` if it has none or an invalid one."""
    encoded = _listed(conversation).get("state")
    if not isinstance(encoded, str):
        return None
    try:
        state = template.decode(encoded, (), is_finite=False)
    except ValueError:
        return None
    return state if isinstance(state, dict) else None


def listed_session(app_name: str, user_id: str, conversation: Conversation) -> Session | None:
    """Returns a session with its own state and without events; `None` if it must be loaded."""
    name = description_of(conversation).get("session_id")
    state = listed_state(conversation)
    if state is None or not isinstance(name, str):
        return None
    time, listed = _listed(conversation).get("time"), _listed(conversation).get("seq")
    if listed != conversation.last_seq or not isinstance(time, (int, float)):
        # Events have been added since, which do not change the state.
        updated = conversation.updated_at
        time = updated.timestamp() if updated is not None else 0.0
    session = Session(
        app_name=app_name,
        user_id=user_id,
        id=name,
        state=state,
        last_update_time=float(time),
    )
    last_seq = conversation.last_seq
    set_position(session, last_seq, (last_seq // SNAPSHOT_INTERVAL + 1) * SNAPSHOT_INTERVAL)
    return session
