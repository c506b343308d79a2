"""The contract's messages and this package's values."""

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
    MAX_LEVELS,
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
"""Where a message's original stands in its metadata on the wire: `{"form", "json"}` or,
where that would be too large, `{"form", "text"}`: the JSON then follows the text in
`content`, whose first `text` characters are the text, after a line feed. Where there is
no text, a placeholder is in its place, and `placeholder` says how long it is."""

PLACEHOLDER = "(no text)"
"""What stands where the text would: a conversation's title is made of it, not of JSON."""

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
    """A role's number; 0 for none."""
    if role is None:
        return resources.ROLE_UNSPECIFIED
    if role not in _ROLES:
        raise ValueError(f"a role must be one of {', '.join(_ROLES)}")
    return cast("resources.Role", _ROLES[role])


def write_messages(
    messages: Iterable[MessageLike | resources.Message], conversation_id: str
) -> list[resources.Message]:
    """Messages as they are sent; those that are written already stay as they are."""
    return [
        message
        if isinstance(message, resources.Message)
        else write_message(to_message(message), conversation_id)
        for message in messages
    ]


def write_message(message: Message, conversation_id: str) -> resources.Message:
    """A message as it is sent. What was read of another conversation is a new message in this."""
    content, metadata = _with_original(message)
    is_from_another = message.conversation_id not in ("", conversation_id.lower())
    return resources.Message(
        id="" if is_from_another else message.id,
        role=role_number(message.role),
        content=_text(content),
        tokens_used=message.tokens_used,
        latency_ms=message.latency_ms,
        created_at=None if message.created_at is None else _timestamp(message.created_at),
        metadata=to_struct(metadata) if metadata else None,
        contexts=[_write_context(context) for context in message.contexts],
    )


def read_message(message: resources.Message) -> Message:
    """A message as it was received."""
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
    """Messages as they were received."""
    return tuple(read_message(message) for message in messages)


def read_conversation(conversation: resources.Conversation) -> Conversation:
    """A conversation as it was received."""
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
    """A session as it was received."""
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
    """The beginning of a turn."""
    return BegunTurn(
        session=read_session(begun.session) if begun.HasField("session") else None,
        session_state=_SESSION_STATES.get(begun.session_state, "unspecified"),
        conversation=read_conversation(begun.conversation),
        messages=read_messages(begun.messages),
        source=_SOURCES.get(begun.source, "unspecified"),
    )


def read_history(history: api.GetHistoryResponse) -> History:
    """The newest messages."""
    return History(
        messages=read_messages(history.messages),
        last_seq=history.last_seq,
        source=_SOURCES.get(history.source, "unspecified"),
    )


def read_saved(saved: api.SaveMessagesResponse, request_id: str) -> SavedMessages:
    """The outcome of a save."""
    return SavedMessages(
        messages=read_messages(saved.messages),
        last_seq=saved.last_seq,
        replayed=saved.replayed,
        request_id=request_id,
    )


def read_truncated(truncated: api.TruncateConversationResponse) -> Truncated:
    """The outcome of a truncation."""
    return Truncated(removed_messages=truncated.removed_messages, last_seq=truncated.last_seq)


def read_imported(imported: api.ImportConversationResponse) -> Imported:
    """The outcome of an import."""
    return Imported(
        conversation=read_conversation(imported.conversation),
        imported_messages=imported.imported_messages,
    )


def read_hit(hit: api.SearchMessagesResponse.Hit) -> Hit:
    """A message that was found."""
    return Hit(
        message=read_message(hit.message),
        conversation_title=hit.conversation_title,
        snippet=hit.snippet,
        rank=hit.rank,
    )


def read_sessions(sessions: session_api.ListSessionsResponse) -> list[Session]:
    """A user's sessions."""
    return [read_session(session) for session in sessions.sessions]


def _with_original(message: Message) -> tuple[str, dict[str, Any]]:
    """Content and metadata, with the original in one of them."""
    metadata = dict(message.metadata)
    if message.original is None:
        return message.content, metadata
    if ORIGINAL_KEY in metadata:
        raise ValueError(f"metadata must not have the key {ORIGINAL_KEY} beside an original")
    form, text = message.original.form, message.original.json
    metadata[ORIGINAL_KEY] = {"form": form, "json": text}
    if _json_bytes(metadata) <= MAX_METADATA_BYTES:
        return message.content, metadata
    kept: dict[str, Any] = {"form": form, "text": len(message.content)}
    metadata[ORIGINAL_KEY] = kept
    if not message.content:
        kept["placeholder"] = len(PLACEHOLDER)
    return f"{message.content or PLACEHOLDER}\n{text}", metadata


def _split_original(content: str, metadata: dict[str, Any]) -> tuple[str, Original | None]:
    """Undoes `_with_original`. What does not look like an original stays where it is."""
    kept = metadata.get(ORIGINAL_KEY)
    if not isinstance(kept, dict) or not isinstance(form := kept.get("form"), str):
        return content, None
    text, at, skipped = kept.get("json"), kept.get("text"), kept.get("placeholder", 0)
    plain = content
    if isinstance(at, int) and isinstance(skipped, int) and 0 <= at <= at + skipped < len(content):
        plain, text = content[:at], content[at + skipped + 1 :]
    if not isinstance(text, str) or not _is_original(form, text):
        return content, None
    del metadata[ORIGINAL_KEY]
    return plain, Original(form, text)


def _is_original(form: str, text: str) -> bool:
    """Whether it can be read, now and later. Whoever wrote it, it must not fail a history."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if form == OPENAI and not isinstance(value, dict):
        return False
    # Most have fewer brackets than they may have levels.
    return text.count("[") + text.count("{") <= MAX_LEVELS or _levels(value) <= MAX_LEVELS


def _levels(value: Any) -> int:
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


def _text(content: str) -> str:
    try:
        content.encode()
    except UnicodeEncodeError:
        # Without its text, which the codec's own error would show.
        raise ValueError("a message's content must be Unicode without lone surrogates") from None
    return content


def _write_context(context: RetrievedContext) -> resources.RetrievedContext:
    return resources.RetrievedContext(
        doc_id=context.doc_id,
        content=_text(context.content),
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
