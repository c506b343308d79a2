"""Exceptions of failed calls. None of them contains the content of a message."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

import grpc
from google.protobuf.message import DecodeError

from ._proto import error_details_pb2 as rpc

_DETAILS_KEY = "grpc-status-details-bin"


class ConversationMemoryError(Exception):
    """A call failed. The subclasses distinguish the causes that a program handles differently."""

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    """Status code of the service or of the transport."""
    reason: str = ""
    """Machine-readable reason of the service, such as `SEQ_MISMATCH`; empty if it gave none."""
    details: Mapping[str, str]
    """Values that belong to the reason, such as `current_seq`."""
    retryable: bool = False
    """Whether repeating the same call with the same arguments is safe and may succeed.

    It is false for a save, a truncation or a new conversation whose key this client generated:
    repeat it with `request_id=error.request_id` or `conversation_id=error.conversation_id`, so
    that it takes effect once."""
    retry_after: float | None = None
    """Seconds to wait before repeating the call; `None` if the service gave no delay."""
    request_id: str | None = None
    """Idempotency key of the failed save or truncation; `None` for other calls."""
    conversation_id: str | None = None
    """Id of the conversation whose creation failed, which may exist; `None` for other calls."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.details = {}


class InvalidArgument(ConversationMemoryError):
    """A field is missing, invalid or too large; `violations` says which. Nothing was written.

    The same call fails again: correct the field.
    """

    violations: Mapping[str, str]
    """Description of each invalid field, by the path of the field."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.violations = {}


class NotFound(ConversationMemoryError):
    """The object does not exist or belongs to another user; the two are indistinguishable."""


class SessionExpired(NotFound):
    """The session has expired or is unknown: begin the turn without it."""


class AlreadyExists(ConversationMemoryError):
    """A request, message or conversation id is in use with different content: use a new one."""


class SeqMismatch(ConversationMemoryError):
    """The conversation does not end with `expected_last_seq`: another caller has saved since.

    Read the conversation, then repeat the call with `current_seq`.
    """

    @property
    def current_seq(self) -> int:
        """Number of the message that the conversation ends with."""
        return int(self.details.get("current_seq", 0))


class MinSeqNotReached(ConversationMemoryError):
    """No message with the number `min_seq` has been saved."""

    @property
    def last_seq(self) -> int:
        """Number of the message that the conversation ends with."""
        return int(self.details.get("last_seq", 0))


class FailedPrecondition(ConversationMemoryError):
    """The state of the service or of the object does not allow the call.

    `reason` says why, such as `BRANCH_TOO_DEEP`. The same call fails again.
    """


class Unavailable(ConversationMemoryError):
    """The service, or a store that it needs, is unreachable; or the client was closed.

    Repeat the call after `retry_after` if it is `retryable`.
    """


class OutcomeUnknown(ConversationMemoryError):
    """The connection to the store was lost during the write: read before you repeat the call."""


class DeadlineExceeded(ConversationMemoryError):
    """The call exceeded its timeout. A write may have been committed.

    Repeat it with a longer `timeout`, and a write with the error's `request_id`.
    """


class ResourceExhausted(ConversationMemoryError):
    """A limit was exceeded, which the message names with its setting.

    With `retry_after`, too much happens at once: repeat the call then. Without it, the same call
    fails again: split a request that is too large, or restrict a search
    (`SEARCH_TOO_EXPENSIVE`); `STORE_FULL` means that the disk of the store is full.
    """


class PermissionDenied(ConversationMemoryError):
    """The caller is not allowed to make the call.

    The process is not on the list of allowed ones, or the message names the host or the web page
    that the service refuses, and the setting that allows it.
    """


class Unauthenticated(ConversationMemoryError):
    """The service did not accept the caller's token or certificate: give the client a valid one."""


class Unimplemented(ConversationMemoryError):
    """The service does not implement the method, because it is older than this client."""


class Internal(ConversationMemoryError):
    """The service failed because of a bug. Its log contains the cause."""


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
    # Calls end with CANCELLED when their client is closed.
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    grpc.StatusCode.INTERNAL: Internal,
}

_TRANSIENT_CODES = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}


