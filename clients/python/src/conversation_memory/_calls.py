"""What becomes of a call that failed, for both clients."""

from __future__ import annotations

import random

import grpc

from ._channel import is_repeatable
from ._errors import ConversationMemoryError, ResourceExhausted, from_rpc_error
from ._flows import AnyCall


def failure_of(call: AnyCall, error: grpc.RpcError) -> ConversationMemoryError:
    """The exception of a call that failed."""
    failure = from_rpc_error(
        error,
        repeatable=is_repeatable(call.method) and call.has_callers_key,
        request_id=call.request_id,
    )
    failure.conversation_id = call.conversation_id
    failure.__cause__ = error
    return failure


def pause_before_repeating(
    call: AnyCall, failure: ConversationMemoryError, left: float
) -> float | None:
    """How long to wait before a call is made again within the time that is left, if it is."""
    if not call.is_save or not isinstance(failure, ResourceExhausted):
        return None
    if failure.retry_after is None:
        return None
    # Those who were refused together do not all come back together.
    pause = max(failure.retry_after, 0.05) * (1 + random.random() / 2)  # noqa: S311
    return pause if pause < left else None
