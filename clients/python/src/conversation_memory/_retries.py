"""Retry policy and error mapping of unary calls, shared by both clients."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any, Generic

import grpc

from ._errors import Attempt, ConversationMemoryError, ResourceExhausted, from_rpc_error
from ._method import Method, Request, Response
from ._proto.v1 import methods

IDEMPOTENT_METHODS = (
    methods.BEGIN_TURN,
    methods.GET_HISTORY,
    methods.SAVE_MESSAGES,
    methods.CREATE_CONVERSATION,
    methods.GET_CONVERSATION,
    methods.LIST_CONVERSATIONS,
    methods.UPDATE_CONVERSATION,
    methods.LIST_MESSAGES,
    methods.TRUNCATE_CONVERSATION,
    methods.COMPACT_CONVERSATION,
    methods.REDACT_MESSAGES,
    methods.TRANSFER_CONVERSATION,
    methods.GET_BLOB,
    methods.EXPORT_CONVERSATION,
    methods.LIST_BRANCHES,
    methods.SEARCH_MESSAGES,
    methods.GET_SESSION,
    methods.EXTEND_SESSION,
    methods.LIST_SESSIONS,
    methods.PUT_ITEM,
    methods.GET_ITEM,
    methods.DELETE_ITEM,
    methods.SEARCH_ITEMS,
    methods.LIST_NAMESPACES,
    methods.BATCH_ITEMS,
    methods.PUT_CHECKPOINT,
    methods.PUT_WRITES,
    methods.PUT_CONTENTS,
    methods.GET_CHECKPOINT,
    methods.GET_CONTENTS,
    methods.LIST_CHECKPOINTS,
    methods.GET_DELTA_HISTORY,
    methods.DELETE_THREAD,
    methods.COPY_THREAD,
    methods.DELETE_RUNS,
    methods.PRUNE_THREADS,
)
"""Methods that are idempotent as this client calls them: reads, and writes with a key.

The other methods are sent once. A second CreateSession or BranchConversation would create a
second object; the answer to a second DeleteConversation or EndSession could not distinguish
what the first one removed from what never existed. A second BeginTurn may leave an unused
session, which expires, and an empty conversation, which is in no list."""

_IDEMPOTENT_PATHS = frozenset(method.path for method in IDEMPOTENT_METHODS)

MIN_RETRY_DELAY = 0.05
"""Lower bound in seconds on the delay before a rejected save is sent again."""


@dataclass(frozen=True, slots=True)
class Call(Generic[Request, Response]):
    """A unary call with the properties that decide whether it is retried."""

    method: Method[Request, Response]
    request: Request
    request_id: str | None = None
    """Idempotency key of a save or a truncation; `None` for other methods."""
    is_save: bool = False
    """Whether the call saves messages. A save waits for a sidecar that restarts or is overloaded,
    because the turn that it saves cannot be repeated."""
    has_caller_key: bool = True
    """Whether the operation stays idempotent when the caller repeats it with the same arguments."""
    conversation_id: str | None = None
    """Id that was generated for a new conversation; `None` for other methods."""


def is_idempotent(method: Method[Any, Any]) -> bool:
    """Whether a call of the method can be sent again without a second effect."""
    return method.path in _IDEMPOTENT_PATHS


def to_exception(
    call: Call[Any, Any], error: grpc.RpcError, attempt: Attempt
) -> ConversationMemoryError:
    """Converts the gRPC error of a failed call to this package's exception."""
    failure = from_rpc_error(
        error,
        attempt,
        idempotent=is_idempotent(call.method) and call.has_caller_key,
        request_id=call.request_id,
    )
    failure.conversation_id = call.conversation_id
    return failure


def retry_delay(
    call: Call[Any, Any], failure: ConversationMemoryError, remaining: float
) -> float | None:
    """Returns the seconds to wait before the call is sent again; `None` if it is not retried.

    Only a save that an overloaded service rejected with a delay is retried here, and only if the
    delay ends within the `remaining` seconds. gRPC itself retries UNAVAILABLE, see
    `service_config`.
    """
    if not call.is_save or not isinstance(failure, ResourceExhausted):
        return None
    if failure.retry_after is None:
        return None
    # The jitter keeps callers that were rejected together from coming back together.
    delay = max(failure.retry_after, MIN_RETRY_DELAY) * (1 + random.random() / 2)  # noqa: S311
    return delay if delay < remaining else None


def service_config() -> str:
    """Returns gRPC's service config, which retries idempotent methods on UNAVAILABLE."""
    names = [method.path.removeprefix("/").split("/") for method in IDEMPOTENT_METHODS]
    return json.dumps(
        {
            "methodConfig": [
                {
                    "name": [{"service": service, "method": method} for service, method in names],
                    # The attempts span about two seconds, in which a sidecar has restarted.
                    "retryPolicy": {
                        "maxAttempts": 4,
                        "initialBackoff": "0.2s",
                        "maxBackoff": "1.5s",
                        "backoffMultiplier": 3,
                        "retryableStatusCodes": ["UNAVAILABLE"],
                    },
                }
            ]
        }
    )
