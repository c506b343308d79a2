"""How sessions and states of Google's ADK are kept as messages.

Each message keeps one of these values, as JSON:

- `{"session": {"created", "state_delta"}}`, the first of a session's conversation.
- `{"event": {…}}`, an event of the session as ADK writes it.
- `{"delta": {…}}`, a change of an app's or a user's state, in a conversation of its own.
- `{"user": "…"}`, somebody who has sessions in an app, in a conversation of its own.

A state is what the deltas in its conversation make of each other, in their order, so
that changes at the same time are all there. So that it need not be read from the first
message on, every hundredth or so has a snapshot: `{"snapshot": {"state", "through"}}` is
the state that the messages up to the number `through` make.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from google.adk.events import Event
from google.adk.sessions.state import State
from google.genai import types
from pydantic_core import to_jsonable_python

from . import _adapters as adapters
from . import _openai
from ._adapters import Place
from ._flows import Flow
from ._seen import Seen
from ._types import Message, Original, Role

FORM = "google-adk"

METADATA_KEY = "google_adk"
"""What a conversation's metadata says of its part: kind, app_name, session_id."""

SNAPSHOT_EVERY = 100
SNAPSHOT_BYTES = 256 << 10
"""A larger state gets no snapshot, and is read from the first message on."""

Value = dict[str, Any]


def value_of(message: Message) -> Value:
    """What a message keeps; nothing where another client has saved it."""
    if message.original is None or message.original.form != FORM:
        return {}
    value: Value = message.original.value
    return value


def keep(value: Value) -> Message:
    """A message that says nothing to people."""
    return Message(role="system", original=Original.of(FORM, value))


def keep_event(event: Event, value: Value) -> Message:
    """The message of an event, with its text where everybody finds it."""
    parts = (event.content.parts if event.content else None) or []
    texts = [part.text for part in parts if part.text and not part.thought]
    content = _openai.text_of(texts)
    original = Original.of(FORM, value)
    role: Role = "user" if event.author == "user" else "assistant"
    if any(part.function_response for part in parts):
        role = "tool"
    return Message(role=role, content=content, original=original)


def key_of(value: Value) -> str:
    """The key that a value is saved under once, however often."""
    return hashlib.sha256(Original.of(FORM, value).json.encode()).hexdigest()


def event_of(message: Message) -> Event | None:
    """The event that a message keeps, or that it makes where another client has saved it."""
    value = value_of(message)
    if "event" in value:
        return Event.model_validate(value["event"])
    if value or message.role not in ("user", "assistant"):
        return None
    is_user = message.role == "user"
    part = types.Part(text=message.content)
    return Event(
        id=message.id,
        author="user" if is_user else "assistant",
        content=types.Content(role="user" if is_user else "model", parts=[part]),
        timestamp=(message.created_at or datetime.now(timezone.utc)).timestamp(),
    )


def state_delta_of(value: Value) -> dict[str, Any]:
    """What a message of a session changes, whatever it belongs to."""
    if "session" in value:
        delta: dict[str, Any] = value["session"]["state_delta"]
    else:
        delta = value.get("event", {}).get("actions", {}).get("state_delta", {})
    return delta


