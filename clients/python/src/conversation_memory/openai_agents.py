"""Sessions of OpenAI's Agents SDK, kept in conversation-memory.

session = ConversationMemorySession("thread-1", user_id="ana", memory=memory)
await Runner.run(agent, "How do I request it?", session=session)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from . import _adapters as adapters
from . import _openai
from ._adapters import Place
from ._async_client import AsyncConversationMemory
from ._client import LONG_TIMEOUT
from ._finish import finish
from ._types import Message, Original

try:
    from agents.items import TResponseInputItem
    from agents.memory import SessionSettings
except ImportError as error:
    raise adapters.not_installed("openai-agents", error) from error

FORM = "openai-agents"


class ConversationMemorySession:
    """A `Session` of the Agents SDK: its items are the messages of a conversation.

    Each item is one message and comes back equal to what was added. Items with a role can be
    read by other clients as messages in the OpenAI form, and messages that other clients save
    to the conversation are items with a role.

    Many sessions may use the same names at once, in any number of processes.
    """

    session_settings: SessionSettings | None

    def __init__(
        self,
        session_id: str,
        *,
        user_id: str,
        memory: AsyncConversationMemory,
        app: str = "",
        dept_id: str | None = None,
        session_settings: SessionSettings | None = None,
    ) -> None:
        """Names a session; nothing is created before the first item is added.

        Args:
            session_id: Any text. The same one of another user, or in another app, is another
                session.
            user_id: Whose session it is, at most 255 characters.
            memory: The client. It is not closed with the session.
            app: Keeps the sessions of applications apart that name them alike.
            dept_id: Kept on a new conversation.
            session_settings: `limit` is how many of the latest items a run starts with,
                where it does not say; all without it.
        """
        self.session_id = session_id
        self.session_settings = session_settings or SessionSettings()
        self._memory = memory
        self._place = Place.of(FORM, app, user_id, session_id, user_id=user_id, dept_id=dept_id)

    @property
    def conversation_id(self) -> str:
        """The conversation, for the client's other methods. It exists from the first item on."""
        return self._place.id

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The latest `limit` items, oldest first; all of them without any limit."""
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        flow = adapters.newest(self._memory._seen, self._place, limit)
        messages = await self._memory._run(flow, LONG_TIMEOUT)
        return [_item(message) for message in messages]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Appends items. Up to 100 are saved whole or not at all, more by the hundred.

        A cancellation waits until the save is done, and is raised then.
        """
        messages = [_message(cast("Mapping[str, Any]", item)) for item in items]
        flow = adapters.append(self._memory._seen, self._place, messages)
        await finish(self._memory._run(flow, adapters.timeout_of(messages)))

    async def pop_item(self) -> TResponseInputItem | None:
        """Removes the latest item and gives it to this caller alone; None if there is none."""
        flow = adapters.pop(self._memory._seen, self._place)
        message = await finish(self._memory._run(flow, None))
        return None if message is None else _item(message)

    async def clear_session(self) -> None:
        """Removes all items. The conversation stays, empty."""
        flow = adapters.clear(self._memory._seen, self._place)
        await finish(self._memory._run(flow, LONG_TIMEOUT))


def _message(item: Mapping[str, Any]) -> Message:
    if item.get("role") in _openai.ROLES:
        return Message.from_openai(item)
    # The rest is what a tool answered, or what the agent did: a call, reasoning.
    answered = "output" in item and str(item.get("type")).endswith("_output")
    return Message(
        role="tool" if answered else "assistant",
        content=_openai.text_of(item["output"]) if answered else "",
        original=Original.of(FORM, item),
    )


def _item(message: Message) -> TResponseInputItem:
    if message.original is not None and message.original.form == FORM:
        return cast("TResponseInputItem", message.original.value)
    return cast("TResponseInputItem", message.to_openai())
