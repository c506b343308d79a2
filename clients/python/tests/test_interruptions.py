"""Turns that are interrupted: by a cancelled task, a closed generator or Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import types
from collections.abc import (
    AsyncGenerator,
    Callable,
    Coroutine,
    Generator,
    Iterator,
)
from typing import Any

import anyio
import anyio.lowlevel
import grpc
import pytest

import conversation_memory as cm
from conversation_memory import AsyncConversationMemory, ConversationMemory

from .fake import CONVERSATION, FakeService, begun, failing, serving
from .sidecar import TIMEOUT, Sidecar, wait_for

TOOL_CALL = {"id": "1", "type": "function", "function": {"name": "days", "arguments": "{}"}}
QUESTION, ANSWER = "What is our vacation policy?", "25 days."


async def contents(memory: AsyncConversationMemory, conversation: str) -> list[str]:
    return [message.content async for message in memory.list_messages(conversation)]


def test_interruption_saves_a_complete_turn_only(memory: ConversationMemory, user: str) -> None:
    for has_answer in (True, False):
        with pytest.raises(KeyboardInterrupt), memory.turn(user) as turn:
            turn.user(QUESTION)
            if has_answer:
                turn.assistant(ANSWER)
            raise KeyboardInterrupt
        assert (turn.saved is not None) == has_answer


def test_interruption_takes_precedence_over_a_failed_save(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake = FakeService()
    fake.answers["BeginTurn"] = lambda *_: begun(last_seq=0)
    fake.answers["SaveMessages"] = failing(grpc.StatusCode.INTERNAL)
    with serving(fake) as address, ConversationMemory(address, timeout=TIMEOUT) as memory:
        with (
            caplog.at_level(logging.WARNING),
            pytest.raises(KeyboardInterrupt),
            memory.turn("ana") as turn,
        ):
            turn.assistant(ANSWER)
            raise KeyboardInterrupt
    assert "not saved" in caplog.text
    assert ANSWER not in caplog.text


class Agent:
    """Takes a turn and records whether it has added its answer."""

    def __init__(self, memory: AsyncConversationMemory, conversation: str) -> None:
        self.memory = memory
        self.conversation = conversation
        self.has_answered = False

    async def run(self) -> None:
        async with self.memory.turn("ana", conversation_id=self.conversation) as turn:
            turn.user(QUESTION)
            await asyncio.sleep(0)
            turn.assistant(ANSWER)
            self.has_answered = True
            await asyncio.sleep(0)


@types.coroutine
def interrupted(
    coroutine: Coroutine[Any, Any, None], at: int, interrupt: Callable[[], object]
) -> Generator[Any, Any, int]:
    """Runs a coroutine and calls `interrupt` when it waits for the `at`-th time.

    Returns the number of times that the coroutine has waited.
    """
    waits, value, error = 0, None, None
    while True:
        try:
            awaited = coroutine.send(value) if error is None else coroutine.throw(error)
        except StopIteration:
            return waits
        waits += 1
        if waits == at:
            interrupt()
        value, error = None, None
        try:
            value = yield awaited
        except BaseException as raised:
            error = raised


async def test_turn_cancelled_at_any_await_is_atomic(
    aio: AsyncConversationMemory, user: str
) -> None:
    outcomes = set()
    for at in range(1, 100):
        conversation = (await aio.create_conversation("ana")).id
        agent = Agent(aio, conversation)
        task: asyncio.Task[int]

        async def work(agent: Agent = agent, at: int = at) -> int:
            this = asyncio.current_task()
            assert this is not None
            return await interrupted(agent.run(), at, this.cancel)

        task = asyncio.create_task(work())
        try:
            waits = await task
        except asyncio.CancelledError:
            waits = None
        stored = await contents(aio, conversation)
        # A complete turn is saved, even if the save itself was cancelled.
        assert stored == ([QUESTION, ANSWER] if agent.has_answered else [])
        outcomes.add((agent.has_answered, waits is None))
        if waits is not None and waits < at:
            break
    else:
        pytest.fail("the turn was interrupted each time")
    assert outcomes == {(False, True), (True, True), (True, False)}


async def test_repeated_cancellation_by_anyio_saves_the_turn(
    aio: AsyncConversationMemory, user: str
) -> None:
    conversation = (await aio.create_conversation(user)).id
    has_continued = False
    with anyio.CancelScope() as scope:
        async with aio.turn(user, conversation_id=conversation) as turn:
            turn.assistant(ANSWER)
            scope.cancel()
        await anyio.lowlevel.checkpoint()
        has_continued = True
    assert not has_continued
    assert await contents(aio, conversation) == [ANSWER]


def slow_to_save() -> tuple[FakeService, asyncio.Event, threading.Event]:
    """Returns a service, an event that a save sets, and an event that its answer waits for."""
    fake, reached, answer = FakeService(), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def save(*_: object) -> bytes:
        loop.call_soon_threadsafe(reached.set)
        answer.wait(TIMEOUT)
        return b""

    fake.answers["BeginTurn"] = lambda *_: begun(last_seq=0)
    fake.answers["SaveMessages"] = save
    return fake, reached, answer


async def test_cancellation_during_the_save_is_raised_after_it() -> None:
    fake, reached, answer = slow_to_save()
    with serving(fake) as address:
        async with AsyncConversationMemory(address, timeout=TIMEOUT) as memory:
            turn = memory.turn("ana")

            async def take_turn() -> None:
                async with turn:
                    turn.assistant(ANSWER)

            task = asyncio.create_task(take_turn())
            await reached.wait()
            task.cancel()
            answer.set()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert task.cancelled()
    assert turn.saved is not None
    assert fake.calls["SaveMessages"] == 1


async def test_cancellation_before_the_answer_saves_nothing(
    aio: AsyncConversationMemory, user: str
) -> None:
    conversation = (await aio.create_conversation(user)).id
    has_called = asyncio.Event()

    async def take_turn() -> None:
        async with aio.turn(user, conversation_id=conversation) as turn:
            turn.user(QUESTION)
            turn.assistant(tool_calls=[TOOL_CALL])
            has_called.set()
            await asyncio.Event().wait()

    await run_and_cancel(take_turn(), has_called)
    assert await contents(aio, conversation) == []


async def run_and_cancel(coroutine: Coroutine[Any, Any, None], when: asyncio.Event) -> None:
    """Runs a coroutine and cancels it when an event is set."""
    task = asyncio.create_task(coroutine)
    await when.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_closed_generator_saves_a_complete_turn_only(
    aio: AsyncConversationMemory, user: str
) -> None:
    conversation = (await aio.create_conversation(user)).id

    async def stream() -> AsyncGenerator[str, None]:
        async with aio.turn(user, conversation_id=conversation) as turn:
            turn.user(QUESTION)
            yield "25 "
            turn.assistant(ANSWER)
            yield "days."

    left_early = stream()
    assert await anext(left_early) == "25 "
    await left_early.aclose()
    assert await contents(aio, conversation) == []
    left_late = stream()
    assert [await anext(left_late), await anext(left_late)] == ["25 ", "days."]
    await left_late.aclose()
    assert await contents(aio, conversation) == [QUESTION, ANSWER]


async def test_cancellation_takes_precedence_over_a_failed_save(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake = FakeService()
    fake.answers["BeginTurn"] = lambda *_: begun(last_seq=0)
    fake.answers["SaveMessages"] = failing(grpc.StatusCode.INTERNAL)
    with serving(fake) as address:
        async with AsyncConversationMemory(address, timeout=TIMEOUT) as memory:
            has_answered = asyncio.Event()

            async def take_turn() -> None:
                async with memory.turn("ana") as turn:
                    turn.assistant(ANSWER)
                    has_answered.set()
                    await asyncio.Event().wait()

            await run_and_cancel(take_turn(), has_answered)
    assert "not saved" in caplog.text
    assert ANSWER not in caplog.text


def test_interruption_takes_precedence_over_any_error(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeService()
    fake.answers["BeginTurn"] = lambda *_: begun(last_seq=0)
    with serving(fake) as address, ConversationMemory(address, timeout=TIMEOUT) as memory:
        monkeypatch.setattr(memory, "save_messages", lambda **_: 1 / 0)
        with (
            caplog.at_level(logging.WARNING),
            pytest.raises(KeyboardInterrupt),
            memory.turn("ana", conversation_id=CONVERSATION) as turn,
        ):
            turn.assistant(ANSWER)
            raise KeyboardInterrupt
    assert "not saved: ZeroDivisionError" in caplog.text


@pytest.fixture
def terminal() -> Iterator[None]:
    """Installs the handler of Ctrl-C, which a process that runs in the background ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("is_repeated", [False, True])
