"""Limits of the service that the client validates or depends on."""

from __future__ import annotations

from dataclasses import dataclass, fields

MAX_MESSAGES_PER_SAVE = 100
"""Upper bound on the messages of one save."""

MAX_PAGE_SIZE = 1000
"""Upper bound on the messages of one history or page."""

MAX_VALUES_PER_SAVE = 300_000
"""Upper bound on the values in all metadata of one save."""

MAX_PARTS = 200
"""Upper bound on the parts of a message."""

MAX_CONTEXTS = 100
"""Upper bound on the contexts of a message."""

MAX_NAME_CHARS = 255
"""Upper bound on the characters of names, ids of calls, types and media types."""

MAX_DOC_ID_CHARS = 512
"""Upper bound on the characters of the id of a document."""

MAX_CONCURRENT_BLOBS = 4
"""Upper bound on the blobs that one operation reads at the same time."""

MAX_METADATA_DEPTH = 32
"""Upper bound on the nesting levels of metadata, the outermost object included."""

_REQUEST_OVERHEAD_BYTES = 8 << 10
"""Space in a request for its fields beside the messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of the service that operators can change, for a client of such a service.

    The client rejects early what exceeds them. They do not change what the service accepts.

    Raises:
        ValueError: A limit is not positive, or that of blobs is negative.
    """

    request_bytes: int = 12 << 20
    """Upper bound on a request (MAX_REQUEST_BYTES), and thereby on a turn, in bytes."""
    blob_bytes: int = 8 << 20
    """Upper bound on the data of a part (MAX_BLOB_BYTES), in bytes; 0 rejects data."""
    content_bytes: int = 1 << 20
    """Upper bound on the text of a message, and on that of its other parts (MAX_CONTENT_BYTES), in
    bytes."""
    metadata_bytes: int = 64 << 10
    """Upper bound on metadata as compact JSON (MAX_METADATA_BYTES), in bytes."""

    def __post_init__(self) -> None:
        for each in fields(self):
            least = 0 if each.name == "blob_bytes" else 1
            value = getattr(self, each.name)
            if type(value) is not int or value < least:
                raise ValueError(f"{each.name} must be an int of at least {least}")

    @property
    def turn_bytes(self) -> int:
        """Upper bound on the encoded messages of a turn, in bytes."""
        return max(self.request_bytes - _REQUEST_OVERHEAD_BYTES, 0)

    @property
    def text_bytes(self) -> int:
        """Upper bound on the text of a message and of its parts together, in bytes."""
        return self.content_bytes // 2 * 3


DEFAULT_LIMITS = Limits()
"""Limits of a service with the default configuration."""
