"""A turn of an agent: it reads the history on entry and saves the new messages on exit."""

from __future__ import annotations

import contextlib
import logging
from types import TracebackType
from typing import TYPE_CHECKING

from .._arguments import validates_arguments
from .._base_turn import BaseTurn, TurnOptions
from .._completion_async import run_to_completion
from .._errors import ConversationMemoryError, describe_for_log
from .._question_async import AsyncQuestionSave
from .._types import MessageLike, SavedMessages

if TYPE_CHECKING:
    from .turns import AsyncTurns

log = logging.getLogger("conversation_memory")


@validates_arguments
class AsyncTurn(BaseTurn):
    """A turn of an asynchronous agent, used as `async with memory.turn(...) as turn`.

    `AsyncConversationMemory.turn` creates it and describes when it is saved.
    """

    def __init__(self, memory: AsyncTurns, options: TurnOptions) -> None:
        super().__init__(options, memory._config.limits)
        self._memory = memory
        self._question = AsyncQuestionSave()

    async def __aenter__(self) -> AsyncTurn:
        self._ensure_not_begun()
        options = self._options
        self._begun = await self._memory.begin_turn(
            options.user_id,
            session_id=options.session_id,
            conversation_id=options.conversation_id,
            create=options.create,
            dept_id=options.dept_id,
            limit=options.window.limit,
            max_tokens=options.window.max_tokens,
            start_on_user=options.window.start_on_user,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._needs_save(error):
                await self.save()
            else:
                await run_to_completion(self._log_name(), self._question.wait)
        except Exception as failure:
            if error is None:
                raise
            # The interruption takes precedence over the failure of the save.
            log.warning(
                "%s was interrupted and not saved: %s", self._log_name(), describe_for_log(failure)
            )

    async def save(self) -> SavedMessages:
        """Saves the turn now instead of at its end. After a failure it can be called again.

        A cancellation during the save is raised after the save has ended, which takes the
        client's `timeout` at most.

        Returns:
            The outcome of the save, which `saved` returns from then on.

        Raises:
            InvalidArgument: The turn has no messages.
            SeqMismatch: The turn has `if_unchanged`, and another caller has saved since it began.
            ConversationMemoryError: The save failed for another reason.
        """
        if self._saved is None:
            await run_to_completion(self._log_name(), self._save_batches)
        return self._outcome()

    def add(self, *messages: MessageLike) -> None:
        super().add(*messages)
        if self._takes_question(len(messages)):
            self._question.start(self._log_name(), self._save_question)

    add.__doc__ = BaseTurn.add.__doc__

    async def _save_question(self) -> None:
        while self._saved_count < self._question_count:
            await self._save_batch(self._question_count)

    async def _save_batches(self) -> None:
        with contextlib.suppress(ConversationMemoryError):
            # If it has failed, its messages are sent again under the same key.
            await self._question.wait()
        while not self._finish():
            await self._save_batch()

    async def _save_batch(self, end: int | None = None) -> None:
        batch = self._next_batch(end)
        saved = await self._memory.save_messages(**self._save_arguments(batch))
        self._record_saved(batch, saved)

    def _log_name(self) -> str:
        return f"a turn of conversation {self.conversation_id}"
