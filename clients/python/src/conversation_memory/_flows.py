"""What each operation does, apart from how a call is made.

A flow is a generator: it yields the calls that are to be made, is sent their
answers, or has their errors raised in it, and returns the operation's result. The
blocking and the asyncio client run the same flows.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask

from . import _convert as convert
from ._errors import AlreadyExists, MinSeqNotReached, NotFound, invalid
from ._method import Method, Request, Response
from ._proto.v1 import conversation_memory_pb2 as api
from ._proto.v1 import methods
from ._proto.v1 import resources_pb2 as resources
from ._proto.v1 import session_service_pb2 as session_api
from ._seen import Seen
from ._structs import to_struct
from ._types import (
    BegunTurn,
    Conversation,
    History,
    Hit,
    Message,
    MessageLike,
    SavedMessages,
    Session,
    Truncated,
)

log = logging.getLogger("conversation_memory")

T = TypeVar("T")

MAX_MESSAGES_PER_SAVE = 100


@dataclass(frozen=True, slots=True)
class Call(Generic[Request, Response]):
    """A call that a flow wants made."""

    method: Method[Request, Response]
    request: Request
    request_id: str | None = None
    is_save: bool = False
    """A turn that was held is worth waiting for: for a sidecar that restarts, or is overloaded."""
    has_callers_key: bool = True
    """Whether the operation does nothing twice when the caller repeats it as it was called."""
    conversation_id: str | None = None
    """The id that was made for a new conversation."""


AnyCall = Call[Any, Any]
Flow = Generator[AnyCall, Any, T]
Page = tuple[list[T], str]
"""What a page has, and the token of the next one; empty on the last."""


def call(
    method: Method[Request, Response],
    request: Request,
    request_id: str | None = None,
    *,
    is_save: bool = False,
    has_callers_key: bool = True,
    conversation_id: str | None = None,
) -> Flow[Response]:
    """Makes one call."""
    answer: Response = yield Call(
        method, request, request_id, is_save, has_callers_key, conversation_id
    )
    return answer


def begin_turn(
    seen: Seen,
    user_id: str,
    session_id: str | None,
    conversation_id: str | None,
    dept_id: str | None,
    limit: int,
) -> Flow[BegunTurn]:
    """Opens a turn whose history has everything that this client has seen."""
    if limit < 0:
        # Before a conversation is created for it.
        raise invalid("limit", "must not be negative")
    if session_id or conversation_id:
        return (yield from _begin_turn(seen, user_id, session_id, conversation_id, dept_id, limit))
    # BeginTurn would create another conversation each time it is retried; one that is
    # created under an id of our own is created once. That of a turn that could not begin is
    # the next one's: else each try would leave an empty one.
    conversation_id = seen.take_spare(user_id, dept_id) or new_id()
    try:
        try:
            created = yield from create_conversation(user_id, None, dept_id, None, conversation_id)
            is_unused = created.last_seq == 0
        except (AlreadyExists, NotFound):
            # Somebody has found it meanwhile, and changed it.
            is_unused = False
        if not is_unused:
            conversation_id = new_id()
            yield from create_conversation(user_id, None, dept_id, None, conversation_id)
        return (yield from _begin_turn(seen, user_id, None, conversation_id, dept_id, limit))
    except BaseException:
        seen.keep_spare(user_id, dept_id, conversation_id)
        raise


def _begin_turn(
    seen: Seen,
    user_id: str,
    session_id: str | None,
    conversation_id: str | None,
    dept_id: str | None,
    limit: int,
) -> Flow[BegunTurn]:
    request = api.BeginTurnRequest(
        user_id=user_id,
        dept_id=dept_id or "",
        session_id=session_id or "",
        conversation_id=conversation_id or "",
        limit=limit,
    )
    begun = convert.read_begun((yield from call(methods.BEGIN_TURN, request)))
    conversation = begun.conversation
    if conversation.last_seq >= seen.last_seq(conversation.id):
        seen.note(conversation.id, conversation.last_seq)
        return begun
    history = yield from get_history(
        seen, conversation.id, user_id, limit, None, False, session_id, False
    )
    return replace(
        begun,
        conversation=replace(conversation, last_seq=history.last_seq),
        messages=history.messages,
        source=history.source,
    )


def get_history(
    seen: Seen,
    conversation_id: str,
    user_id: str | None,
    limit: int,
    min_seq: int | None,
    strong: bool,
    session_id: str | None,
    include_contexts: bool,
) -> Flow[History]:
    """Reads the newest messages, and at least what this client has seen."""
    wanted = seen.last_seq(conversation_id) if min_seq is None else min_seq
    request = api.GetHistoryRequest(
        conversation_id=conversation_id,
        user_id=user_id or "",
        limit=limit,
        min_seq=wanted,
        consistency=api.CONSISTENCY_STRONG if strong else api.CONSISTENCY_CACHED,
        session_id=session_id or "",
        include_contexts=include_contexts,
    )
    try:
        answer = yield from call(methods.GET_HISTORY, request)
    except MinSeqNotReached as error:
        if min_seq is not None:
            raise
        # Somebody deleted the conversation and created it again, or the store was restored.
        log.warning(
            "conversation %s ends at %d, before what was seen of it (%d)",
            conversation_id,
            error.last_seq,
            wanted,
        )
        seen.forget(conversation_id)
        request.min_seq = 0
        request.consistency = api.CONSISTENCY_STRONG
        answer = yield from call(methods.GET_HISTORY, request)
    seen.note(conversation_id, answer.last_seq)
    return convert.read_history(answer)


def save_messages(
    seen: Seen,
    conversation_id: str,
    messages: Iterable[MessageLike],
    user_id: str | None,
    session_id: str | None,
    request_id: str | None,
    expected_last_seq: int | None,
) -> Flow[SavedMessages]:
    """Saves a turn, whole or not at all, and once however often it is sent."""
    has_callers_key = bool(request_id)
    request_id = request_id or str(uuid.uuid4())
    request = api.SaveMessagesRequest(
        conversation_id=conversation_id,
        user_id=user_id or "",
        messages=convert.write_messages(messages, conversation_id),
        request_id=request_id,
        expected_last_seq=expected_last_seq,
        session_id=session_id or "",
    )
    answer = yield from call(
        methods.SAVE_MESSAGES, request, request_id, is_save=True, has_callers_key=has_callers_key
    )
    seen.note(conversation_id, answer.last_seq)
    return convert.read_saved(answer, request_id)


def create_conversation(
    user_id: str,
    title: str | None,
    dept_id: str | None,
    metadata: Mapping[str, Any] | None,
    conversation_id: str | None,
) -> Flow[Conversation]:
    """Creates a conversation under an id that is chosen here, so that a retry finds it."""
    request = api.CreateConversationRequest(
        user_id=user_id,
        dept_id=dept_id or "",
        title=title or "",
        metadata=None if metadata is None else to_struct(metadata),
        conversation_id=conversation_id or new_id(),
    )
    answer = yield from call(
        methods.CREATE_CONVERSATION,
        request,
        has_callers_key=bool(conversation_id),
        conversation_id=request.conversation_id,
    )
    return convert.read_conversation(answer.conversation)


def get_conversation(conversation_id: str, user_id: str | None) -> Flow[Conversation]:
    """Reads a conversation without its messages."""
    request = api.GetConversationRequest(
        conversation_id=conversation_id, user_id=user_id or "", omit_messages=True
    )
    answer = yield from call(methods.GET_CONVERSATION, request)
    return convert.read_conversation(answer.conversation)


def update_conversation(
    conversation_id: str,
    title: str | None,
    metadata: Mapping[str, Any] | None,
    user_id: str | None,
) -> Flow[Conversation]:
    """Changes what is given; an empty value clears."""
    changed = {"title": title, "metadata": metadata}
    request = api.UpdateConversationRequest(
        conversation=resources.Conversation(
            id=conversation_id,
            title=title or "",
            metadata=to_struct(metadata) if metadata else None,
        ),
        update_mask=FieldMask(paths=[path for path, value in changed.items() if value is not None]),
        user_id=user_id or "",
    )
    answer = yield from call(methods.UPDATE_CONVERSATION, request)
    return convert.read_conversation(answer.conversation)


def delete_conversation(seen: Seen, conversation_id: str, user_id: str | None) -> Flow[None]:
    """Deletes a conversation for good."""
    request = api.DeleteConversationRequest(conversation_id=conversation_id, user_id=user_id or "")
    yield from call(methods.DELETE_CONVERSATION, request)
    seen.forget(conversation_id)


def truncate_conversation(
    seen: Seen,
    conversation_id: str,
    after_seq: int,
    user_id: str | None,
    request_id: str | None,
    expected_last_seq: int | None,
) -> Flow[Truncated]:
    """Removes the messages after one, and never what was saved since."""
    has_callers_key = bool(request_id)
    request_id = request_id or str(uuid.uuid4())
    request = api.TruncateConversationRequest(
        conversation_id=conversation_id,
        user_id=user_id or "",
        after_seq=after_seq,
        expected_last_seq=expected_last_seq,
        request_id=request_id,
    )
    answer = yield from call(
        methods.TRUNCATE_CONVERSATION, request, request_id, has_callers_key=has_callers_key
    )
    seen.note(conversation_id, answer.last_seq)
    return convert.read_truncated(answer)


def branch_conversation(
    conversation_id: str, at_seq: int, title: str | None, user_id: str | None
) -> Flow[Conversation]:
    """Creates a conversation that shares the first messages of another."""
    request = api.BranchConversationRequest(
        conversation_id=conversation_id, user_id=user_id or "", at_seq=at_seq, title=title or ""
    )
    answer = yield from call(methods.BRANCH_CONVERSATION, request)
    return convert.read_conversation(answer.conversation)


def list_conversations(
    user_id: str, dept_id: str | None, page_size: int, page_token: str
) -> Flow[Page[Conversation]]:
    """A page of a user's conversations."""
    request = api.ListConversationsRequest(
        user_id=user_id, dept_id=dept_id or "", page_size=page_size, page_token=page_token
    )
    answer = yield from call(methods.LIST_CONVERSATIONS, request)
    found = [convert.read_conversation(conversation) for conversation in answer.conversations]
    return found, answer.next_page_token


