"""Mapping of sessions and states of Google's ADK to messages.

Each message stores one of these records, as JSON:

- `{"session": {"created", "state_delta"}}`: the first message of a session's conversation.
- `{"event": {…}}`: an event of the session in ADK's own form.
- `{"delta": {…}}`: a change of an app's or a user's state, in a separate conversation.
- `{"user": "…"}`: a user who has sessions in an app, in a separate conversation.

A state is the result of the deltas in its conversation, applied in their order. Concurrent
changes therefore do not overwrite each other. So that a state need not be read from the first
message on, about every hundredth message has a snapshot: `{"snapshot": {"state", "through"}}` is
the state after the messages up to the number `through`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from google.adk.events import Event
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.state import State
from google.genai import types
from pydantic_core import to_jsonable_python

from . import _openai
from ._adapters import NamedConversation
from ._async import adapters
from ._async.base import AsyncOperation
from ._limits import MAX_PAGE_SIZE
from ._types import Conversation, Message, Original, Role

FORM = "google-adk"

METADATA_KEY = "google_adk"
"""Key of a conversation's metadata that describes its purpose: kind, app_name, session_id."""

SNAPSHOT_INTERVAL = 100
"""Number of messages between two snapshots of a state."""

MAX_SNAPSHOT_BYTES = 256 << 10
"""Upper bound on a snapshot. A larger state has none and is read from the first message on."""

Record = dict[str, Any]


def record_of(message: Message) -> Record:
    """Returns the record that a message stores; an empty one if another client has saved it."""
    if message.original is None or message.original.form != FORM:
        return {}
    record: Record = message.original.value
    return record


def to_message(record: Record) -> Message:
    """Returns a message that stores a record and has no text."""
    return Message(role="system", original=Original.of(FORM, record))


def event_message(event: Event, record: Record) -> Message:
    """Returns the message of an event, with the event's text as its content."""
    parts = (event.content.parts if event.content else None) or []
    texts = [part.text for part in parts if part.text and not part.thought]
    content = _openai.text_of(texts)
    original = Original.of(FORM, record)
    role: Role = "user" if event.author == "user" else "assistant"
    if any(part.function_response for part in parts):
        role = "tool"
    return Message(role=role, content=content, original=original)


def request_id_of(record: Record) -> str:
    """Returns the idempotency key of a record: equal records have equal keys."""
    return hashlib.sha256(Original.of(FORM, record).json.encode()).hexdigest()


def event_of(message: Message) -> Event | None:
    """Returns the event of a message, also of a message that another client has saved."""
    record = record_of(message)
    if "event" in record:
        return Event.model_validate(record["event"])
    if record or message.role not in ("user", "assistant"):
        return None
    is_user = message.role == "user"
    part = types.Part(text=message.content)
    return Event(
        id=message.id,
        author="user" if is_user else "assistant",
        content=types.Content(role="user" if is_user else "model", parts=[part]),
        timestamp=(message.created_at or datetime.now(timezone.utc)).timestamp(),
    )


def state_delta_of(record: Record) -> dict[str, Any]:
    """Returns the change of state that a record of a session makes, with all prefixes."""
    if "session" in record:
        delta: dict[str, Any] = record["session"]["state_delta"]
    else:
        delta = record.get("event", {}).get("actions", {}).get("state_delta", {})
    return delta


