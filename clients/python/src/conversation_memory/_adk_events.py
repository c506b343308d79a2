"""Events of Google's ADK as messages, and their selection for a session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from google.adk.events import Event, EventActions
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai import types

from ._adk import FORM, UNSTORED_PREFIXES, Record, record_of, storable
from ._adk_state import SNAPSHOT_INTERVAL
from ._forms import adk as form
from ._forms import common, stored
from ._forms.pairing import paired
from ._limits import MAX_PAGE_SIZE
from ._parts import ToolCallPart
from ._types import Message

DEFAULT_AGENT = "assistant"
"""Author of events that no session contains."""


def event_record(event: Event) -> Record:
    """Returns the record of an event.

    Fields of ADK that are unset are left out. Values of any type are stored as those of a new
    session's state, with the unset fields of models.

    Raises:
        ValueError: The event refers to itself.
    """
    actions = stored_actions(event.actions)
    plain = event.model_copy(
        update={
            "output": storable(event.output),
            "custom_metadata": storable(event.custom_metadata),
            "actions": actions.model_copy(
                update={
                    name: storable(getattr(actions, name))
                    for name in ("state_delta", "agent_state", "set_model_response")
                }
            ),
        }
    )
    if event.content is not None and event.content.parts:
        parts = [_plain_part(part) for part in event.content.parts]
        plain.content = event.content.model_copy(update={"parts": parts})
    return {"event": storable(plain.model_dump(exclude_none=True))}


def stored_actions(actions: EventActions) -> EventActions:
    """Returns actions without the changes of state that are never stored."""
    delta = actions.state_delta
    kept = {key: delta[key] for key in delta if not str(key).startswith(UNSTORED_PREFIXES)}
    return actions if len(kept) == len(delta) else actions.model_copy(update={"state_delta": kept})


def _plain_part(part: types.Part) -> types.Part:
    update: dict[str, Any] = {}
    if part.function_call is not None:
        args = storable(part.function_call.args)
        update["function_call"] = part.function_call.model_copy(update={"args": args})
    if part.function_response is not None:
        response = storable(part.function_response.response)
        update["function_response"] = part.function_response.model_copy(
            update={"response": response}
        )
    return part.model_copy(update=update) if update else part


def event_message(event: Event, record: Record) -> Message:
    """Returns the message of an event.

    Raises:
        ValueError: The event cannot be stored.
    """
    stored.validate(FORM, record)
    role, parts = form.split(record)
    name = "" if event.author == "user" else common.short(event.author)
    return stored.message_of(FORM, record, role, parts, name=name)


def event_of(message: Message) -> Event | None:
    """Returns the event of a message, also of a message that another client has saved."""
    return own_event(message) if record_of(message) else foreign_event(message)


def own_event(message: Message) -> Event | None:
    """Returns the event that a message stores; `None` if it stores another record."""
    record = record_of(message)
    if "event" not in record:
        return None
    complete = stored.value_of(message, FORM)
    # Data that has been removed is empty.
    value = complete["event"] if form.is_event(complete) else record["event"]
    value = {"id": message.id, "timestamp": _timestamp(message), **value}
    # A newer version of ADK can have added actions, which this one rejects.
    for candidate in (value, {key: value[key] for key in value if key != "actions"}):
        try:
            return Event.model_validate(candidate)
        except Exception:  # noqa: S112
            # Another client can have written it, so that the error can be of any type.
            continue
    author = value.get("author")
    agent = author if isinstance(author, str) and author else DEFAULT_AGENT
    return foreign_event(message, agent=agent)


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
        content=_content(shown["content"], message),
        timestamp=_timestamp(message),
    )


def _timestamp(message: Message) -> float:
    return (message.created_at or datetime.now(timezone.utc)).timestamp()


def _content(shown: dict[str, Any], message: Message) -> types.Content:
    try:
        return types.Content.model_validate(shown)
    except Exception:
        # A key in the arguments of a call can be one that ADK rejects.
        text = common.join(common.portable_parts(message)) or common.EMPTY
        return types.Content(role=shown["role"], parts=[types.Part(text=text)])


def update_time(message: Message) -> float:
    """Returns the time of the last change of a session that ends with the message."""
    record = record_of(message)
    if "session" in record:
        created: float = record["session"]["created"]
        return created
    event = event_of(message)
    return event.timestamp if event else 0.0


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