def test_interruption_during_a_blocking_save_saves_the_turn(
    is_repeated: bool, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeService()
    fake.answers["BeginTurn"] = lambda *_: begun(last_seq=0)
    answer = threading.Event()

    def save(*_: object) -> bytes:
        if fake.calls["SaveMessages"] == 1 or is_repeated:
            signal.raise_signal(signal.SIGINT)
            answer.wait(TIMEOUT)
        return b""

    fake.answers["SaveMessages"] = save
    with serving(fake) as address, ConversationMemory(address, timeout=TIMEOUT) as memory:
        turn = memory.turn("ana", conversation_id=CONVERSATION)
        with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt), turn:
            turn.assistant(ANSWER)
        answer.set()
    saves = [request for name, request in fake.requests if name == "SaveMessages"]
    assert len(saves) == 2
    assert saves[0] == saves[1]
    assert (turn.saved is None) == is_repeated
    assert ("not saved" in caplog.text) == is_repeated


async def test_save_is_completed_when_all_tasks_are_cancelled(
    sidecar: Sidecar, aio: AsyncConversationMemory, user: str
) -> None:
    """`asyncio.run` cancels all tasks at its end, including the one that runs the save."""
    conversation = (await aio.create_conversation(user)).id
    for steps in range(6):
        turn = aio.turn(user, conversation_id=conversation)

        is_answered = asyncio.Event()

        async def take_turn(
            turn: cm.AsyncTurn = turn, is_answered: asyncio.Event = is_answered
        ) -> None:
            async with turn:
                turn.assistant(ANSWER)
                is_answered.set()

        task = asyncio.create_task(take_turn())
        await is_answered.wait()
        for _ in range(steps):
            await asyncio.sleep(0)
        for each in asyncio.all_tasks() - {asyncio.current_task()}:
            each.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert turn.saved is not None
    assert await contents(aio, conversation) == [ANSWER] * 6


async def test_failed_save_of_cancelled_tasks_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake, reached, answer = slow_to_save()
    hold, fail = fake.answers["SaveMessages"], failing(grpc.StatusCode.DEADLINE_EXCEEDED)

    def hold_and_fail(request: bytes, context: grpc.ServicerContext) -> bytes:
        hold(request, context)
        return fail(request, context)

    fake.answers["SaveMessages"] = hold_and_fail
    with serving(fake) as address:
        async with AsyncConversationMemory(address, timeout=TIMEOUT) as memory:
            turn = memory.turn("ana", conversation_id=CONVERSATION)

            async def take_turn() -> None:
                async with turn:
                    turn.assistant(ANSWER)

            task = asyncio.create_task(take_turn())
            await reached.wait()
            for each in asyncio.all_tasks() - {asyncio.current_task()}:
                each.cancel()
            await asyncio.to_thread(
                wait_for, lambda: fake.calls["SaveMessages"] == 2, "the save is not sent again"
            )
            answer.set()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert turn.saved is None
    assert "not saved" in caplog.text
    assert {request for name, request in fake.requests if name == "SaveMessages"} == {
        fake.requests[-1][1]
    }
