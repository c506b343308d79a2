"""A turn of an agent: the history on entry, one atomic save on exit."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._convert import write_message
from ._errors import invalid
from ._finish import finish, said
from ._flows import MAX_MESSAGES_PER_SAVE
from ._proto.v1 import resources_pb2 as resources
from ._types import (
    BegunTurn,
    Message,
    MessageLike,
    OpenAIMessage,
    RetrievedContext,
    SavedMessages,
    SessionState,
    to_message,
)

if TYPE_CHECKING:
    from ._async_client import AsyncConversationMemory
    from ._client import ConversationMemory

log = logging.getLogger("conversation_memory")

Content = str | Sequence[str | Mapping[str, Any]]
"""A text, or the parts of a message in the OpenAI form."""


MAX_TURN_BYTES = (4 << 20) - (8 << 10)
"""What the service takes in one request unless it is configured, less what goes with a turn."""

_FRAME_BYTES = 8
"""What a message needs beside its own bytes, at most."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one save sends, each time that it is tried."""

    messages: tuple[resources.Message, ...]
    request_id: str
    expected_last_seq: int | None


@dataclass(frozen=True, slots=True)
class TurnOptions:
    """What a turn is about."""

    user_id: str
    session_id: str | None
    conversation_id: str | None
    dept_id: str | None
    limit: int
    if_unchanged: bool


class TurnBase:
    """What both kinds of turn have: the history, and what is said now.

    What interrupts the body from outside is told apart from what goes wrong in it. After an
    exception (`Exception`) nothing is saved. After an interruption (a cancelled task, a closed
    generator, Ctrl-C) the turn is saved if it `is_complete`: the person has seen the answer.
    """

    def __init__(self, options: TurnOptions) -> None:
        self._options = options
        self._begun: BegunTurn | None = None
        self._added: list[Message] = []
        self._written: list[resources.Message] = []
        self._bytes = 0
        self._batch: _Batch | None = None
        self._parts: list[SavedMessages] = []
        self._saved_count = 0
        self._saved: SavedMessages | None = None
        self.request_id = str(uuid.uuid4())
        """The key under which the turn is saved, however often that is tried. What is added
        after the first try is saved after it, under a key of its own."""

    @property
    def begun(self) -> BegunTurn:
        """What the service answered at the beginning."""
        if self._begun is None:
            raise RuntimeError("the turn has not begun: use it in a with statement")
        return self._begun

    @property
    def conversation_id(self) -> str:
        """The conversation: a new one, unless the turn named one or its session was on one."""
        return self.begun.conversation.id

    @property
    def session_id(self) -> str | None:
        """The session, to begin the next turn with; the one that was given if the tier is down."""
        session = self.begun.session
        return self._options.session_id if session is None else session.id

    @property
    def session_state(self) -> SessionState:
        """What was found of the session."""
        return self.begun.session_state

    @property
    def history(self) -> tuple[Message, ...]:
        """What was said before this turn: the newest messages, oldest first."""
        return self.begun.messages

    @property
    def added(self) -> tuple[Message, ...]:
        """What is said in this turn."""
        return tuple(self._added)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The history and what was added to it."""
        return (*self.history, *self._added)

    @property
    def saved(self) -> SavedMessages | None:
        """The outcome of the save; None until it is done."""
        return self._saved

    @property
    def is_complete(self) -> bool:
        """Whether the last message is an answer: the agent's, and no call of tools."""
        if not self._added or self._added[-1].role != "assistant":
            return False
        answer = self._added[-1].to_openai()
        return not (answer.get("tool_calls") or answer.get("function_call"))

    def to_openai(self) -> list[OpenAIMessage]:
        """The messages in the OpenAI form: what the model is asked with."""
        return [message.to_openai() for message in self.messages]

    def history_openai(self) -> list[OpenAIMessage]:
        """The history in the OpenAI form."""
        return [message.to_openai() for message in self.history]

    def add(self, *messages: MessageLike) -> None:
        """Adds messages, also dicts in the OpenAI form.

        A turn has at most 100 messages and about 4 MiB: more are a ValueError, and so is what
        cannot be sent. Then none of them is added.
        """
        if self._saved is not None:
            raise RuntimeError("the turn has been saved")
        new = [to_message(message) for message in messages]
        # What cannot be written is refused here, where it can still be put right; and what
        # becomes of a caller's dict afterwards changes nothing.
        written = [write_message(message, self.conversation_id) for message in new]
        if len(self._added) + len(new) > MAX_MESSAGES_PER_SAVE:
            raise ValueError(
                f"a turn has at most {MAX_MESSAGES_PER_SAVE} messages, since it is saved whole"
            )
        size = self._bytes + sum(message.ByteSize() + _FRAME_BYTES for message in written)
        if size > MAX_TURN_BYTES:
            raise ValueError(
                f"a turn has at most {MAX_TURN_BYTES} bytes, since it is saved whole: "
                f"with this it would have {size}"
            )
        self._bytes = size
        self._added += new
        self._written += written

    def user(self, content: Content) -> None:
        """Adds what the person said."""
        self.add({"role": "user", "content": content})

    def assistant(
        self,
        content: Content | None = None,
        *,
        tool_calls: Sequence[Mapping[str, Any]] = (),
        tokens_used: int | None = None,
        latency_ms: int | None = None,
        contexts: Sequence[RetrievedContext] = (),
    ) -> None:
        """Adds the agent's answer, or its calls of tools."""
        message: OpenAIMessage = {"role": "assistant", "content": content}
        if tool_calls:
            message["tool_calls"] = list(tool_calls)
        self.add(
            Message.from_openai(
                message, tokens_used=tokens_used, latency_ms=latency_ms, contexts=contexts
            )
        )

    def system(self, content: Content) -> None:
        """Adds instructions to the model."""
        self.add({"role": "system", "content": content})

    def tool(self, content: Content, *, tool_call_id: str) -> None:
        """Adds the result of a call of a tool."""
        self.add({"role": "tool", "content": content, "tool_call_id": tool_call_id})

    def _begin(self) -> None:
        if self._begun is not None:
            raise RuntimeError("a turn is used once")

    def _is_to_be_saved(self, error: BaseException | None) -> bool:
        """What the body's end means."""
        if self._saved is not None or not self._added:
            return False
        return error is None or (not isinstance(error, Exception) and self.is_complete)

    def _next_batch(self) -> _Batch | None:
        """What is to be sent next; None when all is saved.

        A try may have been done although it failed, or be under way: what it sent stays as
        it was, under its key, and what was added since comes after it.
        """
        if self._batch is None and self._saved is None:
            if self._parts:
                self.request_id = str(uuid.uuid4())
            last_seq = self._parts[-1].last_seq if self._parts else self.begun.conversation.last_seq
            batch = _Batch(
                tuple(self._written[self._saved_count :]),
                self.request_id,
                last_seq if self._options.if_unchanged else None,
            )
            if not batch.messages:
                raise invalid("messages", "must not be empty")
            self._batch = batch
        return self._batch

    def _save_arguments(self, batch: _Batch) -> dict[str, Any]:
        return {
            "conversation_id": self.conversation_id,
            "messages": batch.messages,
            "user_id": self._options.user_id,
            "session_id": self.session_id,
            "request_id": batch.request_id,
            "expected_last_seq": batch.expected_last_seq,
        }

    def _outcome(self) -> SavedMessages:
        if self._saved is None:  # Never: a save that failed has raised.
            raise RuntimeError("the turn was not saved")
        return self._saved

    def _note(self, batch: _Batch, saved: SavedMessages) -> None:
        """Notes that a batch is saved."""
        if self._batch is not batch:
            # Two saves at once sent the same batch, and the other one was first.
            return
        self._batch = None
        self._parts.append(saved)
        self._saved_count += len(batch.messages)
        if self._saved_count == len(self._added):
            self._saved = replace(
                saved,
                messages=tuple(message for part in self._parts for message in part.messages),
                replayed=all(part.replayed for part in self._parts),
            )


