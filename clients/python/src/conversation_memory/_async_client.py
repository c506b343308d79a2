"""The client for asyncio."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import grpc
from grpc import aio

from . import _flows as flows
from ._calls import failure_of, pause_before_repeating
from ._channel import DEFAULT_TARGET, Option, Settings, Tls, is_repeatable
from ._client import DEFAULT_TIMEOUT, LONG_TIMEOUT
from ._convert import read_imported
from ._errors import Closed, from_rpc_error
from ._files import (
    Destination,
    ExportFormat,
    FileSource,
    ImportFormat,
    export_request,
    import_requests,
    open_destination,
    write_all,
)
from ._finish import is_finishing
from ._flows import AnyCall, Flow, Page
from ._method import Method
from ._proto.v1 import methods
from ._seen import Seen
from ._turn import AsyncTurn, TurnOptions
from ._types import (
    BegunTurn,
    Conversation,
    History,
    Hit,
    Imported,
    Message,
    MessageLike,
    Role,
    SavedMessages,
    Session,
    Truncated,
)

T = TypeVar("T")


class AsyncConversationMemory:
    """A client of conversation-memory for asyncio: `ConversationMemory`, awaited.

    It has the same arguments and methods, which are described there. A `token` that is a
    function is called on the event loop: it must not block.

    Nothing is connected before the first call. Each event loop that it is used in, one after
    another or in threads at once, gets a connection of its own. Close it in a loop that ends while
    others go on: gRPC logs errors of calls that outlived their loop.

    A process that has used it must not fork and use one in the child, not even a new one: gRPC's
    asyncio does not survive that. Fork before the first call.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        token: str | Callable[[], str] | None = None,
        tls: Tls | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        options: Sequence[Option] = (),
    ) -> None:
        self._settings = Settings(target, token, tls, timeout, tuple(options))
        self._seen = Seen()
        self._lock = threading.Lock()
        self._connections: dict[asyncio.AbstractEventLoop, _Connection] = {}

    async def __aenter__(self) -> AsyncConversationMemory:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes this event loop's connection. A later call opens another.

        Calls that other tasks are in end with `Unavailable`.
        """
        with self._lock:
            connection = self._connections.pop(asyncio.get_running_loop(), None)
        if connection is not None:
            await connection.close()

    # A turn.

    def turn(
        self,
        user_id: str,
        *,
        session_id: str | None = None,
        conversation_id: str | None = None,
        dept_id: str | None = None,
        limit: int = 0,
        if_unchanged: bool = False,
    ) -> AsyncTurn:
        """A turn of an agent, for a with statement."""
        options = TurnOptions(user_id, session_id, conversation_id, dept_id, limit, if_unchanged)
        return AsyncTurn(self, options)

    async def begin_turn(
        self,
        user_id: str,
        *,
        session_id: str | None = None,
        conversation_id: str | None = None,
        dept_id: str | None = None,
        limit: int = 0,
        timeout: float | None = None,
    ) -> BegunTurn:
        """Opens a turn: the session, the conversation, its newest messages. See `turn`."""
        flow = flows.begin_turn(self._seen, user_id, session_id, conversation_id, dept_id, limit)
        return await self._run(flow, timeout)

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
        """Saves 1 to 100 messages, all or none; when it returns they are durable."""
        flow = flows.save_messages(
            self._seen,
            conversation_id,
            messages,
            user_id,
            session_id,
            request_id,
            expected_last_seq,
        )
        return await self._run(flow, timeout)

    async def get_history(
        self,
        conversation_id: str,
        *,
        user_id: str | None = None,
        limit: int = 0,
        min_seq: int | None = None,
        strong: bool = False,
        session_id: str | None = None,
        include_contexts: bool = False,
        timeout: float | None = None,
    ) -> History:
        """Reads the newest messages, and at least everything that this client has seen."""
        flow = flows.get_history(
            self._seen,
            conversation_id,
            user_id,
            limit,
            min_seq,
            strong,
            session_id,
            include_contexts,
        )
        return await self._run(flow, timeout)

    # Conversations.

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
        """Creates a conversation, under a UUID of the caller's choice if one is given."""
        flow = flows.create_conversation(user_id, title, dept_id, metadata, conversation_id)
        return await self._run(flow, timeout)

    async def get_conversation(
        self, conversation_id: str, *, user_id: str | None = None, timeout: float | None = None
    ) -> Conversation:
        """Reads a conversation; `list_messages` reads what was said in it."""
        return await self._run(flows.get_conversation(conversation_id, user_id), timeout)

    def list_conversations(
        self,
        user_id: str,
        *,
        dept_id: str | None = None,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> AsyncGenerator[Conversation, None]:
        """A user's conversations, latest activity first. Pages are read as they are needed."""
        return self._pages(
            lambda token: flows.list_conversations(user_id, dept_id, page_size, token), timeout
        )

    async def update_conversation(
        self,
        conversation_id: str,
        *,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        timeout: float | None = None,
    ) -> Conversation:
        """Changes the title, the metadata or both. None leaves it; what is empty clears it."""
        flow = flows.update_conversation(conversation_id, title, metadata, user_id)
        return await self._run(flow, timeout)

    async def delete_conversation(
        self,
        conversation_id: str,
        *,
        user_id: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Deletes a conversation and its messages, for good. Branches keep what they share."""
        await self._run(
            flows.delete_conversation(self._seen, conversation_id, user_id), self._long(timeout)
        )

    # Messages.

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
        """All messages of a conversation, oldest first. Pages are read as they are needed."""
        return self._pages(
            lambda token: flows.list_messages(
                conversation_id, user_id, newest_first, include_contexts, page_size, token
            ),
            timeout,
        )

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
        """Finds what a user's messages say, best first: words, "a phrase", -not, or."""
        return self._pages(
            lambda token: flows.search_messages(
                user_id, query, conversation_id, dept_id, role, page_size, token
            ),
            timeout,
        )

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
        """Removes the messages after `after_seq`, for good; 0 removes all."""
        flow = flows.truncate_conversation(
            self._seen, conversation_id, after_seq, user_id, request_id, expected_last_seq
        )
        return await self._run(flow, self._long(timeout))

    # Branches.

    async def branch_conversation(
        self,
        conversation_id: str,
        at_seq: int,
        *,
        title: str | None = None,
        user_id: str | None = None,
        timeout: float | None = None,
    ) -> Conversation:
        """Creates a conversation that shares the messages up to `at_seq` and goes on by itself."""
        flow = flows.branch_conversation(conversation_id, at_seq, title, user_id)
        return await self._run(flow, timeout)

    def list_branches(
        self,
        conversation_id: str,
        *,
        user_id: str | None = None,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> AsyncGenerator[Conversation, None]:
        """The conversations that branched from this one, latest activity first."""
        return self._pages(
            lambda token: flows.list_branches(conversation_id, user_id, page_size, token), timeout
        )

    # Files.

    async def export_conversation(
        self,
        conversation_id: str,
        destination: Destination,
        *,
        format: ExportFormat = "json",
        user_id: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Writes a conversation, as it was at one moment, to a path or an open binary file."""
        request = export_request(conversation_id, format, user_id)
        with open_destination(destination) as file:
            call = self._connection().method(methods.EXPORT_CONVERSATION, "unary_stream")
            pieces = call(request, timeout=self._long(timeout), metadata=self._settings.metadata())
            try:
                async for piece in pieces:
                    await asyncio.to_thread(write_all, file, piece.data)
            except grpc.RpcError as error:
                raise from_rpc_error(error, repeatable=True, request_id=None) from error
            finally:
                pieces.cancel()

    async def import_conversation(
        self,
        source: FileSource,
        *,
        format: ImportFormat | None = None,
        user_id: str | None = None,
        dept_id: str | None = None,
        timeout: float | None = None,
    ) -> Imported:
        """Makes a conversation of a file that an export wrote, whole or not at all."""
        with import_requests(source, format, user_id, dept_id) as requests:
            try:
                call = self._connection().method(methods.IMPORT_CONVERSATION, "stream_unary")
                answer = await call(
                    aiter(requests),
                    timeout=self._long(timeout),
                    metadata=self._settings.metadata(),
                )
            except (grpc.RpcError, asyncio.CancelledError) as error:
                if requests.failure is not None:
                    raise requests.failure from None
                if isinstance(error, asyncio.CancelledError):
                    raise
                raise from_rpc_error(error, repeatable=False, request_id=None) from error
        return read_imported(answer)

    # Sessions.

    async def create_session(
        self,
        user_id: str,
        *,
        dept_id: str | None = None,
        conversation_id: str | None = None,
        timeout: float | None = None,
    ) -> Session:
        """Starts a session, on a conversation if one is given. Sent once: each call starts one."""
        return await self._run(flows.create_session(user_id, dept_id, conversation_id), timeout)

    async def get_session(
        self, session_id: str, *, user_id: str | None = None, timeout: float | None = None
    ) -> Session:
        """Reads a session without extending it."""
        return await self._run(flows.get_session(session_id, user_id), timeout)

    async def extend_session(
        self, session_id: str, *, user_id: str | None = None, timeout: float | None = None
    ) -> Session:
        """Gives a session its whole time to live again."""
        return await self._run(flows.extend_session(session_id, user_id), timeout)

    async def end_session(
        self, session_id: str, *, user_id: str | None = None, timeout: float | None = None
    ) -> None:
        """Ends a session at once. Its conversation stays."""
        await self._run(flows.end_session(session_id, user_id), timeout)

    async def list_sessions(self, user_id: str, *, timeout: float | None = None) -> list[Session]:
        """A user's live sessions, the one used last first."""
        return await self._run(flows.list_sessions(user_id), timeout)

    # How calls are made.

    async def _run(self, flow: Flow[T], timeout: float | None) -> T:
        """Makes the calls of a flow, within one timeout for all of them."""
        deadline = time.monotonic() + self._settings.seconds(timeout)
        try:
            wanted, pause = next(flow), None
            while True:
                try:
                    if pause is not None:
                        await asyncio.sleep(pause)
                    answer = await self._invoke(wanted, deadline - time.monotonic())
                except asyncio.CancelledError:
                    if not (is_finishing() and is_repeatable(wanted.method)):
                        raise
                    # The same call again, since it does nothing twice.
                except grpc.RpcError as error:
                    failure = failure_of(wanted, error)
                    left = deadline - time.monotonic()
                    pause = pause_before_repeating(wanted, failure, left)
                    if pause is None:
                        wanted = flow.throw(failure)
                else:
                    wanted, pause = flow.send(answer), None
        except StopIteration as finished:
            result: T = finished.value
            return result

    async def _invoke(self, wanted: AnyCall, timeout: float) -> Any:
        connection = self._connection()
        call = connection.method(wanted.method, "unary_unary")(
            wanted.request,
            timeout=max(timeout, 0),
            metadata=self._settings.metadata(),
            wait_for_ready=wanted.is_save or None,
        )
        running = connection.running
        running.add(call)
        try:
            return await call
        except asyncio.CancelledError:
            # A call that `close` ended is no cancellation of the task, unless both happened.
            if call in running or _is_being_cancelled():
                raise
            raise Closed from None
        finally:
            running.discard(call)

    async def _pages(
        self, page: Callable[[str], Flow[Page[T]]], timeout: float | None
    ) -> AsyncGenerator[T, None]:
        token = ""
        while True:
            found, token = await self._run(page(token), timeout)
            for item in found:
                yield item
            if not token:
                return

    def _long(self, timeout: float | None) -> float:
        return self._settings.seconds(timeout, LONG_TIMEOUT)

    def _connection(self) -> _Connection:
        """The running event loop's."""
        loop = asyncio.get_running_loop()
        with self._lock:
            connection = self._connections.get(loop)
            if connection is None:
                # A loop that was closed without closing its connection needs it no more.
                for other in [other for other in self._connections if other.is_closed()]:
                    del self._connections[other]
                connection = self._connections[loop] = _Connection(self._open())
            return connection

    def _open(self) -> aio.Channel:
        settings = self._settings
        options = settings.channel_options()
        if settings.tls is None:
            return aio.insecure_channel(settings.target, options)
        return aio.secure_channel(settings.target, settings.tls.credentials(), options)


class _Connection:
    """An event loop's channel."""

    def __init__(self, channel: aio.Channel) -> None:
        self.running: set[Any] = set()
        self._channel = channel
        self._methods: dict[str, Any] = {}

    def method(self, method: Method[Any, Any], kind: str) -> Any:
        ready = self._methods.get(method.path)
        if ready is None:
            ready = getattr(self._channel, kind)(method.path, method.serialize, method.deserialize)
            self._methods[method.path] = ready
        return ready

    async def close(self) -> None:
        for call in list(self.running):
            if call.cancel():
                self.running.discard(call)
        await self._channel.close()


def _is_being_cancelled() -> bool:
    """Whether somebody cancelled the current task, as far as Python says so: from 3.11 on."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is not None and cancelling() > 0
