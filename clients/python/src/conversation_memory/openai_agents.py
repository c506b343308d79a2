"""Sessions of OpenAI's Agents SDK, stored in conversation-memory.

session = ConversationMemorySession("thread-1", user_id="ana", memory=memory)
await Runner.run(agent, "How do I request it?", session=session)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from . import _openai_replacement as replacement
from ._adapters import NamedConversation, append_timeout, missing_framework
from ._arguments import validates_arguments
from ._async import adapters
from ._async.client import AsyncConversationMemory
from ._completion_async import run_to_completion
from ._config import LONG_TIMEOUT
from ._forms import responses
from ._forms.plain import to_plain
from ._types import Message

try:
    from agents import RunContextWrapper
    from agents.items import TResponseInputItem
    from agents.memory import SessionSettings
    from agents.memory.session_settings import coerce_session_settings, resolve_session_limit

    from ._openai_compaction import ConversationMemoryCompactionSession
except ImportError as error:
    raise missing_framework("openai-agents", error) from error

__all__ = ["ConversationMemoryCompactionSession", "ConversationMemorySession"]

FORM = responses.FORM


@validates_arguments
class ConversationMemorySession:
    """A `Session` of the Agents SDK whose items are the messages of a conversation.

    Each item is one message and is read back equal to what was added; other clients read it in
    their own form. Messages that other clients save to the conversation are items too. A call that
    was never answered and a result without its call are left out, because the model's API rejects
    them.

    Any number of session objects, in any number of processes, can use the same names at the same
    time.
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
        session_settings: SessionSettings | dict[str, Any] | None = None,
        conversation_id: str | None = None,
    ) -> None:
        """Names a session. The conversation is created when the first item is added.

        Args:
            session_id: Name of the session, an arbitrary text. The same name of another user, or
                in another app, is another session.
            user_id: Owner of the session, at most 255 characters.
            memory: Client to use. It is not closed with the session.
            app: Name of the application, which separates sessions with equal names.
            dept_id: Department or tenant, stored with a new conversation.
            session_settings: `limit` is the number of latest items that a run starts with if it
                sets no limit; all without it. A dict has the fields as keys.
            conversation_id: Id of a conversation of the user to use, such as that of a turn or of
                another adapter; `None` derives the id from the names.
        """
        self.session_id = session_id
        self.session_settings = (
            SessionSettings()
            if session_settings is None
            else coerce_session_settings(session_settings)
        )
        self._memory = memory
        self._conversation = NamedConversation.of_session(
            FORM, app=app, user_id=user_id, name=session_id, dept_id=dept_id
        ).with_id(conversation_id)

    @property
    def conversation_id(self) -> str:
        """Id of the conversation, for the client's other methods.

        The conversation exists once an item has been added.
        """
        return self._conversation.id

    async def get_items(
        self, limit: int | None = None, *, wrapper: RunContextWrapper[Any] | None = None
    ) -> list[TResponseInputItem]:
        """Reads the latest items, oldest first.

        Args:
            limit: Number of items; `None` uses the limit of `session_settings`, or reads all. A
                negative number reads all, as it does in the sessions of the SDK.
            wrapper: Context of the run, which is not used.
        """
        limit = resolve_session_limit(limit, self.session_settings)
        if limit is not None and limit < 0:
            limit = None
        operation = self._memory._operation(LONG_TIMEOUT)
        messages = await replacement.read_newest(operation, self._conversation, limit)
        return cast("list[TResponseInputItem]", responses.show_history(messages))

    async def add_items(
        self,
        items: list[TResponseInputItem],
        *,
        wrapper: RunContextWrapper[Any] | None = None,
    ) -> None:
        """Appends items. Up to 100 are saved completely or not at all, more in batches of 100.

        A cancellation is raised after the save has ended.

        Args:
            items: Items to append.
            wrapper: Context of the run, which is not used.

        Raises:
            TypeError: An item is not a dict, or has a value that JSON cannot represent.
            ValueError: A number is not finite, or the nesting is too deep.
        """
        messages = [_to_message(item) for item in items]
        await run_to_completion(
            self._log_name("an append to"),
            adapters.append,
            self._memory._operation(append_timeout(messages)),
            self._conversation,
            messages,
        )

    async def pop_item(
        self, *, wrapper: RunContextWrapper[Any] | None = None
    ) -> TResponseInputItem | None:
        """Removes the latest item and returns it to this caller only; `None` if there is none.

        Args:
            wrapper: Context of the run, which is not used.
        """
        message = await run_to_completion(
            self._log_name("a removal from"),
            replacement.pop,
            self._memory._operation(None),
            self._conversation,
        )
        return None if message is None else _to_item(message)

    async def clear_session(self, *, wrapper: RunContextWrapper[Any] | None = None) -> None:
        """Removes all items. The conversation stays, empty.

        Args:
            wrapper: Context of the run, which is not used.
        """
        await run_to_completion(
            self._log_name("a removal from"),
            adapters.clear,
            self._memory._operation(LONG_TIMEOUT),
            self._conversation,
        )

    async def replace_items(self, items: list[TResponseInputItem]) -> None:
        """Replaces all items at once, as after a compaction. The process can end at any time.

        The replaced items remain in the conversation, for `list_messages`, search and export.
        Items that are added while this method runs are not lost: they are replaced, or they follow.

        Args:
            items: Items that the session has afterwards.

        Raises:
            TypeError: An item is not a dict, or has a value that JSON cannot represent.
            ValueError: A number is not finite, or the nesting is too deep.
            SeqMismatch: Other callers save so often that more than about 100 items cannot be saved
                without an interruption. The session is as before.
        """
        await run_to_completion(
            self._log_name("a replacement in"),
            replacement.replace_all,
            self._memory._operation(LONG_TIMEOUT),
            self._conversation,
            [_to_message(item) for item in items],
        )

    async def _atomic_replace_items(self, items: list[TResponseInputItem]) -> bool:
        """Replaces all items for `OpenAIResponsesCompactionSession`, which finds it by its name.

        Without it, the SDK would clear the session and then add the items.
        """
        # A subclass that changes items on their way must not be bypassed, as in the SDK's sessions.
        if type(self) is not ConversationMemorySession:
            return False
        await self.replace_items(items)
        return True

    def _log_name(self, write: str) -> str:
        return f"{write} conversation {self.conversation_id}"


def _to_message(item: Any) -> Message:
    value = to_plain(item)
    if not isinstance(value, Mapping):
        raise TypeError(f"an item must be a dict, not {type(item).__name__}")
    return responses.to_message(value)


def _to_item(message: Message) -> TResponseInputItem:
    items = responses.show(message) or [{"role": message.role, "content": message.content}]
    return cast("TResponseInputItem", items[-1])
