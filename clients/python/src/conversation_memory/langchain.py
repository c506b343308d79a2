"""Chat message histories of LangChain, stored in conversation-memory.

history = ConversationMemoryChatMessageHistory("thread-1", user_id="ana", memory=memory)
history.add_messages([HumanMessage("How do I request it?")])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import _openai
from ._adapters import NamedConversation, append_timeout, missing_framework
from ._async import adapters as async_adapters
from ._async.client import AsyncConversationMemory
from ._completion_async import run_to_completion
from ._config import LONG_TIMEOUT
from ._sync import adapters
from ._sync.client import ConversationMemory
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
    raise missing_framework("langchain", error) from error

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
    """A chat history whose messages are those of a conversation. They are read back equal.

    With a `ConversationMemory` all methods can be used; the asynchronous ones run the blocking
    client in a thread. With an `AsyncConversationMemory` only the asynchronous ones can be used.

    Any number of history objects, in any number of processes, can use the same names at the same
    time.
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
        """Names a history. The conversation is created when the first message is added.

        Args:
            session_id: Name of the history, an arbitrary text. The same name of another user, or
                in another app, is another history.
            user_id: Owner of the history, at most 255 characters.
            memory: Client to use. It is not closed with the history.
            app: Name of the application, which separates histories with equal names.
            dept_id: Department or tenant, stored with a new conversation.
            limit: Number of newest messages to read; `None` reads all.
        """
        self._memory = memory
        self._limit = limit
        self._conversation = NamedConversation.from_names(
            FORM, app, user_id, session_id, user_id=user_id, dept_id=dept_id
        )

    @property
    def conversation_id(self) -> str:
        """Id of the conversation, for the client's other methods.

        The conversation exists once a message has been added.
        """
        return self._conversation.id

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        """Newest messages, oldest first.

        Raises:
            TypeError: The history has an `AsyncConversationMemory`.
        """
        operation = self._blocking._operation(LONG_TIMEOUT)
        return _to_langchain(adapters.read_newest(operation, self._conversation, self._limit))

    async def aget_messages(self) -> list[BaseMessage]:
        """Reads the newest messages, oldest first."""
        if not isinstance(self._memory, AsyncConversationMemory):
            return await super().aget_messages()
        operation = self._memory._operation(LONG_TIMEOUT)
        return _to_langchain(
            await async_adapters.read_newest(operation, self._conversation, self._limit)
        )

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Appends messages. Up to 100 are saved completely or not at all, more in batches of 100.

        Args:
            messages: Messages to append.

        Raises:
            TypeError: The history has an `AsyncConversationMemory`.
        """
        converted = _from_langchain(messages)
        operation = self._blocking._operation(append_timeout(converted))
        adapters.append(operation, self._conversation, converted)

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Appends messages. A cancellation is raised after the save has ended.

        Args:
            messages: Messages to append.
        """
        subject = f"an append to conversation {self.conversation_id}"
        if not isinstance(self._memory, AsyncConversationMemory):
            return await run_to_completion(subject, super().aadd_messages, messages)
        converted = _from_langchain(messages)
        operation = self._memory._operation(append_timeout(converted))
        await run_to_completion(
            subject, async_adapters.append, operation, self._conversation, converted
        )
        return None

    def clear(self) -> None:
        """Removes all messages. The conversation stays, empty.

        Raises:
            TypeError: The history has an `AsyncConversationMemory`.
        """
        adapters.clear(self._blocking._operation(LONG_TIMEOUT), self._conversation)

    async def aclear(self) -> None:
        """Removes all messages. The conversation stays, empty."""
        subject = f"a removal from conversation {self.conversation_id}"
        if not isinstance(self._memory, AsyncConversationMemory):
            return await run_to_completion(subject, super().aclear)
        operation = self._memory._operation(LONG_TIMEOUT)
        await run_to_completion(subject, async_adapters.clear, operation, self._conversation)
        return None

    @property
    def _blocking(self) -> ConversationMemory:
        if isinstance(self._memory, AsyncConversationMemory):
            raise TypeError(
                "this history has an AsyncConversationMemory: use the asynchronous methods, or"
                " give it a ConversationMemory"
            )
        return self._memory


def _from_langchain(messages: Sequence[BaseMessage]) -> list[Message]:
    return [_from_langchain_message(message) for message in messages]


def _from_langchain_message(message: BaseMessage) -> Message:
    original = message_to_dict(message)
    content = _openai.text_of(message.content)
    if message.content == content and content:
        # A plain text is stored in the content of the message, and not a second time.
        original = {**original, "data": {**original["data"]}}
        del original["data"]["content"]
    # The type of a chunk, which can be added as well, ends in "MessageChunk".
    kind = message.type.removesuffix("MessageChunk").lower()
    # A message of the type "chat" has a role of its own.
    role = _ROLES.get(getattr(message, "role", kind), "assistant")
    return Message(role=role, content=content, original=Original.of(FORM, original))


def _to_langchain(messages: Sequence[Message]) -> list[BaseMessage]:
    return [_to_langchain_message(message) for message in messages]


def _to_langchain_message(message: Message) -> BaseMessage:
    if message.original is None or message.original.form != FORM:
        # Another client has saved the message.
        return convert_to_messages([message.to_openai()])[0]
    stored: dict[str, Any] = message.original.value
    stored["data"].setdefault("content", message.content)
    return messages_from_dict([stored])[0]
