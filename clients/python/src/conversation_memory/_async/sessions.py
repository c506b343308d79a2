"""Methods of the asynchronous client for sessions."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from .. import _convert as convert
from .._proto.v1 import methods
from .._proto.v1 import session_service_pb2 as api
from .._types import Session
from .base import AsyncBaseClient


class AsyncSessions(AsyncBaseClient):
    """Sessions."""

    async def create_session(
        self,
        user_id: str,
        *,
        dept_id: str | None = None,
        conversation_id: str | None = None,
        timeout: float | None = None,
    ) -> Session:
        """Starts a session.

        The request is sent once, because each one starts another session.

        Args:
            user_id: User that the session belongs to.
            dept_id: Department or tenant of the user.
            conversation_id: Conversation of the session; `None` leaves it open.
            timeout: Time limit in seconds; `None` uses the client's `timeout`.

        Returns:
            The session.

        Raises:
            NotFound: The conversation does not exist or belongs to another user: check both ids.
            ConversationMemoryError: The call failed for another reason; its class says what to do.
        """
        request = api.CreateSessionRequest(
            user_id=user_id, dept_id=dept_id or "", conversation_id=conversation_id or ""
        )
        answer = await self._operation(timeout).call(methods.CREATE_SESSION, request)
        return convert.read_session(answer.session)

    async def get_session(
        self, session_id: str, *, user_id: str | None = None, timeout: float | None = None
    ) -> Session:
        """Reads a session without renewing its expiry.

        Args:
            session_id: Session to read.
            user_id: Expected user of the session; `None` skips the check.
            timeout: Time limit in seconds; `None` uses the client's `timeout`.

        Returns:
            The session.

        Raises:
            SessionExpired: The session has expired, is unknown or belongs to another user: begin a
                turn without it.
            ConversationMemoryError: The call failed for another reason; its class says what to do.
        """
        request = api.GetSessionRequest(session_id=session_id, user_id=user_id or "")
        answer = await self._operation(timeout).call(methods.GET_SESSION, request)
        return convert.read_session(answer.session)

    async def extend_session(
        self, session_id: str, *, user_id: str | None = None, timeout: float | None = None
    ) -> Session:
        """Renews the expiry of a session: its full time to live starts again.

        Args:
            session_id: Session to extend.
            user_id: Expected user of the session; `None` skips the check.
            timeout: Time limit in seconds; `None` uses the client's `timeout`.

        Returns:
            The extended session.

        Raises:
            SessionExpired: The session has expired, is unknown or belongs to another user: begin a
                turn without it.
            ConversationMemoryError: The call failed for another reason; its class says what to do.
        """
        request = api.ExtendSessionRequest(session_id=session_id, user_id=user_id or "")
        answer = await self._operation(timeout).call(methods.EXTEND_SESSION, request)
        return convert.read_session(answer.session)

    async def end_session(
        self, session_id: str, *, user_id: str | None = None, timeout: float | None = None
    ) -> None:
        """Ends a session. Its conversation stays.

        The request is sent once: after `Unavailable` or `DeadlineExceeded` the session may have
        ended.

        Args:
            session_id: Session to end.
            user_id: Expected user of the session; `None` skips the check.
            timeout: Time limit in seconds; `None` uses the client's `timeout`.

        Raises:
            SessionExpired: The session has expired, is unknown or belongs to another user: begin a
                turn without it.
            ConversationMemoryError: The call failed for another reason; its class says what to do.
        """
        request = api.EndSessionRequest(session_id=session_id, user_id=user_id or "")
        await self._operation(timeout).call(methods.END_SESSION, request)

    def list_sessions(
        self, user_id: str, *, page_size: int = 0, timeout: float | None = None
    ) -> AsyncGenerator[Session, None]:
        """Lists a user's sessions that have not expired, most recently used first.

        A page is read when its first item is needed. A session that is used meanwhile may be on
        no page. After an error the iterator has ended; call the method again.

        Args:
            user_id: User that the sessions belong to.
            page_size: Number of sessions that one request reads; 0 uses the service's default.
            timeout: Time limit of each page in seconds; `None` uses the client's `timeout`.

        Returns:
            An iterator over the sessions. It raises `ConversationMemoryError` if a page cannot be
            read; its class says what to do.
        """
        request = api.ListSessionsRequest(user_id=user_id, page_size=page_size)

        def read(page: api.ListSessionsResponse) -> list[Session]:
            return [convert.read_session(session) for session in page.sessions]

        return self._pages(methods.LIST_SESSIONS, request, read, timeout)
