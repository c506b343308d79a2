"""A turn: the history on entry, one save on exit, and what interrupts it."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import types
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterator,
)
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import conversation_memory as cm
from conversation_memory import AsyncConversationMemory, ConversationMemory, Message
from conversation_memory._limits import MAX_TURN_BYTES

from .fake import CONVERSATION, Fake, begun, failing, serving
from .sidecar import PATIENCE, Sidecar

TOOL_CALL = {"id": "1", "type": "function", "function": {"name": "days", "arguments": "{}"}}
QUESTION, ANSWER = "What is our vacation policy?", "25 days."


def test_a_turn_is_saved_whole_on_exit(memory: ConversationMemory, user: str) -> None:
    with memory.turn(user, dept_id="hr") as turn:
        turn.system("Be brief.")
        turn.user(QUESTION)
        turn.assistant(tool_calls=[TOOL_CALL])
        assert not turn.is_complete
        turn.tool("25", tool_call_id="1")
        turn.assistant(ANSWER, tokens_used=3, latency_ms=9)
        assert turn.is_complete
        assert turn.history == ()
        assert list(memory.list_messages(turn.conversation_id)) == []
        said = turn.to_openai()
    assert turn.saved is not None
    assert turn.saved.last_seq == 5
    with memory.turn(user, session_id=turn.session_id) as second:
        assert (second.session_state, second.conversation_id) == (
            "continued",
            turn.conversation_id,
        )
        assert second.history_openai() == said
        second.add({"role": "user", "content": "How?"}, Message("assistant", "In the portal."))
        assert len(second.to_openai()) == 7
    assert said[2] == {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
    assert memory.get_history(turn.conversation_id, limit=3).messages[0].tokens_used == 3


def test_an_exception_saves_nothing(memory: ConversationMemory, user: str) -> None:
    with pytest.raises(ZeroDivisionError), memory.turn(user) as turn:
        turn.user(QUESTION)
        turn.assistant(ANSWER)
        raise ZeroDivisionError
    assert turn.saved is None
    assert list(memory.list_messages(turn.conversation_id)) == []


def test_an_interruption_saves_a_turn_that_has_its_answer(
    memory: ConversationMemory, user: str
) -> None:
    for has_answer in (True, False):
        with pytest.raises(KeyboardInterrupt), memory.turn(user) as turn:
            turn.user(QUESTION)
            if has_answer:
                turn.assistant(ANSWER)
            raise KeyboardInterrupt
        assert (turn.saved is not None) == has_answer


def test_a_turn_that_says_nothing_saves_nothing(memory: ConversationMemory, user: str) -> None:
    with memory.turn(user) as turn:
        pass
    assert turn.saved is None
    assert memory.get_conversation(turn.conversation_id).last_seq == 0


def test_a_turn_that_cannot_be_saved_whole_says_so_when_it_grows(
    memory: ConversationMemory, user: str
) -> None:
    with memory.turn(user) as turn:
        turn.add(*[Message("user", str(n)) for n in range(100)])
        with pytest.raises(ValueError, match="100 messages"):
            turn.user("one more")
    assert turn.saved is not None
    assert turn.saved.last_seq == 100


def test_a_turn_can_insist_on_being_the_next(memory: ConversationMemory, user: str) -> None:
    with (
        pytest.raises(cm.SeqMismatch) as refused,
        memory.turn(user, if_unchanged=True) as turn,
    ):
        memory.save_messages(turn.conversation_id, [Message("user", "first")])
        turn.user("second")
    assert refused.value.current_seq == 1
    assert turn.saved is None


def test_a_turn_is_saved_once_however_often_that_is_tried(
    memory: ConversationMemory, user: str
) -> None:
    with memory.turn(user) as turn:
        turn.user(QUESTION)
        assert turn.save() == turn.save()
        with pytest.raises(RuntimeError):
            turn.assistant(ANSWER)
    memory.save_messages(turn.conversation_id, turn.added, request_id=turn.request_id)
    assert len(list(memory.list_messages(turn.conversation_id))) == 1
    with pytest.raises(RuntimeError, match="once"), turn:
        pass


def test_a_turn_that_has_not_begun_says_so() -> None:
    with pytest.raises(RuntimeError, match="with statement"):
        _ = ConversationMemory().turn("ana").history


def test_a_failed_save_is_raised_and_can_be_tried_again() -> None:
    fake = Fake()
    fake.answers["BeginTurn"] = lambda *_: begun(last_seq=0)
    fake.answers["SaveMessages"] = failing(cm_code("INTERNAL"))
    with serving(fake) as address, ConversationMemory(address) as memory:
        with pytest.raises(cm.Internal) as failed, memory.turn("ana") as turn:
            turn.user(QUESTION)
        assert failed.value.request_id == turn.request_id
        del fake.answers["SaveMessages"]
        assert turn.save().request_id == turn.request_id
    saves = [request for name, request in fake.requests if name == "SaveMessages"]
    assert len(saves) == 2
    assert saves[0] == saves[1]


def test_an_interruption_is_not_lost_when_the_save_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake = Fake()
    fake.answers["BeginTurn"] = lambda *_: begun(last_seq=0)
    fake.answers["SaveMessages"] = failing(cm_code("INTERNAL"))
    with serving(fake) as address, ConversationMemory(address) as memory:
        with (
            caplog.at_level(logging.WARNING),
            pytest.raises(KeyboardInterrupt),
            memory.turn("ana") as turn,
        ):
            turn.assistant(ANSWER)
            raise KeyboardInterrupt
    assert "not saved" in caplog.text
    assert ANSWER not in caplog.text


def cm_code(name: str) -> Any:
    import grpc

    return grpc.StatusCode[name]


@pytest.fixture
async def aio(sidecar: Sidecar) -> AsyncIterator[AsyncConversationMemory]:
    async with AsyncConversationMemory(sidecar.address, timeout=PATIENCE) as memory:
        yield memory


async def said(memory: AsyncConversationMemory, conversation: str) -> list[str]:
    return [message.content async for message in memory.list_messages(conversation)]


class Agent:
    """Holds a turn and remembers how far it came."""

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
    work: Coroutine[Any, Any, None], at: int, interrupt: Callable[[], object]
) -> Generator[Any, Any, int]:
    """Runs work, interrupts it where it waits for the time `at`, and counts how often it waits."""
    waits, value, error = 0, None, None
    while True:
        try:
            wanted = work.send(value) if error is None else work.throw(error)
        except StopIteration:
            return waits
        waits += 1
        if waits == at:
            interrupt()
        value, error = None, None
        try:
            value = yield wanted
        except BaseException as raised:
            error = raised


async def test_a_turn_cancelled_at_any_await_is_whole_or_not_there(
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
        there = await said(aio, conversation)
        # What has its answer is saved, also when the save itself was cancelled.
        assert there == ([QUESTION, ANSWER] if agent.has_answered else [])
        outcomes.add((agent.has_answered, waits is None))
        if waits is not None and waits < at:
            break
    else:
        pytest.fail("the turn never came to its end")
    assert outcomes == {(False, True), (True, True), (True, False)}


async def test_an_anyio_scope_that_cancels_again_and_again_saves_the_turn(
    aio: AsyncConversationMemory, user: str
) -> None:
    conversation = (await aio.create_conversation(user)).id
    went_on = False
    with anyio.CancelScope() as scope:
        async with aio.turn(user, conversation_id=conversation) as turn:
            turn.assistant(ANSWER)
            scope.cancel()
        await anyio.lowlevel.checkpoint()
        went_on = True
    assert not went_on
    assert await said(aio, conversation) == [ANSWER]


def slow_to_save() -> tuple[Fake, asyncio.Event, threading.Event]:
    """A service that says when a save has reached it, and answers when it is told to."""
    fake, reached, answer = Fake(), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def save(*_: object) -> bytes:
        loop.call_soon_threadsafe(reached.set)
        answer.wait(PATIENCE)
        return b""

    fake.answers["BeginTurn"] = lambda *_: begun(last_seq=0)
    fake.answers["SaveMessages"] = save
    return fake, reached, answer


async def test_a_cancellation_during_the_save_is_not_lost() -> None:
    fake, reached, answer = slow_to_save()
    with serving(fake) as address:
        async with AsyncConversationMemory(address) as memory:
            turn = memory.turn("ana")

            async def hold() -> None:
                async with turn:
                    turn.assistant(ANSWER)

            task = asyncio.create_task(hold())
            await reached.wait()
            task.cancel()
            answer.set()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert task.cancelled()
    assert turn.saved is not None
    assert fake.calls["SaveMessages"] == 1


async def test_a_cancellation_before_the_answer_saves_nothing(
    aio: AsyncConversationMemory, user: str
) -> None:
    conversation = (await aio.create_conversation(user)).id
    is_said = asyncio.Event()

    async def hold() -> None:
        async with aio.turn(user, conversation_id=conversation) as turn:
            turn.user(QUESTION)
            turn.assistant(tool_calls=[TOOL_CALL])
            is_said.set()
            await asyncio.Event().wait()

    await cancelled(hold(), is_said)
    assert await said(aio, conversation) == []


async def cancelled(work: Coroutine[Any, Any, None], when: asyncio.Event) -> None:
    """Runs work and cancels it at a moment."""
    task = asyncio.create_task(work)
    await when.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_stream_that_is_left_after_the_answer_is_saved(
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
    assert await said(aio, conversation) == []
    left_late = stream()
    assert [await anext(left_late), await anext(left_late)] == ["25 ", "days."]
    await left_late.aclose()
    assert await said(aio, conversation) == [QUESTION, ANSWER]


async def test_a_cancellation_is_not_lost_when_the_save_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake = Fake()
    fake.answers["BeginTurn"] = lambda *_: begun(last_seq=0)
    fake.answers["SaveMessages"] = failing(cm_code("INTERNAL"))
    with serving(fake) as address:
        async with AsyncConversationMemory(address) as memory:
            has_answered = asyncio.Event()

            async def hold() -> None:
                async with memory.turn("ana") as turn:
                    turn.assistant(ANSWER)
                    has_answered.set()
                    await asyncio.Event().wait()

            await cancelled(hold(), has_answered)
    assert "not saved" in caplog.text
    assert ANSWER not in caplog.text


def test_what_is_added_after_a_try_is_saved_after_it(memory: ConversationMemory, user: str) -> None:
    """The try had been done although its answer was lost."""
    tried: list[str] = []
    with memory.turn(user, if_unchanged=True) as turn:
        turn.user(QUESTION)
        memory.save_messages(
            turn.conversation_id,
            turn.added,
            user_id=user,
            session_id=turn.session_id,
            request_id=turn.request_id,
            expected_last_seq=0,
        )
        client: Any = turn._memory
        save = client.save_messages

        def lose(*_: Any, request_id: str, **__: Any) -> Any:
            tried.append(request_id)
            client.save_messages = save
            raise cm.DeadlineExceeded

        client.save_messages = lose
        with pytest.raises(cm.DeadlineExceeded):
            turn.save()
        turn.assistant(ANSWER)
    assert turn.request_id != tried[0]
    assert turn.saved is not None
    assert [message.content for message in turn.saved.messages] == [QUESTION, ANSWER]
    assert (turn.saved.last_seq, turn.saved.replayed) == (2, False)
    there = [message.content for message in memory.list_messages(turn.conversation_id)]
    assert there == [QUESTION, ANSWER]


async def test_what_is_added_during_a_save_is_saved_after_it(
    aio: AsyncConversationMemory, user: str
) -> None:
    async with aio.turn(user) as turn:
        turn.user(QUESTION)
        save = asyncio.create_task(turn.save())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        turn.assistant(ANSWER)
    assert (await save).last_seq == 2
    assert await said(aio, turn.conversation_id) == [QUESTION, ANSWER]


def test_a_turn_without_messages_cannot_be_saved(memory: ConversationMemory, user: str) -> None:
    with memory.turn(user) as turn:
        with pytest.raises(cm.InvalidArgument) as refused:
            turn.save()
        assert "messages" in refused.value.violations
        turn.user(QUESTION)
    assert turn.saved is not None


@pytest.mark.parametrize(
    "message",
    [
        Message("user", "half \ud800"),
        Message("user", metadata={"n": 2**60}),
        Message("user", tokens_used=2**40),
        Message("developer", "x"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_sent_is_refused_where_it_is_added(
    memory: ConversationMemory, user: str, message: Message
) -> None:
    with memory.turn(user) as turn:
        turn.user(QUESTION)
        with pytest.raises(ValueError):  # noqa: PT011
            turn.add(Message("user", "beside it"), message)
        turn.assistant(ANSWER)
    there = [message.content for message in memory.list_messages(turn.conversation_id)]
    assert there == [QUESTION, ANSWER]


def test_what_becomes_of_a_callers_dict_does_not_change_the_turn(
    memory: ConversationMemory, user: str
) -> None:
    metadata = {"k": 1}
    with memory.turn(user) as turn:
        turn.add(Message("user", QUESTION, metadata=metadata))
        metadata["k"] = 2
    assert memory.get_history(turn.conversation_id).messages[0].metadata == {"k": 1}


def test_a_turn_beyond_a_request_says_so_when_it_grows(
    memory: ConversationMemory, user: str
) -> None:
    with memory.turn(user) as turn:
        for _ in range(3):
            turn.user("x" * 1_047_000)
        with pytest.raises(ValueError, match="bytes"):
            turn.add(Message("user", "y"), Message("assistant", "x" * 1_047_000))
        turn.assistant("z" * (MAX_TURN_BYTES - turn._encoded_bytes - 16))
    assert turn.saved is not None
    assert turn.saved.last_seq == 4


def test_an_interruption_is_not_lost_to_what_is_no_error_of_ours(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake()
    fake.answers["BeginTurn"] = lambda *_: begun(last_seq=0)
    with serving(fake) as address, ConversationMemory(address) as memory:
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
    """Where Ctrl-C interrupts: what is started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("is_again", [False, True])
