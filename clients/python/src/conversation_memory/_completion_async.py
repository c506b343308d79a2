"""Completion of writes whose task is cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

from ._errors import describe_for_log

log = logging.getLogger("conversation_memory")

P = ParamSpec("P")
T = TypeVar("T")

_is_running_to_completion: ContextVar[bool] = ContextVar(
    "conversation_memory_is_running_to_completion", default=False
)


def is_running_to_completion() -> bool:
    """Whether the caller runs inside `run_to_completion`; cancelled calls are then sent again."""
    return _is_running_to_completion.get()


async def run_to_completion(
    subject: str,
    write: Callable[P, Coroutine[Any, Any, T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Waits until a write has ended, and raises a cancellation of the caller only after that.

    The write runs in its own task. Code that cancels all tasks, as `asyncio.run` does at its end,
    cancels that task too. The write then repeats the call that was cancelled, under the same key
    and within the same timeout.

    Args:
        subject: What is written; the log line of a lost write begins with it.
        write: The function that writes.
        args: Positional arguments of `write`.
        kwargs: Keyword arguments of `write`.
    """
    has_begun = False

    async def begin() -> T:
        nonlocal has_begun
        has_begun = True
        _is_running_to_completion.set(True)
        return await write(*args, **kwargs)

    task = asyncio.ensure_future(begin())
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancellation = error
        if task.cancelled() and not has_begun:
            # The task was cancelled before its first step, so that nothing has been sent.
            task = asyncio.ensure_future(begin())
    if cancellation is None:
        return task.result()
    if task.cancelled():
        log.warning("%s was cancelled and may not be saved", subject)
    elif (failure := task.exception()) is not None:
        # The cancellation takes precedence, regardless of the outcome of the write.
        cancellation.__context__ = failure
        log.warning("%s was cancelled and not saved: %s", subject, describe_for_log(failure))
    raise cancellation
