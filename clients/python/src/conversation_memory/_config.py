"""Configuration of a client: target, credentials, timeouts and gRPC channel options."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import grpc

from ._arguments import validate_fields
from ._limits import DEFAULT_LIMITS, Limits
from ._plaintext import Secret, hidden, is_local, warn_of_plaintext_token
from ._retries import service_config
from ._tracing import trace_headers
from ._version import __version__

DEFAULT_TARGET = "127.0.0.1:50051"
"""Target of a client that is given none: the sidecar's default address."""

DEFAULT_TIMEOUT = 5.0
"""Default time limit in seconds for a call including its retries."""

LONG_TIMEOUT = 60.0
"""Lower bound in seconds on the default time limit of calls whose duration grows with the
conversation: deletion, truncation, export and import."""

_MIN_RETRY_BUFFER_BYTES = 16 << 20

_MAX_OPTION = (1 << 31) - 1
"""Largest number that an option of a gRPC channel can have."""

Option = tuple[str, int | str]
"""Name and value of a gRPC channel option."""


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS settings of the connection. Files are in PEM, given as a path or as bytes.

    Raises:
        ValueError: Only one of `cert` and `key` is given.
    """

    ca: str | os.PathLike[str] | bytes | None = None
    """Certificates of the trusted authorities; `None` uses gRPC's default authorities."""
    cert: str | os.PathLike[str] | bytes | None = None
    """Certificate chain of the client for mutual TLS; `None` sends no certificate."""
    key: str | os.PathLike[str] | bytes | None = field(default=None, repr=False)
    """Private key of `cert`; required with it."""
    server_name: str | None = None
    """Name that the server's certificate must contain; `None` uses the host of the target."""

    def __post_init__(self) -> None:
        # gRPC aborts the process if only one of them is given.
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together: give both or neither")

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files and returns them as gRPC credentials.

        Raises:
            OSError: A file cannot be read.
            ValueError: A file contains no PEM block of the expected kind.
        """
        return grpc.ssl_channel_credentials(
            _read_pem(self.ca, "ca", "CERTIFICATE"),
            _read_pem(self.key, "key", "PRIVATE KEY"),
            _read_pem(self.cert, "cert", "CERTIFICATE"),
        )


def _read_pem(source: str | os.PathLike[str] | bytes | None, name: str, kind: str) -> bytes | None:
    if source is None:
        return None
    pem = source if isinstance(source, bytes) else Path(source).read_bytes()
    # gRPC would fail to connect and report only that no address could be reached.
    if not re.search(rb"-----BEGIN [A-Z0-9 ]*%b-----" % kind.encode(), pem):
        raise ValueError(f"{name} has no {kind} block in PEM format")
    return pem


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """Arguments that a client was created with, after validation."""

    target: str
    token: str | Callable[[], str] | None = field(repr=False)
    tls: Tls | None
    timeout: float
    options: Sequence[Option]
    limits: Limits = DEFAULT_LIMITS
    allow_plaintext_token: bool = False

    def __post_init__(self) -> None:
        # The types of the token are validated below, so that no traceback shows it.
        validate_fields(self, ("target", "tls", "timeout", "limits", "allow_plaintext_token"))
        _validated_timeout(self.timeout)
        if self.token is not None and not callable(self.token):
            object.__setattr__(self, "token", _validated_token(self.token))

    def __reduce__(self) -> NoReturn:
        # A pickle would contain the token.
        raise TypeError("a client cannot be pickled: create another one where it is used")

    def warn_of_plaintext_token(self) -> None:
        """Warns if the token would be sent over a network without encryption."""
        if self.token is None or self.tls is not None or self.allow_plaintext_token:
            return
        if self._has_proxy() or not is_local(self.target):
            warn_of_plaintext_token(self.target)

    def _has_proxy(self) -> bool:
        options = dict(self.options)
        return bool(options.get("grpc.enable_http_proxy") or options.get("grpc.http_proxy"))

    def channel_options(self) -> list[Option]:
        """Returns the options of the gRPC channel; the caller's options take precedence."""
        defaults: dict[str, int | str] = dict(_DEFAULT_OPTIONS)
        # A request larger than this buffer is not retried; a turn may have several MiB.
        buffer_bytes = max(_MIN_RETRY_BUFFER_BYTES, self.limits.request_bytes + (4 << 20))
        defaults["grpc.per_rpc_retry_buffer_size"] = min(buffer_bytes, _MAX_OPTION)
        if self.tls is not None and self.tls.server_name is not None:
            defaults["grpc.ssl_target_name_override"] = self.tls.server_name
        elif self.target.startswith("unix:"):
            # gRPC would send the escaped path of the socket, which is not a valid authority for
            # servers that validate it, and each call would be rejected.
            defaults["grpc.default_authority"] = "localhost"
        return list((defaults | dict(self.options)).items())

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns the headers of a call: the trace context and the token."""
        headers = trace_headers()
        if self.token is not None:
            token = hidden(self.token() if callable(self.token) else self.token)
            headers["authorization"] = Secret(f"Bearer {_validated_token(token)}")
        return tuple(headers.items())

    def seconds(self, timeout: float | None, at_least: float = 0) -> float:
        """Returns the time limit of a call: `timeout`, or the client's and not below `at_least`.

        Raises:
            ValueError: The timeout is not finite.
        """
        return max(self.timeout, at_least) if timeout is None else _validated_timeout(timeout)


def _validated_token(token: str) -> Secret:
    if not isinstance(token, str):
        raise TypeError(f"a token must be a str, not {type(token).__name__}")
    # A token that was read from a file often ends in a line feed.
    token = Secret(token.strip())
    if not (token and token.isascii() and token.isprintable()):
        # The text leaves the token out; gRPC's own error would contain it.
        raise ValueError("a token must be printable ASCII, and not empty")
    return token


def _validated_timeout(timeout: float) -> float:
    # gRPC converts an infinite timeout to a deadline in the past.
    if not math.isfinite(timeout):
        raise ValueError("a timeout must be a finite number of seconds")
    return timeout


_DEFAULT_OPTIONS: dict[str, int | str] = {
    "grpc.primary_user_agent": f"conversation-memory-python/{__version__}",
    "grpc.enable_retries": 1,
    "grpc.service_config": service_config(),
    "grpc.service_config_disable_resolution": 1,
    # A restarted sidecar is ready soon, and an attempt to connect costs little.
    "grpc.initial_reconnect_backoff_ms": 100,
    # The minimum is not set, because it is also the time limit for establishing a connection.
    "grpc.max_reconnect_backoff_ms": 1000,
    # Keepalive detects during a call that the peer has vanished. A peer that was stopped for some
    # seconds has not, and closing the connection would fail every call on it.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 20_000,
    # The service bounds its responses. A page has about 3 MiB at most, but a single message may be
    # larger, as large as the limits of the service allow. gRPC's own limit is 4 MiB.
    "grpc.max_receive_message_length": -1,
    # The service rejects a request that is too large with an error that names the limit.
    "grpc.max_send_message_length": -1,
    # A sidecar is not reachable through the proxy that the environment names.
    "grpc.enable_http_proxy": 0,
}
