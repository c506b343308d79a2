"""Values of checkpoints: their serialization, the pieces they are sent in, and known lists."""

from __future__ import annotations

import hashlib
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from ._proto.v1 import checkpoint_service_pb2 as api

MAX_PIECE_BYTES = 1 << 20
"""Upper bound on the bytes of a piece."""

MAX_VALUE_BYTES = 64 << 20
"""Upper bound on the bytes of a value."""

MAX_LIST_ITEMS = 10_000
"""Upper bound on the items of a list that is stored as its items; a longer one is one value."""

MAX_SMALL_CHARS = 64
"""Upper bound on the characters of a text that is stored in its checkpoint."""

MAX_INLINE_BYTES = 128
"""Upper bound on the bytes of data that is stored where it is used."""

KNOWN_BYTES = 16 << 20
"""Upper bound on the digests that `KnownLists` keeps, in bytes."""

DIGEST_BYTES = 16

_MSGPACK = "msgpack"


@dataclass(frozen=True, slots=True)
class SerializedList:
    """A list as its items."""

    items: Sequence[tuple[str, bytes]]
    """Serialization of each item."""
    digests: bytes
    """Digests of the items as they are without encryption, one after the other."""


class ValueCodec:
    """Serializes values with the serializer of a saver."""

    def __init__(self, serde: SerializerProtocol) -> None:
        self._serde = serde
        self._cipher = None
        inner: Any = serde
        if type(serde) is EncryptedSerializer:
            self._cipher, inner = serde.cipher, serde.serde
        # Another serializer may represent a list differently from its items.
        self._plain = inner if type(inner) is JsonPlusSerializer else None

    def dump(self, value: Any) -> tuple[str, bytes]:
        """Serializes a value as a whole."""
        kind, data = self._serde.dumps_typed(value)
        # LangGraph's serializer returns a bytearray as it is.
        return kind, bytes(data)

    def dump_list(self, value: Any) -> SerializedList | None:
        """Serializes the items of a list; `None` if the value is stored as a whole."""
        if type(value) is not list or self._plain is None or not 0 < len(value) <= MAX_LIST_ITEMS:
            return None
        plain = [self._plain.dumps_typed(item) for item in value]
        if any(kind != _MSGPACK for kind, _ in plain):
            return None
        digests = b"".join(map(_digest, (data for _, data in plain)))
        if self._cipher is not None:
            plain = [self._encrypted(data) for _, data in plain]
        return SerializedList(plain, digests)

    def _encrypted(self, data: bytes) -> tuple[str, bytes]:
        assert self._cipher is not None  # noqa: S101
        name, encrypted = self._cipher.encrypt(data)
        return f"{_MSGPACK}+{name}", encrypted

    def load(self, kind: str, data: bytes) -> Any:
        """Restores a value."""
        return self._serde.loads_typed((kind, data))

    def load_list(self, items: Sequence[tuple[str, bytes]]) -> tuple[list[Any], bytes]:
        """Restores a list, and returns the digests of its items; none if they are not known."""
        plain = self._plain
        if plain is None:
            return [self.load(kind, data) for kind, data in items], b""
        decrypted = [self._decrypted(kind, data) for kind, data in items]
        digests = b"".join(map(_digest, (data for _, data in decrypted)))
        if any(kind != _MSGPACK for kind, _ in decrypted):
            return [plain.loads_typed(item) for item in decrypted], b""
        # A list in MessagePack is its length, followed by its items.
        data = b"".join([_array_header(len(items)), *(data for _, data in decrypted)])
        return plain.loads_typed((_MSGPACK, data)), digests

    def _decrypted(self, kind: str, data: bytes) -> tuple[str, bytes]:
        if "+" not in kind or self._cipher is None:
            return kind, data
        kind, name = kind.split("+", 1)
        return kind, self._cipher.decrypt(name, data)


def item_digests(items: Sequence[Any]) -> bytes:
    """Returns digests of the items of a list that is stored as a whole."""
    plain = JsonPlusSerializer(pickle_fallback=True)
    return b"".join(_digest(_dumped(plain, item)) for item in items)


def _dumped(serde: SerializerProtocol, item: Any) -> bytes:
    try:
        return serde.dumps_typed(item)[1]
    except Exception:
        # A serializer that the caller provides can do more. The digest only tells items apart.
        return repr(item).encode("utf-8", "surrogatepass")


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def _array_header(length: int) -> bytes:
    if length < 16:
        return bytes([0x90 | length])
    if length < 1 << 16:
        return b"\xdc" + struct.pack(">H", length)
    return b"\xdd" + struct.pack(">I", length)


