"""Sessions and memories of Google's ADK, stored in conversation-memory.

sessions = ConversationMemorySessionService(memory)
memories = ConversationMemoryMemoryService(memory)
runner = Runner(
    agent=agent, app_name="hr", session_service=sessions, memory_service=memories
)
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any
from weakref import WeakValueDictionary

from ._adapters import NamedConversation, missing_framework
from ._arguments import validates_arguments
from ._async import adapters
from ._async.client import AsyncConversationMemory
from ._completion_async import run_to_completion
from ._config import LONG_TIMEOUT
from ._errors import NotFound, SeqMismatch
from ._types import Conversation, Message, SavedMessages

try:
    from google.adk.errors.already_exists_error import AlreadyExistsError
    from google.adk.events import Event
    from google.adk.platform import time as platform_time
    from google.adk.sessions import BaseSessionService, Session
    from google.adk.sessions.base_session_service import GetSessionConfig, ListSessionsResponse

    from . import _adk as adk
    from . import _adk_events as events
    from . import _adk_state as state_of
    from ._adk_append import EventWriter, set_position, validated
    from ._adk_list import ListedStates, listed_session
    from ._adk_memory import ConversationMemoryMemoryService
except ImportError as error:
    raise missing_framework("google-adk", error) from error

__all__ = ["ConversationMemoryMemoryService", "ConversationMemorySessionService"]

MAX_CONCURRENT_LOADS = 8
"""Upper bound on the sessions that a listing loads at the same time."""


@validates_arguments
class ConversationMemorySessionService(BaseSessionService):
    """A session service of ADK. A session is a conversation, and its events are messages.

    State is shared as ADK defines it: `app:` by all sessions of an app, `user:` by those of a
    user in an app. `temp:` and `secret:` are in the session object only and never stored. Any
    number of processes can use the same sessions. An event is appended only if the session is as
    the caller last saw it; otherwise `StaleSessionError` is raised. The comparison uses message
    numbers and never a clock.

    An event is saved together with the state that it changes, in one message. Its changes of
    `app:` and `user:` follow in other conversations. If the process ends in between, they are
    applied when the session is next loaded, except values that have been changed since; until then
    other sessions do not see them.
    """

    def __init__(self, memory: AsyncConversationMemory) -> None:
        """Creates a service.

        Args:
            memory: Client to use. The caller closes it.
        """
        self._memory = memory
        self._shared = state_of.SharedStates(memory)
        self._writer = EventWriter(memory)
        self._listed = ListedStates(memory)
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
            TypeError: A key of the state is not a string.
            ValueError: A name cannot be stored, or the state is too large or nested too deeply.
        """
        adk.validate_name("app_name", app_name)
        adk.validate_name("user_id", user_id, is_owner=True)
        adk.validate_name("session_id", session_id or "")
        name = (session_id or "").strip() or Event.new_id()
        created = platform_time.get_time()
        delta = adk.storable_state(state or {})
        record: adk.Record = {"session": {"created": created, "state_delta": delta}}
        saved = await run_to_completion(
            "a new session", self._create, app_name, user_id, name, record
        )
        app, user = await self._shared.of(app_name, user_id)
        session = Session(
            app_name=app_name,
            user_id=user_id,
            id=name,
            state=adk.merge(app, user, state_of.own_delta(record)),
            last_update_time=created,
        )
        set_position(session, saved.last_seq, state_of.SNAPSHOT_INTERVAL)
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
        if session is None:
            return None
        if newest is not None:
            # If the process that appended the newest record ended too early, its changes of the
            # shared states have not been applied yet.
            await run_to_completion(
                "a change of shared state",
                self._shared.recover,
                app_name,
                user_id,
                newest.id,
                adk.record_of(newest),
            )
        app, user = await self._shared.of(app_name, user_id)
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
        app = await self._shared.of_app(app_name)
        loads = asyncio.Semaphore(MAX_CONCURRENT_LOADS)
        found: list[Session] = []
        for first in range(0, len(users), MAX_CONCURRENT_LOADS):
            chunk = users[first : first + MAX_CONCURRENT_LOADS]
            lists = [self._list_of_user(app_name, user, app, loads) for user in chunk]
            for listed in await asyncio.gather(*lists):
                found += listed
        found.sort(key=lambda session: (session.last_update_time, session.user_id, session.id))
        return ListSessionsResponse(sessions=found)

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Deletes a session if it exists. Its changes of `app:` and `user:` stay.

        Args:
            app_name: Name of the app.
            user_id: User that the session belongs to.
            session_id: Id of the session.
        """
        await self._delete(adk.session_conversation(app_name, user_id, session_id.strip()))

    async def _delete(self, conversation: NamedConversation) -> None:
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
        return await self._shared.of_user(app_name, user_id)

    async def delete_user_state(self, *, app_name: str, user_id: str) -> None:
        """Deletes the state of a user in an app, which no list of the user's conversations has.

        Sessions of the user lose their `user:` state. ADK itself does not call this method.

        Args:
            app_name: Name of the app.
            user_id: User that the state belongs to.
        """
        for conversation in (
            adk.user_conversation(app_name, user_id),
            adk.earlier_user_conversation(app_name, user_id),
        ):
            await self._delete(conversation)

    async def append_event(self, session: Session, event: Event) -> Event:
        """Appends an event to a session, in memory and in the store.

        An event is appended once, even if the call is repeated. A cancellation is raised after
        the append has ended.

        Args:
            session: Session to append to, as it was loaded.
            event: Event to append. A partial event is not stored.

        Raises:
            TypeError: The event is of a subclass, which could not be read back.
            ValueError: The event cannot be stored, because it is too large or nested too deeply.
            SessionNotFoundError: The session does not exist.
            StaleSessionError: Another caller has appended to the session since it was loaded.
        """
        if event.partial:
            return event
        if type(event) is not Event:
            raise TypeError(f"an event of the type {type(event).__name__} cannot be read back")
        for name, value in event.actions.state_delta.items():
            if name.startswith(adk.UNSTORED_PREFIXES):
                session.state[name] = value
        event.actions = events.stored_actions(event.actions)
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
        conversation = adk.session_conversation(app_name, user_id, name)
        record = record | await self._shared.base(app_name, user_id, record)
        encoded = validated(
            conversation, adk.to_message(record), "state", self._memory._config.limits
        )
        await adapters.save(
            self._memory._operation(None),
            adk.users_conversation(app_name),
            [adk.to_message({"user": user_id})],
            request_id=hashlib.sha256(user_id.encode()).hexdigest(),
        )
        own, created = state_of.own_delta(record), record["session"]["created"]
        conversation = self._listed.described(conversation, own, created)
        try:
            saved = await adapters.save(
                self._memory._operation(None), conversation, [encoded], expected_last_seq=0
            )
        except SeqMismatch:
            raise AlreadyExistsError(f"Session with id {name} already exists.") from None
        await self._shared.apply(app_name, user_id, saved.messages[0].id, record)
        return saved

    async def _load(
        self,
        conversation: NamedConversation,
        app_name: str,
        user_id: str,
        name: str,
        config: GetSessionConfig | None,
    ) -> tuple[Session | None, Message | None]:
        """Loads a session with its own state only, and its newest message with a record."""
        selection = events.EventSelection(config, app_name)
        reader = state_of.StateReader(state_of.own_delta)

        def is_last(message: Message) -> bool:
            # Both must be called with every message.
            is_full = selection.is_full_at(message)
            return reader.is_complete_at(message) and is_full

        operation = self._memory._operation(LONG_TIMEOUT)
        found = await adapters.find(operation, conversation)
        if found is None or found.last_seq == 0:
            return None, None
        last_seq = found.last_seq
        try:
            messages = await adapters.list_backwards(
                operation,
                conversation,
                last_seq,
                selection.expected_count,
                is_last,
                with_blobs=selection.has_events,
            )
        except NotFound:
            return None, None
        messages.reverse()
        session = Session(
            app_name=app_name,
            user_id=user_id,
            id=name,
            state=reader.state(messages),
            events=selection.events(),
            # Another client can have removed all messages.
            last_update_time=events.update_time(messages[-1]) if messages else 0.0,
        )
        next_snapshot = reader.next_snapshot
        if next_snapshot <= last_seq and not state_of.snapshot(session.state, last_seq):
            next_snapshot = last_seq + state_of.SNAPSHOT_INTERVAL
        set_position(session, last_seq, next_snapshot)
        await run_to_completion(
            "a listed state",
            self._listed.correct,
            found,
            session.state,
            last_seq,
            session.last_update_time,
        )
        return session, next((each for each in messages[::-1] if adk.record_of(each)), None)

    async def _append(
        self, conversation: NamedConversation, session: Session, event: Event
    ) -> Event:
        names = session.app_name, session.user_id
        record = events.event_record(event)
        # The key is derived from the event only, so that a retry has the same key.
        request_id = adk.request_id_of(record)
        expected, next_snapshot = await self._writer.position(conversation, session)
        record = record | await self._shared.base(*names, record)
        snapshot: adk.Record = {}
        if next_snapshot <= expected + 1:
            snapshot = await self._writer.snapshot(conversation, expected)
            if not snapshot:
                next_snapshot = expected + 1 + state_of.SNAPSHOT_INTERVAL
        saved = await self._writer.save(
            conversation, session, event, record, snapshot, request_id, expected
        )
        if saved is None or (saved.replayed and event in session.events):
            return event
        if saved.messages:
            stored, message_id = adk.record_of(saved.messages[0]), saved.messages[0].id
            if saved.replayed:
                await self._shared.recover(*names, message_id, record | stored)
            else:
                await self._shared.apply(*names, message_id, record)
            if "snapshot" in stored:
                next_snapshot = stored["snapshot"]["through"] + state_of.SNAPSHOT_INTERVAL
        if own := state_of.own_delta(record):
            await self._listed.change(conversation, own, saved.last_seq, event.timestamp)
        session.last_update_time = event.timestamp
        set_position(session, saved.last_seq, next_snapshot)
        session.state.update(event.actions.state_delta)
        session.events.append(event)
        return event

    # Lists.

    async def _users(self, app_name: str) -> list[str]:
        messages = await adapters.read_newest(
            self._memory._operation(LONG_TIMEOUT), adk.users_conversation(app_name), None
        )
        users = [record["user"] for record in map(adk.record_of, messages) if "user" in record]
        return list(dict.fromkeys(users))

    async def _list_of_user(
        self, app_name: str, user_id: str, app: dict[str, Any], loads: asyncio.Semaphore
    ) -> list[Session]:
        conversations = [
            conversation
            async for conversation in self._memory.list_conversations(user_id, page_size=100)
            if (description := adk.description_of(conversation)).get("kind") == "session"
            and description.get("app_name") == app_name
        ]
        user = await self._shared.of_user(app_name, user_id) if conversations else {}

        async def session_of(conversation: Conversation) -> Session | None:
            session = listed_session(app_name, user_id, conversation)
            if session is None:
                name = str(adk.description_of(conversation).get("session_id"))
                named = adk.session_conversation(app_name, user_id, name)
                async with loads:
                    session, _ = await self._load(named, app_name, user_id, name, _NO_EVENTS)
            if session is not None:
                session.state = adk.merge(app, user, session.state)
            return session

        sessions = await asyncio.gather(*map(session_of, conversations))
        return [session for session in sessions if session is not None]


_NO_EVENTS = GetSessionConfig(num_recent_events=0)