def list_branches(
    conversation_id: str, user_id: str | None, page_size: int, page_token: str
) -> Flow[Page[Conversation]]:
    """A page of a conversation's branches."""
    request = api.ListBranchesRequest(
        conversation_id=conversation_id,
        user_id=user_id or "",
        page_size=page_size,
        page_token=page_token,
    )
    answer = yield from call(methods.LIST_BRANCHES, request)
    found = [convert.read_conversation(conversation) for conversation in answer.conversations]
    return found, answer.next_page_token


def list_messages(
    conversation_id: str,
    user_id: str | None,
    newest_first: bool,
    include_contexts: bool,
    page_size: int,
    page_token: str,
) -> Flow[Page[Message]]:
    """A page of a conversation's messages."""
    request = api.ListMessagesRequest(
        conversation_id=conversation_id,
        user_id=user_id or "",
        page_size=page_size,
        page_token=page_token,
        newest_first=newest_first,
        include_contexts=include_contexts,
    )
    answer = yield from call(methods.LIST_MESSAGES, request)
    return list(convert.read_messages(answer.messages)), answer.next_page_token


def search_messages(
    user_id: str,
    query: str,
    conversation_id: str | None,
    dept_id: str | None,
    role: str | None,
    page_size: int,
    page_token: str,
) -> Flow[Page[Hit]]:
    """A page of what was found."""
    request = api.SearchMessagesRequest(
        user_id=user_id,
        query=query,
        conversation_id=conversation_id or "",
        dept_id=dept_id or "",
        role=convert.role_number(role),
        page_size=page_size,
        page_token=page_token,
    )
    answer = yield from call(methods.SEARCH_MESSAGES, request)
    return [convert.read_hit(hit) for hit in answer.hits], answer.next_page_token


