"""Takes turns as an agent does, for the benchmark `throughput`.

    turns.py STYLE drivers DATABASE_URL REDIS_URL
    turns.py STYLE client ADDRESS

STYLE is `blocking` (a thread for each caller) or `asyncio` (a task for each caller). `client` uses
`ConversationMemory.turn`. `drivers` uses redis-py and psycopg alone: it reads the session and the
newest messages from Redis, saves the new ones in PostgreSQL in a transaction, which is as durable,
and adds them to Redis afterwards.

Each line of standard input, `CALLERS SECONDS`, starts a measurement. Its result is a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from by_hand import AsyncDrivers, Drivers

from conversation_memory import AsyncConversationMemory, ConversationMemory

QUESTION = ("A question as people write them to an assistant. " * 5)[:200]
ANSWER = ("An answer as an assistant writes them to people. " * 13)[:600]

Turn = Callable[[], None]
AsyncTurn = Callable[[], Awaitable[None]]


def client_turn(memory: ConversationMemory) -> Turn:
    """Returns the turns of a new session."""
    user, ids = f"user-{uuid.uuid4()}", [None, None]

    def take() -> None:
        with memory.turn(user, session_id=ids[0], conversation_id=ids[1]) as turn:
            turn.user(QUESTION)
            answer_to(turn.to_openai())
            turn.assistant(ANSWER)
        ids[:] = turn.session_id, turn.conversation_id

    return take


def async_client_turn(memory: AsyncConversationMemory) -> AsyncTurn:
    """Returns the turns of a new session."""
    user, ids = f"user-{uuid.uuid4()}", [None, None]

    async def take() -> None:
        async with memory.turn(user, session_id=ids[0], conversation_id=ids[1]) as turn:
            turn.user(QUESTION)
            answer_to(turn.to_openai())
            turn.assistant(ANSWER)
        ids[:] = turn.session_id, turn.conversation_id

    return take


def driver_turn(drivers: Drivers) -> Turn:
    """Returns the turns of a new session."""
    session = drivers.new_session()

    def take() -> None:
        question = {"role": "user", "content": QUESTION}
        answer_to([*drivers.begin(session), question])
        drivers.save(session, [question, {"role": "assistant", "content": ANSWER}])

    return take


def async_driver_turn(drivers: AsyncDrivers, session: str) -> AsyncTurn:
    """Returns the turns of a session."""

    async def take() -> None:
        question = {"role": "user", "content": QUESTION}
        answer_to([*await drivers.begin(session), question])
        await drivers.save(session, [question, {"role": "assistant", "content": ANSWER}])

    return take


def answer_to(messages: list[Any]) -> None:
    """Stands for the model, which takes no time here."""
    if messages[-1]["content"] != QUESTION:
        raise ValueError("the question is not the last message")


def repeat(turn: Turn, end: float, times: list[float]) -> None:
    """Takes turns until a time, and adds their durations."""
    start = time.perf_counter()
    while start < end:
        turn()
        now = time.perf_counter()
        times.append(now - start)
        start = now


async def repeat_async(turn: AsyncTurn, end: float, times: list[float]) -> None:
    """Takes turns until a time, and adds their durations."""
    start = time.perf_counter()
    while start < end:
        await turn()
        now = time.perf_counter()
        times.append(now - start)
        start = now


def report(start: float, times: list[float], cpu: float) -> None:
    """Prints the result of a measurement. `cpu` is the process's CPU time at its start."""
    result = {
        "elapsed": time.perf_counter() - start,
        "times": times,
        "cpu": time.process_time() - cpu,
    }
    print(json.dumps(result), flush=True)


def blocking(kind: str, arguments: list[str]) -> None:
    """Measures threads."""
    if kind == "client":
        memory = ConversationMemory(*arguments)

        def new_turn() -> Turn:
            return client_turn(memory)
    else:
        drivers = Drivers(*arguments)

        def new_turn() -> Turn:
            return driver_turn(drivers)

    turns: list[Turn] = []
    for line in sys.stdin:
        callers, seconds = line.split()
        turns += [new_turn() for _ in range(len(turns), int(callers))]
        times: list[float] = []
        start, cpu = time.perf_counter(), time.process_time()
        end = start + float(seconds)
        threads = [
            threading.Thread(target=repeat, args=(turn, end, times))
            for turn in turns[: int(callers)]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        report(start, times, cpu)


async def asynchronous(kind: str, arguments: list[str]) -> None:
    """Measures tasks."""
    if kind == "client":
        memory = AsyncConversationMemory(*arguments)

        async def new_turn() -> AsyncTurn:
            return async_client_turn(memory)
    else:
        drivers = await AsyncDrivers.connect(*arguments)

        async def new_turn() -> AsyncTurn:
            return async_driver_turn(drivers, await drivers.new_session())

    turns: list[AsyncTurn] = []
    while line := await asyncio.to_thread(sys.stdin.readline):
        callers, seconds = line.split()
        turns += [await new_turn() for _ in range(len(turns), int(callers))]
        times: list[float] = []
        start, cpu = time.perf_counter(), time.process_time()
        end = start + float(seconds)
        await asyncio.gather(*(repeat_async(turn, end, times) for turn in turns[: int(callers)]))
        report(start, times, cpu)


if __name__ == "__main__":
    style, kind, *arguments = sys.argv[1:]
    if style == "asyncio":
        asyncio.run(asynchronous(kind, arguments))
    else:
        blocking(kind, arguments)
