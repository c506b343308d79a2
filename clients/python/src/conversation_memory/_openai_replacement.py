"""Replacement of a session's items by those of a compaction: all at once, or not at all.

The new items are appended behind a marker, and a compaction up to the marker commits them: from
then on, histories have them and nothing before them. The earlier messages remain for listing,
search and export. Until the commit, the new items are pending, and readers of the session leave
them out. If the process ends in between, the session is as it was before.

Each of these messages has the metadata `{"openai_agents": {"replacement": {"id", "index"}}}`. The
marker has the index 0, and the items have 1, 2, 3 …
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from ._adapters import NamedConversation, split_into_saves
from ._async import adapters, operations
from ._async.base import AsyncOperation
from ._convert import write_messages
from ._errors import SeqMismatch
from ._types import Message

METADATA_KEY = "openai_agents"

SUMMARY = "[The earlier messages were compacted. The following messages replace them.]"
"""Summary of the compaction, which other clients read before the new items."""

MAX_ATTEMPTS = 5
"""Upper bound on the attempts to append items that need several saves without an interruption."""


class Replacement(NamedTuple):
    """Replacement that a message belongs to."""

    id: str
    marker_seq: int
    """Number of the marker's message."""


def replacement_of(message: Message) -> Replacement | None:
    """Returns the replacement that a message is an item or the marker of; `None` if it is none.

    Another client can have written the metadata, so that it can have any value.
    """
    found = message.metadata.get(METADATA_KEY)
    value = found.get("replacement") if isinstance(found, Mapping) else None
    if not isinstance(value, Mapping):
        return None
    id_, index = value.get("id"), value.get("index")
    if not isinstance(id_, str) or type(index) is not int or not 0 <= index < message.seq:
        return None
    return Replacement(id_, message.seq - index)


async def replace_all(
    operation: AsyncOperation, conversation: NamedConversation, messages: Sequence[Message]
) -> None:
    """Replaces all messages of a conversation in its histories.

    Raises:
        ValueError: A message is not valid. Nothing is changed.
        SeqMismatch: Other callers save so often that the messages, which need several saves, cannot
            be appended without an interruption. The histories are as before.
    """
    id_ = str(uuid.uuid4())
    numbered = [
        replace(
            message,
            metadata={**message.metadata, METADATA_KEY: {"replacement": {"id": id_, "index": n}}},
        )
        for n, message in enumerate([Message("system"), *messages])
    ]
    encoded = write_messages(numbered, conversation.id, operation.limits)
    batches = split_into_saves(encoded, operation.limits)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        last_seq: int | None = None
        try:
            for batch in batches:
                saved = await adapters.save(
                    operation, conversation, batch, expected_last_seq=last_seq
                )
                last_seq = saved.last_seq
            break
        except SeqMismatch:
            # Another caller has saved in between. What was appended stays pending.
            if attempt == MAX_ATTEMPTS:
                raise
    assert last_seq is not None  # noqa: S101
    await operations.compact_conversation(
        operation,
        conversation.id,
        last_seq - len(messages),
        SUMMARY,
        user_id=conversation.user_id,
        expected_last_seq=None,
        request_id=None,
        token_count=None,
    )


async def read_newest(
    operation: AsyncOperation, conversation: NamedConversation, count: int | None
) -> list[Message]:
    """Reads a history as `adapters.read_newest` does, without pending items."""
    messages = await adapters.read_newest(operation, conversation, count)
    found = [replacement_of(message) for message in messages]
    if any(found):
        pending = await _pending(
            operation, conversation, messages, found, has_limit=count is not None
        )
        if pending and count is not None:
            messages = await read_newest(operation, conversation, None)
            counted = [each.seq for each in messages if not (each.pinned or each.is_summary)]
            first_seq = counted[-count] if count < len(counted) else 0
            return [each for each in messages if each.pinned or not 0 < each.seq < first_seq]
        messages = [
            message
            for message, it in zip(messages, found, strict=True)
            if it is None or it.id not in pending
        ]
    return [each for each in messages if not (each.is_summary and each.content == SUMMARY)]


async def _pending(
    operation: AsyncOperation,
    conversation: NamedConversation,
    messages: Sequence[Message],
    found: Sequence[Replacement | None],
    *,
    has_limit: bool,
) -> set[str]:
    """Returns the ids of the replacements of a history that are not committed."""
    seqs = {message.seq for message in messages}
    marker_seqs = {it.id: it.marker_seq for it in found if it is not None}
    # The compaction that commits a replacement removes its marker from histories. A limit on the
    # number of messages may do so, too.
    if has_limit and not seqs.issuperset(marker_seqs.values()):
        upto = await _compacted_upto_seq(operation, conversation)
        return {id_ for id_, seq in marker_seqs.items() if seq > upto}
    return {id_ for id_, seq in marker_seqs.items() if seq in seqs}


async def _compacted_upto_seq(operation: AsyncOperation, conversation: NamedConversation) -> int:
    found = await operations.get_conversation(
        operation, conversation.id, user_id=conversation.user_id
    )
    return found.compacted_upto_seq


async def pop(operation: AsyncOperation, conversation: NamedConversation) -> Message | None:
    """Removes the newest message as `adapters.pop` does.

    A pending replacement after it is removed first. Messages that were replaced are not removed.
    """
    while (newest := await adapters.read_last(operation, conversation)) is not None:
        message, last_seq = newest
        after_seq = message.seq - 1
        is_item = True
        if (found := replacement_of(message)) is not None:
            if found.marker_seq > await _compacted_upto_seq(operation, conversation):
                after_seq, is_item = found.marker_seq - 1, False
            elif found.marker_seq == message.seq:
                return None
        is_removed = await adapters.remove_after(operation, conversation, after_seq, last_seq)
        if is_item and is_removed:
            return message
    return None