def test_an_interruption_during_a_blocking_save_saves_the_turn(
    is_again: bool, caplog: pytest.LogCaptureFixture
) -> None:
    fake = Fake()
    fake.answers["BeginTurn"] = lambda *_: begun(last_seq=0)
    answer = threading.Event()

    def save(*_: object) -> bytes:
        if fake.calls["SaveMessages"] == 1 or is_again:
            signal.raise_signal(signal.SIGINT)
            answer.wait(PATIENCE)
        return b""

    fake.answers["SaveMessages"] = save
    with serving(fake) as address, ConversationMemory(address) as memory:
        turn = memory.turn("ana", conversation_id=CONVERSATION)
        with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt), turn:
            turn.assistant(ANSWER)
        answer.set()
    saves = [request for name, request in fake.requests if name == "SaveMessages"]
    assert len(saves) == 2
    assert saves[0] == saves[1]
    assert (turn.saved is None) == is_again
    assert ("not saved" in caplog.text) == is_again


async def test_a_save_goes_on_when_every_task_is_cancelled(
    sidecar: Sidecar, aio: AsyncConversationMemory, user: str
) -> None:
    """As `asyncio.run` does at its end: also the task that the save itself is."""
    conversation = (await aio.create_conversation(user)).id
    for settling in range(6):
        turn = aio.turn(user, conversation_id=conversation)

        is_answered = asyncio.Event()

        async def hold(turn: cm.AsyncTurn = turn, is_answered: asyncio.Event = is_answered) -> None:
            async with turn:
                turn.assistant(ANSWER)
                is_answered.set()

        task = asyncio.create_task(hold())
        await is_answered.wait()
        for _ in range(settling):
            await asyncio.sleep(0)
        for each in asyncio.all_tasks() - {asyncio.current_task()}:
            each.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert turn.saved is not None
    assert await said(aio, conversation) == [ANSWER] * 6


async def test_a_save_that_never_comes_to_its_end_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake, reached, answer = slow_to_save()
    with serving(fake) as address:
        async with AsyncConversationMemory(address, timeout=1) as memory:
            turn = memory.turn("ana", conversation_id=CONVERSATION)

            async def hold() -> None:
                async with turn:
                    turn.assistant(ANSWER)

            task = asyncio.create_task(hold())
            await reached.wait()
            for each in asyncio.all_tasks() - {asyncio.current_task()}:
                each.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        answer.set()
    assert turn.saved is None
    assert "not saved" in caplog.text
    assert {request for name, request in fake.requests if name == "SaveMessages"} == {
        fake.requests[-1][1]
    }