def create_session(user_id: str, dept_id: str | None, conversation_id: str | None) -> Flow[Session]:
    """Starts a session."""
    request = session_api.CreateSessionRequest(
        user_id=user_id, dept_id=dept_id or "", conversation_id=conversation_id or ""
    )
    answer = yield from call(methods.CREATE_SESSION, request)
    return convert.read_session(answer.session)


def get_session(session_id: str, user_id: str | None = None) -> Flow[Session]:
    """Reads a session."""
    request = session_api.GetSessionRequest(session_id=session_id, user_id=user_id or "")
    answer = yield from call(methods.GET_SESSION, request)
    return convert.read_session(answer.session)


def extend_session(session_id: str, user_id: str | None = None) -> Flow[Session]:
    """Gives a session its whole time again."""
    request = session_api.ExtendSessionRequest(session_id=session_id, user_id=user_id or "")
    answer = yield from call(methods.EXTEND_SESSION, request)
    return convert.read_session(answer.session)


def end_session(session_id: str, user_id: str | None = None) -> Flow[None]:
    """Ends a session."""
    yield from call(
        methods.END_SESSION,
        session_api.EndSessionRequest(session_id=session_id, user_id=user_id or ""),
    )


def list_sessions(user_id: str) -> Flow[list[Session]]:
    """Reads a user's live sessions."""
    request = session_api.ListSessionsRequest(user_id=user_id)
    return convert.read_sessions((yield from call(methods.LIST_SESSIONS, request)))


def new_id() -> str:
    """A UUIDv7: ids that are made one after another are stored side by side."""
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return str(uuid.UUID(int=value))
