"""The blocking client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import grpc

from . import _flows as flows
from ._calls import failure_of, pause_before_repeating
from ._channel import DEFAULT_TARGET, Option, Settings, Tls
from ._convert import read_imported
from ._errors import from_rpc_error
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
from ._flows import AnyCall, Flow, Page
from ._method import Method
from ._proto.v1 import methods
from ._seen import Seen
from ._turn import Turn, TurnOptions
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

DEFAULT_TIMEOUT = 5.0
"""Seconds for a call with all its retries."""

LONG_TIMEOUT = 60.0
"""Seconds for what takes longer the longer a conversation is, unless the client has more."""


class ConversationMemory:
    """A blocking client of conversation-memory. Threads can share one.

    Args:
        target: Where the service is: `host:port`, or `unix:/path`.
        token: Sent as `authorization: Bearer …` with every call, without the space around it; a
            function is asked for each.
        tls: TLS to the service; without it the connection is in the clear, as to a sidecar.
        timeout: Seconds for a call with all its retries, unless the call says otherwise. What takes
            longer the longer a conversation is (deletion, truncation, export, import) has 60 at
            least.
        options: Further options of the gRPC channel; they win over the client's own.

    Nothing is connected before the first call. A process that forks while no call is under way can
    go on with it in the child, unless gRPC's fork support is switched off
    (GRPC_ENABLE_FORK_SUPPORT=0). After a fork during calls of other threads the child's calls hang:
    fork before the first one.

    Each method raises a `ConversationMemoryError`: `InvalidArgument`, `NotFound`, `Unavailable`,
    `DeadlineExceeded` and so on. What passes (UNAVAILABLE) is tried again for about two seconds
    where that does nothing twice; a save waits until its timeout for a service that is away, or
    overloaded.

    `user_id` on a method that names a conversation is a claim of whose it is: when it is wrong,
    the conversation is `NotFound`. Without it nothing is compared.
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
        self._channel: grpc.Channel | None = None
        self._methods: dict[str, Any] = {}

    def __enter__(self) -> ConversationMemory:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection. A later call opens another.

        Calls that other threads are in end with `Unavailable`.
        """
        with self._lock:
            channel, self._channel = self._channel, None
            self._methods = {}
        if channel is not None:
            channel.close()

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
    ) -> Turn:
        """A turn of an agent, for a with statement.

        On entry it has the history; on exit what was added is saved, whole and once. After an
        exception nothing is saved; after an interruption from outside, such as Ctrl-C, a turn
        that has its answer is saved. When the save itself fails, its error is raised, and
        `turn.save()` tries again under the same key.

        Args:
            user_id: Whose turn it is.
            session_id: `session_id` of the turn before. One that expired is resumed on its
                conversation; one that is unknown, or another user's, is `SessionExpired`.
            conversation_id: The conversation to go on with; by default the session's, or a new one.
                Named beside the session, it is found when the session tier is down.
            dept_id: The user's department or tenant, kept on what is created.
            limit: How many messages of history; 0 for the service's default, 1000 at most.
            if_unchanged: Save only if nobody else has saved since: otherwise `SeqMismatch`.
        """
        options = TurnOptions(user_id, session_id, conversation_id, dept_id, limit, if_unchanged)
        return Turn(self, options)

    def begin_turn(
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
        return self._run(flow, timeout)

    def save_messages(
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
        """Saves 1 to 100 messages, all or none; when it returns they are durable.

        Args:
            conversation_id: The conversation.
            messages: Messages, or dicts in the OpenAI form.
            user_id: The claim of whose it is.
            session_id: A session to keep alive; it never fails the call.
            request_id: The key of this save, at most 128 characters: the same messages under the
                same key are saved once. Made for each call by default; an error has it as
                `request_id`, to repeat the call with.
            expected_last_seq: Save only if the conversation still ends here: otherwise
                `SeqMismatch`.
            timeout: Seconds.
        """
        flow = flows.save_messages(
            self._seen,
            conversation_id,
            messages,
            user_id,
            session_id,
            request_id,
            expected_last_seq,
        )
        return self._run(flow, timeout)

    def get_history(
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
        """Reads the newest messages, and at least everything that this client has seen.

        An answer ends at about 3 MiB: it may have fewer messages than `limit`, the newest ones.

        Args:
            conversation_id: The conversation.
            user_id: The claim of whose it is.
            limit: How many; 0 for the service's default, 1000 at most.
            min_seq: Show everything up to this number, whatever has failed since; beyond the end
                it is `MinSeqNotReached`. By default the highest number that this client has seen.
            strong: Read the durable store rather than Redis.
            session_id: A session to keep alive; it never fails the call.
            include_contexts: Whether messages come with their contexts.
            timeout: Seconds.
        """
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
        return self._run(flow, timeout)

    # Conversations.

    def create_conversation(
        self,
        user_id: str,
        *,
        title: str | None = None,
        dept_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        conversation_id: str | None = None,
        timeout: float | None = None,
    ) -> Conversation:
        """Creates a conversation, under a UUID of the caller's choice if one is given.

        The same again is no error; another one under that id is `AlreadyExists`.
        """
        flow = flows.create_conversation(user_id, title, dept_id, metadata, conversation_id)
        return self._run(flow, timeout)

    def get_conversation(
        self, conversation_id: str, *, user_id: str | None = None, timeout: float | None = None
    ) -> Conversation:
        """Reads a conversation; `list_messages` reads what was said in it."""
        return self._run(flows.get_conversation(conversation_id, user_id), timeout)

    def list_conversations(
        self,
        user_id: str,
        *,
        dept_id: str | None = None,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> Iterator[Conversation]:
        """A user's conversations, latest activity first. Pages are read as they are needed.

        After an error the iterator is at its end: begin again with another.
        `page_size` is how many are read at once, 0 for the service's default; `timeout` is a
        page's.
        """
        return self._pages(
            lambda token: flows.list_conversations(user_id, dept_id, page_size, token), timeout
        )

    def update_conversation(
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
        return self._run(flow, timeout)

    def delete_conversation(
        self,
        conversation_id: str,
        *,
        user_id: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Deletes a conversation and its messages, for good. Branches keep what they share.

        It is sent once: after `Unavailable` or `DeadlineExceeded` it may have been done.
        """
        self._run(
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
    ) -> Iterator[Message]:
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
    ) -> Iterator[Hit]:
        """Finds what a user's messages say, best first: words, "a phrase", -not, or."""
        return self._pages(
            lambda token: flows.search_messages(
                user_id, query, conversation_id, dept_id, role, page_size, token
            ),
            timeout,
        )

    def truncate_conversation(
        self,
        conversation_id: str,
        after_seq: int,
        *,
        user_id: str | None = None,
        request_id: str | None = None,
        expected_last_seq: int | None = None,
        timeout: float | None = None,
    ) -> Truncated:
        """Removes the messages after `after_seq`, for good; 0 removes all.

        Numbers are not used again. A retry never removes what was saved in between.
        `request_id` and `expected_last_seq` are as in `save_messages`.
        """
        flow = flows.truncate_conversation(
            self._seen, conversation_id, after_seq, user_id, request_id, expected_last_seq
        )
        return self._run(flow, self._long(timeout))

    # Branches.

    def branch_conversation(
        self,
        conversation_id: str,
        at_seq: int,
        *,
        title: str | None = None,
        user_id: str | None = None,
        timeout: float | None = None,
    ) -> Conversation:
        """Creates a conversation that shares the messages up to `at_seq` and goes on by itself.

        It is sent once, since a second time would make another branch.
        """
        flow = flows.branch_conversation(conversation_id, at_seq, title, user_id)
        return self._run(flow, timeout)

    def list_branches(
        self,
        conversation_id: str,
        *,
        user_id: str | None = None,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> Iterator[Conversation]:
        """The conversations that branched from this one, latest activity first."""
        return self._pages(
            lambda token: flows.list_branches(conversation_id, user_id, page_size, token), timeout
        )

    # Files.

    def export_conversation(
        self,
        conversation_id: str,
        destination: Destination,
        *,
        format: ExportFormat = "json",
        user_id: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Writes a conversation, as it was at one moment, to a path or an open binary file.

        A path is there only once the file is complete, for its owner's eyes only; a link stays, and
        what it names is replaced. What an open file, a pipe or a device has been given when an
        error is raised is not complete.
        """
        request = export_request(conversation_id, format, user_id)
        with open_destination(destination) as file:
            pieces = self._method(methods.EXPORT_CONVERSATION, "unary_stream")(
                request, timeout=self._long(timeout), metadata=self._settings.metadata()
            )
            try:
                for piece in pieces:
                    write_all(file, piece.data)
            except grpc.RpcError as error:
                raise from_rpc_error(error, repeatable=True, request_id=None) from error
            finally:
                # What is not wanted any more must not hold the server's snapshot.
                pieces.cancel()

    def import_conversation(
        self,
        source: FileSource,
        *,
        format: ImportFormat | None = None,
        user_id: str | None = None,
        dept_id: str | None = None,
        timeout: float | None = None,
    ) -> Imported:
        """Makes a conversation of a file that an export wrote, whole or not at all.

        It is sent once, since a second time would make another conversation.

        Args:
            source: A path, or an open binary file; one that does not block is a BlockingIOError
                when it has nothing to give.
            format: `json` or `jsonl`; by default it is seen from the file.
            user_id: Whose the conversation becomes; by default whose the file says it is.
            dept_id: The department; by default what the file says.
            timeout: Seconds.
        """
        with import_requests(source, format, user_id, dept_id) as requests:
            try:
                answer = self._method(methods.IMPORT_CONVERSATION, "stream_unary")(
                    iter(requests),
                    timeout=self._long(timeout),
                    metadata=self._settings.metadata(),
                )
            except grpc.RpcError as error:
                if requests.failure is not None:
                    raise requests.failure from None
                raise from_rpc_error(error, repeatable=False, request_id=None) from error
        return read_imported(answer)

    # Sessions.

    def create_session(
        self,
        user_id: str,
        *,
        dept_id: str | None = None,
        conversation_id: str | None = None,
        timeout: float | None = None,
    ) -> Session:
        """Starts a session, on a conversation if one is given. Sent once: each call starts one."""
        return self._run(flows.create_session(user_id, dept_id, conversation_id), timeout)

    def get_session(
        self, session_id: str, *, user_id: str | None = None, timeout: float | None = None
    ) -> Session:
        """Reads a session without extending it."""
        return self._run(flows.get_session(session_id, user_id), timeout)

    def extend_session(
        self, session_id: str, *, user_id: str | None = None, timeout: float | None = None
    ) -> Session:
        """Gives a session its whole time to live again."""
        return self._run(flows.extend_session(session_id, user_id), timeout)

    def end_session(
        self, session_id: str, *, user_id: str | None = None, timeout: float | None = None
    ) -> None:
        """Ends a session at once. Its conversation stays."""
        self._run(flows.end_session(session_id, user_id), timeout)

    def list_sessions(self, user_id: str, *, timeout: float | None = None) -> list[Session]:
        """A user's live sessions, the one used last first."""
        return self._run(flows.list_sessions(user_id), timeout)

    # How calls are made.

    def _run(self, flow: Flow[T], timeout: float | None) -> T:
        """Makes the calls of a flow, within one timeout for all of them."""
        deadline = time.monotonic() + self._settings.seconds(timeout)
        try:
            wanted, pause = next(flow), None
            while True:
                try:
                    if pause is not None:
                        time.sleep(pause)
                    answer = self._invoke(wanted, deadline - time.monotonic())
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

    def _invoke(self, wanted: AnyCall, timeout: float) -> Any:
        metadata = self._settings.metadata()
        while True:
            method = self._method(wanted.method, "unary_unary")
            try:
                return method(
                    wanted.request,
                    timeout=max(timeout, 0),
                    metadata=metadata,
                    wait_for_ready=wanted.is_save or None,
                )
            except ValueError:
                # Closed by another thread just now, before anything was sent: a new
                # connection is opened, as for any call after that.
                if self._methods.get(wanted.method.path) is method:
                    raise

    def _pages(self, page: Callable[[str], Flow[Page[T]]], timeout: float | None) -> Iterator[T]:
        token = ""
        while True:
            found, token = self._run(page(token), timeout)
            yield from found
            if not token:
                return

    def _long(self, timeout: float | None) -> float:
        return self._settings.seconds(timeout, LONG_TIMEOUT)

    def _method(self, method: Method[Any, Any], kind: str) -> Any:
        with self._lock:
            if self._channel is None:
                self._channel = self._open()
            ready = self._methods.get(method.path)
            if ready is None:
                ready = getattr(self._channel, kind)(
                    method.path, method.serialize, method.deserialize
                )
                self._methods[method.path] = ready
        return ready

    def _open(self) -> grpc.Channel:
        settings = self._settings
        options = settings.channel_options()
        if settings.tls is None:
            return grpc.insecure_channel(settings.target, options)
        return grpc.secure_channel(settings.target, settings.tls.credentials(), options)
