"""Saves of questions, which run beside the body of a turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ._completion_async import is_running_to_completion, run_to_completion


class AsyncQuestionSave:
    """A save in a task of its own, which a cancellation of the turn does not end."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def start(self, subject: str, write: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Starts the save, unless it is in progress."""
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(run_to_completion(subject, write))
            # An error that `wait` does not raise is not reported as lost.
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def wait(self) -> None:
        """Waits until the save has ended, and raises its error."""
        task = self._task
        while task is not None and not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                if not is_running_to_completion():
                    raise
        if task is not None and not task.cancelled():
            task.result()
