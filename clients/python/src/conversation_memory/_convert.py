"""Conversion between the messages of the contract and the values of this package."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any, cast

from google.protobuf.timestamp_pb2 import Timestamp

from ._limits import MAX_METADATA_BYTES
from ._openai import FORM as OPENAI
from ._proto.v1 import conversation_memory_pb2 as api
from ._proto.v1 import resources_pb2 as resources
from ._proto.v1 import session_service_pb2 as session_api
from ._structs import from_struct, to_struct
from ._types import (
    MAX_ORIGINAL_DEPTH,
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

ORIGINAL_KEY = "_original"
"""Key of a message's metadata that stores its original on the wire.

The value is `{"form", "json"}`. If that would exceed the limit on metadata, it is
`{"form", "text"}`: `content` then consists of the text, which has `text` characters, a line feed
and the JSON. If there is no text, a placeholder is in its place, and `placeholder` is its
length."""

PLACEHOLDER = "(no text)"
"""Replacement for an empty text before the JSON, so that a title is not derived from JSON."""

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
    messages: Iterable[MessageLike | resources.Message], conversation_id: str
) -> list[resources.Message]:
    """Encodes messages; those that are encoded already are returned unchanged."""
    return [
        message
        if isinstance(message, resources.Message)
        else write_message(to_message(message), conversation_id)
        for message in messages
    ]


def write_message(message: Message, conversation_id: str) -> resources.Message:
    """Encodes a message. A message that was read from another conversation gets a new id."""
    content, metadata = _with_original(message)
    is_from_another = message.conversation_id not in ("", conversation_id.lower())
    return resources.Message(
        id="" if is_from_another else message.id,
        role=role_number(message.role),
        content=_validated_text(content),
        tokens_used=message.tokens_used,
        latency_ms=message.latency_ms,
        created_at=None if message.created_at is None else _timestamp(message.created_at),
        metadata=to_struct(metadata) if metadata else None,
        contexts=[_write_context(context) for context in message.contexts],
    )


def read_message(message: resources.Message) -> Message:
    """Decodes a message."""
    metadata = from_struct(message.metadata)
    content, original = _split_original(message.content, metadata)
    return Message(
        role=_ROLE_NAMES.get(message.role, "user"),
        content=content,
        id=message.id,
        conversation_id=message.conversation_id,
        seq=message.seq,
        created_at=_time(message, "created_at"),
        metadata=metadata,
        tokens_used=message.tokens_used if message.HasField("tokens_used") else None,
        latency_ms=message.latency_ms if message.HasField("latency_ms") else None,
        contexts=tuple(_read_context(context) for context in message.contexts),
        original=original,
    )


def read_messages(messages: Iterable[resources.Message]) -> tuple[Message, ...]:
    """Decodes messages."""
    return tuple(read_message(message) for message in messages)


def read_conversation(conversation: resources.Conversation) -> Conversation:
    """Decodes a conversation."""
    return Conversation(
        id=conversation.id,
        user_id=conversation.user_id,
        dept_id=conversation.dept_id,
        title=conversation.title,
        last_seq=conversation.last_seq,
        created_at=_time(conversation, "created_at"),
        updated_at=_time(conversation, "updated_at"),
        metadata=from_struct(conversation.metadata),
        parent_id=conversation.parent_id,
        branched_at_seq=conversation.branched_at_seq,
    )


def read_session(session: resources.Session) -> Session:
    """Decodes a session."""
    return Session(
        id=session.id,
        user_id=session.user_id,
        dept_id=session.dept_id,
        conversation_id=session.conversation_id,
        created_at=_time(session, "created_at"),
        last_active_at=_time(session, "last_active_at"),
        expires_at=_time(session, "expires_at"),
    )


def read_begun(begun: api.BeginTurnResponse) -> BegunTurn:
    """Decodes the beginning of a turn."""
    return BegunTurn(
        session=read_session(begun.session) if begun.HasField("session") else None,
        session_state=_SESSION_STATES.get(begun.session_state, "unspecified"),
        conversation=read_conversation(begun.conversation),
        messages=read_messages(begun.messages),
        source=_SOURCES.get(begun.source, "unspecified"),
    )


def read_history(history: api.GetHistoryResponse) -> History:
    """Decodes a history."""
    return History(
        messages=read_messages(history.messages),
        last_seq=history.last_seq,
        source=_SOURCES.get(history.source, "unspecified"),
    )


def read_saved(saved: api.SaveMessagesResponse, request_id: str) -> SavedMessages:
    """Decodes the outcome of a save."""
    return SavedMessages(
        messages=read_messages(saved.messages),
        last_seq=saved.last_seq,
        replayed=saved.replayed,
        request_id=request_id,
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


def read_hit(hit: api.SearchMessagesResponse.Hit) -> Hit:
    """Decodes a hit of a search."""
    return Hit(
        message=read_message(hit.message),
        conversation_title=hit.conversation_title,
        snippet=hit.snippet,
        rank=hit.rank,
    )


def read_sessions(sessions: session_api.ListSessionsResponse) -> list[Session]:
    """Decodes a list of sessions."""
    return [read_session(session) for session in sessions.sessions]


def _with_original(message: Message) -> tuple[str, dict[str, Any]]:
    """Returns content and metadata, one of which includes the original."""
    metadata = dict(message.metadata)
    if message.original is None:
        return message.content, metadata
    if ORIGINAL_KEY in metadata:
        raise ValueError(
            f"metadata must not have the key {ORIGINAL_KEY} if the message has an original"
        )
    form, text = message.original.form, message.original.json
    metadata[ORIGINAL_KEY] = {"form": form, "json": text}
    if _json_bytes(metadata) <= MAX_METADATA_BYTES:
        return message.content, metadata
    stored: dict[str, Any] = {"form": form, "text": len(message.content)}
    metadata[ORIGINAL_KEY] = stored
    if not message.content:
        stored["placeholder"] = len(PLACEHOLDER)
    return f"{message.content or PLACEHOLDER}\n{text}", metadata


def _split_original(content: str, metadata: dict[str, Any]) -> tuple[str, Original | None]:
    """Inverts `_with_original`. Metadata that is not a valid original is left unchanged."""
    stored = metadata.get(ORIGINAL_KEY)
    if not isinstance(stored, dict) or not isinstance(form := stored.get("form"), str):
        return content, None
    text, at, skipped = stored.get("json"), stored.get("text"), stored.get("placeholder", 0)
    plain = content
    if isinstance(at, int) and isinstance(skipped, int) and 0 <= at <= at + skipped < len(content):
        plain, text = content[:at], content[at + skipped + 1 :]
    if not isinstance(text, str) or not _is_valid_original(form, text):
        return content, None
    del metadata[ORIGINAL_KEY]
    return plain, Original(form, text)


def _is_valid_original(form: str, text: str) -> bool:
    """Whether an original can be parsed. Other clients' metadata must not fail a history."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if form == OPENAI and not isinstance(value, dict):
        return False
    # Counting the brackets avoids measuring the depth in most cases.
    brackets = text.count("[") + text.count("{")
    return brackets <= MAX_ORIGINAL_DEPTH or _depth(value) <= MAX_ORIGINAL_DEPTH


