"""Limits of the service that the client validates or depends on."""

MAX_MESSAGES_PER_SAVE = 100
"""Upper bound on the messages of one save."""

MAX_PAGE_SIZE = 1000
"""Upper bound on the messages of one history or page."""

MAX_TURN_BYTES = (12 << 20) - (8 << 10)
"""Upper bound on the encoded messages of a turn: the service's default limit for a request,
less the space for the other fields of the request."""

MAX_BLOB_BYTES = 8 << 20
"""Upper bound on the data of a part, with the service's default configuration."""

MAX_CONTENT_BYTES = 1 << 20
"""Upper bound on the text of a message, and on that of its other parts, with the service's default
configuration."""

MAX_TEXT_BYTES = MAX_CONTENT_BYTES // 2 * 3
"""Upper bound on the text of a message and of its parts together."""

MAX_METADATA_BYTES = 64 << 10
"""Upper bound on metadata as compact JSON, with the service's default configuration."""

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
