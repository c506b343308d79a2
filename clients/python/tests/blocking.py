"""A blocking interface of the asyncio client, so that one test covers both clients."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar, cast

from conversation_memory import AsyncConversationMemory, AsyncTurn, ConversationMemory

T = TypeVar("T")


class Blocking:
    """Wraps an object and runs the coroutines of its methods on an event loop."""

    def __init__(self, wrapped: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._wrapped = wrapped
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._wrapped, name)
        return self._blocking(found) if inspect.ismethod(found) else found

    def __enter__(self) -> Blocking:
        self._wait(self._wrapped.__aenter__())
        return self

    def __exit__(self, *exit: Any) -> None:
        self._wait(self._wrapped.__aexit__(*exit))

    def _blocking(self, method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            async def on_the_loop() -> Any:
                result = method(*args, **kwargs)
                return await result if inspect.iscoroutine(result) else result

            result = self._wait(on_the_loop())
            if isinstance(result, AsyncIterator):
                return self._iterate(result)
            return Blocking(result, self._loop) if isinstance(result, AsyncTurn) else result

        return call

    def _iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def next_item() -> T:
            return await anext(items)

        while True:
            try:
                yield self._wait(next_item())
            except StopAsyncIteration:
                return

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


class LoopThread:
    """An event loop that runs in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def blocking(self, client: AsyncConversationMemory) -> ConversationMemory:
        return cast("ConversationMemory", Blocking(client, self.loop))

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
