"""State of a turn, without the calls: the parts that both clients share."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ._arguments import validates_arguments
from ._content import Content, ToolCallLike, message_of
from ._convert import write_message
from ._errors import invalid_argument
from ._forms import anthropic, chat, responses
from ._limits import MAX_MESSAGES_PER_SAVE, MAX_VALUES_PER_SAVE, Limits
from ._parts import ReasoningPart, ToolCallPart
from ._proto.v1 import resources_pb2 as resources
from ._types import (
    AnthropicInput,
    BegunTurn,
    Message,
    MessageLike,
    OpenAIMessage,
    ResponsesItem,
    RetrievedContext,
    SavedMessages,
    SessionState,
    to_message,
)
from ._validation import validate_message, weight
from ._window import Window

_MESSAGE_OVERHEAD_BYTES = 8
"""Upper bound on the bytes that a message needs in a request beside its own."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Content of one save. A retry of the save sends the same content."""

    messages: tuple[resources.Message, ...]
    request_id: str
    expected_last_seq: int | None


@dataclass(frozen=True, slots=True)
class TurnOptions:
    """Arguments that a turn was created with."""

    user_id: str
    session_id: str | None
    conversation_id: str | None
    create: bool
    dept_id: str | None
    window: Window
    if_unchanged: bool
    save_question_first: bool


