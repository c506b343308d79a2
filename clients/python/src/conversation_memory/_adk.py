"""Records of sessions and states of Google's ADK, and the conversations that contain them.

Each message stores one of these records as the details of its form:

- `{"session": {"created", "state_delta"}}`: the first message of a session's conversation.
- `{"event": {…}}`: an event of the session in ADK's own form. Its content is in the parts of the
  message.
- `{"delta": {…}}`: a change of an app's or a user's state, in a separate conversation.
- `{"event": {…}, "memory": {…}}`: a memory, in a separate conversation, and what its event lacks.
- `{"user": "…"}`: a user who has sessions in an app, in a separate conversation.

A state is the result of the deltas in its conversation, applied in their order. Concurrent
changes therefore do not overwrite each other. So that a state need not be read from the first
message on, about every hundredth message has a snapshot: `{"snapshot": {"state", "through"}}` is
the state after the messages up to the number `through`.

A record of a session that changes shared states has `{"base": {"app:", "user_state"}}`: the numbers
that their conversations ended with before it was saved. Changes with higher numbers are newer.

The conversations of shared states belong to owners of their own, so that no user's list has them.
Earlier versions kept the state of a user in a conversation of the user, which is still read. Their
records have the base `user:` instead of `user_state`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from google.adk.sessions.state import State
from pydantic_core import to_jsonable_python

from ._adapters import NamedConversation, session_metadata
from ._forms import adk as form
from ._forms import common, stored, template
from ._limits import MAX_NAME_CHARS
from ._names import derived_id
from ._types import Conversation, Message

FORM = form.FORM

SECRET_PREFIX = "secret:"  # noqa: S105
"""Prefix of the keys of a state that are never stored."""

UNSTORED_PREFIXES = (State.TEMP_PREFIX, SECRET_PREFIX)
"""Prefixes of the keys of a state that are in the session object only."""

METADATA_KEY = "google_adk"
"""Key of a conversation's metadata that describes its purpose: kind, app_name, session_id."""

Record = dict[str, Any]


def record_of(message: Message) -> Record:
    """Returns the valid fields of a message's record; an empty one if it stores none.

    Another client can have written the message, so that any field can have any value.
    """
    if message.original is not None and message.original.form == FORM:
        value = message.original.value
    else:
        # A state does not depend on the data of blobs.
        value = stored.value_of(message, FORM, missing="")
    if not isinstance(value, Mapping):
        return {}
    record: Record = {}
    if isinstance(session := value.get("session"), Mapping):
        created, delta = session.get("created"), session.get("state_delta")
        record["session"] = {
            "created": _time(created),
            "state_delta": delta if isinstance(delta, Mapping) else {},
        }
    for key, kind in _FIELDS.items():
        if isinstance(found := value.get(key), kind):
            record[key] = found
    snapshot = value.get("snapshot")
    if isinstance(snapshot, Mapping) and isinstance(snapshot.get("state"), Mapping):
        through = snapshot.get("through")
        if type(through) is int and 0 <= through < message.seq:
            record["snapshot"] = snapshot
    return record


_FIELDS: dict[str, type] = {
    "event": Mapping,
    "delta": Mapping,
    "user": str,
    "base": Mapping,
    "memory": Mapping,
}


def _time(value: Any) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < 1e12 else 0.0


def to_message(record: Record) -> Message:
    """Returns a message that stores a record and has no text.

    Raises:
        TypeError: A value is not a JSON value.
        ValueError: The nesting is too deep.
    """
    stored.validate(FORM, record)
    return stored.message_of(FORM, record, "system", [])


def request_id_of(record: Record) -> str:
    """Returns the idempotency key of a record: equal records have equal keys."""
    return hashlib.sha256(template.encode(record, ()).encode()).hexdigest()


def state_delta_of(record: Record) -> dict[str, Any]:
    """Returns the change of state that a record of a session makes, with all prefixes."""
    if "session" in record:
        delta = record["session"]["state_delta"]
    else:
        actions = record.get("event", {}).get("actions")
        delta = actions.get("state_delta") if isinstance(actions, Mapping) else None
    return dict(delta) if isinstance(delta, Mapping) else {}


def base_of(record: Record, key: str) -> int | None:
    """Returns the last change of a shared state before a record; `None` if it is unknown."""
    base = record.get("base", {}).get(key)
    return base if type(base) is int and base >= 0 else None


def split(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Returns the part of a state that has a prefix, without it.

    An empty prefix selects the session's own part.
    """
    if prefix:
        return {key[len(prefix) :]: state[key] for key in state if key.startswith(prefix)}
    scopes = (State.APP_PREFIX, State.USER_PREFIX, *UNSTORED_PREFIXES)
    return {key: state[key] for key in state if not key.startswith(scopes)}


def storable(value: Any) -> Any:
    """Returns a value as ADK's services store it: as JSON values, where numbers can be infinite.

    Models keep their unset fields, and bytes are in Base64, as ADK encodes those of an event.
    """
    return to_jsonable_python(value, bytes_mode="base64", serialize_unknown=True)


def storable_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a state as `storable` values, without its temporary and secret parts.

    Raises:
        TypeError: A key is not a string.
    """
    for key in state:
        if not isinstance(key, str):
            raise TypeError(f"the keys of state must be strings, not {type(key).__name__}")
    permanent = {key: state[key] for key in state if not key.startswith(UNSTORED_PREFIXES)}
    converted: dict[str, Any] = storable(permanent)
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


def validate_name(argument: str, name: str, *, is_owner: bool = False) -> None:
    """Rejects a name that no conversation can have.

    Raises:
        ValueError: The service would reject it. The text names the argument.
    """
    if not common.is_storable(name):
        raise ValueError(f"{argument} must be Unicode without U+0000 and lone surrogates")
    if is_owner and not 0 < len(name) <= MAX_NAME_CHARS:
        raise ValueError(f"{argument} must have 1 to {MAX_NAME_CHARS} characters")


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
    """Returns the conversation of a user's state in an app."""
    owner = f"google-adk:{derived_id(FORM, 'user', app_name, user_id)}"
    return _conversation(owner, "state_of_user", app_name=app_name, user_id=user_id)


def earlier_user_conversation(app_name: str, user_id: str) -> NamedConversation:
    """Returns the conversation of a user's state in an app that earlier versions have used."""
    return _conversation(user_id, "user_state", app_name=app_name, user_id=user_id)


def app_conversation(app_name: str) -> NamedConversation:
    """Returns the conversation of an app's state."""
    return _conversation(_app_owner(app_name), "app_state", app_name=app_name)


def users_conversation(app_name: str) -> NamedConversation:
    """Returns the conversation that lists the users who have sessions in an app."""
    return _conversation(_app_owner(app_name), "users", app_name=app_name)


def _app_owner(app_name: str) -> str:
    """Returns the owner of the conversations that belong to an app and not to a user."""
    return f"google-adk:{derived_id(FORM, 'app', app_name)}"


def _conversation(owner: str, kind: str, **names: str) -> NamedConversation:
    title, shown = f"{kind.replace('_', ' ')} of {names['app_name']}"[:255], None
    if kind == "session":
        title = ""
        shown = session_metadata(FORM, app=names["app_name"], name=names["session_id"])
    return NamedConversation.from_names(
        FORM,
        kind,
        *names.values(),
        user_id=owner,
        title=title,
        metadata={METADATA_KEY: {"kind": kind, **names}, **(shown or {})},
    )
