"""gRPC channel of the blocking client."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import Any

import grpc

from ._config import ClientConfig, Option
from ._errors import time_left
from ._method import Method, Request, Response
from ._retries import Call

_SEPARATE_CONNECTIONS: tuple[Option, ...] = (("grpc.use_local_subchannel_pool", 1),)


class Channel:
    """A channel to the service, opened by the first call. Thread-safe."""

    def __init__(self, config: ClientConfig) -> None:
        self.target = config.target
        self._config = config
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._methods: dict[str, Any] = {}
        self._process_id = os.getpid()
        self._extra_options: tuple[Option, ...] = ()

    def unary(self, call: Call[Request, Response], seconds: float) -> Response:
        """Sends one request and returns the response.

        Raises:
            grpc.RpcError: The call failed, or `close` ended it.
        """
        metadata = self._config.metadata()
        while True:
            method = self._method(call.method, "unary_unary")
            try:
                response: Response = method(
                    call.request,
                    timeout=time_left(seconds),
                    metadata=metadata,
                    wait_for_ready=call.is_save or None,
                )
                return response
            except ValueError:
                # Another thread closed the channel before anything was sent. The next iteration
                # opens a new channel, as any later call does.
                if self._methods.get(call.method.path) is method:
                    raise

    def unary_stream(
        self, method: Method[Request, Response], request: Request, seconds: float
    ) -> Any:
        """Sends one request and returns gRPC's call, an iterator of the responses."""
        return self._method(method, "unary_stream")(
            request, timeout=time_left(seconds), metadata=self._config.metadata()
        )

    def stream_unary(
        self, method: Method[Request, Response], requests: Iterable[Request], seconds: float
    ) -> Response:
        """Sends a stream of requests and returns the response."""
        response: Response = self._method(method, "stream_unary")(
            iter(requests), timeout=time_left(seconds), metadata=self._config.metadata()
        )
        return response

    def close(self) -> None:
        """Closes the channel; calls in progress end with CANCELLED."""
        with self._lock:
            channel, self._channel = self._channel, None
            self._methods = {}
        if channel is not None:
            channel.close()

    def _method(self, method: Method[Any, Any], kind: str) -> Any:
        with self._lock:
            self._discard_after_fork()
            if self._channel is None:
                self._channel = self._open()
            callable_ = self._methods.get(method.path)
            if callable_ is None:
                create = getattr(self._channel, kind)
                callable_ = create(method.path, method.serialize, method.deserialize)
                self._methods[method.path] = callable_
        return callable_

    def _discard_after_fork(self) -> None:
        """Discards the channel of the parent process.

        In a child process gRPC closes the connections of the parent asynchronously, so that a call
        that is made right after the fork could fail on one of them.
        """
        if self._process_id == os.getpid():
            return
        self._process_id = os.getpid()
        self._channel = None
        self._methods = {}
        # Without a pool of its own a new channel could reuse a connection of the parent.
        self._extra_options = _SEPARATE_CONNECTIONS

    def _open(self) -> grpc.Channel:
        config = self._config
        options = [*self._extra_options, *config.channel_options()]
        if config.tls is None:
            return grpc.insecure_channel(config.target, options)
        return grpc.secure_channel(config.target, config.tls.credentials(), options)
