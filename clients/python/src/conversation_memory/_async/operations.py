"""Operations that several methods or adapters of the asynchronous client use."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from .. import _convert as convert
from .._errors import AlreadyExists, MinSeqNotReached, NotFound, SessionExpired
from .._ids import new_conversation_id
from .._proto.v1 import conversation_memory_pb2 as api
from .._proto.v1 import methods
from .._proto.v1 import resources_pb2 as resources
from .._structs import to_struct
from .._types import (
    BegunTurn,
    Conversation,
    History,
    Message,
    MessageLike,
    SavedMessages,
    Truncated,
)
from .._window import Window
from .base import AsyncOperation
from .blobs import with_blobs

log = logging.getLogger("conversation_memory")


async def begin_turn(
    operation: AsyncOperation,
    user_id: str,
    *,
    session_id: str | None,
    conversation_id: str | None,
    create: bool,
    dept_id: str | None,
    window: Window,
) -> BegunTurn:
    """Begins a turn whose history includes everything that this client has observed.

    Each retry of a turn that names no conversation may create another one. They are empty, and no
    list contains them before their first save.
    """
    window.validate()
    request = api.BeginTurnRequest(
        user_id=user_id,
        dept_id=dept_id or "",
        session_id=session_id or "",
        conversation_id=conversation_id or "",
        limit=window.limit,
        max_tokens=window.max_tokens or 0,
        start_on_user=window.start_on_user,
    )
    try:
        answer = await operation.call(methods.BEGIN_TURN, request)
    except NotFound as error:
        if not (create and conversation_id) or isinstance(error, SessionExpired):
            raise
        # An id that is in use is another user's, or another caller has just created it.
        with contextlib.suppress(AlreadyExists):
            await create_conversation(
                operation, user_id, dept_id=dept_id, conversation_id=conversation_id
            )
        answer = await operation.call(methods.BEGIN_TURN, request)
    begun = convert.read_begun(answer)
    conversation = begun.conversation
    if conversation.last_seq >= operation.observed_seqs.last_seq(conversation.id):
        operation.observed_seqs.record(conversation.id, conversation.last_seq)
        messages = await with_blobs(operation, conversation.id, begun.messages, user_id=user_id)
        return begun if messages is begun.messages else replace(begun, messages=messages)
    history = await get_history(
        operation, conversation.id, user_id=user_id, window=window, session_id=session_id
    )
    return replace(
        begun,
        conversation=replace(conversation, last_seq=history.last_seq),
        messages=history.messages,
        source=history.source,
        token_count=history.token_count,
        older_omitted=history.older_omitted,
        compaction_due=history.compaction_due,
    )


async def get_history(
    operation: AsyncOperation,
    conversation_id: str,
    *,
    user_id: str | None,
    window: Window,
    min_seq: int | None = None,
    strong: bool = False,
    session_id: str | None = None,
    include_contexts: bool = False,
) -> History:
    """Reads the newest messages, which include everything that this client has observed."""
    window.validate()
    observed_seqs = operation.observed_seqs
    required_seq = observed_seqs.last_seq(conversation_id) if min_seq is None else min_seq
    request = api.GetHistoryRequest(
        conversation_id=conversation_id,
        user_id=user_id or "",
        limit=window.limit,
        max_tokens=window.max_tokens or 0,
        start_on_user=window.start_on_user,
        min_seq=required_seq,
        consistency=api.CONSISTENCY_STRONG if strong else api.CONSISTENCY_CACHED,
        session_id=session_id or "",
        include_contexts=include_contexts,
    )
    try:
        answer = await operation.call(methods.GET_HISTORY, request)
    except MinSeqNotReached as error:
        if min_seq is not None:
            raise
        # The conversation was deleted and created again, or the store was restored.
        log.warning(
            "conversation %s ends at message %d, before message %d that this client has observed;"
            " reading the stored state",
            conversation_id,
            error.last_seq,
            required_seq,
        )
        observed_seqs.forget(conversation_id)
        request.min_seq = 0
        request.consistency = api.CONSISTENCY_STRONG
        answer = await operation.call(methods.GET_HISTORY, request)
    observed_seqs.record(conversation_id, answer.last_seq)
    history = convert.read_history(answer)
    messages = await with_blobs(operation, conversation_id, history.messages, user_id=user_id)
    return history if messages is history.messages else replace(history, messages=messages)


async def save_messages(
    operation: AsyncOperation,
    conversation_id: str,
    messages: Iterable[MessageLike | resources.Message],
    *,
    user_id: str | None,
    session_id: str | None = None,
    request_id: str | None = None,
    expected_last_seq: int | None = None,
) -> SavedMessages:
    """Saves messages atomically, and once even if the request is sent several times."""
    has_caller_key = bool(request_id)
    request_id = request_id or str(uuid.uuid4())
    request = api.SaveMessagesRequest(
        conversation_id=conversation_id,
        user_id=user_id or "",
        messages=convert.write_messages(messages, conversation_id, operation.limits),
        request_id=request_id,
        expected_last_seq=expected_last_seq,
        session_id=session_id or "",
    )
    answer = await operation.call(
        methods.SAVE_MESSAGES,
        request,
        request_id=request_id,
        is_save=True,
        has_caller_key=has_caller_key,
    )
    operation.observed_seqs.record(conversation_id, answer.last_seq)
    return convert.read_saved(answer, request_id)


async def create_conversation(
    operation: AsyncOperation,
    user_id: str,
    *,
    title: str | None = None,
    dept_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    conversation_id: str | None = None,
) -> Conversation:
    """Creates a conversation under an id that the client chooses, so that a retry finds it."""
    request = api.CreateConversationRequest(
        user_id=user_id,
        dept_id=dept_id or "",
        title=title or "",
        metadata=None if metadata is None else to_struct(metadata),
        conversation_id=conversation_id or new_conversation_id(),
    )
    answer = await operation.call(
        methods.CREATE_CONVERSATION,
        request,
        has_caller_key=bool(conversation_id),
        conversation_id=request.conversation_id,
    )
    return convert.read_conversation(answer.conversation)


async def get_conversation(
    operation: AsyncOperation, conversation_id: str, *, user_id: str | None
) -> Conversation:
    """Reads a conversation without its messages."""
    request = api.GetConversationRequest(
        conversation_id=conversation_id, user_id=user_id or "", omit_messages=True
    )
    answer = await operation.call(methods.GET_CONVERSATION, request)
    return convert.read_conversation(answer.conversation)


async def truncate_conversation(
    operation: AsyncOperation,
    conversation_id: str,
    after_seq: int,
    *,
    user_id: str | None,
    request_id: str | None = None,
    expected_last_seq: int | None = None,
) -> Truncated:
    """Removes the messages after `after_seq`, and no message that was saved since."""
    has_caller_key = bool(request_id)
    request_id = request_id or str(uuid.uuid4())
    request = api.TruncateConversationRequest(
        conversation_id=conversation_id,
        user_id=user_id or "",
        after_seq=after_seq,
        expected_last_seq=expected_last_seq,
        request_id=request_id,
    )
    answer = await operation.call(
        methods.TRUNCATE_CONVERSATION,
        request,
        request_id=request_id,
        has_caller_key=has_caller_key,
    )
    operation.observed_seqs.record(conversation_id, answer.last_seq)
    return convert.read_truncated(answer)


async def compact_conversation(
    operation: AsyncOperation,
    conversation_id: str,
    upto_seq: int,
    summary: str,
    *,
    user_id: str | None,
    expected_last_seq: int | None,
    request_id: str | None,
    token_count: int | None,
) -> int:
    """Replaces the messages up to `upto_seq` in histories; returns the conversation's last seq."""
    has_caller_key = bool(request_id)
    request_id = request_id or str(uuid.uuid4())
    request = api.CompactConversationRequest(
        conversation_id=conversation_id,
        user_id=user_id or "",
        upto_seq=upto_seq,
        summary=summary,
        expected_last_seq=expected_last_seq,
        request_id=request_id,
        token_count=token_count,
    )
    answer = await operation.call(
        methods.COMPACT_CONVERSATION,
        request,
        request_id=request_id,
        has_caller_key=has_caller_key,
    )
    return answer.last_seq


async def list_newest_messages(
    operation: AsyncOperation,
    conversation_id: str,
    *,
    user_id: str | None,
    page_size: int,
    page_token: str,
    include_blobs: bool,
) -> tuple[list[Message], str]:
    """Reads a page of messages, newest first, and the token of the next page; "" on the last."""
    request = api.ListMessagesRequest(
        conversation_id=conversation_id,
        user_id=user_id or "",
        page_size=page_size,
        page_token=page_token,
        newest_first=True,
        include_blobs=include_blobs,
    )
    answer = await operation.call(methods.LIST_MESSAGES, request)
    messages = convert.read_messages(answer.messages)
    if include_blobs:
        messages = await with_blobs(operation, conversation_id, messages, user_id=user_id)
    return list(messages), answer.next_page_token