def is_small(value: Any) -> bool:
    """Whether a value is stored in each checkpoint, rather than once for its version."""
    if value is None or type(value) in (bool, int, float):
        return True
    return type(value) is str and len(value) <= MAX_SMALL_CHARS


@dataclass(frozen=True, slots=True)
class KnownList:
    """A list that this process has read or written."""

    version: str
    """Its version; empty if it was stored as a whole."""
    digests: bytes
    """Digests of its items."""
    saved: int
    """Number of first items whose messages the conversation has."""


class KnownLists:
    """Digests of the items of lists that this process has read or written, by version.

    A list that continues a known one is sent without the items that both have. What is forgotten
    is sent again. Threads can share an instance.
    """

    def __init__(self, max_bytes: int = KNOWN_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._lists: OrderedDict[tuple[str, str, str], KnownList] = OrderedDict()

    def get(self, conversation: str, namespace: str, channel: str) -> KnownList:
        """Returns the list of a channel that was used last; an empty one if none is known."""
        key = (conversation, namespace, channel)
        with self._lock:
            found = self._lists.get(key)
            if found is None:
                return KnownList("", b"", 0)
            self._lists.move_to_end(key)
            return found

    def put(self, conversation: str, namespace: str, channel: str, known: KnownList) -> None:
        """Remembers the list that a channel has."""
        key = (conversation, namespace, channel)
        with self._lock:
            self._remove(key)
            self._lists[key] = known
            self._bytes += _size(key, known.digests)
            while self._bytes > self._max_bytes:
                self._remove(next(iter(self._lists)))

    def forget(self, conversation: str, namespace: str, channel: str) -> None:
        """Forgets a channel, whose versions the service does not have any more."""
        with self._lock:
            self._remove((conversation, namespace, channel))

    def _remove(self, key: tuple[str, str, str]) -> None:
        found = self._lists.pop(key, None)
        if found is not None:
            self._bytes -= _size(key, found.digests)


def _size(key: tuple[str, str, str], digests: bytes) -> int:
    return len(digests) + sum(map(len, key)) + 256


def common_items(one: bytes, other: bytes) -> int:
    """Returns the number of first items that two lists have in common, by their digests."""
    low, high = 0, min(len(one), len(other)) // DIGEST_BYTES
    if one[: high * DIGEST_BYTES] == other[: high * DIGEST_BYTES]:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        end = middle * DIGEST_BYTES
        if one[:end] == other[:end]:
            low = middle
        else:
            high = middle - 1
    return low


def write_data(written: api.CheckpointData, kind: str, data: bytes) -> None:
    """Encodes a serialized value into an empty message.

    Raises:
        ValueError: The value is too large.
    """
    if len(data) > MAX_VALUE_BYTES:
        raise ValueError(
            f"a value of a checkpoint has at most {MAX_VALUE_BYTES} bytes; this one has {len(data)}"
        )
    written.type = kind
    for start in range(0, len(data) or 1, MAX_PIECE_BYTES):
        written.pieces.add(data=data[start : start + MAX_PIECE_BYTES])


def read_data(data: api.CheckpointData) -> tuple[str, bytes]:
    """Decodes a serialized value, whose pieces are complete."""
    if len(data.pieces) == 1:
        return data.type, data.pieces[0].data
    return data.type, b"".join(piece.data for piece in data.pieces)


def pieces_of(values: Iterable[Any]) -> Iterator[api.CheckpointPiece]:
    """Yields the pieces of encoded values or writes."""
    for value in values:
        for data in value.list.items if value.HasField("list") else (value.single,):
            yield from data.pieces


def take_contents(pieces: Iterable[api.CheckpointPiece]) -> list[bytes]:
    """Replaces the large data of pieces by its digest, and returns it, each once."""
    contents: dict[bytes, bytes] = {}
    for piece in pieces:
        if len(piece.data) > MAX_INLINE_BYTES:
            digest = hashlib.sha256(piece.data).digest()[:DIGEST_BYTES]
            contents[digest] = piece.data
            piece.digest = digest
    return list(contents.values())


def batches(contents: Iterable[bytes], max_bytes: int) -> Iterator[list[bytes]]:
    """Divides data into lists of at most `max_bytes` each, or of one element."""
    batch: list[bytes] = []
    size = 0
    for data in contents:
        if batch and size + len(data) > max_bytes:
            yield batch
            batch, size = [], 0
        batch.append(data)
        size += len(data)
    if batch:
        yield batch