def _depth(value: Any) -> int:
    levels, inside = 0, [value]
    while inside := [item for item in inside if isinstance(item, (dict, list))]:
        levels += 1
        inside = [
            item
            for holder in inside
            for item in (holder.values() if isinstance(holder, dict) else holder)
        ]
    return levels


def _json_bytes(value: Any) -> int:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode("utf-8", "surrogatepass"))


def _validated_text(content: str) -> str:
    try:
        content.encode()
    except UnicodeEncodeError:
        # The text of the codec's own error would contain the content.
        raise ValueError("a message's content must be Unicode without lone surrogates") from None
    return content


def _write_context(context: RetrievedContext) -> resources.RetrievedContext:
    return resources.RetrievedContext(
        doc_id=context.doc_id,
        content=_validated_text(context.content),
        score=context.score,
        metadata=to_struct(context.metadata) if context.metadata else None,
    )


def _read_context(context: resources.RetrievedContext) -> RetrievedContext:
    return RetrievedContext(
        content=context.content,
        doc_id=context.doc_id,
        score=context.score if context.HasField("score") else None,
        metadata=from_struct(context.metadata),
    )


def _timestamp(time: datetime) -> Timestamp:
    if time.tzinfo is None:
        raise ValueError("created_at must have a time zone")
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp


def _time(message: Any, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    time: Timestamp = getattr(message, field)
    return time.ToDatetime(timezone.utc)