def split(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The part of a state with a prefix, without it; the session's own part for none."""
    if prefix:
        return {key[len(prefix) :]: state[key] for key in state if key.startswith(prefix)}
    scopes = (State.APP_PREFIX, State.USER_PREFIX, State.TEMP_PREFIX)
    return {key: state[key] for key in state if not key.startswith(scopes)}


def storable(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state as JSON has it, without what is temporary."""
    kept = {key: state[key] for key in state if not key.startswith(State.TEMP_PREFIX)}
    safe: dict[str, Any] = to_jsonable_python(kept, serialize_unknown=True)
    return safe


def merged(
    app: Mapping[str, Any], user: Mapping[str, Any], own: Mapping[str, Any]
) -> dict[str, Any]:
    """A state as a session shows it."""
    return {
        **own,
        **{State.APP_PREFIX + key: value for key, value in app.items()},
        **{State.USER_PREFIX + key: value for key, value in user.items()},
    }


def updated(message: Message) -> float:
    """When a session that ends with this message was last changed."""
    value = value_of(message)
    if "session" in value:
        created: float = value["session"]["created"]
        return created
    event = event_of(message)
    return event.timestamp if event else 0.0


class Reading:
    """Decides how far back messages must be read for a state, and makes it of them."""

    def __init__(self, delta_of: Callable[[Value], Mapping[str, Any]]) -> None:
        self._delta_of = delta_of
        self._snapshot: Value | None = None

    def is_complete_at(self, message: Message) -> bool:
        """Takes messages, newest first, and tells whether the state needs none before it."""
        if self._snapshot is None:
            self._snapshot = value_of(message).get("snapshot")
        return self._snapshot is not None and message.seq <= self._snapshot["through"] + 1

    def state(self, messages: Iterable[Message]) -> dict[str, Any]:
        """The state that the messages make, oldest first."""
        snapshot = self._snapshot or {"state": {}, "through": 0}
        state: dict[str, Any] = dict(snapshot["state"])
        for message in messages:
            if message.seq > snapshot["through"]:
                state.update(self._delta_of(value_of(message)))
        return state


def own_delta(value: Value) -> dict[str, Any]:
    """What a message of a session changes of the session's own state."""
    return split(state_delta_of(value), "")


def shared_delta(value: Value) -> dict[str, Any]:
    """What a message of an app's or a user's state changes."""
    delta: dict[str, Any] = value.get("delta", {})
    return delta


def read_state(
    seen: Seen, place: Place, delta_of: Callable[[Value], Mapping[str, Any]]
) -> Flow[tuple[dict[str, Any], int]]:
    """A state, and the number of the last message that made it."""
    reading = Reading(delta_of)
    messages, last_seq = yield from adapters.read_back(
        seen, place, 2 * SNAPSHOT_EVERY, reading.is_complete_at, strong=True
    )
    return reading.state(messages), last_seq


def snapshot(state: Mapping[str, Any], through: int) -> Value:
    """What a message keeps beside its own value as a snapshot; nothing where it is large."""
    kept = {"snapshot": {"state": state, "through": through}}
    return kept if len(Original.of(FORM, kept).json) <= SNAPSHOT_BYTES else {}


def share(seen: Seen, place: Place, delta: Mapping[str, Any], key: str) -> Flow[None]:
    """Applies a change to an app's or a user's state: once, however often it is asked for."""
    saved = yield from adapters.save(seen, place, [keep({"delta": dict(delta)})], key)
    if saved.last_seq % SNAPSHOT_EVERY or saved.replayed:
        return
    # What others apply before it is saved comes after `through`, and is not lost.
    state, through = yield from read_state(seen, place, shared_delta)
    if taken := snapshot(state, through):
        yield from adapters.save(seen, place, [keep(taken)], f"{key}:snapshot")


def session_place(app_name: str, user_id: str, session_id: str) -> Place:
    """Where a session is."""
    return _place(user_id, "session", app_name=app_name, user_id=user_id, session_id=session_id)


def user_place(app_name: str, user_id: str) -> Place:
    """Where a user's state in an app is.

    It is the user's own conversation, so that whoever erases all of a user's finds it.
    """
    return _place(user_id, "user_state", app_name=app_name, user_id=user_id)


def app_place(app_name: str) -> Place:
    """Where an app's state is."""
    return _place(_app_owner(app_name), "app_state", app_name=app_name)


def users_place(app_name: str) -> Place:
    """Where it is noted who has sessions in an app."""
    return _place(_app_owner(app_name), "users", app_name=app_name)


def _app_owner(app_name: str) -> str:
    """Whom the conversations belong to that are no user's."""
    return f"google-adk:{Place.of(FORM, 'app', app_name, user_id='').id}"


def _place(owner: str, kind: str, **names: str) -> Place:
    title = "" if kind == "session" else f"{kind.replace('_', ' ')} of {names['app_name']}"[:255]
    return Place.of(
        FORM,
        kind,
        *names.values(),
        user_id=owner,
        title=title,
        metadata={METADATA_KEY: {"kind": kind, **names}},
    )
