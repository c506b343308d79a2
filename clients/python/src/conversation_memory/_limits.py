"""Limits of the service that the client validates or depends on."""

MAX_MESSAGES_PER_SAVE = 100
"""Upper bound on the messages of one save."""

MAX_PAGE_SIZE = 1000
"""Upper bound on the messages of one history or page."""

MAX_TURN_BYTES = (4 << 20) - (8 << 10)
"""Upper bound on the encoded messages of a turn: the service's default limit for a request,
less the space for the other fields of the request."""

MAX_METADATA_BYTES = 64 << 10
"""Upper bound on metadata as JSON, with the service's default configuration."""

MAX_METADATA_DEPTH = 32
"""Upper bound on the nesting levels of metadata, the outermost object included."""
