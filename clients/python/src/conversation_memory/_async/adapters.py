"""Operations of the framework adapters: conversations that exist from their first message on."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

from .._adapters import NamedConversation
from .._errors import AlreadyExists, NotFound, SeqMismatch
from .._limits import MAX_MESSAGES_PER_SAVE, MAX_PAGE_SIZE
from .._types import Message, SavedMessages
from . import operations
from .base import AsyncOperation


async def append(
    operation: AsyncOperation, conversation: NamedConversation, messages: Sequence[Message]
) -> None:
    """Appends messages in batches of 100. Each batch is saved completely or not at all."""
    for start in range(0, len(messages), MAX_MESSAGES_PER_SAVE):
        await save(operation, conversation, messages[start : start + MAX_MESSAGES_PER_SAVE])


async def save(
    operation: AsyncOperation,
    conversation: NamedConversation,
    messages: Sequence[Message],
    *,
    request_id: str | None = None,
    expected_last_seq: int | None = None,
) -> SavedMessages:
    """Saves messages, and creates the conversation first if it does not exist."""
    request_id = request_id or str(uuid.uuid4())

    async def attempt() -> SavedMessages:
        return await operations.save_messages(
            operation,
            conversation.id,
            messages,
            user_id=conversation.user_id,
            request_id=request_id,
            expected_last_seq=expected_last_seq,
        )

    try:
        return await attempt()
    except NotFound:
        await create(operation, conversation)
        return await attempt()


async def create(operation: AsyncOperation, conversation: NamedConversation) -> None:
    """Creates the conversation, unless another caller has created it at the same time."""
    try:
        await operations.create_conversation(
            operation,
            conversation.user_id,
            title=conversation.title,
            dept_id=conversation.dept_id,
            metadata=conversation.metadata,
            conversation_id=conversation.id,
        )
    except AlreadyExists:
        # Another caller has created it and changed its title, which does not matter here. A
        # deleted conversation whose messages are kept for branches raises NotFound at the save.
        return


async def read_newest(
    operation: AsyncOperation, conversation: NamedConversation, count: int | None
) -> list[Message]:
    """Reads the newest messages, oldest first; `None` reads all."""
    if count is not None and count <= 0:
        return []
    remaining = iter(range(count - 1, -1, -1)) if count is not None else None
    messages, _ = await read_backwards(
        operation,
        conversation,
        count or MAX_PAGE_SIZE,
        lambda _: remaining is not None and next(remaining) == 0,
    )
    return messages


async def read_backwards(
    operation: AsyncOperation,
    conversation: NamedConversation,
    expected_count: int,
    is_last: Callable[[Message], bool],
    *,
    strong: bool = False,
) -> tuple[list[Message], int]:
    """Reads from the newest message backwards, until `is_last` is true for a message.

    Args:
        operation: Operation that the calls belong to.
        conversation: Conversation to read.
        expected_count: Number of messages that will probably be needed, for the first request.
        is_last: Called with each message, newest first.
        strong: Whether the newest messages are read from the durable store.

    Returns:
        The messages, oldest first, and the number that the conversation ended with when the first
        of them were read; no messages and 0 if the conversation does not exist.
    """
    found: list[Message] = []
    try:
        history = await operations.get_history(
            operation,
            conversation.id,
            user_id=conversation.user_id,
            limit=min(expected_count, MAX_PAGE_SIZE),
            strong=strong,
        )
        for message in reversed(history.messages):
            found.append(message)
            if is_last(message):
                return found[::-1], history.last_seq
        # A history has one page at most, and fewer messages if they are large.
        page_token = "" if found and found[-1].seq > 1 else None
        while page_token is not None:
            page, next_page_token = await operations.list_newest_messages(
                operation,
                conversation.id,
                user_id=conversation.user_id,
                page_size=MAX_PAGE_SIZE,
                page_token=page_token,
            )
            for message in page:
                if message.seq >= found[-1].seq:
                    continue
                found.append(message)
                if is_last(message):
                    return found[::-1], history.last_seq
            page_token = next_page_token or None
    except NotFound:
        return [], 0
    return found[::-1], history.last_seq


async def pop(operation: AsyncOperation, conversation: NamedConversation) -> Message | None:
    """Removes the newest message, and returns it to one caller only; `None` if there is none."""
    while True:
        try:
            history = await operations.get_history(
                operation, conversation.id, user_id=conversation.user_id, limit=1, strong=True
            )
            if not history.messages:
                return None
            message = history.messages[-1]
            truncated = await operations.truncate_conversation(
                operation,
                conversation.id,
                message.seq - 1,
                user_id=conversation.user_id,
                expected_last_seq=history.last_seq,
            )
        except NotFound:
            return None
        except SeqMismatch:
            # Another message has been saved in between.
            continue
        if truncated.removed_messages:
            return message
        # Another caller has removed the message.


async def clear(operation: AsyncOperation, conversation: NamedConversation) -> None:
    """Removes all messages. The conversation and its branches stay."""
    try:
        await operations.truncate_conversation(
            operation, conversation.id, 0, user_id=conversation.user_id
        )
    except NotFound:
        return
