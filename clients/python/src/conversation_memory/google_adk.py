"""Sessions of Google's ADK, stored in conversation-memory.

sessions = ConversationMemorySessionService(memory)
runner = Runner(agent=agent, app_name="hr", session_service=sessions)
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

from ._adapters import NamedConversation, missing_framework
from ._async import adapters, operations
from ._async.client import AsyncConversationMemory
from ._completion_async import run_to_completion
from ._config import LONG_TIMEOUT
from ._errors import AlreadyExists, NotFound, SeqMismatch
from ._types import Message, SavedMessages

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
    raise missing_framework("google-adk", error) from error

MAX_CONCURRENT_LOADS = 8
"""Upper bound on the sessions that a listing loads at the same time."""

_STALE = (
    "The session has been modified in storage since it was loaded. "
    "Please reload the session before appending more events."
)


class ConversationMemorySessionService(BaseSessionService):
    """A session service of ADK. A session is a conversation, and its events are messages.

    State is shared as ADK defines it: `app:` by all sessions of an app, `user:` by those of a
    user in an app; `temp:` is not stored. Any number of processes can use the same sessions. An
    event is appended only if the session is as the caller last saw it; otherwise
    `StaleSessionError` is raised. The comparison uses message numbers and never a clock.

    An event is saved together with the state that it changes, in one message. Its changes of
    `app:` and `user:` follow in one message each. If the process ends in between, they are
    applied when the session is next loaded; until then other sessions do not see them.
    """

    def __init__(self, memory: AsyncConversationMemory) -> None:
        """Creates a service.

        Args:
            memory: Client to use. The caller closes it.
        """
        self._memory = memory
        self._locks: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()

    @staticmethod
    def conversation_id(*, app_name: str, user_id: str, session_id: str) -> str:
        """Returns the id of a session's conversation, for turns and other adapters.

        The conversation exists once the session has been created.

        Args:
            app_name: Name of the app.
            user_id: User that the session belongs to.
            session_id: Id of the session.
        """
        return adk.session_conversation(app_name, user_id, session_id.strip()).id

    async def create_session(
        self,
        *,
        app_name: str,
        user_id: str,
        state: dict[str, Any] | None = None,
        session_id: str | None = None,
    ) -> Session:
        """Creates a session.

        Args:
            app_name: Name of the app.
            user_id: User that the session belongs to.
            state: Initial state; `None` leaves it empty.
            session_id: Id of the session, an arbitrary text; `None` generates one.

        Raises:
            AlreadyExistsError: A session has the id.
        """
        name = (session_id or "").strip() or Event.new_id()
        created = platform_time.get_time()
        record = {"session": {"created": created, "state_delta": adk.storable(state or {})}}
        saved = await run_to_completion(
            "a new session", self._create, app_name, user_id, name, record
        )
        app, user = await self._shared_states(app_name, user_id)
        session = Session(
            app_name=app_name,
            user_id=user_id,
            id=name,
            state=adk.merge(app, user, adk.own_delta(record)),
            last_update_time=created,
        )
        _set_marker(session, saved.last_seq)
        return session

    async def get_session(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str,
        config: GetSessionConfig | None = None,
    ) -> Session | None:
        """Loads a session; returns `None` if it does not exist.

        Args:
            app_name: Name of the app.
            user_id: User that the session belongs to.
            session_id: Id of the session.
            config: Selection of the events; `None` loads all.
        """
        conversation = adk.session_conversation(app_name, user_id, session_id.strip())
        session, newest = await self._load(
            conversation, app_name, user_id, session_id.strip(), config
        )
        if session is None or newest is None:
            return None
        # If the process that appended the newest message ended too early, its changes of the
        # shared states have not been applied yet.
        delta = adk.state_delta_of(adk.record_of(newest))
        await run_to_completion(
            "a change of shared state", self._change_shared, app_name, user_id, newest.id, delta
        )
        app, user = await self._shared_states(app_name, user_id)
        session.state = adk.merge(app, user, session.state)
        return session

    async def list_sessions(
        self, *, app_name: str, user_id: str | None = None
    ) -> ListSessionsResponse:
        """Lists sessions with their state and without events; the last one used comes last.

        Args:
            app_name: Name of the app.
            user_id: User whose sessions are listed; `None` lists those of all users.
        """
        users = [user_id] if user_id is not None else await self._users(app_name)
        found = [session for user in users for session in await self._list_of_user(app_name, user)]
        found.sort(key=lambda session: (session.last_update_time, session.user_id, session.id))
        return ListSessionsResponse(sessions=found)

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Deletes a session if it exists. Its changes of `app:` and `user:` stay.

        Args:
            app_name: Name of the app.
            user_id: User that the session belongs to.
            session_id: Id of the session.
        """
        conversation = adk.session_conversation(app_name, user_id, session_id.strip())
        try:
            await run_to_completion(
                "a deletion",
                self._memory.delete_conversation,
                conversation.id,
                user_id=conversation.user_id,
            )
        except NotFound:
            return

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """Reads the state of a user in an app, without the prefix.

        Args:
            app_name: Name of the app.
            user_id: User that the state belongs to.
        """
        return await self._shared_state(adk.user_conversation(app_name, user_id))

    async def append_event(self, session: Session, event: Event) -> Event:
        """Appends an event to a session, in memory and in the store.

        An event is appended once, even if the call is repeated. A cancellation is raised after
        the append has ended.

        Args:
            session: Session to append to, as it was loaded.
            event: Event to append. A partial event is not stored.

        Raises:
            TypeError: The event is of a subclass, which could not be read back.
            ValueError: The event has a value that JSON cannot represent.
            SessionNotFoundError: The session does not exist.
            StaleSessionError: Another caller has appended to the session since it was loaded.
        """
        if event.partial:
            return event
        if type(event) is not Event:
            raise TypeError(f"an event of the type {type(event).__name__} cannot be read back")
        self._apply_temp_state(session, event)
        event = self._trim_temp_delta_state(event)
        conversation = adk.session_conversation(session.app_name, session.user_id, session.id)
        # Callers that share the session object append one after another.
        key = (id(asyncio.get_running_loop()), conversation.id)
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            return await run_to_completion(
                f"an event of conversation {conversation.id}",
                self._append,
                conversation,
                session,
                event,
            )

    # Sessions.

    async def _create(
        self, app_name: str, user_id: str, name: str, record: adk.Record
    ) -> SavedMessages:
        await adapters.save(
            self._memory._operation(None),
            adk.users_conversation(app_name),
            [adk.to_message({"user": user_id})],
            request_id=hashlib.sha256(user_id.encode()).hexdigest(),
        )
        conversation = adk.session_conversation(app_name, user_id, name)
        try:
            saved = await adapters.save(
                self._memory._operation(None),
                conversation,
                [adk.to_message(record)],
                expected_last_seq=0,
            )
        except SeqMismatch:
            raise AlreadyExistsError(f"Session with id {name} already exists.") from None
        delta = adk.state_delta_of(record)
        await self._change_shared(app_name, user_id, saved.messages[0].id, delta)
        return saved

    async def _load(
        self,
        conversation: NamedConversation,
        app_name: str,
        user_id: str,
        name: str,
        config: GetSessionConfig | None,
    ) -> tuple[Session | None, Message | None]:
        """Loads a session with its own state only, and the message that it ends with."""
        selection = adk.EventSelection(config, app_name)
        reader = adk.StateReader(adk.own_delta)

        def is_last(message: Message) -> bool:
            # Both must be called with every message.
            is_full = selection.is_full_at(message)
            return reader.is_complete_at(message) and is_full

        messages, last_seq = await adapters.read_backwards(
            self._memory._operation(LONG_TIMEOUT),
            conversation,
            selection.expected_count,
            is_last,
            with_blobs=selection.has_events,
        )
        if not messages:
            return None, None
        session = Session(
            app_name=app_name,
            user_id=user_id,
            id=name,
            state=reader.state(messages),
            events=selection.events(),
            last_update_time=adk.update_time(messages[-1]),
        )
        _set_marker(session, last_seq)
        return session, messages[-1]

    async def _append(
        self, conversation: NamedConversation, session: Session, event: Event
    ) -> Event:
        record: adk.Record = {"event": event.model_dump(exclude_none=True, mode="json")}
        expected = await self._expected_seq(conversation, session)
        saved = await self._save_event(conversation, session, event, record, expected)
        if saved is None or (saved.replayed and event in session.events):
            return event
        if saved.messages:
            delta = adk.state_delta_of(record)
            await self._change_shared(
                session.app_name, session.user_id, saved.messages[0].id, delta
            )
        session.last_update_time = event.timestamp
        _set_marker(session, saved.last_seq)
        return self._commit_event_to_session(session, event)

    async def _save_event(
        self,
        conversation: NamedConversation,
        session: Session,
        event: Event,
        record: adk.Record,
        expected: int,
    ) -> SavedMessages | None:
        """Saves an event if the session is as expected; returns `None` if it is saved already."""
        # The key is derived before the snapshot is added, so that a retry has the same key.
        request_id = adk.request_id_of(record)
        if (expected + 1) % adk.SNAPSHOT_INTERVAL == 0:
            state, through = await adk.read_state(
                self._memory._operation(LONG_TIMEOUT), conversation, adk.own_delta
            )
            if through == expected:
                record = record | adk.snapshot(state, through)
        try:
            return await operations.save_messages(
                self._memory._operation(None),
                conversation.id,
                [adk.event_message(event, record)],
                user_id=conversation.user_id,
                request_id=request_id,
                expected_last_seq=expected,
            )
        except NotFound:
            raise SessionNotFoundError(f"Session {session.id} not found.") from None
        except SeqMismatch:
            raise StaleSessionError(_STALE) from None
        except AlreadyExists:
            # The same event was saved before, with a snapshot or without one.
            if event in session.events:
                return None
            raise StaleSessionError(_STALE) from None

    async def _expected_seq(self, conversation: NamedConversation, session: Session) -> int:
        """Returns the number that the conversation ended with when the session was loaded."""
        marker = session._storage_update_marker
        if marker is not None and marker.isdecimal():
            return int(marker)
        # The caller constructed the session or deserialized it: its last event decides.
        messages, last_seq = await adapters.read_backwards(
            self._memory._operation(None), conversation, 1, lambda _: True, with_blobs=False
        )
        if not messages:
            raise SessionNotFoundError(f"Session {session.id} not found.")
        if adk.update_time(messages[-1]) > session.last_update_time:
            newest = adk.event_of(messages[-1])
            known = session.events[-1].id if session.events else None
            if known != (newest.id if newest else None):
                raise StaleSessionError(_STALE)
        return last_seq

    # Lists.

    async def _users(self, app_name: str) -> list[str]:
        messages = await adapters.read_newest(
            self._memory._operation(LONG_TIMEOUT), adk.users_conversation(app_name), None
        )
        return [record["user"] for record in map(adk.record_of, messages) if "user" in record]

    async def _list_of_user(self, app_name: str, user_id: str) -> list[Session]:
        found = [
            description["session_id"]
            async for conversation in self._memory.list_conversations(user_id, page_size=100)
            if (description := adk.description_of(conversation)).get("kind") == "session"
            and description.get("app_name") == app_name
        ]
        app, user = await self._shared_states(app_name, user_id)
        semaphore = asyncio.Semaphore(MAX_CONCURRENT_LOADS)

        async def load(name: str) -> Session | None:
            conversation = adk.session_conversation(app_name, user_id, name)
            async with semaphore:
                session, _ = await self._load(conversation, app_name, user_id, name, _NO_EVENTS)
            if session is not None:
                session.state = adk.merge(app, user, session.state)
            return session

        sessions = await asyncio.gather(*[load(name) for name in found])
        return [session for session in sessions if session is not None]

    # Shared state.

    async def _change_shared(
        self, app_name: str, user_id: str, message_id: str, delta: Mapping[str, Any]
    ) -> None:
        """Applies the changes of a message to the shared states, unless they are applied."""
        for conversation, prefix in (
            (adk.app_conversation(app_name), State.APP_PREFIX),
            (adk.user_conversation(app_name, user_id), State.USER_PREFIX),
        ):
            if part := adk.split(delta, prefix):
                request_id = f"{message_id}:{prefix}"
                await adk.change_shared_state(
                    self._memory._operation(None), conversation, part, request_id
                )

    async def _shared_states(
        self, app_name: str, user_id: str
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        app, user = await asyncio.gather(
            self._shared_state(adk.app_conversation(app_name)),
            self._shared_state(adk.user_conversation(app_name, user_id)),
        )
        return app, user

    async def _shared_state(self, conversation: NamedConversation) -> dict[str, Any]:
        state, _ = await adk.read_state(
            self._memory._operation(LONG_TIMEOUT), conversation, adk.shared_delta
        )
        return state


_NO_EVENTS = GetSessionConfig(num_recent_events=0)


def _set_marker(session: Session, last_seq: int) -> None:
    """Stores in the session the number that its conversation ends with."""
    session._storage_update_marker = str(last_seq)
