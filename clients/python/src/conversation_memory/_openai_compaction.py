"""Compaction of OpenAI Agents' sessions with any version of the SDK."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from agents import RunContextWrapper
from agents.items import TResponseInputItem
from agents.memory import (
    OpenAIResponsesCompactionArgs,
    OpenAIResponsesCompactionSession,
    SessionSettings,
)

if TYPE_CHECKING:
    from .openai_agents import ConversationMemorySession


class ConversationMemoryCompactionSession(OpenAIResponsesCompactionSession):
    """The SDK's compaction session, on a session of this package. It loses no item.

    The SDK clears the session and then adds the compacted items, except on sessions that it knows.
    Here the two are one replacement: a process that is killed leaves the items from before the
    compaction or those after it.
    """

    def __init__(
        self, session_id: str, underlying_session: ConversationMemorySession, **settings: Any
    ) -> None:
        """Creates a session that compacts itself.

        Args:
            session_id: Name of the session.
            underlying_session: Session with the items.
            settings: Further arguments of the SDK's class: `client`, `model`, `compaction_mode`,
                `should_trigger_compaction`.
        """
        super().__init__(session_id, _ReplaceableSession(underlying_session), **settings)
        self._session = underlying_session

    async def run_compaction(
        self,
        args: OpenAIResponsesCompactionArgs | None = None,
        *,
        wrapper: RunContextWrapper[Any] | None = None,
    ) -> None:
        """Compacts the session if it is large enough, as the SDK calls it after each run.

        Args:
            args: Arguments of the compaction.
            wrapper: Context of the run, which newer versions of the SDK give.
        """
        replacement = _Replacement()
        token = _replacement.set(replacement)
        try:
            if wrapper is None:
                await super().run_compaction(args)
            else:
                await super().run_compaction(args, wrapper=wrapper)
        finally:
            _replacement.reset(token)
        if replacement.is_cleared:
            # The compaction has no items.
            await self._session.replace_items([])


class _Replacement:
    """State of the compaction that runs in a context."""

    is_cleared = False
    """Whether the SDK has cleared the session and not added the new items yet."""


_replacement: ContextVar[_Replacement | None] = ContextVar("replacement", default=None)


class _ReplaceableSession:
    """A session that a compaction clears when it adds the new items, and not before."""

    session_settings: SessionSettings | None

    def __init__(self, session: ConversationMemorySession) -> None:
        self.session_id = session.session_id
        self.session_settings = session.session_settings
        self._session = session

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        return await self._session.get_items(limit)

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        running = _replacement.get()
        if running is None or not running.is_cleared:
            await self._session.add_items(items)
            return
        await self._session.replace_items(items)
        running.is_cleared = False

    async def pop_item(self) -> TResponseInputItem | None:
        return await self._session.pop_item()

    async def clear_session(self) -> None:
        running = _replacement.get()
        if running is None:
            await self._session.clear_session()
        else:
            running.is_cleared = True

    async def _atomic_replace_items(self, items: list[TResponseInputItem]) -> bool:
        """Replaces the items for newer versions of the SDK, which find this method by its name."""
        await self._session.replace_items(items)
        return True
