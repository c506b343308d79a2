"""How the service is reached: channel options, retries, credentials."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from ._method import Method
from ._proto.v1 import methods
from ._tracing import trace_headers
from ._version import __version__

DEFAULT_TARGET = "127.0.0.1:50051"

Option = tuple[str, int | str]

REPEATABLE = (
    methods.BEGIN_TURN,
    methods.GET_HISTORY,
    methods.SAVE_MESSAGES,
    methods.CREATE_CONVERSATION,
    methods.GET_CONVERSATION,
    methods.LIST_CONVERSATIONS,
    methods.UPDATE_CONVERSATION,
    methods.LIST_MESSAGES,
    methods.TRUNCATE_CONVERSATION,
    methods.EXPORT_CONVERSATION,
    methods.LIST_BRANCHES,
    methods.SEARCH_MESSAGES,
    methods.GET_SESSION,
    methods.EXTEND_SESSION,
    methods.LIST_SESSIONS,
)
"""Methods that do nothing twice as this client calls them: reads, and writes with a key.

The others are sent once. A second CreateSession or BranchConversation would make another
one; a second DeleteConversation or EndSession could not tell what the first one removed
from what never was. A second BeginTurn may leave a session that nobody uses, and expires."""

_REPEATABLE_PATHS = frozenset(method.path for method in REPEATABLE)


def is_repeatable(method: Method[Any, Any]) -> bool:
    """Whether a call of a method can be repeated as it is."""
    return method.path in _REPEATABLE_PATHS


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS to the service. Each is a PEM file's path, or its bytes."""

    ca: str | os.PathLike[str] | bytes | None = None
    """The certificates to trust; None for the system's."""
    cert: str | os.PathLike[str] | bytes | None = None
    """The client's own certificate chain, where the server asks for one."""
    key: str | os.PathLike[str] | bytes | None = field(default=None, repr=False)
    """The certificate's private key."""
    server_name: str | None = None
    """The name that the server's certificate must have, if not the target's."""

    def __post_init__(self) -> None:
        # gRPC ends the process where only one of them is there.
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together")

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files. What is no PEM of its kind is a ValueError."""
        return grpc.ssl_channel_credentials(
            _pem(self.ca, "ca", "CERTIFICATE"),
            _pem(self.key, "key", "PRIVATE KEY"),
            _pem(self.cert, "cert", "CERTIFICATE"),
        )


def _pem(source: str | os.PathLike[str] | bytes | None, name: str, kind: str) -> bytes | None:
    if source is None:
        return None
    pem = source if isinstance(source, bytes) else Path(source).read_bytes()
    # gRPC would connect to nothing, and say only that nothing is there.
    if not re.search(rb"-----BEGIN [A-Z0-9 ]*%b-----" % kind.encode(), pem):
        raise ValueError(f"{name} has no {kind} in PEM")
    return pem


@dataclass(frozen=True, slots=True)
class Settings:
    """How a client was configured."""

    target: str
    token: str | Callable[[], str] | None = field(repr=False)
    tls: Tls | None
    timeout: float
    options: Sequence[Option]

    def __post_init__(self) -> None:
        _finite(self.timeout)
        if isinstance(self.token, str):
            _sendable(self.token)

    def channel_options(self) -> list[Option]:
        """GRPC's options; those that the caller gave win."""
        ours: dict[str, int | str] = dict(_OPTIONS)
        if self.tls is not None and self.tls.server_name is not None:
            ours["grpc.ssl_target_name_override"] = self.tls.server_name
        elif self.target.startswith("unix:"):
            # gRPC would name the socket's path, escaped, which is no authority to a server that
            # checks it, and each call would be refused.
            ours["grpc.default_authority"] = "localhost"
        return list((ours | dict(self.options)).items())

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries."""
        headers = trace_headers()
        if self.token is not None:
            token = self.token() if callable(self.token) else self.token
            headers["authorization"] = f"Bearer {_sendable(token)}"
        return tuple(headers.items())

    def seconds(self, timeout: float | None, at_least: float = 0) -> float:
        """A call's timeout: what it says, or the client's, and then `at_least`."""
        return max(self.timeout, at_least) if timeout is None else _finite(timeout)


def _sendable(token: str) -> str:
    """A token as a header has it: a file's last line feed is none of it."""
    token = token.strip()
    if not (token and token.isascii() and token.isprintable()):
        # Without the token, which gRPC's own error would show.
        raise ValueError("a token must be printable ASCII, and not empty")
    return token


def _finite(timeout: float) -> float:
    # gRPC makes them a deadline that has passed.
    if not math.isfinite(timeout):
        raise ValueError("a timeout must be a finite number of seconds")
    return timeout


def _service_config() -> str:
    retried = [method.path.removeprefix("/").split("/") for method in REPEATABLE]
    return json.dumps(
        {
            "methodConfig": [
                {
                    "name": [{"service": service, "method": name} for service, name in retried],
                    # Up to about two seconds, in which a sidecar has restarted.
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


_OPTIONS: dict[str, int | str] = {
    "grpc.primary_user_agent": f"conversation-memory-python/{__version__}",
    "grpc.enable_retries": 1,
    "grpc.service_config": _service_config(),
    "grpc.service_config_disable_resolution": 1,
    # A request beyond this is sent once only; a turn may be several MiB.
    "grpc.per_rpc_retry_buffer_size": 16 << 20,
    # A sidecar that restarts is back soon, and connecting to it costs nothing.
    "grpc.initial_reconnect_backoff_ms": 100,
    # Not the minimum, which is also the time that a connection has to be made in.
    "grpc.max_reconnect_backoff_ms": 1000,
    # A peer that vanished is noticed during a call.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    # Pages end at about 3 MiB, and one message may be larger.
    "grpc.max_receive_message_length": 64 << 20,
    # A sidecar is not reached through the proxy that the environment names.
    "grpc.enable_http_proxy": 0,
}
