"""Histories of Microsoft's Agent Framework, stored in conversation-memory.

history = ConversationMemoryHistoryProvider(user_id="ana", memory=memory)
agent = Agent(client, context_providers=[history])
await agent.run("How do I request it?", session=agent.create_session(session_id="thread-1"))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ._adapters import NamedConversation, append_timeout, missing_framework
from ._arguments import validates_arguments
from ._async import adapters
from ._async.client import AsyncConversationMemory
from ._completion_async import run_to_completion
from ._config import LONG_TIMEOUT
from ._forms import agent_framework as form
from ._forms import common, stored
from ._forms.pairing import paired
from ._forms.template import to_json
from ._types import Message

try:
    from agent_framework import HistoryProvider
    from agent_framework import Message as AgentMessage
except ImportError as error:
    raise missing_framework("agent-framework", error) from error

FORM = form.FORM


@validates_arguments
class ConversationMemoryHistoryProvider(HistoryProvider):
    """A history provider whose messages are those of a conversation. They are read back equal.

    The messages of a run are saved in one save, completely or not at all. Messages that the history
    ends with already are not saved again. A call that was never answered and a result without its
    call are left out, because the APIs of models reject them. A message of another client, and
    one of a type that this process does not know, is shown by its role, text and parts.

    Any number of providers, in any number of processes, can use the same sessions at the same time.
    """

    DEFAULT_SOURCE_ID = "conversation_memory"

    def __init__(
        self,
        *,
        memory: AsyncConversationMemory,
        user_id: str | None = None,
        app: str = "",
        dept_id: str | None = None,
        limit: int | None = None,
        source_id: str = DEFAULT_SOURCE_ID,
        load_messages: bool = True,
        store_inputs: bool = True,
        store_context_messages: bool = False,
        store_context_from: set[str] | None = None,
        store_outputs: bool = True,
    ) -> None:
        """Creates a provider. A conversation is created when its first message is saved.

        Args:
            memory: Client to use. The caller closes it.
            user_id: Owner of the sessions, at most 255 characters. `None` takes it from the state:
                `session.state["conversation_memory"] = {"user_id": "ana"}`, where the key is the
                `source_id`. Take it from your authentication and never from a model.
            app: Name of the application, which separates sessions with equal names.
            dept_id: Department or tenant, stored with a new conversation.
            limit: Number of newest messages to load; `None` loads all.
            source_id: Id of this provider in the agent.
            load_messages: Whether a run begins with the history.
            store_inputs: Whether the input of a run is saved.
            store_context_messages: Whether messages of other context providers are saved.
            store_context_from: Ids of the providers whose messages are saved; `None` is all.
            store_outputs: Whether the output of a run is saved.

        Raises:
            ValueError: The limit is negative.
        """
        if limit is not None and limit < 0:
            raise ValueError("limit must not be negative")
        super().__init__(
            source_id,
            load_messages=load_messages,
            store_inputs=store_inputs,
            store_context_messages=store_context_messages,
            store_context_from=store_context_from,
            store_outputs=store_outputs,
        )
        self._memory = memory
        self._user_id = user_id
        self._app = app
        self._dept_id = dept_id
        self._limit = limit

    def conversation_id(self, session_id: str, *, user_id: str | None = None) -> str:
        """Returns the id of a session's conversation, for the client's other methods.

        Args:
            session_id: Id of the session.
            user_id: User that the session belongs to; `None` is that of the provider.
        """
        return self._conversation(session_id, {"user_id": user_id} if user_id else None).id

    async def get_messages(
        self, session_id: str | None, *, state: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[AgentMessage]:
        """Reads the newest messages of a session, oldest first.

        Args:
            session_id: Id of the session.
            state: State of this provider in the session.
            kwargs: Further arguments, which are not used.

        Raises:
            ValueError: The id of the session or the user is missing.
        """
        messages = await adapters.read_newest(
            self._memory._operation(LONG_TIMEOUT),
            self._conversation(session_id, state),
            self._limit,
        )
        return _to_agent_framework(messages)

    async def save_messages(
        self,
        session_id: str | None,
        messages: Sequence[AgentMessage],
        *,
        state: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Appends messages. Up to 100 are saved completely or not at all, more in batches of 100.

        A cancellation is raised after the save has ended.

        Args:
            session_id: Id of the session.
            messages: Messages to append.
            state: State of this provider in the session.
            kwargs: Further arguments, which are not used.

        Raises:
            TypeError: A message cannot be read back, or has a value that JSON cannot represent.
            ValueError: The id of the session or the user is missing, or a message is too large.
        """
        conversation = self._conversation(session_id, state)
        converted = [_from_agent_framework(message) for message in messages]
        if converted:
            await run_to_completion(
                f"an append to conversation {conversation.id}",
                self._append,
                conversation,
                messages,
                converted,
            )

    async def _append(
        self,
        conversation: NamedConversation,
        given: Sequence[AgentMessage],
        converted: Sequence[Message],
    ) -> None:
        operation = self._memory._operation(append_timeout(converted))
        newest, _ = await adapters.read_backwards(
            operation, conversation, len(given) + 1, _after(len(given))
        )
        known = [_identity_of(message) for message in newest]
        count = _overlap(known, [_identity(message.to_dict()) for message in given])
        if count < len(converted):
            await adapters.append(operation, conversation, converted[count:])

    def _conversation(
        self, session_id: str | None, state: dict[str, Any] | None
    ) -> NamedConversation:
        if not session_id:
            raise ValueError("a session id is required: run the agent with a session")
        user_id = (state or {}).get("user_id") or self._user_id
        if not isinstance(user_id, str):
            raise ValueError(
                "a user is required: give user_id to the provider, or set"
                f" session.state[{self.source_id!r}] = {{'user_id': …}}"
            )
        return NamedConversation.of_session(
            FORM, app=self._app, user_id=user_id, name=session_id, dept_id=self._dept_id
        )


