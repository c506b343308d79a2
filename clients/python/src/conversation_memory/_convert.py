"""Conversion between the messages of the contract and the values of this package."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields, replace
from datetime import datetime, timedelta, timezone
from typing import Any, cast

from google.protobuf.timestamp_pb2 import Timestamp

from ._forms.legacy import ORIGINAL_KEY, split_original, upgrade
from ._limits import DEFAULT_LIMITS, Limits
from ._parts import BlobPart, Part
from ._parts_wire import read_part, validated_text, write_part
from ._proto.v1 import conversation_memory_pb2 as api
from ._proto.v1 import resources_pb2 as resources
from ._structs import from_struct, to_struct
from ._types import (
    BegunTurn,
    Conversation,
    History,
    Hit,
    Imported,
    Message,
    MessageLike,
    Original,
    RetrievedContext,
    Role,
    SavedMessages,
    Session,
    SessionState,
    Source,
    Truncated,
    to_message,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_KEPT = {each.name for each in fields(Message)} - {"role", "content", "parts", "original"}
"""Fields that a message keeps when its parts are derived from its original."""

_ROLES = {"user": 1, "assistant": 2, "system": 3, "tool": 4}
_ROLE_NAMES: dict[int, Role] = {1: "user", 2: "assistant", 3: "system", 4: "tool"}
_SOURCES: dict[int, Source] = {1: "cache", 2: "store"}
_SESSION_STATES: dict[int, SessionState] = {
    1: "started",
    2: "continued",
    3: "resumed",
    4: "unavailable",
}


def role_number(role: str | None) -> resources.Role:
    """Returns the number of a role; 0 for `None`.

    Raises:
        ValueError: The role is unknown.
    """
    if role is None:
        return resources.ROLE_UNSPECIFIED
    if role not in _ROLES:
        raise ValueError(f"a role must be one of {', '.join(_ROLES)}")
    return cast("resources.Role", _ROLES[role])


def write_messages(
    messages: Iterable[MessageLike | resources.Message],
    conversation_id: str,
    limits: Limits = DEFAULT_LIMITS,
) -> list[resources.Message]:
    """Encodes messages; those that are encoded already are returned unchanged."""
    return [
        message
        if isinstance(message, resources.Message)
        else write_message(to_message(message), conversation_id, limits)
        for message in messages
    ]


def write_message(
    message: Message, conversation_id: str, limits: Limits = DEFAULT_LIMITS
) -> resources.Message:
    """Encodes a message. A message that was read from another conversation gets a new id."""
    metadata = message.metadata
    if message.original is not None:
        if ORIGINAL_KEY in metadata:
            raise ValueError(
                f"metadata must not have the key {ORIGINAL_KEY} if the message has an original"
            )
        original = {"form": message.original.form, "json": message.original.json}
        metadata = {**metadata, ORIGINAL_KEY: original}
    # The service derives the content from the parts.
    content = "" if message.parts else validated_text(message.content)
    encoded = resources.Message(role=role_number(message.role), content=content)
    # Most messages are a text, so that only what is set is written.
    if message.id and message.conversation_id in ("", conversation_id.lower()):
        encoded.id = message.id
    if message.parts:
        encoded.parts.extend(_write_part(part, limits) for part in message.parts)
    if message.name:
        encoded.name = validated_text(message.name)
    if message.tokens_used is not None:
        encoded.tokens_used = message.tokens_used
    if message.latency_ms is not None:
        encoded.latency_ms = message.latency_ms
    if message.token_count is not None:
        encoded.token_count = message.token_count
    if message.pinned:
        encoded.pinned = message.pinned
    if message.created_at is not None:
        encoded.created_at.CopyFrom(_timestamp(message.created_at))
    if metadata:
        encoded.metadata.CopyFrom(to_struct(metadata))
    if message.contexts:
        encoded.contexts.extend(_write_context(context) for context in message.contexts)
    return encoded


def _write_part(part: Part, limits: Limits) -> resources.Part:
    if isinstance(part, BlobPart):
        if part.data is None:
            raise ValueError("the data of a blob is missing: read it with get_blob")
        if len(part.data) > limits.blob_bytes:
            raise ValueError(
                f"a blob has at most {limits.blob_bytes} bytes; this one has {len(part.data)}"
            )
    return write_part(part)


def read_message(message: resources.Message) -> Message:
    """Decodes a message."""
    has = message.HasField
    metadata = _metadata(message)
    plain = Message(
        _ROLE_NAMES.get(message.role, "user"),
        "" if message.parts else message.content,
        name=message.name,
        id=message.id,
        conversation_id=message.conversation_id,
        seq=message.seq,
        created_at=_time(message.created_at) if has("created_at") else None,
        metadata=metadata,
        tokens_used=message.tokens_used if has("tokens_used") else None,
        latency_ms=message.latency_ms if has("latency_ms") else None,
        contexts=tuple(map(_read_context, message.contexts)) if message.contexts else (),
        token_count=message.token_count if has("token_count") else None,
        pinned=message.pinned,
        redacted=message.redacted,
        is_summary=message.is_summary,
    )
    if message.parts:
        return replace(plain, parts=tuple(map(read_part, message.parts)))
    if not metadata or (found := split_original(message.content, metadata)) is None:
        return plain
    text, form, original = found
    del metadata[ORIGINAL_KEY]
    plain = replace(plain, content=text)
    kept = {name: getattr(plain, name) for name in _KEPT if name != "name" or plain.name}
    return upgrade(plain, form, original, **kept) or replace(
        plain, original=Original(form, original)
    )


def read_messages(messages: Iterable[resources.Message]) -> tuple[Message, ...]:
    """Decodes messages."""
    return tuple(read_message(message) for message in messages)


def read_conversation(conversation: resources.Conversation) -> Conversation:
    """Decodes a conversation."""
    has = conversation.HasField
    return Conversation(
        id=conversation.id,
        user_id=conversation.user_id,
        dept_id=conversation.dept_id,
        title=conversation.title,
        last_seq=conversation.last_seq,
        created_at=_time(conversation.created_at) if has("created_at") else None,
        updated_at=_time(conversation.updated_at) if has("updated_at") else None,
        metadata=_metadata(conversation),
        parent_id=conversation.parent_id,
        branched_at_seq=conversation.branched_at_seq,
        compacted_upto_seq=conversation.compacted_upto_seq,
    )


def read_session(session: resources.Session) -> Session:
    """Decodes a session."""
    has = session.HasField
    return Session(
        id=session.id,
        user_id=session.user_id,
        dept_id=session.dept_id,
        conversation_id=session.conversation_id,
        created_at=_time(session.created_at) if has("created_at") else None,
        last_active_at=_time(session.last_active_at) if has("last_active_at") else None,
        expires_at=_time(session.expires_at) if has("expires_at") else None,
    )


def read_begun(begun: api.BeginTurnResponse) -> BegunTurn:
    """Decodes the beginning of a turn."""
    return BegunTurn(
        session=read_session(begun.session) if begun.HasField("session") else None,
        session_state=_SESSION_STATES.get(begun.session_state, "unspecified"),
        conversation=read_conversation(begun.conversation),
        messages=read_messages(begun.messages),
        source=_SOURCES.get(begun.source, "unspecified"),
        token_count=begun.token_count,
        older_omitted=begun.older_omitted,
        compaction_due=begun.compaction_due,
    )


def read_history(history: api.GetHistoryResponse) -> History:
    """Decodes a history."""
    return History(
        messages=read_messages(history.messages),
        last_seq=history.last_seq,
        source=_SOURCES.get(history.source, "unspecified"),
        token_count=history.token_count,
        older_omitted=history.older_omitted,
        compaction_due=history.compaction_due,
    )


def read_saved(saved: api.SaveMessagesResponse, request_id: str) -> SavedMessages:
    """Decodes the outcome of a save."""
    return SavedMessages(
        messages=read_messages(saved.messages),
        last_seq=saved.last_seq,
        replayed=saved.replayed,
        request_id=request_id,
        compaction_due=saved.compaction_due,
    )


def read_truncated(truncated: api.TruncateConversationResponse) -> Truncated:
    """Decodes the outcome of a truncation."""
    return Truncated(removed_messages=truncated.removed_messages, last_seq=truncated.last_seq)


def read_imported(imported: api.ImportConversationResponse) -> Imported:
    """Decodes the outcome of an import."""
    return Imported(
        conversation=read_conversation(imported.conversation),
        imported_messages=imported.imported_messages,
    )


def to_timestamp(time: datetime | None) -> Timestamp | None:
    """Encodes an optional time. One without a time zone is local."""
    if time is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(time.astimezone(timezone.utc))
    return timestamp


def metadata_text(key: str | None, value: str | float | bool | None) -> str | None:
    """Encodes the value of a key of metadata that a search asks for.

    Raises:
        ValueError: A value is given without a key.
    """
    if value is None:
        return None
    if not key:
        raise ValueError("metadata_value needs a metadata_key")
    return value if isinstance(value, str) else json.dumps(value)


def read_hit(hit: api.SearchMessagesResponse.Hit, corrected_query: str) -> Hit:
    """Decodes a hit of a search."""
    return Hit(
        message=read_message(hit.message),
        conversation_title=hit.conversation_title,
        snippet=hit.snippet,
        rank=hit.rank,
        corrected_query=corrected_query or None,
    )


def _write_context(context: RetrievedContext) -> resources.RetrievedContext:
    return resources.RetrievedContext(
        doc_id=context.doc_id,
        content=validated_text(context.content),
        score=context.score,
        metadata=to_struct(context.metadata) if context.metadata else None,
    )


def _read_context(context: resources.RetrievedContext) -> RetrievedContext:
    return RetrievedContext(
        content=context.content,
        doc_id=context.doc_id,
        score=context.score if context.HasField("score") else None,
        metadata=_metadata(context),
    )


def _metadata(message: Any) -> dict[str, Any]:
    # Reading a field that is not set would create its message.
    return from_struct(message.metadata) if message.HasField("metadata") else {}


def _timestamp(time: datetime) -> Timestamp:
    if time.tzinfo is None:
        raise ValueError("created_at must have a time zone")
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp


def _time(timestamp: Timestamp) -> datetime | None:
    nanos = timestamp.nanos
    if not 0 <= nanos < 1_000_000_000:
        return None
    try:
        return _EPOCH + timedelta(0, timestamp.seconds, nanos // 1000)
    except OverflowError:
        # Python has no such year.
        return None
