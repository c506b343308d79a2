"""Chat message histories of LangChain, stored in conversation-memory.

history = ConversationMemoryChatMessageHistory("thread-1", user_id="ana", memory=memory)
history.add_messages([HumanMessage("How do I request it?")])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

from ._adapters import NamedConversation, append_timeout, missing_framework
from ._arguments import validates_arguments
from ._async import adapters as async_adapters
from ._async.client import AsyncConversationMemory
from ._completion_async import run_to_completion
from ._config import LONG_TIMEOUT
from ._forms import common, stored
from ._forms import langchain as form
from ._forms.pairing import paired
from ._sync import adapters
from ._sync.client import ConversationMemory
from ._types import Message

try:
    from langchain_core.chat_history import BaseChatMessageHistory
    from langchain_core.messages import (
        AIMessage,
        BaseMessage,
        HumanMessage,
        RemoveMessage,
        SystemMessage,
        ToolMessage,
        message_to_dict,
        messages_from_dict,
    )
except ImportError as error:
    raise missing_framework("langchain", error) from error

FORM = form.FORM

_CLASSES: dict[str, type[BaseMessage]] = {
    "human": HumanMessage,
    "ai": AIMessage,
    "system": SystemMessage,
    "tool": ToolMessage,
}


@validates_arguments
class ConversationMemoryChatMessageHistory(BaseChatMessageHistory):
    """A chat history whose messages are those of a conversation. They are read back equal.

    A call that was never answered and a result without its call are left out, because the APIs of
    models reject them. A message of another client, and one of a type that this process does not
    know, is shown by its role, text and parts.

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
        conversation_id: str | None = None,
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
            conversation_id: Id of a conversation of the user to use, such as that of a turn or of
                another adapter; `None` derives the id from the names.
        """
        self._memory = memory
        self._limit = limit
        self._conversation = NamedConversation.of_session(
            FORM, app=app, user_id=user_id, name=session_id, dept_id=dept_id
        ).with_id(conversation_id)

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
            TypeError: The history has an `AsyncConversationMemory`, or LangChain cannot read back
                a message of this type.
            ValueError: A message cannot be stored without a change.
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
    return [from_langchain_message(message) for message in messages]


def from_langchain_message(message: BaseMessage) -> Message:
    """Returns a message of LangChain with its parts, from which it can be read back.

    Raises:
        TypeError: LangChain cannot read back a message of this type.
        ValueError: The message cannot be stored without a change.
    """
    if isinstance(message, RemoveMessage):
        # Models and `str(history)` reject it.
        raise TypeError("a RemoveMessage is no message of a history: use clear to remove messages")
    value = _to_dict(message)
    read = _from_dict(value)
    if read != message:
        value = message_to_dict(message)
        read = _from_dict(value)
    if type(read) is not type(message):
        raise TypeError(
            f"a message of the type {type(message).__name__} cannot be read back: use a type of"
            " langchain_core.messages"
        )
    stored.validate(FORM, value)
    role, parts = form.split(value)
    name = message.name if role != "tool" else None
    # A message that is shown has no id.
    show = _show_one if message.id is None else None
    return stored.message_of(FORM, value, role, parts, show=show, name=common.short(name))


def _to_dict(message: BaseMessage) -> dict[str, Any]:
    """Returns a message as a dict without the members that have their defaults."""
    return {"type": message.type, "data": message.model_dump(exclude_defaults=True)}


def _from_dict(value: dict[str, Any]) -> BaseMessage | None:
    """Returns the message of a dict; `None` if LangChain does not know its type."""
    try:
        return messages_from_dict([value])[0]
    except Exception:
        # Another client can have written it, and then LangChain raises errors of any type.
        return None


def _show_one(message: Message) -> dict[str, Any] | None:
    shown = [_construct(each) for each in form.show(message)]
    return _to_dict(shown[0]) if len(shown) == 1 else None


def _construct(shown: dict[str, Any]) -> BaseMessage:
    fields = dict(shown)
    class_ = _CLASSES[fields.pop("type")]
    try:
        return class_(**fields)
    except Exception:
        # One message that LangChain rejects must not make the others unreadable.
        kept = {key: fields[key] for key in ("tool_call_id",) if key in fields}
        return class_(content=form.as_text(shown), **kept)


def _to_langchain(messages: Sequence[Message]) -> list[BaseMessage]:
    found: list[BaseMessage] = []
    is_own = False
    for message in paired(messages):
        own = _own(message)
        if own is not None:
            found.append(own)
            is_own = True
            continue
        for shown in form.show(message):
            new = _construct(shown)
            last = found[-1] if found else None
            if isinstance(new, AIMessage) and _has_calls(last) and not is_own:
                # Another client has saved each of parallel calls in a message of its own.
                found[-1] = _merged(last, new)
            else:
                found.append(new)
            is_own = False
    return found


def _own(message: Message) -> BaseMessage | None:
    """Returns the message of LangChain that was saved; `None` if another client has saved it."""
    value = stored.value_of(message, FORM)
    own = _from_dict(value) if form.is_message(value) else None
    return None if isinstance(own, RemoveMessage) else own


def _has_calls(message: BaseMessage | None) -> TypeGuard[AIMessage]:
    return isinstance(message, AIMessage) and bool(message.tool_calls)


def _merged(one: AIMessage, other: AIMessage) -> AIMessage:
    contents = [each.content for each in (one, other) if each.content]
    content: Any = contents[0] if contents else ""
    if len(contents) == 2:
        content = [
            block
            for each in contents
            for block in ([{"type": "text", "text": each}] if isinstance(each, str) else each)
        ]
    return AIMessage(content, tool_calls=[*one.tool_calls, *other.tool_calls], name=one.name)
