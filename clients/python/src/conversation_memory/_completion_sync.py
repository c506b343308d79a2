"""Completion of writes that are interrupted, for example by Ctrl-C."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ._errors import describe_for_log

log = logging.getLogger("conversation_memory")

P = ParamSpec("P")
T = TypeVar("T")


def run_to_completion(subject: str, write: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs a write, and runs it once more before an interruption is raised.

    An interruption is an exception that is not an `Exception`, such as `KeyboardInterrupt`. It
    leaves the outcome of the call unknown; the write must therefore be idempotent.

    Args:
        subject: What is written; the log line of a lost write begins with it.
        write: The function that writes.
        args: Positional arguments of `write`.
        kwargs: Keyword arguments of `write`.
    """
    try:
        return write(*args, **kwargs)
    except Exception:
        raise
    except BaseException:
        try:
            write(*args, **kwargs)
        except BaseException as failure:
            log.warning("%s was interrupted and not saved: %s", subject, describe_for_log(failure))
            if not isinstance(failure, Exception):
                raise
        raise
