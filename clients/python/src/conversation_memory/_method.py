"""Description of a gRPC method of the service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Request = TypeVar("Request")
Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Response]):
    """Path of a method on the wire, with the functions that encode and decode its messages."""

    path: str
    serialize: Callable[[Request], bytes]
    deserialize: Callable[[bytes], Response]
