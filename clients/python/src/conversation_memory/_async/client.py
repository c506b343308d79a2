"""The asynchronous client."""

from __future__ import annotations

from types import TracebackType

from .conversations import AsyncConversations
from .files import AsyncFiles
from .items import AsyncItems
from .messages import AsyncMessages
from .sessions import AsyncSessions
from .turns import AsyncTurns


class AsyncConversationMemory(
    AsyncTurns, AsyncConversations, AsyncMessages, AsyncFiles, AsyncSessions, AsyncItems
):
    """Asynchronous client of conversation-memory.

    The first call opens the connection. Each event loop that uses the client, one after another
    or in parallel threads, has its own connection. Close the client in a loop that ends while
    other loops continue: gRPC logs errors for calls that outlive their loop.

    A process that has used this client must not fork and use a client in the child process, not
    even a new one, because gRPC's support for asyncio does not survive a fork. Fork before the
    first call.

    A failed call raises a subclass of `ConversationMemoryError`. UNAVAILABLE is retried for about
    two seconds where a retry has no second effect. A save waits until its timeout for a service
    that is unavailable or overloaded.

    `user_id` on a method that takes a conversation or session id is the expected owner. If the
    owner is another one, the object is reported as `NotFound`. `None` skips the check.

    Args:
        target: Address of the service: `host:port`, or `unix:/path`.
        token: Token that every call sends as `authorization: Bearer …`, without surrounding white
            space; `None` sends none. A function is called for each call and must not block.
        tls: TLS settings; `None` connects without TLS, as to a sidecar in the same pod.
        timeout: Default time limit in seconds of a call including its retries. Calls whose
            duration grows with the conversation (deletion, truncation, export, import) have a
            default of 60 if that is longer.
        options: Further options of the gRPC channel, which override the client's own.
        limits: Limits of the service, if its operator has changed them.
        allow_plaintext_token: Whether to send the token without TLS to other hosts than loopback
            without a `PlaintextTokenWarning`, because a service mesh encrypts the connection.

    Raises:
        ValueError: The timeout is not finite, or the token cannot be sent in a header.
    """

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
        """Closes the connection of the running event loop. A later call opens another one.

        Calls in progress in other tasks raise `Unavailable`.
        """
        await self._channel.close()
