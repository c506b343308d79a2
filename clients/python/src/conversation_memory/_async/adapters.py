"""Operations of the framework adapters: conversations that exist from their first message on."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

from .._adapters import NamedConversation, split_into_saves
from .._convert import write_messages
from .._errors import AlreadyExists, NotFound, SeqMismatch
from .._limits import MAX_PAGE_SIZE
from .._proto.v1 import resources_pb2 as resources
from .._types import Conversation, History, Message, SavedMessages
from .._window import Window
from . import operations
from .base import AsyncOperation


async def append(
    operation: AsyncOperation, conversation: NamedConversation, messages: Sequence[Message]
) -> None:
    """Appends messages in one save, or in several if they do not fit into one.

    Each save is made completely or not at all.

    Raises:
        ValueError: A message is not valid. Nothing is saved.
    """
    encoded = write_messages(messages, conversation.id, operation.limits)
    for batch in split_into_saves(encoded, operation.limits):
        await save(operation, conversation, batch)


async def save(
    operation: AsyncOperation,
    conversation: NamedConversation,
    messages: Sequence[Message | resources.Message],
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
    """Reads a history of `count` messages; `None` reads all that no summary stands for.

    Pinned messages and the summary come first and are not counted.
    """
    if count is not None and count <= 0:
        return []
    window = Window(min(count or MAX_PAGE_SIZE, MAX_PAGE_SIZE))
    try:
        history = await operations.get_history(
            operation, conversation.id, user_id=conversation.user_id, window=window
        )
        newest = [each for each in history.messages if not (each.pinned or each.is_summary)]
        if not history.older_omitted or (count is not None and len(newest) >= count):
            return list(history.messages)
        # A history has one page at most, and fewer messages if they are large.
        older = await _read_older(operation, conversation, history, count)
    except NotFound:
        return []
    known = {message.seq for message in history.messages}
    added = [message for message in older if message.seq not in known]
    found = sorted([*history.messages, *added], key=lambda message: message.seq)
    return [each for each in found if each.is_summary] + [
        each for each in found if not each.is_summary
    ]


async def _read_older(
    operation: AsyncOperation, conversation: NamedConversation, history: History, count: int | None
) -> list[Message]:
    """Reads messages before a history, down to those that its summary stands for."""
    first_seq = 1
    if any(message.is_summary for message in history.messages):
        found = await operations.get_conversation(
            operation, conversation.id, user_id=conversation.user_id
        )
        first_seq = found.compacted_upto_seq + 1
    newest = [each for each in history.messages if not (each.pinned or each.is_summary)]
    before = newest[0].seq if newest else history.last_seq + 1
    remaining = None if count is None else count - len(newest)

    def is_last(message: Message) -> bool:
        nonlocal remaining
        if message.seq < before and remaining is not None:
            remaining -= 1
        return message.seq <= first_seq or remaining == 0

    messages = await list_backwards(operation, conversation, history.last_seq, 0, is_last)
    return [message for message in messages if first_seq <= message.seq < before]


async def read_backwards(
    operation: AsyncOperation,
    conversation: NamedConversation,
    expected_count: int,
    is_last: Callable[[Message], bool],
    *,
    with_blobs: bool = True,
) -> tuple[list[Message], int]:
    """Reads all messages from the newest backwards, until `is_last` is true for one.

    A history would not contain all of them. The messages are read from the durable store.

    Args:
        operation: Operation that the calls belong to.
        conversation: Conversation to read.
        expected_count: Number of messages that will probably be needed, for the first request.
        is_last: Called with each message, newest first.
        with_blobs: Whether the messages include the data of blobs.

    Returns:
        The messages, oldest first, and the number that the conversation ended with when they
        were read; no messages and 0 if the conversation does not exist.
    """
    try:
        last_seq = await _last_seq(operation, conversation)
        found = await list_backwards(
            operation, conversation, last_seq, expected_count, is_last, with_blobs=with_blobs
        )
    except NotFound:
        return [], 0
    return found[::-1], last_seq


async def find(operation: AsyncOperation, conversation: NamedConversation) -> Conversation | None:
    """Reads a conversation without its messages; `None` if it does not exist."""
    try:
        return await operations.get_conversation(
            operation, conversation.id, user_id=conversation.user_id
        )
    except NotFound:
        return None


async def end(operation: AsyncOperation, conversation: NamedConversation) -> int:
    """Reads the number that a conversation ends with; 0 if it does not exist."""
    found = await find(operation, conversation)
    return 0 if found is None else found.last_seq


async def _last_seq(operation: AsyncOperation, conversation: NamedConversation) -> int:
    found = await operations.get_conversation(
        operation, conversation.id, user_id=conversation.user_id
    )
    return found.last_seq


async def list_backwards(
    operation: AsyncOperation,
    conversation: NamedConversation,
    last_seq: int,
    expected_count: int,
    is_last: Callable[[Message], bool],
    *,
    with_blobs: bool = True,
) -> list[Message]:
    """Lists messages up to `last_seq`, newest first, until `is_last` is true for one."""
    found: list[Message] = []
    page_token: str | None = ""
    while page_token is not None:
        page, next_page_token = await operations.list_newest_messages(
            operation,
            conversation.id,
            user_id=conversation.user_id,
            page_size=min(expected_count or MAX_PAGE_SIZE, MAX_PAGE_SIZE),
            page_token=page_token,
            include_blobs=with_blobs,
        )
        for message in page:
            if message.seq <= last_seq:
                found.append(message)
                if is_last(message):
                    return found
        page_token = next_page_token or None
    return found


async def pop(operation: AsyncOperation, conversation: NamedConversation) -> Message | None:
    """Removes the newest message, and returns it to one caller only; `None` if there is none."""
    while (newest := await read_last(operation, conversation)) is not None:
        message, last_seq = newest
        if await remove_after(operation, conversation, message.seq - 1, last_seq):
            return message
    return None


async def read_last(
    operation: AsyncOperation, conversation: NamedConversation
) -> tuple[Message, int] | None:
    """Reads the newest message and the conversation's last number; `None` if there is none."""
    messages, last_seq = await read_backwards(operation, conversation, 1, lambda _: True)
    return (messages[-1], last_seq) if messages else None


async def remove_after(
    operation: AsyncOperation, conversation: NamedConversation, after_seq: int, last_seq: int
) -> bool:
    """Removes the messages after `after_seq`; returns whether this caller has removed some.

    Nothing is removed if another message was saved since the conversation ended with `last_seq`.
    """
    try:
        truncated = await operations.truncate_conversation(
            operation,
            conversation.id,
            after_seq,
            user_id=conversation.user_id,
            expected_last_seq=last_seq,
        )
    except (NotFound, SeqMismatch):
        return False
    return bool(truncated.removed_messages)


async def clear(operation: AsyncOperation, conversation: NamedConversation) -> None:
    """Removes all messages. The conversation and its branches stay."""
    try:
        await operations.truncate_conversation(
            operation, conversation.id, 0, user_id=conversation.user_id
        )
    except NotFound:
        return