def _from_agent_framework(message: AgentMessage) -> Message:
    if type(message) is not AgentMessage:
        raise TypeError(f"a message of the type {type(message).__name__} cannot be read back")
    value = message.to_dict()
    stored.validate(FORM, value)
    role, parts = form.split(value)
    name = common.short(message.author_name)
    return stored.message_of(FORM, value, role, parts, show=_show_one, name=name)


def _show_one(message: Message) -> dict[str, Any] | None:
    shown = form.show(message)
    return None if shown is None else _construct(shown).to_dict()


def _from_dict(value: dict[str, Any]) -> AgentMessage | None:
    """Returns the message of a dict; `None` if Agent Framework rejects it."""
    try:
        return AgentMessage.from_dict(value)
    except Exception:
        # Another client can have written it, and then errors of any type are raised.
        return None


def _construct(shown: dict[str, Any]) -> AgentMessage:
    found = _from_dict(shown)
    return found or AgentMessage(shown["role"], [form.as_text(shown)])


def _to_agent_framework(messages: Sequence[Message]) -> list[AgentMessage]:
    found: list[AgentMessage] = []
    is_open = False
    for message in paired(messages):
        if (own := _own(message)) is not None:
            found.append(own)
            is_open = False
        elif (shown := form.show(message)) is not None:
            new = _construct(shown)
            has_calls = any(content.type == "function_call" for content in new.contents)
            if has_calls and is_open:
                # Another client has saved each of parallel calls in a message of its own.
                found[-1].contents.extend(new.contents)
            else:
                found.append(new)
            is_open = has_calls
    return found


def _own(message: Message) -> AgentMessage | None:
    """Returns the message that was saved; `None` if another client has saved it."""
    value = stored.value_of(message, FORM)
    return _from_dict(value) if form.is_message(value) else None


# Messages that are saved already.


def _after(count: int) -> Callable[[Message], bool]:
    """Returns a function that is true for the last of the messages that an overlap can have."""
    seen = 0

    def is_last(_: Message) -> bool:
        nonlocal seen
        seen += 1
        return seen > count

    return is_last


def _identity_of(message: Message) -> str | None:
    """Returns the identity of a stored message; `None` if no message of this process has it."""
    if (own := _own(message)) is None and (shown := form.show(message)) is not None:
        own = _construct(shown)
    return None if own is None else _identity(own.to_dict())


def _identity(value: dict[str, Any]) -> str:
    if (id_ := value.get("message_id")) is not None:
        return f"id {id_}"
    return to_json([value.get("role"), value.get("contents")])


def _overlap(known: Sequence[str | None], given: Sequence[str | None]) -> int:
    """Returns the number of given messages that the known ones contain already.

    An agent can replay its messages.
    """
    known, given = list(known), list(given)
    # A repeated question without an id is more likely a new one.
    is_question = bool(known) and (known[-1] or "").startswith('["user"')
    for start in range(len(given) - len(known) + 1 if known else 0):
        if given[start : start + len(known)] == known:
            if start == 0 and len(known) == 1 and is_question:
                break
            return start + len(known)
    for count in range(min(len(known), len(given)), 0, -1):
        if known[-count:] == given[:count] and not (count == 1 and is_question):
            return count
    return 0
