"""Mapping of sessions and states of Google's ADK to messages.

Each message stores one of these records:

- `{"session": {"created", "state_delta"}}`: the first message of a session's conversation.
- `{"event": {…}}`: an event of the session in ADK's own form. Its content is in the parts of the
  message; the other records are JSON in the metadata.
- `{"delta": {…}}`: a change of an app's or a user's state, in a separate conversation.
- `{"user": "…"}`: a user who has sessions in an app, in a separate conversation.

A state is the result of the deltas in its conversation, applied in their order. Concurrent
changes therefore do not overwrite each other. So that a state need not be read from the first
message on, about every hundredth message has a snapshot: `{"snapshot": {"state", "through"}}` is
the state after the messages up to the number `through`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from google.adk.events import Event
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.state import State
from google.genai import types
from pydantic_core import to_jsonable_python

from ._adapters import NamedConversation
from ._async import adapters
from ._async.base import AsyncOperation
from ._forms import adk as form
from ._forms import common, stored
from ._forms.pairing import paired
from ._limits import MAX_PAGE_SIZE
from ._parts import ToolCallPart
from ._types import Conversation, Message, Original

FORM = form.FORM

METADATA_KEY = "google_adk"
"""Key of a conversation's metadata that describes its purpose: kind, app_name, session_id."""

DEFAULT_AGENT = "assistant"
"""Author of events that no session contains."""

SNAPSHOT_INTERVAL = 100
"""Number of messages between two snapshots of a state."""

MAX_SNAPSHOT_BYTES = 256 << 10
"""Upper bound on a snapshot. A larger state has none and is read from the first message on."""

Record = dict[str, Any]


def record_of(message: Message) -> Record:
    """Returns the record that a message stores; an empty one if another client has saved it."""
    if message.original is not None and message.original.form == FORM:
        record: Record = message.original.value
        return record if isinstance(record, dict) else {}
    # A state does not depend on the data of blobs.
    record = stored.value_of(message, FORM, missing="")
    return record if form.is_event(record) else {}


def to_message(record: Record) -> Message:
    """Returns a message that stores a record and has no text."""
    return Message(role="system", original=Original.of(FORM, record))


def event_message(event: Event, record: Record) -> Message:
    """Returns the message of an event."""
    role, parts = form.split(record)
    name = "" if event.author == "user" else common.short(event.author)
    return stored.message_of(FORM, record, role, parts, name=name)


def request_id_of(record: Record) -> str:
    """Returns the idempotency key of a record: equal records have equal keys."""
    return hashlib.sha256(Original.of(FORM, record).json.encode()).hexdigest()


def event_of(message: Message) -> Event | None:
    """Returns the event of a message, also of a message that another client has saved."""
    return own_event(message) if record_of(message) else foreign_event(message)


def own_event(message: Message) -> Event | None:
    """Returns the event that a message stores; `None` if it stores another record."""
    record = record_of(message)
    if "event" not in record:
        return None
    complete = stored.value_of(message, FORM)
    try:
        # Data that has been removed is empty.
        return Event.model_validate((complete or record)["event"])
    except ValueError:
        # Another client has written it.
        return foreign_event(message)


def foreign_event(
    message: Message, tools: Mapping[str, str] | None = None, agent: str = DEFAULT_AGENT
) -> Event | None:
    """Returns the event of a message that another client has saved; `None` if it has no content.

    Args:
        message: The message.
        tools: Names of the tools by the ids of their calls.
        agent: Author of the assistant's messages.
    """
    if (shown := form.show(message, tools or {}, agent)) is None:
        return None
    return Event(
        id=message.id,
        author=shown["author"],
        content=types.Content.model_validate(shown["content"]),
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

    def __init__(self, config: GetSessionConfig | None, app_name: str = DEFAULT_AGENT) -> None:
        config = config or GetSessionConfig()
        self._agent: str | None = None
        self._app_name = app_name
        self._count = config.num_recent_events
        self._after = config.after_timestamp or float("-inf")
        self._messages: list[Message] = []
        self._own: dict[int, Event] = {}
        self.expected_count = (
            MAX_PAGE_SIZE if self._count is None else self._count + SNAPSHOT_INTERVAL
        )
        """Number of messages that will probably be needed."""
        self.has_events = self._count != 0
        """Whether the config selects events at all."""

    def is_full_at(self, message: Message) -> bool:
        """Takes a message; returns whether no earlier event is needed."""
        if not self._is_full():
            is_own = bool(record_of(message))
            event = own_event(message) if is_own else foreign_event(message)
            if is_own and self._agent is None and event is not None and event.author != "user":
                self._agent = event.author
            if event is not None and event.timestamp >= self._after:
                self._messages.append(message)
                if is_own:
                    self._own[message.seq] = event
        return self._is_full()

    def _is_full(self) -> bool:
        return self._count is not None and len(self._messages) >= self._count

    def events(self) -> list[Event]:
        """Returns the events, oldest first.

        ADK's own events are returned as they are, because ADK pairs their calls with results
        itself. Messages of other clients are paired here. Their calls are in one event, and so are
        the results of these calls, as Gemini's API requires it. Their author is the agent of the
        newest own event, because ADK shows an agent the events of other authors as quotations.
        """
        messages = self._messages[::-1]
        if len(self._own) == len(messages):
            return [self._own[message.seq] for message in messages]
        events: list[Event] = []
        kind: str | None = None
        tools = _tools(messages)
        for message in self._in_order(paired(messages)):
            if (own := self._own.get(message.seq)) is not None:
                events.append(own)
                kind = None
                continue
            event = foreign_event(message, tools, self._agent or self._app_name)
            if event is None or event.content is None:
                continue
            previous, kind = kind, _kind(event, kind)
            if kind and kind == previous and (last := events[-1].content) is not None:
                last.parts = [*(last.parts or []), *(event.content.parts or [])]
            else:
                events.append(event)
        return events

    def _in_order(self, messages: Sequence[Message]) -> list[Message]:
        """Returns own events as they were saved, and the paired messages of other clients."""
        keyed = [(message.seq, message) for message in self._messages if message.seq in self._own]
        key = 0
        for message in messages:
            if message.seq not in self._own:
                # A result directly follows its call.
                key = key if message.role == "tool" and key else message.seq
                keyed.append((key, message))
        return [message for _, message in sorted(keyed, key=lambda each: each[0])]


def _tools(messages: Iterable[Message]) -> dict[str, str]:
    return {
        part.id: part.name
        for message in messages
        for part in message.parts
        if isinstance(part, ToolCallPart)
    }


def _kind(event: Event, previous: str | None) -> str | None:
    """Whether an event belongs to calls or to results. A text between two calls is part of them."""
    if event.get_function_responses():
        return "result"
    is_between = previous == "call" and event.author != "user"
    return "call" if is_between or event.get_function_calls() else None


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
