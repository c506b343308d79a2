"""Saves of questions, which end before the body of a turn continues."""

from __future__ import annotations

from collections.abc import Callable

from ._completion_sync import run_to_completion


class QuestionSave:
    """A save that blocks its caller."""

    def start(self, subject: str, write: Callable[[], None]) -> None:
        """Saves, and raises the error of the save."""
        run_to_completion(subject, write)

    def wait(self) -> None:
        """Returns immediately, because `start` has ended the save."""
