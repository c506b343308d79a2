"""Methods of the asynchronous client for conversations and their branches."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from .. import _convert as convert
from .._config import LONG_TIMEOUT
from .._proto.v1 import conversation_memory_pb2 as api
from .._proto.v1 import methods
from .._proto.v1 import resources_pb2 as resources
from .._structs import to_struct
from .._types import Conversation
from . import operations
from .base import AsyncBaseClient


class AsyncConversations(AsyncBaseClient):
    """Conversations and branches."""

    async def create_conversation(
        self,
        user_id: str,
        *,
        title: str | None = None,
        dept_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        conversation_id: str | None = None,
        timeout: float | None = None,
    ) -> Conversation:
        """Creates a conversation. Repeating the call with the same arguments and id is no error.

        Args:
            user_id: Owner of the conversation.
            title: Title; `None` lets the service derive it from the first user message.
            dept_id: Department or tenant of the user.
            metadata: Anything that JSON can represent, at most 64 KiB and 32 levels.
            conversation_id: UUID of the conversation; `None` generates one.
            timeout: Time limit in seconds; `None` uses the client's `timeout`.

        Returns:
            The conversation.

        Raises:
            ValueError: The metadata has a value that would not be stored exactly: use a string.
            TypeError: The metadata has a value that JSON cannot represent.
            AlreadyExists: Another conversation has the id: use a new one.
            ConversationMemoryError: The call failed for another reason; its class says what to do.
        """
        return await operations.create_conversation(
            self._operation(timeout),
            user_id,
            title=title,
            dept_id=dept_id,
            metadata=metadata,
            conversation_id=conversation_id,
        )

    async def get_conversation(
        self, conversation_id: str, *, user_id: str | None = None, timeout: float | None = None
    ) -> Conversation:
        """Reads a conversation without its messages, which `list_messages` reads.

        Args:
            conversation_id: Conversation to read.
            user_id: Expected owner of the conversation; `None` skips the check.
            timeout: Time limit in seconds; `None` uses the client's `timeout`.

        Returns:
            The conversation.

        Raises:
            NotFound: The conversation does not exist or belongs to another user: check both ids.
            ConversationMemoryError: The call failed for another reason; its class says what to do.
        """
        return await operations.get_conversation(
            self._operation(timeout), conversation_id, user_id=user_id
        )

    def list_conversations(
        self,
        user_id: str,
        *,
        dept_id: str | None = None,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> AsyncGenerator[Conversation, None]:
        """Lists a user's conversations, latest activity first.

        A page is read when its first item is needed. After an error the iterator has ended; call
        the method again.

        Args:
            user_id: Owner of the conversations.
            dept_id: Department or tenant that the conversations must have; `None` lists all.
            page_size: Number of conversations that one request reads; 0 uses the service's
                default.
            timeout: Time limit of each page in seconds; `None` uses the client's `timeout`.

        Returns:
            An iterator over the conversations. It raises `ConversationMemoryError` if a page
            cannot be read; its class says what to do.
        """
        request = api.ListConversationsRequest(
            user_id=user_id, dept_id=dept_id or "", page_size=page_size
        )

        def read(page: api.ListConversationsResponse) -> list[Conversation]:
            return [convert.read_conversation(conversation) for conversation in page.conversations]

        return self._pages(methods.LIST_CONVERSATIONS, request, read, timeout)

    async def update_conversation(
        self,
        conversation_id: str,
        *,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        timeout: float | None = None,
    ) -> Conversation:
        """Changes the title, the metadata or both.

        Args:
            conversation_id: Conversation to change.
            title: New title; an empty one clears it, `None` keeps it.
            metadata: New metadata, which replaces the old; an empty one clears it, `None` keeps
                it.
            user_id: Expected owner of the conversation; `None` skips the check.
            timeout: Time limit in seconds; `None` uses the client's `timeout`.

        Returns:
            The changed conversation.

        Raises:
            ValueError: The metadata has a value that would not be stored exactly: use a string.
            TypeError: The metadata has a value that JSON cannot represent.
            NotFound: The conversation does not exist or belongs to another user: check both ids.
            ConversationMemoryError: The call failed for another reason; its class says what to do.
        """
        fields = {"title": title, "metadata": metadata}
        request = api.UpdateConversationRequest(
            conversation=resources.Conversation(
                id=conversation_id,
                title=title or "",
                metadata=to_struct(metadata) if metadata else None,
            ),
            update_mask=FieldMask(
                paths=[path for path, value in fields.items() if value is not None]
            ),
            user_id=user_id or "",
        )
        answer = await self._operation(timeout).call(methods.UPDATE_CONVERSATION, request)
        return convert.read_conversation(answer.conversation)

    async def transfer_conversation(
        self,
        conversation_id: str,
        new_user_id: str,
        *,
        new_dept_id: str | None = None,
        user_id: str | None = None,
        timeout: float | None = None,
    ) -> tuple[str, ...]:
        """Transfers a conversation and all that are connected with it by branches to another user.

        Only callers that the service's setting `OPERATORS` names may do that. Sessions of the
        previous owner are no longer attached to the conversations. Repeating the call is no error.

        Args:
            conversation_id: Conversation to transfer.
            new_user_id: New owner.
            new_dept_id: Department or tenant of the new owner; `None` keeps that of each
                conversation.
            user_id: Expected owner of the conversation; `None` skips the check.
            timeout: Time limit in seconds; `None` uses the client's `timeout`, or 60 if that is
                longer.

        Returns:
            The ids of all conversations that belong to the new owner now.

        Raises:
            PermissionDenied: The caller is no operator: add it to `OPERATORS`.
            NotFound: The conversation does not exist or belongs to a third user: check the ids.
            FailedPrecondition: They are more than 1,000 conversations or 20,000 messages: import an
                export of the conversation for the new owner instead.
            ConversationMemoryError: The call failed for another reason; its class says what to do.
        """
        request = api.TransferConversationRequest(
            conversation_id=conversation_id,
            user_id=user_id or "",
            new_user_id=new_user_id,
            new_dept_id=new_dept_id or "",
        )
        operation = self._operation(timeout, at_least=LONG_TIMEOUT)
        answer = await operation.call(methods.TRANSFER_CONVERSATION, request)
        return tuple(answer.transferred_ids)

    async def delete_conversation(
        self, conversation_id: str, *, user_id: str | None = None, timeout: float | None = None
    ) -> None:
        """Deletes a conversation and its messages permanently. Branches keep the shared messages.

        The request is sent once: after `Unavailable` or `DeadlineExceeded` the conversation may
        have been deleted.

        Args:
            conversation_id: Conversation to delete.
            user_id: Expected owner of the conversation; `None` skips the check.
            timeout: Time limit in seconds; `None` uses the client's `timeout`, or 60 if that is
                longer.

        Raises:
            NotFound: The conversation does not exist or belongs to another user: check both ids.
            ConversationMemoryError: The call failed for another reason; its class says what to do.
        """
        request = api.DeleteConversationRequest(
            conversation_id=conversation_id, user_id=user_id or ""
        )
        operation = self._operation(timeout, at_least=LONG_TIMEOUT)
        await operation.call(methods.DELETE_CONVERSATION, request)
        operation.observed_seqs.forget(conversation_id)

    async def branch_conversation(
        self,
        conversation_id: str,
        at_seq: int,
        *,
        title: str | None = None,
        branch_id: str | None = None,
        user_id: str | None = None,
        timeout: float | None = None,
    ) -> Conversation:
        """Creates a conversation that shares the messages up to `at_seq` and continues separately.

        The request is sent once, because a second one would create another branch.

        Args:
            conversation_id: Conversation to branch from.
            at_seq: Number of the last shared message.
            title: Title of the branch; `None` uses the title of the conversation.
            branch_id: Id of the branch, a UUID; `None` generates one.
            user_id: Expected owner of the conversation; `None` skips the check.
            timeout: Time limit in seconds; `None` uses the client's `timeout`.

        Returns:
            The branch.

        Raises:
            InvalidArgument: `at_seq` is less than 1 or beyond the end of the conversation.
            NotFound: The conversation does not exist or belongs to another user: check both ids.
            AlreadyExists: `branch_id` is in use, with the reason `CONVERSATION_ID_REUSED`.
            FailedPrecondition: The branch would be too deep, with the reason `BRANCH_TOO_DEEP`:
                branch at an earlier message, or import an export of the conversation and branch
                that.
            OutcomeUnknown: The branch may have been created: look for it with `list_branches`
                before repeating the call.
            ConversationMemoryError: The call failed for another reason; its class says what to do.
        """
        request = api.BranchConversationRequest(
            conversation_id=conversation_id,
            user_id=user_id or "",
            at_seq=at_seq,
            title=title or "",
            branch_id=branch_id or "",
        )
        answer = await self._operation(timeout).call(methods.BRANCH_CONVERSATION, request)
        return convert.read_conversation(answer.conversation)

    def list_branches(
        self,
        conversation_id: str,
        *,
        user_id: str | None = None,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> AsyncGenerator[Conversation, None]:
        """Lists the direct branches of a conversation, latest activity first.

        A page is read when its first item is needed. After an error the iterator has ended; call
        the method again.

        Args:
            conversation_id: Conversation that the branches were created from.
            user_id: Expected owner of the conversation; `None` skips the check.
            page_size: Number of branches that one request reads; 0 uses the service's default.
            timeout: Time limit of each page in seconds; `None` uses the client's `timeout`.

        Returns:
            An iterator over the branches. It raises `NotFound` if the conversation does not exist
            or belongs to another user, and `ConversationMemoryError` if a page cannot be read; its
            class says what to do.
        """
        request = api.ListBranchesRequest(
            conversation_id=conversation_id, user_id=user_id or "", page_size=page_size
        )

        def read(page: api.ListBranchesResponse) -> list[Conversation]:
            return [convert.read_conversation(conversation) for conversation in page.conversations]

        return self._pages(methods.LIST_BRANCHES, request, read, timeout)
