"""Methods of the asynchronous client for messages."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from .. import _convert as convert
from .._config import LONG_TIMEOUT
from .._proto.v1 import conversation_memory_pb2 as api
from .._proto.v1 import methods
from .._types import Hit, Message, Role, Truncated
from . import operations
from .base import AsyncBaseClient


class AsyncMessages(AsyncBaseClient):
    """Listing, search and truncation."""

    def list_messages(
        self,
        conversation_id: str,
        *,
        user_id: str | None = None,
        newest_first: bool = False,
        include_contexts: bool = False,
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
            page_size: Number of messages that one request reads; 0 uses the service's default.
            timeout: Time limit of each page in seconds; `None` uses the client's `timeout`.

        Returns:
            An iterator over the messages. It raises `NotFound` if the conversation does not exist
            or belongs to another user, and `ConversationMemoryError` if a page cannot be read.
        """
        request = api.ListMessagesRequest(
            conversation_id=conversation_id,
            user_id=user_id or "",
            page_size=page_size,
            newest_first=newest_first,
            include_contexts=include_contexts,
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
        page_size: int = 0,
        timeout: float | None = None,
    ) -> AsyncGenerator[Hit, None]:
        """Searches a user's messages, best match first.

        A page is read when its first item is needed. After an error the iterator has ended; call
        the method again.

        Args:
            user_id: Owner of the messages.
            query: Words that a message must contain, in the syntax of a search box: `"a phrase"`,
                `-excluded`, `or`. At most 512 characters.
            conversation_id: Conversation to search; `None` searches all of the user's.
            dept_id: Department or tenant of the conversations to search; `None` searches all.
            role: Role of the messages to find; `None` finds all.
            page_size: Number of hits that one request reads; 0 uses the service's default.
            timeout: Time limit of each page in seconds; `None` uses the client's `timeout`.

        Returns:
            An iterator over the hits. It raises `NotFound` if the given conversation does not
            exist or belongs to another user, and `ConversationMemoryError` if a page cannot be
            read.

        Raises:
            ValueError: The role is unknown.
        """
        request = api.SearchMessagesRequest(
            user_id=user_id,
            query=query,
            conversation_id=conversation_id or "",
            dept_id=dept_id or "",
            role=convert.role_number(role),
            page_size=page_size,
        )

        def read(page: api.SearchMessagesResponse) -> list[Hit]:
            return [convert.read_hit(hit) for hit in page.hits]

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
            NotFound: The conversation does not exist or belongs to another user.
            SeqMismatch: The conversation does not end with `expected_last_seq`.
            AlreadyExists: The key is in use with different arguments.
            ConversationMemoryError: The call failed for another reason.
        """
        return await operations.truncate_conversation(
            self._operation(timeout, at_least=LONG_TIMEOUT),
            conversation_id,
            after_seq,
            user_id=user_id,
            request_id=request_id,
            expected_last_seq=expected_last_seq,
        )
