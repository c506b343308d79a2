"""Memories of ADK: what agents find of earlier sessions.

The memories of each session of a user in an app are the messages of a conversation. Its owner is
derived from the app and the user, so that a search finds nothing else, and no list of the user's
conversations has it.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any

from google.adk.events import Event
from google.adk.memory.base_memory_service import BaseMemoryService, SearchMemoryResponse
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.sessions import Session
from google.genai import types

from ._adapters import NamedConversation, split_into_saves
from ._adk import FORM, Record, record_of, storable, validate_name
from ._adk_append import validated
from ._adk_events import event_message, event_record, own_event
from ._arguments import validates_arguments
from ._async import adapters
from ._async.client import AsyncConversationMemory
from ._completion_async import run_to_completion
from ._config import LONG_TIMEOUT
from ._errors import AlreadyExists, InvalidArgument, NotFound
from ._names import derived_id
from ._proto.v1 import resources_pb2 as resources
from ._types import Hit

MAX_MEMORIES = 10
"""Upper bound on the memories that a search returns, as in ADK's service."""

MAX_HITS = 100
"""Upper bound on the messages that a search ranks."""

MAX_QUERY_WORDS = 32
MAX_QUERY_CHARS = 512


@validates_arguments
class ConversationMemoryMemoryService(BaseMemoryService):
    """A memory service of ADK that finds words. Any number of processes can use it.

    An event is added once, however often its session is added, and a deleted memory is not added
    again. Any words of a query are searched for; the memories with most of them come first.
    """

    def __init__(self, memory: AsyncConversationMemory) -> None:
        """Creates a service.

        Args:
            memory: Client to use. The caller closes it.
        """
        self._memory = memory

    async def add_session_to_memory(self, session: Session) -> None:
        """Adds the events of a session that have a content and are not added yet.

        Args:
            session: Session to add, with all its events.

        Raises:
            ValueError: An event cannot be stored. No event is added.
        """
        conversation = memory_conversation(session.app_name, session.user_id, session.id)
        encoded = [
            self._encode(conversation, event_record(event), event)
            for event in session.events
            if _has_content(event)
        ]
        if encoded:
            await run_to_completion("memories", self._add_missing, conversation, encoded)

    async def add_events_to_memory(
        self,
        *,
        app_name: str,
        user_id: str,
        events: Sequence[Event],
        session_id: str | None = None,
        custom_metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Adds events that have a content and are not added yet.

        Args:
            app_name: Name of the app.
            user_id: User that the memories belong to.
            events: Events to add, such as those of the latest turn.
            session_id: Session of the events; `None` if it is unknown.
            custom_metadata: Metadata of the memories, which a search returns.

        Raises:
            ValueError: An event or the metadata cannot be stored. No event is added.
        """
        conversation = memory_conversation(app_name, user_id, session_id)
        details = {"custom_metadata": storable(dict(custom_metadata))} if custom_metadata else {}
        encoded = [
            self._encode(conversation, {**event_record(event), "memory": details}, event)
            for event in events
            if _has_content(event)
        ]
        await run_to_completion("memories", self._add_each, conversation, encoded)

    async def add_memory(
        self,
        *,
        app_name: str,
        user_id: str,
        memories: Sequence[MemoryEntry],
        custom_metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Adds memories. One with an id is added once.

        Args:
            app_name: Name of the app.
            user_id: User that the memories belong to.
            memories: Memories to add.
            custom_metadata: Metadata of all memories; that of a memory takes precedence.

        Raises:
            ValueError: A memory cannot be stored. No memory is added.
        """
        conversation = memory_conversation(app_name, user_id, None)
        encoded = []
        for entry in memories:
            event = Event(author=entry.author or "user", content=entry.content)
            if (id_ := getattr(entry, "id", None)) is not None:
                event.id = id_
            details = {
                "custom_metadata": storable({**(custom_metadata or {}), **entry.custom_metadata}),
                "author": entry.author,
                "timestamp": entry.timestamp,
            }
            record = {**event_record(event), "memory": details}
            encoded.append(self._encode(conversation, record, event))
        await run_to_completion("memories", self._add_each, conversation, encoded)

    async def search_memory(
        self, *, app_name: str, user_id: str, query: str
    ) -> SearchMemoryResponse:
        """Returns at most 10 memories with words of the query, those with most of them first.

        Args:
            app_name: Name of the app.
            user_id: User that the memories belong to.
            query: Text whose first 32 words are searched for. Its words are found in other
                inflections too, and words such as "the" are not, as the service is configured.
        """
        words = _words(query)
        if not words:
            return SearchMemoryResponse()
        owner = memory_conversation(app_name, user_id, None).user_id
        hits: list[Hit] = []
        try:
            async for hit in self._memory.search_messages(
                owner, _any_of(words), page_size=MAX_HITS
            ):
                hits.append(hit)
                if len(hits) == MAX_HITS:
                    break
        except InvalidArgument:
            # No word can be searched for.
            return SearchMemoryResponse()
        hits.sort(key=lambda hit: -len(words.keys() & _words(hit.message.content).keys()))
        found = [entry for hit in hits if (entry := _entry_of(hit)) is not None]
        return SearchMemoryResponse(memories=found[:MAX_MEMORIES])

    async def delete_memory(
        self, *, app_name: str, user_id: str, memory_id: str | None = None
    ) -> None:
        """Removes the content of a memory permanently. It is not added again with its session.

        Args:
            app_name: Name of the app.
            user_id: User that the memory belongs to.
            memory_id: Id of a memory that `search_memory` has returned; `None` deletes nothing.
        """
        id_, _, seq = (memory_id or "").partition(":")
        if not seq.isdecimal():
            return
        owner = memory_conversation(app_name, user_id, None).user_id
        try:
            await self._memory.redact_messages(id_, [int(seq)], user_id=owner)
        except (NotFound, InvalidArgument):
            return

    async def delete_all_memories(self, *, app_name: str, user_id: str) -> None:
        """Deletes all memories of a user in an app. ADK itself does not call this method.

        Args:
            app_name: Name of the app.
            user_id: User that the memories belong to.
        """
        owner = memory_conversation(app_name, user_id, None).user_id
        listed = self._memory.list_conversations(owner, page_size=100)
        for id_ in [conversation.id async for conversation in listed]:
            try:
                await self._memory.delete_conversation(id_, user_id=owner)
            except NotFound:
                continue

    def _encode(
        self, conversation: NamedConversation, record: Record, event: Event
    ) -> resources.Message:
        message = replace(
            event_message(event, record),
            # The id makes sure that an event is added once.
            id=str(uuid.uuid5(uuid.UUID(conversation.id), event.id)),
        )
        return validated(conversation, message, "event", self._memory._config.limits)

    async def _add_missing(
        self, conversation: NamedConversation, encoded: Sequence[resources.Message]
    ) -> None:
        operation = self._memory._operation(LONG_TIMEOUT)
        known, _ = await adapters.read_backwards(
            operation, conversation, 0, lambda _: False, with_blobs=False
        )
        ids = {message.id for message in known}
        missing = [message for message in encoded if message.id not in ids]
        for batch in split_into_saves(missing, operation.limits):
            try:
                await adapters.save(operation, conversation, batch)
            except AlreadyExists:
                # Another caller has added some of them at the same time.
                await self._add_each(conversation, batch)

    async def _add_each(
        self, conversation: NamedConversation, encoded: Sequence[resources.Message]
    ) -> None:
        operation = self._memory._operation(LONG_TIMEOUT)
        for message in encoded:
            try:
                await adapters.save(operation, conversation, [message])
            except AlreadyExists:
                continue


def memory_conversation(app_name: str, user_id: str, session_id: str | None) -> NamedConversation:
    """Returns the conversation with the memories of a session; `None` is an unknown session."""
    validate_name("app_name", app_name)
    validate_name("user_id", user_id)
    names = [session_id] if session_id else []
    return NamedConversation.from_names(
        FORM,
        "memory",
        app_name,
        user_id,
        *names,
        user_id=f"google-adk:{derived_id(FORM, 'memories', app_name, user_id)}",
        title=f"memories of {app_name}"[:255],
        metadata={"google_adk": {"kind": "memory", "app_name": app_name, "user_id": user_id}},
    )


def _has_content(event: Event) -> bool:
    return event.content is not None and bool(event.content.parts)


def _words(text: str) -> dict[str, None]:
    """Returns the different words of a text in their order."""
    return dict.fromkeys(word.lower() for word in re.findall(r"\w+", text))


def _any_of(words: Iterable[str]) -> str:
    """Returns a query that finds any of the words."""
    query = ""
    for word in islice(words, MAX_QUERY_WORDS):
        longer = f'{query} or "{word}"' if query else f'"{word}"'
        if len(longer) > MAX_QUERY_CHARS:
            break
        query = longer
    return query


def _entry_of(hit: Hit) -> MemoryEntry | None:
    message = hit.message
    if (event := own_event(message)) is None or event.content is None:
        return None
    details = record_of(message).get("memory", {})
    fields: dict[str, Any] = {
        "content": _without_empty_data(event.content),
        "author": details.get("author", event.author),
        "timestamp": details.get("timestamp")
        or datetime.fromtimestamp(event.timestamp).isoformat(),
        "custom_metadata": details.get("custom_metadata") or {},
    }
    # Older versions of ADK have no ids.
    if "id" in MemoryEntry.model_fields:
        fields["id"] = f"{message.conversation_id}:{message.seq}"
    return MemoryEntry(**fields)


def _without_empty_data(content: types.Content) -> types.Content:
    """Leaves out media, whose data a search does not return."""
    parts = [
        part for part in content.parts or () if part.inline_data is None or part.inline_data.data
    ]
    return content.model_copy(update={"parts": parts})
