"""Sessions of Google's ADK, kept in conversation-memory.

sessions = ConversationMemorySessionService(memory)
runner = Runner(agent=agent, app_name="hr", session_service=sessions)
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from . import _adapters as adapters
from . import _flows as flows
from ._adapters import Place
from ._async_client import AsyncConversationMemory
from ._client import LONG_TIMEOUT
from ._errors import AlreadyExists, NotFound, SeqMismatch
from ._finish import finish
from ._flows import Flow
from ._types import Conversation, Message, SavedMessages

try:
    from google.adk.errors import StaleSessionError
    from google.adk.errors.already_exists_error import AlreadyExistsError
    from google.adk.errors.session_not_found_error import SessionNotFoundError
    from google.adk.events import Event
    from google.adk.platform import time as platform_time
    from google.adk.sessions import BaseSessionService, Session
    from google.adk.sessions.base_session_service import GetSessionConfig, ListSessionsResponse
    from google.adk.sessions.state import State

    from . import _adk as adk
except ImportError as error:
    raise adapters.not_installed("google-adk", error) from error

T = TypeVar("T")

LISTED_AT_ONCE = 8

_STALE = (
    "The session has been modified in storage since it was loaded. "
    "Please reload the session before appending more events."
)


class ConversationMemorySessionService(BaseSessionService):
    """A session service of ADK: a session is a conversation, and its events are messages.

    State is shared as ADK has it: `app:` by all sessions of an app, `user:` by those of a user
    in an app, `temp:` is not stored. Any number of processes may work on the same sessions: an
    event is appended only where the session is as the caller last saw it, and is a
    `StaleSessionError` otherwise. That goes by numbers of messages and never by clocks.

    An event is saved with the state that it changes, in one message. What it changes of `app:`
    and `user:` follows in a message each. Where the process ends in between, they follow when the
    session is next loaded; until then others do not see these changes.
    """

    def __init__(self, memory: AsyncConversationMemory) -> None:
        """Keeps sessions through a client, which the caller closes."""
        self._memory = memory
        self._locks: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()

    async def create_session(
        self,
        *,
        app_name: str,
        user_id: str,
        state: dict[str, Any] | None = None,
        session_id: str | None = None,
    ) -> Session:
        """Creates a session; an `AlreadyExistsError` where there is one with its id."""
        name = (session_id or "").strip() or Event.new_id()
        created = platform_time.get_time()
        value = {"session": {"created": created, "state_delta": adk.storable(state or {})}}
        saved = await finish(self._create(app_name, user_id, name, value))
        app, user = await self._shared_states(app_name, user_id)
        session = Session(
            app_name=app_name,
            user_id=user_id,
            id=name,
            state=adk.merged(app, user, adk.own_delta(value)),
            last_update_time=created,
        )
        _mark(session, saved.last_seq)
        return session

    async def get_session(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str,
        config: GetSessionConfig | None = None,
    ) -> Session | None:
        """Loads a session, with as many of its events as the config says; None without one."""
        place = adk.session_place(app_name, user_id, session_id.strip())
        session, newest = await self._load(place, app_name, user_id, session_id.strip(), config)
        if session is None or newest is None:
            return None
        # Where the process that appended it ended too early, this is the first time.
        delta = adk.state_delta_of(adk.value_of(newest))
        await finish(self._share(app_name, user_id, newest.id, delta))
        app, user = await self._shared_states(app_name, user_id)
        session.state = adk.merged(app, user, session.state)
        return session

    async def list_sessions(
        self, *, app_name: str, user_id: str | None = None
    ) -> ListSessionsResponse:
        """A user's sessions in an app, or everybody's: with state and without events.

        The one used last comes last.
        """
        users = [user_id] if user_id is not None else await self._users(app_name)
        found = [session for user in users for session in await self._of_user(app_name, user)]
        found.sort(key=lambda session: (session.last_update_time, session.user_id, session.id))
        return ListSessionsResponse(sessions=found)

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Deletes a session, if there is one. What it changed of `app:` and `user:` stays."""
        place = adk.session_place(app_name, user_id, session_id.strip())
        try:
            await finish(self._memory.delete_conversation(place.id, user_id=place.user_id))
        except NotFound:
            return

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """The state of a user in an app, without the prefix."""
        return await self._state(adk.user_place(app_name, user_id))

    async def append_event(self, session: Session, event: Event) -> Event:
        """Appends an event to a session, in memory and in the store.

        The same event again is not appended twice. A cancellation waits until it is done, and
        is raised then.

        Raises:
            SessionNotFoundError: There is no such session.
            StaleSessionError: Somebody else has appended to it since it was loaded.
        """
        if event.partial:
            return event
        self._apply_temp_state(session, event)
        event = self._trim_temp_delta_state(event)
        place = adk.session_place(session.app_name, session.user_id, session.id)
        # Those who share the session object append one after another.
        key = (id(asyncio.get_running_loop()), place.id)
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            return await finish(self._append(place, session, event))

    # Sessions.

    async def _create(
        self, app_name: str, user_id: str, name: str, value: adk.Value
    ) -> SavedMessages:
        place = adk.session_place(app_name, user_id, name)
        await self._run(
            adapters.save(
                self._memory._seen,
                adk.users_place(app_name),
                [adk.keep({"user": user_id})],
                hashlib.sha256(user_id.encode()).hexdigest(),
            )
        )
        flow = adapters.save(self._memory._seen, place, [adk.keep(value)], None, 0)
        try:
            saved = await self._run(flow)
        except SeqMismatch:
            raise AlreadyExistsError(f"Session with id {name} already exists.") from None
        delta = adk.state_delta_of(value)
        await self._share(app_name, user_id, saved.messages[0].id, delta)
        return saved

    async def _load(
        self,
        place: Place,
        app_name: str,
        user_id: str,
        name: str,
        config: GetSessionConfig | None,
    ) -> tuple[Session | None, Message | None]:
        """A session with its own state, and the message that it ends with."""
        window = _Window(config)
        reading = adk.Reading(adk.own_delta)

        def is_enough(message: Message) -> bool:
            # Both want to see every message.
            is_full = window.is_full_at(message)
            return reading.is_complete_at(message) and is_full

        flow = adapters.read_back(self._memory._seen, place, window.first, is_enough, strong=True)
        messages, last_seq = await self._run(flow, LONG_TIMEOUT)
        if not messages:
            return None, None
        session = Session(
            app_name=app_name,
            user_id=user_id,
            id=name,
            state=reading.state(messages),
            events=window.events[::-1],
            last_update_time=adk.updated(messages[-1]),
        )
        _mark(session, last_seq)
        return session, messages[-1]

    async def _append(self, place: Place, session: Session, event: Event) -> Event:
        value: adk.Value = {"event": event.model_dump(exclude_none=True, mode="json")}
        expected = await self._expected_seq(place, session)
        saved = await self._save_event(place, session, event, value, expected)
        if saved is None or (saved.replayed and event in session.events):
            return event
        if saved.messages:
            delta = adk.state_delta_of(value)
            await self._share(session.app_name, session.user_id, saved.messages[0].id, delta)
        session.last_update_time = event.timestamp
        _mark(session, saved.last_seq)
        return self._commit_event_to_session(session, event)

    async def _save_event(
        self, place: Place, session: Session, event: Event, value: adk.Value, expected: int
    ) -> SavedMessages | None:
        """Saves an event where the session is as expected; None where it is there already."""
        key = adk.key_of(value)
        if (expected + 1) % adk.SNAPSHOT_EVERY == 0:
            state, through = await self._run(
                adk.read_state(self._memory._seen, place, adk.own_delta), LONG_TIMEOUT
            )
            if through == expected:
                value = value | adk.snapshot(state, through)
        flow = flows.save_messages(
            self._memory._seen,
            place.id,
            [adk.keep_event(event, value)],
            place.user_id,
            None,
            key,
            expected,
        )
        try:
            return await self._run(flow)
        except NotFound:
            raise SessionNotFoundError(f"Session {session.id} not found.") from None
        except SeqMismatch:
            raise StaleSessionError(_STALE) from None
        except AlreadyExists:
            # The same event, which was saved with or without a snapshot.
            if event in session.events:
                return None
            raise StaleSessionError(_STALE) from None

    async def _expected_seq(self, place: Place, session: Session) -> int:
        """The number that the conversation ended at when the session was loaded."""
        mark = session._storage_update_marker
        if mark is not None and mark.isdecimal():
            return int(mark)
        # A session that was made by hand, or read from elsewhere: it goes by its last event.
        flow = adapters.read_back(self._memory._seen, place, 1, lambda _: True, strong=True)
        messages, last_seq = await self._run(flow)
        if not messages:
            raise SessionNotFoundError(f"Session {session.id} not found.")
        if adk.updated(messages[-1]) > session.last_update_time:
            newest = adk.event_of(messages[-1])
            known = session.events[-1].id if session.events else None
            if known != (newest.id if newest else None):
                raise StaleSessionError(_STALE)
        return last_seq

    # Lists.

    async def _users(self, app_name: str) -> list[str]:
        flow = adapters.newest(self._memory._seen, adk.users_place(app_name), None)
        messages = await self._run(flow, LONG_TIMEOUT)
        return [value["user"] for value in map(adk.value_of, messages) if "user" in value]

    async def _of_user(self, app_name: str, user_id: str) -> list[Session]:
        found = [
            part["session_id"]
            async for conversation in self._memory.list_conversations(user_id, page_size=100)
            if (part := _part(conversation)).get("kind") == "session"
            and part.get("app_name") == app_name
        ]
        app, user = await self._shared_states(app_name, user_id)
        at_once = asyncio.Semaphore(LISTED_AT_ONCE)

        async def load(name: str) -> Session | None:
            place = adk.session_place(app_name, user_id, name)
            async with at_once:
                session, _ = await self._load(place, app_name, user_id, name, _NO_EVENTS)
            if session is not None:
                session.state = adk.merged(app, user, session.state)
            return session

        sessions = await asyncio.gather(*[load(name) for name in found])
        return [session for session in sessions if session is not None]

    # Shared state.

    async def _share(
        self, app_name: str, user_id: str, message_id: str, delta: Mapping[str, Any]
    ) -> None:
        """Applies what a message changes of the shared states, unless that has been done."""
        for place, prefix in (
            (adk.app_place(app_name), State.APP_PREFIX),
            (adk.user_place(app_name, user_id), State.USER_PREFIX),
        ):
            if part := adk.split(delta, prefix):
                key = f"{message_id}:{prefix}"
                await self._run(adk.share(self._memory._seen, place, part, key))

    async def _shared_states(
        self, app_name: str, user_id: str
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        app, user = await asyncio.gather(
            self._state(adk.app_place(app_name)), self._state(adk.user_place(app_name, user_id))
        )
        return app, user

    async def _state(self, place: Place) -> dict[str, Any]:
        flow = adk.read_state(self._memory._seen, place, adk.shared_delta)
        state, _ = await self._run(flow, LONG_TIMEOUT)
        return state

    async def _run(self, flow: Flow[T], timeout: float | None = None) -> T:
        return await self._memory._run(flow, timeout)


class _Window:
    """Picks the events that a config asks for, from messages that come newest first."""

    def __init__(self, config: GetSessionConfig | None) -> None:
        config = config or GetSessionConfig()
        self._count = config.num_recent_events
        self._after = config.after_timestamp or float("-inf")
        self.events: list[Event] = []
        self.first = adapters.PAGE if self._count is None else self._count + adk.SNAPSHOT_EVERY
        """How many messages will probably be needed."""

    def is_full_at(self, message: Message) -> bool:
        """Takes a message, and tells whether any more can be wanted."""
        is_full = self._count is not None and len(self.events) >= self._count
        if not is_full and (event := adk.event_of(message)) and event.timestamp >= self._after:
            self.events.append(event)
        return self._count is not None and len(self.events) >= self._count


_NO_EVENTS = GetSessionConfig(num_recent_events=0)


def _mark(session: Session, last_seq: int) -> None:
    """Notes where the conversation ended when the session was as it is."""
    session._storage_update_marker = str(last_seq)


def _part(conversation: Conversation) -> Mapping[str, Any]:
    part = conversation.metadata.get(adk.METADATA_KEY)
    return part if isinstance(part, Mapping) else {}
