"""Chat message histories of LangChain, kept in conversation-memory.

history = ConversationMemoryChatMessageHistory("thread-1", user_id="ana", memory=memory)
history.add_messages([HumanMessage("How do I request it?")])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import _adapters as adapters
from . import _openai
from ._adapters import Place
from ._async_client import AsyncConversationMemory
from ._client import LONG_TIMEOUT, ConversationMemory
from ._finish import finish
from ._flows import Flow
from ._types import Message, Original, Role

try:
    from langchain_core.chat_history import BaseChatMessageHistory
    from langchain_core.messages import (
        BaseMessage,
        convert_to_messages,
        message_to_dict,
        messages_from_dict,
    )
except ImportError as error:
    raise adapters.not_installed("langchain", error) from error

FORM = "langchain"

_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "function": "tool",
    "tool": "tool",
}


class ConversationMemoryChatMessageHistory(BaseChatMessageHistory):
    """A chat history: its messages are those of a conversation, and come back equal.

    With a `ConversationMemory` all methods can be used; those for asyncio run it in a thread.
    With an `AsyncConversationMemory` those for asyncio alone can be.

    Many histories may use the same names at once, in any number of processes.
    """

    def __init__(
        self,
        session_id: str,
        *,
        user_id: str,
        memory: ConversationMemory | AsyncConversationMemory,
        app: str = "",
        dept_id: str | None = None,
        limit: int | None = None,
    ) -> None:
        """Names a history; nothing is created before the first message is added.

        Args:
            session_id: Any text. The same one of another user, or in another app, is another
                history.
            user_id: Whose history it is, at most 255 characters.
            memory: The client. It is not closed with the history.
            app: Keeps the histories of applications apart that name them alike.
            dept_id: Kept on a new conversation.
            limit: How many of the newest messages are read; all without it.
        """
        self._memory = memory
        self._limit = limit
        self._place = Place.of(FORM, app, user_id, session_id, user_id=user_id, dept_id=dept_id)

    @property
    def conversation_id(self) -> str:
        """The conversation, for the client's other methods; from the first message on."""
        return self._place.id

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        """The newest messages, oldest first."""
        return _read(self._blocking._run(self._newest(), LONG_TIMEOUT))

    async def aget_messages(self) -> list[BaseMessage]:
        """The newest messages, oldest first."""
        if not isinstance(self._memory, AsyncConversationMemory):
            return await super().aget_messages()
        return _read(await self._memory._run(self._newest(), LONG_TIMEOUT))

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Appends messages. Up to 100 are saved whole or not at all, more by the hundred."""
        written = _write(messages)
        flow = adapters.append(self._blocking._seen, self._place, written)
        self._blocking._run(flow, adapters.timeout_of(written))

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Appends messages. A cancellation waits until the save is done, and is raised then."""
        if not isinstance(self._memory, AsyncConversationMemory):
            return await finish(super().aadd_messages(messages))
        written = _write(messages)
        flow = adapters.append(self._memory._seen, self._place, written)
        await finish(self._memory._run(flow, adapters.timeout_of(written)))
        return None

    def clear(self) -> None:
        """Removes all messages. The conversation stays, empty."""
        flow = adapters.clear(self._blocking._seen, self._place)
        self._blocking._run(flow, LONG_TIMEOUT)

    async def aclear(self) -> None:
        """Removes all messages. The conversation stays, empty."""
        if not isinstance(self._memory, AsyncConversationMemory):
            return await finish(super().aclear())
        flow = adapters.clear(self._memory._seen, self._place)
        await finish(self._memory._run(flow, LONG_TIMEOUT))
        return None

    @property
    def _blocking(self) -> ConversationMemory:
        if isinstance(self._memory, AsyncConversationMemory):
            raise TypeError(
                "this history has an AsyncConversationMemory: await its methods for asyncio, or"
                " give it a ConversationMemory"
            )
        return self._memory

    def _newest(self) -> Flow[list[Message]]:
        return adapters.newest(self._memory._seen, self._place, self._limit)


def _write(messages: Sequence[BaseMessage]) -> list[Message]:
    return [_message(message) for message in messages]


def _message(message: BaseMessage) -> Message:
    original = message_to_dict(message)
    content = _openai.text_of(message.content)
    if message.content == content and content:
        # A plain text is a message's own.
        original = {**original, "data": {**original["data"]}}
        del original["data"]["content"]
    # The names of chunks, which may be added as well, end in "MessageChunk".
    kind = message.type.removesuffix("MessageChunk").lower()
    # A message of the type "chat" names its role itself.
    role = _ROLES.get(getattr(message, "role", kind), "assistant")
    return Message(role=role, content=content, original=Original.of(FORM, original))


def _read(messages: Sequence[Message]) -> list[BaseMessage]:
    return [_original(message) for message in messages]


def _original(message: Message) -> BaseMessage:
    if message.original is None or message.original.form != FORM:
        # Another client's.
        return convert_to_messages([message.to_openai()])[0]
    kept: dict[str, Any] = message.original.value
    kept["data"].setdefault("content", message.content)
    return messages_from_dict([kept])[0]
