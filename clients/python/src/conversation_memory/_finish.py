"""Writes that come to their end although their task is cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar

log = logging.getLogger("conversation_memory")

T = TypeVar("T")

_is_finishing: ContextVar[bool] = ContextVar("conversation_memory_is_finishing", default=False)


def is_finishing() -> bool:
    """Whether a call is made within `finish`: one that is cancelled is then made again."""
    return _is_finishing.get()


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Waits for a write to its end, and only then hears of a cancellation meanwhile.

    The write is a task of its own. Who cancels all tasks, as `asyncio.run` does at its end,
    cancels that one too: it then repeats the call that it was in, under the same key and
    within the same timeout.
    """
    has_begun = False

    async def begin() -> T:
        nonlocal has_begun
        has_begun = True
        _is_finishing.set(True)
        return await work

    task = asyncio.ensure_future(begin())
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
        if task.cancelled() and not has_begun:
            # Cancelled before its first step, it has done nothing.
            task = asyncio.ensure_future(begin())
    if cancelled is None:
        return task.result()
    if task.cancelled():
        log.warning("a write was cancelled, and may not be done")
    elif (failure := task.exception()) is not None:
        # The cancellation must not be lost, whatever became of the write.
        cancelled.__context__ = failure
        log.warning("a task was cancelled and what it wrote is not saved: %s", said(failure))
    raise cancelled


def said(failure: BaseException) -> str:
    """What a log may say of a failure: others' words may quote a message."""
    from ._errors import ConversationMemoryError

    return str(failure) if isinstance(failure, ConversationMemoryError) else type(failure).__name__
