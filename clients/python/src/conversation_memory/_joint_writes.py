"""Writes of tasks that are stored by the next put of their thread, in one call with it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from ._checkpoints import AttachedWrites
from ._completion_async import is_running_to_completion
from ._proto.v1 import checkpoint_service_pb2 as api

MAX_TASKS = 100
"""Upper bound on the tasks whose writes a put stores."""

MAX_BYTES = 256 << 10
"""Upper bound on the bytes of the writes that a put stores."""

MAX_WAIT = 1.0
"""Upper bound in seconds on the time for which writes wait for a put that is in progress."""

_GRACE = 0.002
"""Time in seconds in which a graph begins the put after its last task's writes."""

_ITERATIONS = 12
"""Iterations of the event loop in which it does. In a busy loop they take longer than that time."""

Place = tuple[str, str]
"""Conversation and namespace."""


@dataclass(eq=False, slots=True)
class _Waiting:
    checkpoint_id: str
    writes: api.TaskWrites
    size: int
    stored: asyncio.Future[bool]
    """Whether the put that has taken the writes has stored them."""
    taken: asyncio.Future[None]
    """Done when a put has taken the writes."""

    @property
    def is_taken(self) -> bool:
        return self.taken.done()


@dataclass(slots=True)
class _Queue:
    puts: set[asyncio.Future[None]] = field(default_factory=set)
    """Puts in progress."""
    waiting: list[_Waiting] = field(default_factory=list)


class JointPut:
    """A put, and the writes that it stores."""

    def __init__(self, queue: _Queue, taken: Sequence[_Waiting]) -> None:
        self._queue = queue
        self._taken = taken
        self.attached = AttachedWrites([each.writes for each in taken])
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.puts.add(self._end)

    def end(self) -> None:
        """Ends the put. Writes that it has not stored are sent by themselves."""
        self._queue.puts.discard(self._end)
        for future in (each.stored for each in self._taken):
            if not future.done():
                future.set_result(self.attached.are_stored)
        if not self._end.done():
            self._end.set_result(None)


class JointWrites:
    """Writes that wait for the next put of their thread.

    A graph puts a checkpoint as soon as the last task of a step has ended, and the checkpoint
    before has been stored. Only writes that such a put follows soon wait for it. A caller continues
    when its writes are stored, as without a put.
    """

    def __init__(self) -> None:
        self._queues: dict[tuple[asyncio.AbstractEventLoop, Place], _Queue] = {}

    async def are_stored(self, place: Place, checkpoint_id: str, writes: api.TaskWrites) -> bool:
        """Waits for a put. Returns whether it has stored the writes; if not, send them.

        Args:
            place: Conversation and namespace.
            checkpoint_id: Checkpoint that the writes belong to.
            writes: Writes of a task.
        """
        size = writes.ByteSize()
        # A later write to such a channel replaces an earlier one, so that their order matters.
        if size > MAX_BYTES or any(write.index < 0 for write in writes.writes):
            return False
        loop = asyncio.get_running_loop()
        key = loop, place
        queue = self._queues.setdefault(key, _Queue())
        waiting = _Waiting(checkpoint_id, writes, size, loop.create_future(), loop.create_future())
        queue.waiting.append(waiting)
        try:
            await _until_taken(queue, waiting)
        except asyncio.CancelledError:
            if not is_running_to_completion():
                raise
        finally:
            queue.waiting.remove(waiting)
            self._forget(key)
        while waiting.is_taken:
            try:
                return await asyncio.shield(waiting.stored)
            except asyncio.CancelledError:
                if not is_running_to_completion():
                    raise
        return False

    def begin_put(self, place: Place, parent_id: str | None) -> JointPut:
        """Begins a put, which takes the writes that wait for it. It must be ended."""
        key = asyncio.get_running_loop(), place
        queue = self._queues.setdefault(key, _Queue())
        taken: list[_Waiting] = []
        size = 0
        for each in queue.waiting:
            if each.is_taken or each.checkpoint_id != parent_id:
                continue
            size += each.size
            if len(taken) == MAX_TASKS or size > MAX_BYTES:
                break
            each.taken.set_result(None)
            taken.append(each)
        return JointPut(queue, taken)

    def end_put(self, place: Place, put: JointPut) -> None:
        """Ends a put."""
        put.end()
        self._forget((asyncio.get_running_loop(), place))

    def _forget(self, key: tuple[asyncio.AbstractEventLoop, Place]) -> None:
        queue = self._queues.get(key)
        if queue is not None and not queue.puts and not queue.waiting:
            del self._queues[key]


async def _until_taken(queue: _Queue, waiting: _Waiting) -> None:
    """Returns when a put has taken the writes, or none begins soon."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + MAX_WAIT
    while True:
        # The next put of a thread begins when the one before has ended.
        while queue.puts and not waiting.is_taken and (left := deadline - loop.time()) > 0:
            await asyncio.wait(queue.puts, timeout=left)
        if not queue.puts and not waiting.is_taken:
            await asyncio.wait([waiting.taken], timeout=_GRACE)
        for _ in range(_ITERATIONS):
            if queue.puts or waiting.is_taken:
                break
            await asyncio.sleep(0)
        if not queue.puts or waiting.is_taken or loop.time() >= deadline:
            return
