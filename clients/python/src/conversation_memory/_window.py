"""Selection of the messages of a history."""

from __future__ import annotations

from dataclasses import dataclass

from ._errors import invalid_argument


@dataclass(frozen=True, slots=True)
class Window:
    """Bounds of a history."""

    limit: int = 0
    """Target number of messages; 0 uses the service's default."""
    max_tokens: int | None = None
    """Upper bound on the tokens; `None` and 0 set none."""
    start_on_user: bool = False
    """Whether messages before the first one of a user are omitted."""

    def validate(self) -> None:
        """Rejects bounds that the service would reject.

        Raises:
            InvalidArgument: A bound is negative.
        """
        if self.limit < 0:
            raise invalid_argument("limit", "must not be negative")
        if self.max_tokens is not None and self.max_tokens < 0:
            raise invalid_argument("max_tokens", "must not be negative")
