"""What is needed to call a method of the service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Request = TypeVar("Request")
Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Response]):
    """A method's path on the wire, and how its messages are written and read."""

    path: str
    serialize: Callable[[Request], bytes]
    deserialize: Callable[[bytes], Response]