_CONNECTION_CODES = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


class _RpcError(Protocol):
    """Methods that the errors of gRPC's blocking and asyncio APIs have in common."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> object: ...


@dataclass
class _Details:
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: dict[str, str] = field(default_factory=dict)
    retry_after: float | None = None


class _LocalError(grpc.RpcError):
    """Error of a call that this client ended, with the methods of gRPC's errors."""

    _code: grpc.StatusCode
    _details: str

    def code(self) -> grpc.StatusCode:
        """Returns the status code."""
        return self._code

    def details(self) -> str:
        """Returns the message of the status."""
        return self._details

    def trailing_metadata(self) -> tuple[()]:
        """Returns no metadata, because none was received."""
        return ()


class ClientClosed(_LocalError):
    """Error of a call that ended because its client was closed.

    gRPC's blocking API raises an equivalent error; its asyncio API only cancels the call.
    """

    _code = grpc.StatusCode.CANCELLED
    _details = "the client was closed"


class NoTimeLeft(_LocalError):
    """Error of a call that was not sent because its deadline has passed."""

    _code = grpc.StatusCode.DEADLINE_EXCEEDED
    _details = "no time is left for the call, which was not sent"


def time_left(seconds: float) -> float:
    """Returns the time limit of a call that is sent now.

    gRPC sends a call whose time limit is 0, and a fast service can respond to it.

    Raises:
        NoTimeLeft: It is not positive.
    """
    if seconds <= 0:
        raise NoTimeLeft
    return seconds


def describe_for_log(failure: BaseException) -> str:
    """Returns the text of an error for a log line.

    Other packages' error texts may quote a message. They are replaced by the name of the type.
    """
    return str(failure) if isinstance(failure, ConversationMemoryError) else type(failure).__name__


def invalid_argument(field: str, description: str) -> InvalidArgument:
    """Returns the error that the service would return for a field, without calling it."""
    error = InvalidArgument(f"INVALID_ARGUMENT: {field}: {description}")
    error.code = grpc.StatusCode.INVALID_ARGUMENT
    error.violations = {field: description}
    return error


@dataclass(frozen=True, slots=True)
class Attempt:
    """Address and start of a call, for the text of its error."""

    target: str
    """Address of the service."""
    started: float = field(default_factory=time.monotonic)
    """Time of the start, of the monotonic clock."""

    def __str__(self) -> str:
        return f"{self.target}, after {time.monotonic() - self.started:.1f} s"


def from_rpc_error(
    rpc_error: grpc.RpcError, attempt: Attempt, *, idempotent: bool, request_id: str | None
) -> ConversationMemoryError:
    """Converts the error of a failed call.

    Args:
        rpc_error: Error of gRPC.
        attempt: The call. An error of the connection names its address and the time spent.
        idempotent: Whether repeating the call has no second effect.
        request_id: Idempotency key of the call; `None` if it has none.
    """
    status = cast("_RpcError", rpc_error)
    code, details = status.code(), _read_details(status.trailing_metadata())
    kind = _BY_REASON.get(details.reason) or _BY_CODE.get(code, ConversationMemoryError)
    if code is grpc.StatusCode.UNKNOWN and details.reason == "COMMIT_OUTCOME_UNKNOWN":
        kind = OutcomeUnknown
    text = f"{code.name}: {status.details() or 'no message'}"
    error = kind(f"{text} ({attempt})" if code in _CONNECTION_CODES else text)
    error.code = code
    error.reason = details.reason
    error.details = details.metadata
    error.retry_after = details.retry_after
    # An overloaded service that gives a delay has rejected the call before doing anything.
    overloaded = code is grpc.StatusCode.RESOURCE_EXHAUSTED and details.retry_after is not None
    error.retryable = overloaded or (idempotent and code in _TRANSIENT_CODES)
    error.request_id = request_id
    if isinstance(error, InvalidArgument):
        error.violations = details.violations
    return error


def _read_details(metadata: object) -> _Details:
    details = _Details()
    for key, value in cast("tuple[tuple[str, bytes], ...]", metadata or ()):
        if key == _DETAILS_KEY:
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
