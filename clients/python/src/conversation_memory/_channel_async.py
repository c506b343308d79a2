"""gRPC channels of the asyncio client."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterable
from typing import Any
from weakref import WeakSet

from grpc import aio

from ._config import ClientConfig
from ._errors import ClientClosed, time_left
from ._method import Method, Request, Response
from ._retries import Call


class AsyncChannel:
    """Channels to the service: one for each event loop, opened by its first call. Thread-safe."""

    def __init__(self, config: ClientConfig) -> None:
        self.target = config.target
        self._config = config
        self._lock = threading.Lock()
        self._connections: dict[asyncio.AbstractEventLoop, _Connection] = {}

    async def unary(self, call: Call[Request, Response], seconds: float) -> Response:
        """Sends one request and returns the response.

        Raises:
            grpc.RpcError: The call failed, or `close` ended it.
        """
        connection = self._connection()
        running = connection.running
        sent = connection.method(call.method, "unary_unary")(
            call.request,
            timeout=time_left(seconds),
            metadata=self._config.metadata(),
            wait_for_ready=call.is_save or None,
        )
        running.add(sent)
        try:
            response: Response = await sent
            return response
        except asyncio.CancelledError:
            # A call that `close` ended does not cancel the task, unless both happened.
            if sent in running or _is_current_task_cancelled():
                raise
            raise ClientClosed from None
        finally:
            running.discard(sent)

    def unary_stream(
        self, method: Method[Request, Response], request: Request, seconds: float
    ) -> Any:
        """Sends one request and returns gRPC's call, an asynchronous iterator of the responses."""
        return self._connection().method(method, "unary_stream")(
            request, timeout=time_left(seconds), metadata=self._config.metadata()
        )

    async def stream_unary(
        self, method: Method[Request, Response], requests: AsyncIterable[Request], seconds: float
    ) -> Response:
        """Sends a stream of requests and returns the response."""
        response: Response = await self._connection().method(method, "stream_unary")(
            aiter(requests), timeout=time_left(seconds), metadata=self._config.metadata()
        )
        return response

    async def close(self) -> None:
        """Closes the channel of the running event loop; its unary calls raise `ClientClosed`."""
        with self._lock:
            connection = self._connections.pop(asyncio.get_running_loop(), None)
        if connection is not None:
            await connection.close()

    def _connection(self) -> _Connection:
        _check_process()
        loop = asyncio.get_running_loop()
        with self._lock:
            connection = self._connections.get(loop)
            if connection is None:
                # A loop that was closed before its channel no longer needs the channel.
                for other in [other for other in self._connections if other.is_closed()]:
                    del self._connections[other]
                connection = self._connections[loop] = _Connection(self._open())
            return connection

    def _open(self) -> aio.Channel:
        config = self._config
        options = config.channel_options()
        if config.tls is None:
            return aio.insecure_channel(config.target, options)
        return aio.secure_channel(config.target, config.tls.credentials(), options)


class _Connection:
    """The channel of one event loop and the unary calls in progress on it."""

    def __init__(self, channel: aio.Channel) -> None:
        self.running: set[Any] = set()
        self._channel = channel
        self._methods: dict[str, Any] = {}
        _process.connections.add(self)

    def method(self, method: Method[Any, Any], kind: str) -> Any:
        """Returns gRPC's callable for a method, which is created once."""
        callable_ = self._methods.get(method.path)
        if callable_ is None:
            create = getattr(self._channel, kind)
            callable_ = create(method.path, method.serialize, method.deserialize)
            self._methods[method.path] = callable_
        return callable_

    async def close(self) -> None:
        """Ends the calls in progress and closes the channel."""
        for call in list(self.running):
            if call.cancel():
                self.running.discard(call)
        await self._channel.close()
        _process.connections.discard(self)


class _Process:
    """Connections of this process, and whether its parent had any when it forked."""

    def __init__(self) -> None:
        self.connections: WeakSet[_Connection] = WeakSet()
        self.is_unusable = False

    def after_fork(self) -> None:
        """Begins the child process."""
        self.is_unusable = self.is_unusable or bool(self.connections)


_process = _Process()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.after_fork)


def _check_process() -> None:
    """Rejects a call that would never end: the threads of gRPC's asyncio API are in the parent.

    Raises:
        RuntimeError: The process is a fork of one with open connections.
    """
    if _process.is_unusable:
        raise RuntimeError(
            "an AsyncConversationMemory cannot be used in this process, because its parent had open"
            " connections when it forked: close them before, start processes with 'spawn', or use"
            " a ConversationMemory"
        )


def _is_current_task_cancelled() -> bool:
    """Whether the current task was cancelled. Python reports it from version 3.11 on."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is not None and cancelling() > 0
