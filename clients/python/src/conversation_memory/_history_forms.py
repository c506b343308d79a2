"""Conversion of a history to the input of model APIs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._forms import anthropic, chat, responses

if TYPE_CHECKING:
    from ._types import Message


class HistoryForms:
    """Methods of the values that contain a history."""

    __slots__ = ()

    messages: tuple[Message, ...]

    def to_openai(self) -> list[dict[str, Any]]:
        """Returns the messages as input of OpenAI's Chat Completions."""
        return chat.show_history(self.messages)

    def to_responses(self) -> list[dict[str, Any]]:
        """Returns the messages as input of OpenAI's Responses API."""
        return responses.show_history(self.messages)

    def to_anthropic(self) -> dict[str, Any]:
        """Returns the arguments `messages` and `system` of Anthropic's `messages.create`.

        `system` is missing if there are no instructions.
        """
        return anthropic.show_history(self.messages)
