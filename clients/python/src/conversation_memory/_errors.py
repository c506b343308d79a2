"""What can go wrong, as exceptions. None of them has a word of what was said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

import grpc
from google.protobuf.message import DecodeError

from ._proto import error_details_pb2 as rpc

_DETAILS = "grpc-status-details-bin"


class ConversationMemoryError(Exception):
    """A call failed."""

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    """The status that the service, or the transport, answered with."""
    reason: str = ""
    """The service's reason where a program has to decide, such as `SEQ_MISMATCH`."""
    details: Mapping[str, str]
    """What the service says beside the reason, such as `current_seq`."""
    retryable: bool = False
    """Whether the same call can be made again as it is: it is safe, and may succeed.

    A save, a truncation or a new conversation under a key that this client made is not: repeat
    it with `request_id=error.request_id`, or `conversation_id=error.conversation_id`, and it is
    done once."""
    retry_after: float | None = None
    """How many seconds to wait before that, where the service says so."""
    request_id: str | None = None
    """The key of a save or truncation: give it to the call that repeats this one."""
    conversation_id: str | None = None
    """The id of the conversation that was to be created: there may be one now, or not."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.details = {}


class InvalidArgument(ConversationMemoryError):
    """A field is missing or wrong; nothing was written."""

    violations: Mapping[str, str]
    """What is wrong, by the field's path."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.violations = {}


class NotFound(ConversationMemoryError):
    """There is no such conversation, or it is another user's: the two look the same."""


class SessionExpired(NotFound):
    """There is no such session, or it has expired: begin a turn without it."""


class AlreadyExists(ConversationMemoryError):
    """A request id, message id or conversation id is in use with other content."""


class SeqMismatch(ConversationMemoryError):
    """Somebody else saved since: the conversation does not end at `expected_last_seq`."""

    @property
    def current_seq(self) -> int:
        """Where the conversation ends."""
        return int(self.details.get("current_seq", 0))


class MinSeqNotReached(ConversationMemoryError):
    """No message with the number `min_seq` has been saved."""

    @property
    def last_seq(self) -> int:
        """Where the conversation ends."""
        return int(self.details.get("last_seq", 0))


class FailedPrecondition(ConversationMemoryError):
    """The state of things does not allow it."""


class Unavailable(ConversationMemoryError):
    """The service, or a store that it needs, cannot be reached; or the client was closed."""


class OutcomeUnknown(ConversationMemoryError):
    """The connection to the store was lost during the write: read before you repeat it."""


class DeadlineExceeded(ConversationMemoryError):
    """The call took longer than its timeout. A write may have been done."""


class ResourceExhausted(ConversationMemoryError):
    """Too much at once, or a message that is too large."""


class PermissionDenied(ConversationMemoryError):
    """The caller may not do this."""


class Unauthenticated(ConversationMemoryError):
    """The caller's token or certificate was not accepted."""


class Unimplemented(ConversationMemoryError):
    """The service does not know the method: it is older than this client."""


class Internal(ConversationMemoryError):
    """The service has a bug; its log has the cause."""


_BY_REASON: dict[str, type[ConversationMemoryError]] = {
    "SESSION_EXPIRED_OR_UNKNOWN": SessionExpired,
    "SEQ_MISMATCH": SeqMismatch,
    "MIN_SEQ_NOT_REACHED": MinSeqNotReached,
}

_BY_CODE: dict[grpc.StatusCode, type[ConversationMemoryError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    # Calls end so when their client is closed.
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    grpc.StatusCode.INTERNAL: Internal,
}

_PASSING = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}


class _Failed(Protocol):
    """What both of gRPC's error classes have."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> object: ...


@dataclass
class _Details:
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: dict[str, str] = field(default_factory=dict)
    retry_after: float | None = None


class Closed(grpc.RpcError):
    """A call's end when its client is closed, as the blocking form of gRPC has it."""

    def code(self) -> grpc.StatusCode:
        """The status."""
        return grpc.StatusCode.CANCELLED

    def details(self) -> str:
        """The status' message."""
        return "the client was closed"

    def trailing_metadata(self) -> tuple[()]:
        """Nothing was received."""
        return ()


def invalid(field: str, description: str) -> InvalidArgument:
    """What the service would answer to a field, without asking it."""
    made = InvalidArgument(f"INVALID_ARGUMENT: {field}: {description}")
    made.code = grpc.StatusCode.INVALID_ARGUMENT
    made.violations = {field: description}
    return made


def from_rpc_error(
    error: grpc.RpcError, *, repeatable: bool, request_id: str | None
) -> ConversationMemoryError:
    """Makes the exception of a failed call; `repeatable` says that it does nothing twice."""
    failed = cast("_Failed", error)
    code, details = failed.code(), _read_details(failed.trailing_metadata())
    kind = _BY_REASON.get(details.reason) or _BY_CODE.get(code, ConversationMemoryError)
    if code is grpc.StatusCode.UNKNOWN and details.reason == "COMMIT_OUTCOME_UNKNOWN":
        kind = OutcomeUnknown
    made = kind(f"{code.name}: {failed.details() or 'no message'}")
    made.code = code
    made.reason = details.reason
    made.details = details.metadata
    made.retry_after = details.retry_after
    # An overload that says when to come back was refused before anything was done.
    overloaded = code is grpc.StatusCode.RESOURCE_EXHAUSTED and details.retry_after is not None
    made.retryable = overloaded or (repeatable and code in _PASSING)
    made.request_id = request_id
    if isinstance(made, InvalidArgument):
        made.violations = details.violations
    return made


def _read_details(metadata: object) -> _Details:
    details = _Details()
    for key, value in cast("tuple[tuple[str, bytes], ...]", metadata or ()):
        if key == _DETAILS:
            try:
                _add_details(details, rpc.Status.FromString(value))
            except DecodeError:
                break
    return details


def _add_details(details: _Details, status: rpc.Status) -> None:
    for item in status.details:
        name = item.type_url.rpartition("/")[2]
        if name == "google.rpc.ErrorInfo":
            info = rpc.ErrorInfo.FromString(item.value)
            details.reason, details.metadata = info.reason, dict(info.metadata)
        elif name == "google.rpc.RetryInfo":
            delay = rpc.RetryInfo.FromString(item.value).retry_delay
            details.retry_after = delay.seconds + delay.nanos / 1e9
        elif name == "google.rpc.BadRequest":
            request = rpc.BadRequest.FromString(item.value)
            details.violations = {at.field: at.description for at in request.field_violations}
