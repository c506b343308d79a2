"""Methods of the asynchronous client that a turn consists of."""

from __future__ import annotations

from collections.abc import Iterable

from .._base_turn import TurnOptions
from .._types import BegunTurn, History, MessageLike, SavedMessages
from .._window import Window
from . import operations
from .base import AsyncBaseClient
from .turn import AsyncTurn


class AsyncTurns(AsyncBaseClient):
    """Turns, saves and histories."""

    def turn(
        self,
        user_id: str,
        *,
        session_id: str | None = None,
        conversation_id: str | None = None,
        create: bool = False,
        dept_id: str | None = None,
        limit: int = 0,
        max_tokens: int | None = None,
        start_on_user: bool = False,
        if_unchanged: bool = False,
        save_question_first: bool = False,
    ) -> AsyncTurn:
        """Creates a turn of an agent, to be used in an `async with` statement.

        On entry the turn reads the history. On exit it saves the messages that were added,
        atomically and once. After an error in the body nothing is saved. After an interruption
        of the body, such as `asyncio.CancelledError`, the turn is saved if its last message is
        the agent's answer. If the save fails its error is raised, and `turn.save()` tries again
        under the same key.

        Args:
            user_id: User that the turn belongs to.
            session_id: Session of the previous turn; `None` starts a session. An expired session
                is resumed on its conversation.
            conversation_id: Conversation to continue; `None` uses the session's conversation, or
                a new one. Given together with the session, the conversation is found even while
                the service has no access to its sessions.
            create: Whether to create the conversation `conversation_id`, a UUID, if it does not
                exist. One of another user raises `NotFound`.
            dept_id: Department or tenant of the user, stored with what the turn creates.
            limit: Target number of messages of the history, at most 1000; 0 uses the service's
                default. Calls and their results are kept together, and each is a message: set a
                larger limit, or `max_tokens`, for an agent with tools.
            max_tokens: Upper bound on the tokens of the history; `None` and 0 set none.
            start_on_user: Whether to omit messages before the first one of a user, except pinned
                ones and the summary.
            if_unchanged: Whether to save only if no other caller has saved since the turn began.
            save_question_first: Whether to save the messages before the answer as soon as they are
                added, so that an error, a cancellation or the end of the process does not lose
                them. The answer is saved on exit.

        Returns:
            The turn. Entering it raises `SessionExpired` if the session is unknown or belongs to
            another user, and `NotFound` if the conversation does. With `if_unchanged` its save
            raises `SeqMismatch` if another caller has saved.
        """
        window = Window(limit, max_tokens, start_on_user)
        options = TurnOptions(
            user_id,
            session_id,
            conversation_id,
            create,
            dept_id,
            window,
            if_unchanged,
            save_question_first,
        )
        return AsyncTurn(self, options)

    async def begin_turn(
        self,
        user_id: str,
        *,
        session_id: str | None = None,
        conversation_id: str | None = None,
        create: bool = False,
        dept_id: str | None = None,
        limit: int = 0,
        max_tokens: int | None = None,
        start_on_user: bool = False,
        timeout: float | None = None,
    ) -> BegunTurn:
        """Begins a turn: reads the session, the conversation and its newest messages.

        `turn` is the more convenient form, which also saves.

        Args:
            user_id: User that the turn belongs to.
            session_id: Session of the previous turn; `None` starts a session.
            conversation_id: Conversation to continue; `None` uses the session's conversation, or
                a new one.
            create: Whether to create the conversation `conversation_id`, a UUID, if it does not
                exist. One of another user raises `NotFound`.
            dept_id: Department or tenant of the user, stored with what the call creates.
            limit: Target number of messages, at most 1000; 0 uses the service's
                default. Calls and their results are kept together.
            max_tokens: Upper bound on the tokens; `None` and 0 set none.
            start_on_user: Whether to omit messages before the first one of a user, except pinned
                ones and the summary.
            timeout: Time limit in seconds; `None` uses the client's `timeout`.

        Returns:
            The session, the conversation and its newest messages. An answer has about 3 MiB of
            text at most, so that it may contain fewer messages than `limit`, the newest ones.

        Raises:
            SessionExpired: The session is unknown or belongs to another user: begin the turn
                without it.
            NotFound: The conversation does not exist or belongs to another user: check both ids.
            ConversationMemoryError: The call failed for another reason; its class says what to do.
        """
        return await operations.begin_turn(
            self._operation(timeout),
            user_id,
            session_id=session_id,
            conversation_id=conversation_id,
            create=create,
            dept_id=dept_id,
            window=Window(limit, max_tokens, start_on_user),
        )

    async def save_messages(
        self,
        conversation_id: str,
        messages: Iterable[MessageLike],
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        request_id: str | None = None,
        expected_last_seq: int | None = None,
        timeout: float | None = None,
    ) -> SavedMessages:
        """Saves 1 to 100 messages, all or none. They are durable when the method returns.

        Args:
            conversation_id: Conversation to append to.
            messages: Messages, or dicts in the OpenAI form.
            user_id: Expected owner of the conversation; `None` skips the check.
            session_id: Session whose expiry is renewed; an unknown one does not fail the call.
            request_id: Idempotency key of the save, at most 128 characters: the same messages
                under the same key are saved once. `None` generates a key for the call; an error
                carries it as `request_id`, for repeating the call.
            expected_last_seq: Number of the message that the conversation must end with; `None`
                skips the check.
            timeout: Time limit in seconds; `None` uses the client's `timeout`.

        Returns:
            The messages as stored, with their numbers.

        Raises:
            ValueError: A message cannot be encoded.
            TypeError: A message has a value that JSON cannot represent.
            InvalidArgument: The service rejects a field; `violations` says why. For a text,
                metadata or data that is too large, it names the setting of the limit.
            ResourceExhausted: The request is too large: save fewer messages at once. With
                `retry_after`, too many calls: repeat it then. With the reason `STORE_FULL`, the
                disk of the store is full.
            NotFound: The conversation does not exist or belongs to another user: check both ids.
            SeqMismatch: The conversation does not end with `expected_last_seq`: read it again, then
                repeat the call with `current_seq` of the error.
            AlreadyExists: The key or a message id is in use with different content: use a new
                one.
            ConversationMemoryError: The call failed for another reason; its class says what to do.
        """
        return await operations.save_messages(
            self._operation(timeout),
            conversation_id,
            messages,
            user_id=user_id,
            session_id=session_id,
            request_id=request_id,
            expected_last_seq=expected_last_seq,
        )

    async def get_history(
        self,
        conversation_id: str,
        *,
        user_id: str | None = None,
        limit: int = 0,
        max_tokens: int | None = None,
        start_on_user: bool = False,
        min_seq: int | None = None,
        strong: bool = False,
        session_id: str | None = None,
        include_contexts: bool = False,
        timeout: float | None = None,
    ) -> History:
        """Reads the newest messages, which include everything that this client has observed.

        Args:
            conversation_id: Conversation to read.
            user_id: Expected owner of the conversation; `None` skips the check.
            limit: Target number of messages, at most 1000; 0 uses the service's
                default. Calls and their results are kept together.
            max_tokens: Upper bound on the tokens; `None` and 0 set none.
            start_on_user: Whether to omit messages before the first one of a user, except pinned
                ones and the summary.
            min_seq: Number of a message that the history must include, even if a server has failed
                since it was saved; `None` uses the highest number that this client has observed.
            strong: Whether to read the durable store instead of Redis.
            session_id: Session whose expiry is renewed; an unknown one does not fail the call.
            include_contexts: Whether the messages include their contexts.
            timeout: Time limit in seconds; `None` uses the client's `timeout`.

        Returns:
            The newest messages, oldest first. An answer has about 3 MiB of text at most, so that
            it may contain fewer messages than `limit`, the newest ones.

        Raises:
            NotFound: The conversation does not exist or belongs to another user: check both ids.
            MinSeqNotReached: The conversation ends before the given `min_seq`: no message with that
                number has been saved.
            ConversationMemoryError: The call failed for another reason; its class says what to do.
        """
        return await operations.get_history(
            self._operation(timeout),
            conversation_id,
            user_id=user_id,
            window=Window(limit, max_tokens, start_on_user),
            min_seq=min_seq,
            strong=strong,
            session_id=session_id,
            include_contexts=include_contexts,
        )
