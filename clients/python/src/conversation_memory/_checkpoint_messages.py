"""Messages of checkpoints, which become messages of their thread's conversation."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.messages import BaseMessage

from ._checkpoint_values import DIGEST_BYTES
from ._convert import write_message
from ._limits import Limits
from ._proto.v1 import checkpoint_service_pb2 as api
from ._validation import validate_message
from .langchain import from_langchain_message

log = logging.getLogger("conversation_memory")

MAX_KEY_CHARS = 255
"""Upper bound on the characters of a message's key."""

MAX_MESSAGES = 1000
"""Upper bound on the messages of one request."""

MAX_BATCH_BYTES = 2 << 20
"""Upper bound on the messages of one request in bytes, unless it is a single one."""


def write_messages(
    items: Sequence[Any], digests: bytes, first: int, conversation_id: str, limits: Limits
) -> list[api.CheckpointMessage]:
    """Encodes the messages of a list after the first ones.

    What is no message is left out, and so is a message that the conversation cannot contain: it
    must not fail the checkpoint.

    Args:
        items: Items of the channel.
        digests: Digests of the items.
        first: Number of items to leave out, because an earlier checkpoint had them.
        conversation_id: Conversation of the thread.
        limits: Limits of the service.
    """
    written: list[api.CheckpointMessage] = []
    for index in range(first, len(items)):
        item = items[index]
        if not isinstance(item, BaseMessage):
            continue
        try:
            message = write_message(from_langchain_message(item), conversation_id, limits)
            validate_message(message, limits)
        except (TypeError, ValueError) as error:
            log.warning(
                "a message of checkpoint thread %s is not part of its conversation: %s",
                conversation_id,
                type(error).__name__,
            )
            continue
        digest = digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
        key = item.id if _is_key(item.id) else f"{index}:{digest.hex()}"
        written.append(api.CheckpointMessage(key=key, message=message))
    return written


def message_batches(
    messages: Sequence[api.CheckpointMessage],
) -> Iterable[list[api.CheckpointMessage]]:
    """Divides messages into those of one request each; the first one may have none."""
    batch: list[api.CheckpointMessage] = []
    size = 0
    for message in messages:
        if batch and (len(batch) == MAX_MESSAGES or size + message.ByteSize() > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += message.ByteSize()
    yield batch


def _is_key(text: str | None) -> bool:
    if not text or len(text) > MAX_KEY_CHARS or "\0" in text:
        return False
    return text.isascii() or not any("\ud800" <= each <= "\udfff" for each in text)