def split(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Returns the part of a state that has a prefix, without it.

    An empty prefix selects the session's own part.
    """
    if prefix:
        return {key[len(prefix) :]: state[key] for key in state if key.startswith(prefix)}
    scopes = (State.APP_PREFIX, State.USER_PREFIX, State.TEMP_PREFIX)
    return {key: state[key] for key in state if not key.startswith(scopes)}


def storable(state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a state as JSON values, without its temporary part."""
    permanent = {key: state[key] for key in state if not key.startswith(State.TEMP_PREFIX)}
    converted: dict[str, Any] = to_jsonable_python(permanent, serialize_unknown=True)
    return converted


def merge(
    app: Mapping[str, Any], user: Mapping[str, Any], own: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the state of a session: its own part and the prefixed parts of app and user."""
    return {
        **own,
        **{State.APP_PREFIX + key: value for key, value in app.items()},
        **{State.USER_PREFIX + key: value for key, value in user.items()},
    }


def update_time(message: Message) -> float:
    """Returns the time of the last change of a session that ends with the message."""
    record = record_of(message)
    if "session" in record:
        created: float = record["session"]["created"]
        return created
    event = event_of(message)
    return event.timestamp if event else 0.0


class StateReader:
    """Determines how far back a state must be read, and computes it from the messages."""

    def __init__(self, delta_of: Callable[[Record], Mapping[str, Any]]) -> None:
        self._delta_of = delta_of
        self._snapshot: Record | None = None

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


class EventSelection:
    """Selects the events of a config from messages, which it takes newest first."""

    def __init__(self, config: GetSessionConfig | None) -> None:
        config = config or GetSessionConfig()
        self._count = config.num_recent_events
        self._after = config.after_timestamp or float("-inf")
        self.events: list[Event] = []
        self.expected_count = (
            MAX_PAGE_SIZE if self._count is None else self._count + SNAPSHOT_INTERVAL
        )
        """Number of messages that will probably be needed."""

    def is_full_at(self, message: Message) -> bool:
        """Takes a message; returns whether no earlier event is needed."""
        is_full = self._count is not None and len(self.events) >= self._count
        if not is_full and (event := event_of(message)) and event.timestamp >= self._after:
            self.events.append(event)
        return self._count is not None and len(self.events) >= self._count


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
        operation, conversation, 2 * SNAPSHOT_INTERVAL, reader.is_complete_at, strong=True
    )
    return reader.state(messages), last_seq


def snapshot(state: Mapping[str, Any], through: int) -> Record:
    """Returns the snapshot of a state for a record; an empty record if it would be too large."""
    record = {"snapshot": {"state": state, "through": through}}
    return record if len(Original.of(FORM, record).json) <= MAX_SNAPSHOT_BYTES else {}


async def change_shared_state(
    operation: AsyncOperation,
    conversation: NamedConversation,
    delta: Mapping[str, Any],
    request_id: str,
) -> None:
    """Applies a change to an app's or a user's state: once for a key, even if repeated."""
    message = to_message({"delta": dict(delta)})
    saved = await adapters.save(operation, conversation, [message], request_id=request_id)
    if saved.last_seq % SNAPSHOT_INTERVAL or saved.replayed:
        return
    # Changes that other callers apply before the snapshot is saved come after `through`, so that
    # they are not lost.
    state, through = await read_state(operation, conversation, shared_delta)
    if record := snapshot(state, through):
        await adapters.save(
            operation, conversation, [to_message(record)], request_id=f"{request_id}:snapshot"
        )


def description_of(conversation: Conversation) -> Mapping[str, Any]:
    """Returns the description of a conversation's purpose; an empty one if it is not ADK's."""
    description = conversation.metadata.get(METADATA_KEY)
    return description if isinstance(description, Mapping) else {}


def session_conversation(app_name: str, user_id: str, session_id: str) -> NamedConversation:
    """Returns the conversation of a session."""
    return _conversation(
        user_id, "session", app_name=app_name, user_id=user_id, session_id=session_id
    )


def user_conversation(app_name: str, user_id: str) -> NamedConversation:
    """Returns the conversation of a user's state in an app.

    It belongs to the user, so that it is listed when all data of the user is to be erased.
    """
    return _conversation(user_id, "user_state", app_name=app_name, user_id=user_id)


def app_conversation(app_name: str) -> NamedConversation:
    """Returns the conversation of an app's state."""
    return _conversation(_app_owner(app_name), "app_state", app_name=app_name)


def users_conversation(app_name: str) -> NamedConversation:
    """Returns the conversation that lists the users who have sessions in an app."""
    return _conversation(_app_owner(app_name), "users", app_name=app_name)


def _app_owner(app_name: str) -> str:
    """Returns the owner of the conversations that belong to an app and not to a user."""
    return f"google-adk:{NamedConversation.from_names(FORM, 'app', app_name, user_id='').id}"


def _conversation(owner: str, kind: str, **names: str) -> NamedConversation:
    title = "" if kind == "session" else f"{kind.replace('_', ' ')} of {names['app_name']}"[:255]
    return NamedConversation.from_names(
        FORM,
        kind,
        *names.values(),
        user_id=owner,
        title=title,
        metadata={METADATA_KEY: {"kind": kind, **names}},
    )
