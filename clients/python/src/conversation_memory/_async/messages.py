"""Methods of the asynchronous client for messages."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from datetime import datetime

from .. import _convert as convert
from .._config import LONG_TIMEOUT
from .._proto.v1 import conversation_memory_pb2 as api
from .._proto.v1 import methods
from .._types import Hit, Message, Role, Truncated
from . import blobs, operations
from .base import AsyncBaseClient


class AsyncMessages(AsyncBaseClient):
    """Listing, search, truncation, compaction, redaction and blobs."""

    def list_messages(
        self,
        conversation_id: str,
        *,
        user_id: str | None = None,
        newest_first: bool = False,
        include_contexts: bool = False,
        include_blobs: bool = False,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> AsyncGenerator[Message, None]:
        """Lists all messages of a conversation.

        A page is read when its first item is needed. After an error the iterator has ended; call
        the method again.

        Args:
            conversation_id: Conversation to read.
            user_id: Expected owner of the conversation; `None` skips the check.
            newest_first: Whether the newest message comes first; otherwise the oldest does.
            include_contexts: Whether the messages include their contexts.
            include_blobs: Whether the messages include the data of blobs. Data that exceeds the
                size of a page is left out; `get_blob` reads it.
            page_size: Number of messages that one request reads; 0 uses the service's default.
            timeout: Time limit of each page in seconds; `None` uses the client's `timeout`.

        Returns:
            An iterator over the messages. It raises `NotFound` if the conversation does not exist
            or belongs to another user, and `ConversationMemoryError` if a page cannot be read; its
            class says what to do.
        """
        request = api.ListMessagesRequest(
            conversation_id=conversation_id,
            user_id=user_id or "",
            page_size=page_size,
            newest_first=newest_first,
            include_contexts=include_contexts,
            include_blobs=include_blobs,
        )

        def read(page: api.ListMessagesResponse) -> tuple[Message, ...]:
            return convert.read_messages(page.messages)

        return self._pages(methods.LIST_MESSAGES, request, read, timeout)

    def search_messages(
        self,
        user_id: str,
        query: str,
        *,
        conversation_id: str | None = None,
        dept_id: str | None = None,
        role: Role | None = None,
        created_from: datetime | None = None,
        created_until: datetime | None = None,
        metadata_key: str | None = None,
        metadata_value: str | float | bool | None = None,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> AsyncGenerator[Hit, None]:
        """Searches a user's messages, best match first.

        A query that matches nothing is corrected: `Hit.corrected_query` is then the query that was
        searched instead. A page is read when its first item is needed. After an error the iterator
        has ended; call the method again.

        Args:
            user_id: Owner of the messages.
            query: Words that a message must contain, in the syntax of a search box: `"a phrase"`,
                `-excluded`, `or`, `prefix*`. At most 512 characters and 32 words.
            conversation_id: Conversation to search; `None` searches all of the user's.
            dept_id: Department or tenant of the conversations to search; `None` searches all.
            role: Role of the messages to find; `None` finds all.
            created_from: Time of the earliest message to find; `None` finds all. A time without a
                time zone is local.
            created_until: Time before which the messages were created; `None` finds all.
            metadata_key: Key that the metadata of the messages contains; `None` finds all.
            metadata_value: Value of this key; `None` finds all values. A string also equals the
                number, `true`, `false` or `null` that it is in JSON, and they equal their strings.
            page_size: Number of hits that one request reads; 0 uses the service's default.
            timeout: Time limit of each page in seconds; `None` uses the client's `timeout`.

        Returns:
            An iterator over the hits.

        Raises:
            ValueError: The role is unknown, or `metadata_value` is given without a key. The
                following errors are raised by the iterator.
            InvalidArgument: The query is empty, too long, or has more than 32 words: shorten it.
            NotFound: The given conversation does not exist or belongs to another user: check both
                ids.
            ResourceExhausted: The search took longer than five seconds, with the reason
                `SEARCH_TOO_EXPENSIVE`: restrict it to a conversation, or search for fewer and more
                specific words. Without a reason, too many searches run at once: repeat it after
                `retry_after`.
            ConversationMemoryError: A page cannot be read for another reason; its class says what
                to do.
        """
        request = api.SearchMessagesRequest(
            user_id=user_id,
            query=query,
            conversation_id=conversation_id or "",
            dept_id=dept_id or "",
            role=convert.role_number(role),
            created_from=convert.to_timestamp(created_from),
            created_until=convert.to_timestamp(created_until),
            metadata_key=metadata_key or "",
            metadata_value=convert.metadata_text(metadata_key, metadata_value),
            page_size=page_size,
        )

        def read(page: api.SearchMessagesResponse) -> list[Hit]:
            return [convert.read_hit(hit, page.corrected_query) for hit in page.hits]

        return self._pages(methods.SEARCH_MESSAGES, request, read, timeout)

    async def truncate_conversation(
        self,
        conversation_id: str,
        after_seq: int,
        *,
        user_id: str | None = None,
        request_id: str | None = None,
        expected_last_seq: int | None = None,
        timeout: float | None = None,
    ) -> Truncated:
        """Removes the messages after `after_seq` permanently. Their numbers are not reused.

        Args:
            conversation_id: Conversation to truncate.
            after_seq: Number of the last message that stays; 0 removes all messages.
            user_id: Expected owner of the conversation; `None` skips the check.
            request_id: Idempotency key, at most 128 characters: a repeated call with the same key
                never removes messages that were saved in between. `None` generates a key for the
                call; an error carries it as `request_id`, for repeating the call.
            expected_last_seq: Number of the message that the conversation must end with; `None`
                skips the check.
            timeout: Time limit in seconds; `None` uses the client's `timeout`, or 60 if that is
                longer.

        Returns:
            The number of removed messages and the conversation's last number.

        Raises:
            NotFound: The conversation does not exist or belongs to another user: check both ids.
            SeqMismatch: The conversation does not end with `expected_last_seq`: read it again, then
                repeat the call with `current_seq` of the error.
            AlreadyExists: The key is in use with different arguments: use a new key.
            ConversationMemoryError: The call failed for another reason; its class says what to do.
        """
        return await operations.truncate_conversation(
            self._operation(timeout, at_least=LONG_TIMEOUT),
            conversation_id,
            after_seq,
            user_id=user_id,
            request_id=request_id,
            expected_last_seq=expected_last_seq,
        )

    async def compact(
        self,
        conversation_id: str,
        upto_seq: int,
        summary: str = "",
        *,
        user_id: str | None = None,
        expected_last_seq: int | None = None,
        request_id: str | None = None,
        token_count: int | None = None,
        timeout: float | None = None,
    ) -> int:
        """Replaces the messages up to `upto_seq` by a summary in histories.

        The messages remain for listing, search, export and branches. The next compaction replaces
        the summary. With `upto_seq=0` and no summary, histories contain the messages again.

        Args:
            conversation_id: Conversation to compact.
            upto_seq: Number of the last message that the summary stands for.
            summary: The summary, which the caller's model has written; empty if `upto_seq` is 0.
            user_id: Expected owner of the conversation; `None` skips the check.
            expected_last_seq: Number of the message that the conversation must end with; `None`
                skips the check. Messages that are saved meanwhile are never lost without it either.
            request_id: Idempotency key, at most 128 characters. `None` generates a key for the
                call; an error carries it as `request_id`, for repeating the call.
            token_count: Number of tokens of the summary; `None` lets the service count them.
            timeout: Time limit in seconds; `None` uses the client's `timeout`.

        Returns:
            The conversation's last number, which a compaction does not change.

        Raises:
            NotFound: The conversation does not exist or belongs to another user: check both ids.
            SeqMismatch: The conversation does not end with `expected_last_seq`: read it again, then
                repeat the call with `current_seq` of the error.
            InvalidArgument: `upto_seq` is beyond the end, or the summary is empty or too long.
            AlreadyExists: The key is in use with different arguments: use a new key.
            ConversationMemoryError: The call failed for another reason; its class says what to do.
        """
        return await operations.compact_conversation(
            self._operation(timeout),
            conversation_id,
            upto_seq,
            summary,
            user_id=user_id,
            expected_last_seq=expected_last_seq,
            request_id=request_id,
            token_count=token_count,
        )

    async def redact_messages(
        self,
        conversation_id: str,
        seqs: Iterable[int],
        *,
        user_id: str | None = None,
        timeout: float | None = None,
    ) -> tuple[Message, ...]:
        """Removes text, parts, metadata and contexts of messages permanently.

        Numbers, roles and times remain. A redacted message is not pinned any more. A summary that
        stands for one of the messages is removed.

        Args:
            conversation_id: Conversation of the messages.
            seqs: Numbers of 1 to 100 messages.
            user_id: Expected owner of the conversation; `None` skips the check.
            timeout: Time limit in seconds; `None` uses the client's `timeout`, or 60 if that is
                longer.

        Returns:
            The messages as they are now.

        Raises:
            NotFound: The conversation or one of the messages does not exist, or the conversation
                belongs to another user: check the numbers and both ids.
            ConversationMemoryError: The call failed for another reason; its class says what to do.
        """
        request = api.RedactMessagesRequest(
            conversation_id=conversation_id, user_id=user_id or "", seqs=seqs
        )
        operation = self._operation(timeout, at_least=LONG_TIMEOUT)
        answer = await operation.call(methods.REDACT_MESSAGES, request)
        return convert.read_messages(answer.messages)

    async def get_blob(
        self,
        conversation_id: str,
        seq: int,
        part: int,
        *,
        user_id: str | None = None,
        timeout: float | None = None,
    ) -> bytes:
        """Reads the data of a blob, of any size.

        Args:
            conversation_id: Conversation of the message.
            seq: Number of the message.
            part: Index of the part in the message's `parts`.
            user_id: Expected owner of the conversation; `None` skips the check.
            timeout: Time limit in seconds; `None` uses the client's `timeout`.

        Returns:
            The data.

        Raises:
            NotFound: The part does not exist or is no blob, or the conversation belongs to another
                user: check the part of the message, and both ids.
            ConversationMemoryError: The call failed for another reason; its class says what to do.
        """
        operation = self._operation(timeout)
        return await blobs.get_blob(operation, conversation_id, seq, part, user_id=user_id)
