"""Base of the asynchronous client: its state, and operations that share a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any, TypeVar

import grpc

from .._arguments import validates_arguments
from .._channel_async import AsyncChannel
from .._completion_async import is_running_to_completion
from .._config import DEFAULT_TARGET, DEFAULT_TIMEOUT, ClientConfig, Option, Tls
from .._errors import Attempt
from .._limits import DEFAULT_LIMITS, Limits
from .._method import Method, Request, Response
from .._plaintext import hidden
from .._read_your_writes import ObservedSeqs
from .._retries import Call, is_idempotent, retry_delay, to_exception

T = TypeVar("T")


class AsyncOperation:
    """One operation of a client: all its calls share one deadline."""

    def __init__(
        self,
        channel: AsyncChannel,
        observed_seqs: ObservedSeqs,
        seconds: float,
        limits: Limits,
    ) -> None:
        self.observed_seqs = observed_seqs
        self.limits = limits
        self._channel = channel
        self._attempt = Attempt(channel.target)
        self._deadline = self._attempt.started + seconds

    async def call(
        self,
        method: Method[Request, Response],
        request: Request,
        *,
        request_id: str | None = None,
        is_save: bool = False,
        has_caller_key: bool = True,
        conversation_id: str | None = None,
    ) -> Response:
        """Sends a request, again if the retry policy says so, and returns the response.

        The keyword arguments are the fields of `Call`.

        Raises:
            ConversationMemoryError: The call failed.
        """
        call = Call(method, request, request_id, is_save, has_caller_key, conversation_id)
        delay: float | None = None
        while True:
            try:
                if delay is not None:
                    await asyncio.sleep(delay)
                return await self._channel.unary(call, self._remaining())
            except asyncio.CancelledError:
                if not (is_running_to_completion() and is_idempotent(method)):
                    raise
                # The next iteration sends the same request, which is idempotent.
            except grpc.RpcError as error:
                failure = to_exception(call, error, self._attempt)
                delay = retry_delay(call, failure, self._remaining())
                if delay is None:
                    raise failure from error

    async def read_stream(
        self, method: Method[Request, Response], request: Request
    ) -> list[Response]:
        """Sends a request and returns all its responses. gRPC retries it until the first one.

        Raises:
            ConversationMemoryError: The call failed.
        """
        responses: list[Response] = []
        try:
            call = self._channel.unary_stream(method, request, self._remaining())
            try:
                async for response in call:
                    responses.append(response)
            finally:
                call.cancel()
        except grpc.RpcError as error:
            raise to_exception(Call(method, request), error, self._attempt) from error
        return responses

    def _remaining(self) -> float:
        return self._deadline - time.monotonic()


class AsyncBaseClient:
    """Connection and state of an asynchronous client."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        validates_arguments(cls)

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        token: str | Callable[[], str] | None = None,
        tls: Tls | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        options: Sequence[Option] = (),
        limits: Limits = DEFAULT_LIMITS,
        allow_plaintext_token: bool = False,
    ) -> None:
        # The variables of this function may be shown with a traceback.
        token = hidden(token)
        self._config = ClientConfig(
            target, token, tls, timeout, tuple(options), limits, allow_plaintext_token
        )
        self._config.warn_of_plaintext_token()
        self._channel = AsyncChannel(self._config)
        self._observed_seqs = ObservedSeqs()

    def _operation(self, timeout: float | None, *, at_least: float = 0) -> AsyncOperation:
        """Starts an operation. `timeout` and `at_least` are as in `ClientConfig.seconds`."""
        return AsyncOperation(
            self._channel,
            self._observed_seqs,
            self._config.seconds(timeout, at_least),
            self._config.limits,
        )

    async def _pages(
        self,
        method: Method[Any, Response],
        request: Any,
        read_items: Callable[[Response], Iterable[T]],
        timeout: float | None,
    ) -> AsyncGenerator[T, None]:
        """Yields the items of all pages; a page is requested when its first item is needed."""
        page: Any
        while True:
            page = await self._operation(timeout).call(method, request)
            for item in read_items(page):
                yield item
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
