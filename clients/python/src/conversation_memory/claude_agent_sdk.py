"""Session store of Claude's Agent SDK, stored in conversation-memory.

store = ConversationMemorySessionStore(user_id="ana", memory=memory)
options = ClaudeAgentOptions(session_store=store)
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast
from weakref import WeakValueDictionary

from ._adapters import NamedConversation, append_timeout, missing_framework, split_into_saves
from ._arguments import validates_arguments
from ._async import adapters
from ._async.client import AsyncConversationMemory
from ._completion_async import run_to_completion
from ._config import LONG_TIMEOUT
from ._convert import write_messages
from ._errors import AlreadyExists, ConversationMemoryError, NotFound, describe_for_log
from ._forms import claude_agent_sdk as form
from ._forms.template import to_json
from ._names import derived_id
from ._proto.v1 import resources_pb2 as resources
from ._types import Conversation, Message

try:
    from claude_agent_sdk import (
        SessionKey,
        SessionListSubkeysKey,
        SessionStore,
        SessionStoreEntry,
        SessionStoreListEntry,
        SessionSummaryEntry,
        fold_session_summary,
    )
except ImportError as error:
    raise missing_framework("claude-agent-sdk", error) from error

FORM = form.FORM

METADATA_KEY = "claude_agent_sdk"
"""Key of a conversation's metadata: `project_key`, `session_id`, `subpath` and `summary`."""

log = logging.getLogger("conversation_memory")


@validates_arguments
class ConversationMemorySessionStore(SessionStore):
    """A session store whose transcripts are conversations. Their entries are read back equal.

    The messages of a transcript are those of the user and the assistant, for other clients, search
    and export. An entry with a `uuid` is stored once. The transcripts of subagents belong to owners
    that are derived from their session, so that no list of the user's conversations has them.

    Messages that other clients save to a transcript are not entries: the SDK would not resume them.
    """

    def __init__(
        self, *, user_id: str, memory: AsyncConversationMemory, dept_id: str | None = None
    ) -> None:
        """Creates a store of a user's sessions.

        Args:
            user_id: Owner of the sessions, at most 255 characters.
            memory: Client to use. The caller closes it.
            dept_id: Department or tenant, stored with new conversations.
        """
        self._user_id = user_id
        self._memory = memory
        self._dept_id = dept_id
        self._locks: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()

    def conversation_id(self, key: SessionKey) -> str:
        """Returns the id of a transcript's conversation, for the client's other methods.

        Args:
            key: Key of the transcript.
        """
        return self._conversation(key).id

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Appends entries, except those whose `uuid` is stored already.

        Up to 100 entries are saved completely or not at all, more in batches of 100.

        Args:
            key: Key of the transcript.
            entries: Entries to append, of at most 8 MiB each.

        Raises:
            ValueError: An entry or a name cannot be stored. Nothing is saved.
        """
        conversation = self._conversation(key)
        messages = [
            form.to_message(entry, id=_message_id(conversation.id, entry)) for entry in entries
        ]
        if not messages:
            return
        # Summaries are read, changed and written.
        lock_key = (id(asyncio.get_running_loop()), conversation.id)
        lock = self._locks.setdefault(lock_key, asyncio.Lock())
        async with lock:
            await run_to_completion(
                f"an append to conversation {conversation.id}",
                self._append,
                key,
                conversation,
                messages,
            )

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """Reads all entries of a transcript; `None` if it was never written.

        Args:
            key: Key of the transcript.
        """
        messages, last_seq = await adapters.read_backwards(
            self._memory._operation(LONG_TIMEOUT), self._conversation(key), 0, lambda _: False
        )
        if last_seq == 0:
            return None
        found = [form.value_of(message) for message in messages]
        return cast("list[SessionStoreEntry]", [entry for entry in found if entry is not None])

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """Lists the sessions of a project, the last one used first.

        Args:
            project_key: Key of the project.
        """
        return [
            {"session_id": names["session_id"], "mtime": _mtime(conversation)}
            async for conversation, names in self._sessions(project_key)
        ]

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """Lists the summaries of the sessions of a project, which `append` maintains.

        A summary that lacks entries, because a process ended before it was written, is left out;
        the SDK then reads the session, and the next append writes the summary.

        Args:
            project_key: Key of the project.
        """
        return [
            {"session_id": names["session_id"], "mtime": _mtime(conversation), "data": data}
            async for conversation, names in self._sessions(project_key)
            if (data := _summary(conversation, conversation.last_seq)) is not None
        ]

    async def delete(self, key: SessionKey) -> None:
        """Deletes a transcript, and with that of a session those of its subagents.

        Args:
            key: Key of the transcript.
        """
        if key.get("subpath") is None:
            owner = self._subagents(key["project_key"], key["session_id"])
            listed = self._memory.list_conversations(owner, page_size=100)
            for id_ in [conversation.id async for conversation in listed]:
                await self._delete(id_, owner)
        conversation = self._conversation(key)
        await self._delete(conversation.id, conversation.user_id)

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """Lists the `subpath` of the transcripts of a session's subagents.

        Args:
            key: Key of the session.
        """
        owner = self._subagents(key["project_key"], key["session_id"])
        return [
            names["subpath"]
            async for conversation in self._memory.list_conversations(owner, page_size=100)
            if isinstance((names := _names(conversation)).get("subpath"), str)
        ]

    async def _delete(self, conversation_id: str, owner: str) -> None:
        try:
            await run_to_completion(
                "a deletion",
                self._memory.delete_conversation,
                conversation_id,
                user_id=owner,
            )
        except NotFound:
            return

    async def _sessions(
        self, project_key: str
    ) -> AsyncIterator[tuple[Conversation, Mapping[str, Any]]]:
        async for conversation in self._memory.list_conversations(self._user_id, page_size=100):
            names = _names(conversation)
            if names.get("project_key") == project_key and isinstance(names.get("session_id"), str):
                yield conversation, names

    def _conversation(self, key: SessionKey) -> NamedConversation:
        project, session, subpath = key["project_key"], key["session_id"], key.get("subpath")
        names = {"project_key": project, "session_id": session}
        if subpath is None:
            named = NamedConversation.of_session(
                FORM, app=project, user_id=self._user_id, name=session, dept_id=self._dept_id
            )
            return named.with_metadata({METADATA_KEY: names})
        return NamedConversation.from_names(
            FORM,
            project,
            self._user_id,
            session,
            subpath,
            user_id=self._subagents(project, session),
            dept_id=self._dept_id,
            title=f"subagent {subpath}"[:255],
            metadata={METADATA_KEY: {**names, "subpath": subpath}},
        )

    def _subagents(self, project_key: str, session_id: str) -> str:
        """Returns the owner of the transcripts of a session's subagents."""
        names = (FORM, "subagents", project_key, self._user_id, session_id)
        return f"{FORM}:{derived_id(*names)}"

    # Appends.

    async def _append(
        self, key: SessionKey, conversation: NamedConversation, messages: Sequence[Message]
    ) -> None:
        operation = self._memory._operation(append_timeout(messages))
        encoded = write_messages(messages, conversation.id, operation.limits)
        for batch in split_into_saves(encoded, operation.limits):
            try:
                # A repeated batch has the same key if it has an entry with an id.
                request_id = _request_id(batch)
                await adapters.save(operation, conversation, batch, request_id=request_id)
            except AlreadyExists:
                # Some of the entries are stored.
                for message in batch:
                    await self._append_one(conversation, message)
        if key.get("subpath") is None:
            await self._write_summary(key, conversation)

    async def _append_one(
        self, conversation: NamedConversation, message: resources.Message
    ) -> None:
        try:
            await adapters.save(self._memory._operation(None), conversation, [message])
        except AlreadyExists:
            return

    async def _write_summary(self, key: SessionKey, conversation: NamedConversation) -> None:
        """Adds the entries since the last summary to it."""
        try:
            operation = self._memory._operation(LONG_TIMEOUT)
            found = await adapters.find(operation, conversation)
            if found is None or METADATA_KEY not in found.metadata:
                return
            first_seq = _summarized_seq(found) + 1
            if first_seq > found.last_seq:
                return
            messages = await adapters.list_backwards(
                operation,
                conversation,
                found.last_seq,
                found.last_seq - first_seq + 1,
                lambda message: message.seq <= first_seq,
            )
            entries = [form.value_of(each) for each in messages[::-1] if each.seq >= first_seq]
            data = _summary(found, first_seq - 1)
            previous: Any = None
            if data is not None:
                previous = {"session_id": key["session_id"], "mtime": 0, "data": data}
            folded = fold_session_summary(
                previous, key, [cast("Any", entry) for entry in entries if entry is not None]
            )
            summary = {"seq": found.last_seq, "data": to_json(folded["data"])}
            described = {**_names(found), "summary": summary}
            await self._memory.update_conversation(
                conversation.id,
                metadata={**found.metadata, METADATA_KEY: described},
                user_id=conversation.user_id,
            )
        except ConversationMemoryError as failure:
            # The entries are saved. The next append writes the summary.
            log.warning(
                "the summary of conversation %s is not written: %s",
                conversation.id,
                describe_for_log(failure),
            )