class Turn(TurnBase):
    """A turn of a blocking agent. See `ConversationMemory.turn`."""

    def __init__(self, memory: ConversationMemory, options: TurnOptions) -> None:
        super().__init__(options)
        self._memory = memory

    def __enter__(self) -> Turn:
        self._begin()
        options = self._options
        self._begun = self._memory.begin_turn(
            options.user_id,
            session_id=options.session_id,
            conversation_id=options.conversation_id,
            dept_id=options.dept_id,
            limit=options.limit,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._is_to_be_saved(error):
            return
        try:
            self.save()
        except Exception as failure:
            if error is None:
                raise
            _log_lost(self, failure)

    def save(self) -> SavedMessages:
        """Saves the turn now rather than at its end. After a failure it can be tried again.

        When it is interrupted, as by Ctrl-C, it is sent once more, under the same key and with
        a timeout of its own; then the interruption goes on.
        """
        try:
            self._save()
        except Exception:
            raise
        except BaseException:
            try:
                self._save()
            except BaseException as failure:
                _log_lost(self, failure)
                if not isinstance(failure, Exception):
                    raise
            raise
        return self._outcome()

    def _save(self) -> None:
        while self._saved is None and (batch := self._next_batch()) is not None:
            self._note(batch, self._memory.save_messages(**self._save_arguments(batch)))


class AsyncTurn(TurnBase):
    """A turn of an agent on asyncio. See `AsyncConversationMemory.turn`."""

    def __init__(self, memory: AsyncConversationMemory, options: TurnOptions) -> None:
        super().__init__(options)
        self._memory = memory

    async def __aenter__(self) -> AsyncTurn:
        self._begin()
        options = self._options
        self._begun = await self._memory.begin_turn(
            options.user_id,
            session_id=options.session_id,
            conversation_id=options.conversation_id,
            dept_id=options.dept_id,
            limit=options.limit,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._is_to_be_saved(error):
            return
        try:
            await self.save()
        except Exception as failure:
            if error is None:
                raise
            _log_lost(self, failure)

    async def save(self) -> SavedMessages:
        """Saves the turn now rather than at its end. After a failure it can be tried again.

        A cancellation waits until the save is done, at most its timeout, and is raised then.
        """
        if self._saved is None:
            await finish(self._save())
        return self._outcome()

    async def _save(self) -> None:
        while self._saved is None and (batch := self._next_batch()) is not None:
            self._note(batch, await self._memory.save_messages(**self._save_arguments(batch)))


def _log_lost(turn: TurnBase, failure: BaseException) -> None:
    log.warning(
        "a turn of conversation %s was interrupted and not saved: %s",
        turn.conversation_id,
        said(failure),
    )
