"""Concurrent calls in threads."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_concurrently(function: Callable[[T], R], items: Sequence[T], limit: int) -> list[R]:
    """Returns the results of `function` for all items, at most `limit` calls at the same time.

    The first error is raised after the calls that have begun have ended.
    """
    if len(items) == 1:
        return [function(items[0])]
    pool = ThreadPoolExecutor(limit)
    try:
        # Each call continues the caller's trace.
        futures = [pool.submit(contextvars.copy_context().run, function, item) for item in items]
        return [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)