def _message_id(conversation_id: str, entry: Mapping[str, Any]) -> str:
    """Returns the id of an entry's message; an empty one, for the service to choose it."""
    id_ = entry.get("uuid")
    if not isinstance(id_, str) or not id_:
        return ""
    return str(uuid.uuid5(uuid.UUID(conversation_id), json.dumps(id_)))


def _request_id(batch: Sequence[resources.Message]) -> str | None:
    if not any(message.id for message in batch):
        return None
    digest = hashlib.sha256()
    for message in batch:
        digest.update(message.SerializeToString(deterministic=True))
    return digest.hexdigest()


def _names(conversation: Conversation) -> Mapping[str, Any]:
    found = conversation.metadata.get(METADATA_KEY)
    return found if isinstance(found, Mapping) else {}


def _mtime(conversation: Conversation) -> int:
    """Returns the time of the last change in milliseconds, which summaries share with sessions."""
    updated = conversation.updated_at
    return int(updated.timestamp() * 1000) if updated is not None else 0


def _summarized_seq(conversation: Conversation) -> int:
    """Returns the number of the last message that a summary includes; 0 without a valid one."""
    summary = _names(conversation).get("summary")
    seq: Any = summary.get("seq") if isinstance(summary, Mapping) else None
    if type(seq) is not int or not 0 <= seq <= conversation.last_seq:
        return 0
    return 0 if _summary(conversation, seq) is None else seq


def _summary(conversation: Conversation, seq: int) -> dict[str, Any] | None:
    """Returns the summary up to a message; `None` if it has another state."""
    summary = _names(conversation).get("summary")
    if not isinstance(summary, Mapping) or summary.get("seq") != seq:
        return None
    try:
        data = json.loads(summary.get("data", ""))
    except (TypeError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None