@validates_arguments
class BaseTurn:
    """History and new messages of a turn.

    The turn distinguishes an interruption of its body from an error in it. After an error (an
    `Exception`) nothing is saved. After an interruption (a cancelled task, a closed generator,
    Ctrl-C) the turn is saved if it `is_complete`, because the user may have seen the answer.

    With `save_question_first`, the messages up to the last one of the user before the answer are
    saved when they are added, and stay saved whatever happens in the body.
    """

    def __init__(self, options: TurnOptions, limits: Limits) -> None:
        self._options = options
        self._limits = limits
        self._begun: BegunTurn | None = None
        self._added: list[Message] = []
        self._encoded: list[resources.Message] = []
        self._encoded_bytes = 0
        self._metadata_values = 0
        self._batch: Batch | None = None
        self._saved_batches: list[SavedMessages] = []
        self._saved_count = 0
        self._question_count = 0
        self._saved: SavedMessages | None = None
        self._first_request_id = self.request_id = str(uuid.uuid4())
        """Idempotency key of the save, the same for all its attempts. Messages that are added
        after the first attempt are saved after it, under a key that is derived from it."""

    @property
    def begun(self) -> BegunTurn:
        """Response of the service to the beginning of the turn.

        Raises:
            RuntimeError: The turn has not begun.
        """
        if self._begun is None:
            raise RuntimeError("the turn has not begun: use it in a with statement")
        return self._begun

    @property
    def conversation_id(self) -> str:
        """Id of the conversation: the given one, the session's, or a new one."""
        return self.begun.conversation.id

    @property
    def session_id(self) -> str | None:
        """Id of the session, for the next turn.

        While the service has no access to its sessions (Redis), it is the id that the turn was
        given.
        """
        session = self.begun.session
        return self._options.session_id if session is None else session.id

    @property
    def session_state(self) -> SessionState:
        """State in which the service found the session."""
        return self.begun.session_state

    @property
    def history(self) -> tuple[Message, ...]:
        """Messages before this turn: pinned ones, the summary and the newest ones."""
        return self.begun.messages

    @property
    def token_count(self) -> int:
        """Number of tokens of the history."""
        return self.begun.token_count

    @property
    def older_omitted(self) -> bool:
        """Whether older messages exist that are neither in the history nor in its summary."""
        return self.begun.older_omitted

    @property
    def compaction_due(self) -> bool:
        """Whether the conversation should be compacted with the client's `compact`.

        After the turn is saved, its own messages count as well.
        """
        return self.begun.compaction_due if self._saved is None else self._saved.compaction_due

    @property
    def added(self) -> tuple[Message, ...]:
        """Messages of this turn."""
        return tuple(self._added)

    @property
    def messages(self) -> tuple[Message, ...]:
        """Messages of the history, followed by those of this turn."""
        return (*self.history, *self._added)

    @property
    def saved(self) -> SavedMessages | None:
        """Outcome of the save; `None` until all messages are saved."""
        return self._saved

    @property
    def is_complete(self) -> bool:
        """Whether the last message is the agent's answer, and not a tool call."""
        if not self._added or self._added[-1].role != "assistant":
            return False
        parts = self._added[-1].parts
        if any(isinstance(part, ToolCallPart) for part in parts):
            return False
        return not parts or not isinstance(parts[0], ReasoningPart) or len(parts) > 1

    def to_openai(self) -> list[OpenAIMessage]:
        """Returns all messages as input of OpenAI's Chat Completions.

        Each call directly precedes its results. A call that was never answered and a result without
        its call are left out, because the API rejects them.
        """
        return chat.show_history(self.messages)

    def to_responses(self) -> list[ResponsesItem]:
        """Returns all messages as input of OpenAI's Responses API. See `to_openai`."""
        return responses.show_history(self.messages)

    def to_anthropic(self) -> AnthropicInput:
        """Returns all messages as arguments of Anthropic's `messages.create`. See `to_openai`.

        The arguments are `messages` and, if there are instructions, `system`.
        """
        return anthropic.show_history(self.messages)

    def history_openai(self) -> list[OpenAIMessage]:
        """Returns the history as input of OpenAI's Chat Completions."""
        return chat.show_history(self.history)

    def add(self, *messages: MessageLike) -> None:
        """Adds messages to the turn: all of them, or none if one is invalid.

        Args:
            messages: Messages, or dicts of Chat Completions.

        Raises:
            ValueError: A message cannot be encoded, the service would reject it with
                these `limits`, or the turn would exceed 100 messages or the limit of a request.
            TypeError: A message has a value that JSON cannot represent.
            RuntimeError: The turn has not begun, or has been saved.
            ConversationMemoryError: The question could not be saved first (blocking client).
        """
        if self._saved is not None:
            raise RuntimeError("the turn has been saved: begin another one")
        new = [to_message(message) for message in messages]
        # Encoding here rejects an invalid message while the caller can still correct it, and
        # makes the turn independent of later changes to the caller's dicts.
        encoded = [write_message(message, self.conversation_id, self._limits) for message in new]
        values = self._validate(encoded)
        if len(self._added) + len(new) > MAX_MESSAGES_PER_SAVE:
            raise ValueError(
                f"a turn has at most {MAX_MESSAGES_PER_SAVE} messages, because it is saved as a"
                " whole"
            )
        size = self._encoded_bytes + sum(
            message.ByteSize() + _MESSAGE_OVERHEAD_BYTES for message in encoded
        )
        if size > self._limits.turn_bytes:
            raise ValueError(
                f"a turn has at most {self._limits.turn_bytes} bytes, because it is saved as a"
                f" whole: with the new messages it would have {size}"
            )
        self._encoded_bytes = size
        self._metadata_values = values
        self._added += new
        self._encoded += encoded

    def user(self, content: Content) -> None:
        """Adds a message of the user. See `add` for the errors.

        Args:
            content: Text of the message, or a list of texts and parts: either this package's, such
                as `BlobPart`, or dicts of Chat Completions.
        """
        self.add(message_of("user", content))

    def assistant(
        self,
        content: Content | None = None,
        *,
        tool_calls: Iterable[ToolCallLike] | None = None,
        tokens_used: int | None = None,
        latency_ms: int | None = None,
        contexts: Sequence[RetrievedContext] = (),
    ) -> None:
        """Adds an answer of the agent, or its tool calls. See `add` for the errors.

        Args:
            content: Text or parts of the answer, see `user`; `None` if it consists of tool calls.
            tool_calls: Tool calls as dicts or objects of an SDK: of OpenAI's APIs, LangChain,
                Anthropic or Gemini; `None` for none.
            tokens_used: Number of tokens that the model used; `None` if unknown.
            latency_ms: Duration of the answer in milliseconds; `None` if unknown.
            contexts: Documents that retrieval found for the answer.
        """
        self.add(
            message_of(
                "assistant",
                content,
                tool_calls=tool_calls,
                tokens_used=tokens_used,
                latency_ms=latency_ms,
                contexts=contexts,
            )
        )

    def system(self, content: Content) -> None:
        """Adds instructions to the model. See `add` for the errors.

        Args:
            content: Text or parts of the instructions, see `user`.
        """
        self.add(message_of("system", content))

    def tool(self, content: Content, *, tool_call_id: str) -> None:
        """Adds the result of a tool call. See `add` for the errors.

        Args:
            content: Text or parts of the result, see `user`.
            tool_call_id: Id of the tool call.
        """
        self.add(message_of("tool", content, tool_call_id=tool_call_id))

    def _validate(self, encoded: Sequence[resources.Message]) -> int:
        """Rejects new messages that the service would reject; returns the values in metadata."""
        values = self._metadata_values
        for message in encoded:
            validate_message(message, self._limits)
            values += weight(message)
        given = [message.id.lower() for message in encoded if message.id]
        if given:
            given += [message.id.lower() for message in self._encoded if message.id]
            if len(set(given)) < len(given):
                raise ValueError("a message has the id of an earlier message of the turn")
        if values > MAX_VALUES_PER_SAVE:
            raise ValueError(
                f"a turn must have at most {MAX_VALUES_PER_SAVE} values in metadata, because it is"
                " saved as a whole"
            )
        return values

    def _ensure_not_begun(self) -> None:
        if self._begun is not None:
            raise RuntimeError("a turn can be used once: create another one")

    def _needs_save(self, error: BaseException | None) -> bool:
        """Whether the turn is to be saved after its body ended with `error`."""
        if self._saved is not None or not self._added:
            return False
        return error is None or (not isinstance(error, Exception) and self.is_complete)

    def _takes_question(self, new_count: int) -> bool:
        """Whether the new messages belong to the question, so that it is to be saved now."""
        if not self._options.save_question_first:
            return False
        roles = [message.role for message in self._added]
        answer = next((at for at, role in enumerate(roles) if role in ("assistant", "tool")), None)
        if "user" not in roles[len(roles) - new_count : answer]:
            return False
        self._question_count = len(roles) if answer is None else answer
        return True

    def _next_batch(self, end: int | None = None) -> Batch:
        """Returns the batch that is sent next: the messages that are not saved, up to `end`.

        A failed attempt may have been committed, and an attempt may be in progress. Its content
        therefore stays unchanged under its key; messages that were added since form the next
        batch.
        """
        if self._batch is None:
            previous = self._saved_batches[-1] if self._saved_batches else None
            if previous is not None:
                self.request_id = f"{self._first_request_id}.{len(self._saved_batches)}"
            last_seq = self.begun.conversation.last_seq if previous is None else previous.last_seq
            batch = Batch(
                tuple(self._encoded[self._saved_count : end]),
                self.request_id,
                last_seq if self._options.if_unchanged else None,
            )
            if not batch.messages:
                raise invalid_argument("messages", "must not be empty")
            self._batch = batch
        return self._batch

    def _save_arguments(self, batch: Batch) -> dict[str, Any]:
        return {
            "conversation_id": self.conversation_id,
            "messages": batch.messages,
            "user_id": self._options.user_id,
            "session_id": self.session_id,
            "request_id": batch.request_id,
            "expected_last_seq": batch.expected_last_seq,
        }

    def _outcome(self) -> SavedMessages:
        if self._saved is None:  # Unreachable: a failed save has raised its error.
            raise RuntimeError("the turn was not saved")
        return self._saved

    def _record_saved(self, batch: Batch, saved: SavedMessages) -> None:
        """Records that a batch is saved."""
        if self._batch is not batch:
            # Two concurrent saves sent the same batch, and the other one ended first.
            return
        self._batch = None
        self._saved_batches.append(saved)
        self._saved_count += len(batch.messages)

    def _finish(self) -> bool:
        """Ends the turn if all messages are saved; returns whether it has ended."""
        if self._saved is None and self._saved_batches and self._saved_count == len(self._added):
            last = self._saved_batches[-1]
            self._saved = last if len(self._saved_batches) == 1 else self._joined(last)
        return self._saved is not None

    def _joined(self, last: SavedMessages) -> SavedMessages:
        batches = self._saved_batches
        return replace(
            last,
            messages=tuple(message for each in batches for message in each.messages),
            replayed=all(each.replayed for each in batches),
        )
