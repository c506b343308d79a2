"""Protection of tokens: a warning before one is sent in plain text, and texts that hide it."""

from __future__ import annotations

import ipaddress
import sys
import warnings
from typing import Any, NoReturn, TypeVar, cast
from urllib.parse import unquote

_PACKAGE = __name__.partition(".")[0]

_LISTS = ("ipv4:", "ipv6:")
"""Schemes of gRPC targets that contain several addresses, separated by commas."""


class PlaintextTokenWarning(UserWarning):
    """A client sends its token over an unencrypted network connection.

    Use `tls`, or a sidecar on loopback or a Unix socket. If a service mesh encrypts the connection,
    create the client with `allow_plaintext_token=True`.
    """


class Secret(str):
    """A text that neither representations nor pickles contain."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'<hidden>'"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a token cannot be copied or pickled: create the client where it is used")


T = TypeVar("T")


def hidden(token: T) -> T:
    """Returns a token whose representation does not contain it; another value as it is."""
    return cast("T", Secret(token)) if isinstance(token, str) else token


def warn_of_plaintext_token(target: str) -> None:
    """Warns of a client that sends a token to `target` without encryption.

    The warning points at the line outside of this package that creates the client.
    """
    warnings.warn(
        f"the token is sent in plain text to {_host_text(target)}: use tls, or set"
        " allow_plaintext_token=True if the network encrypts the connection",
        PlaintextTokenWarning,
        stacklevel=_stack_level(),
    )


def is_local(target: str) -> bool:
    """Whether a gRPC target cannot leave this machine: a Unix socket, or loopback only."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    for scheme in _LISTS:
        if target.startswith(scheme):
            addresses = target.removeprefix(scheme).lstrip("/").split(",")
            return all(map(_is_loopback, addresses))
    if target.startswith("dns:"):
        # `dns://authority/host` asks a certain name server.
        target = target.removeprefix("dns:")
        target = target[2:].partition("/")[2] if target.startswith("//") else target
    return _is_loopback(target.removeprefix("/"))


def _is_loopback(address: str) -> bool:
    host = _host(unquote(address)).lower().removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def _host(address: str) -> str:
    """Returns an address without its port."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    # An address of version 6 without brackets has no port.
    return address if address.count(":") > 1 else address.partition(":")[0]


def _host_text(target: str) -> str:
    # What a caller has written before an @ may be a password.
    return repr(target.rpartition("@")[2])


def _stack_level() -> int:
    """Returns the level of the first frame outside of this package, for the calling function."""
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_own(frame.f_globals.get("__name__")):
        level += 1
        frame = frame.f_back
    return level


def _is_own(module: Any) -> bool:
    return isinstance(module, str) and module.partition(".")[0] == _PACKAGE
