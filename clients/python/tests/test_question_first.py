"""Turns with `save_question_first`: the question survives whatever happens to the answer."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import grpc
import pytest

import conversation_memory as cm
from conversation_memory import AsyncConversationMemory, ConversationMemory, Message
from conversation_memory._proto.v1 import conversation_memory_pb2 as api

from .fake import CONVERSATION, FakeService, begun, failing, serving
from .sidecar import TIMEOUT, Sidecar, wait_for

QUESTION, ANSWER = "What is our vacation policy?", "25 days."


def contents(memory: ConversationMemory, conversation: str) -> list[str]:
    return [message.content for message in memory.list_messages(conversation)]


def test_question_and_answer_are_one_turn(memory: ConversationMemory, user: str) -> None:
    with memory.turn(user, save_question_first=True, if_unchanged=True) as turn:
        turn.system("Be brief.")
        turn.user(QUESTION)
        assert turn.saved is None
        turn.assistant(ANSWER)
        assert turn.to_openai()[-1] == {"role": "assistant", "content": ANSWER}
    assert turn.saved is not None
    assert [message.content for message in turn.saved.messages] == ["Be brief.", QUESTION, ANSWER]
    assert turn.saved.last_seq == 3
    assert contents(memory, turn.conversation_id) == ["Be brief.", QUESTION, ANSWER]


def test_question_is_saved_before_the_answer_begins(sidecar: Sidecar, user: str) -> None:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        with memory.turn(user, save_question_first=True) as turn:
            turn.user(QUESTION)
            assert contents(memory, turn.conversation_id) == [QUESTION]


def test_turn_without_an_answer_keeps_the_question(memory: ConversationMemory, user: str) -> None:
    with memory.turn(user, save_question_first=True) as turn:
        turn.user(QUESTION)
    assert turn.saved is not None
    assert (turn.saved.last_seq, len(turn.saved.messages)) == (1, 1)
    assert contents(memory, turn.conversation_id) == [QUESTION]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_failed_body_keeps_the_question_only(
    memory: ConversationMemory, user: str, error: type[BaseException]
) -> None:
    with pytest.raises(error), memory.turn(user, save_question_first=True) as turn:
        turn.user(QUESTION)
        turn.assistant(
            tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}]
        )
        raise error
    assert turn.saved is None
    assert contents(memory, turn.conversation_id) == [QUESTION]
    (conversation,) = memory.list_conversations(user)
    assert conversation.title == QUESTION


def test_interruption_after_the_answer_saves_it(memory: ConversationMemory, user: str) -> None:
    with pytest.raises(KeyboardInterrupt), memory.turn(user, save_question_first=True) as turn:
        turn.user(QUESTION)
        turn.assistant(ANSWER)
        raise KeyboardInterrupt
    assert contents(memory, turn.conversation_id) == [QUESTION, ANSWER]


def test_if_unchanged_applies_to_the_whole_turn(memory: ConversationMemory, user: str) -> None:
    with (
        pytest.raises(cm.SeqMismatch),
        memory.turn(user, save_question_first=True, if_unchanged=True) as turn,
    ):
        turn.user(QUESTION)
        wait_for(lambda: contents(memory, turn.conversation_id) == [QUESTION] or None, "not saved")
        memory.save_messages(turn.conversation_id, [Message("user", "between")])
        turn.assistant(ANSWER)
    assert contents(memory, turn.conversation_id) == [QUESTION, "between"]


def test_retries_of_both_saves_use_keys_of_the_turn() -> None:
    fake = FakeService()
    fake.answers["BeginTurn"] = lambda *_: begun(last_seq=0)
    saves: list[api.SaveMessagesRequest] = []

    def save(request: bytes, context: grpc.ServicerContext) -> bytes:
        saves.append(api.SaveMessagesRequest.FromString(request))
        return api.SaveMessagesResponse(last_seq=len(saves)).SerializeToString()

    fake.answers["SaveMessages"] = failing(grpc.StatusCode.INTERNAL)
    with serving(fake) as address, ConversationMemory(address, timeout=TIMEOUT) as memory:
        with memory.turn("ana", save_question_first=True) as turn:
            key = turn.request_id
            with pytest.raises(cm.Internal):
                turn.user(QUESTION)
            fake.answers["SaveMessages"] = save
            turn.assistant(ANSWER)
    assert [request.request_id for request in saves] == [key, f"{key}.1"]
    assert [len(request.messages) for request in saves] == [1, 1]


async def test_error_of_the_question_is_raised_at_the_end() -> None:
    fake = FakeService()
    fake.answers["BeginTurn"] = lambda *_: begun(last_seq=0)
    fake.answers["SaveMessages"] = failing(grpc.StatusCode.INTERNAL)
    with serving(fake) as address:
        async with AsyncConversationMemory(address, timeout=TIMEOUT) as memory:
            with pytest.raises(cm.Internal):
                async with memory.turn("ana", save_question_first=True) as turn:
                    turn.user(QUESTION)
            assert turn.conversation_id == CONVERSATION


@pytest.mark.parametrize("steps", range(8))
async def test_cancellation_keeps_the_question(
    aio: AsyncConversationMemory, user: str, steps: int
) -> None:
    asked = asyncio.Event()
    conversation = ""

    async def answer() -> None:
        nonlocal conversation
        async with aio.turn(user, save_question_first=True) as turn:
            conversation = turn.conversation_id
            turn.user(QUESTION)
            asked.set()
            await asyncio.sleep(TIMEOUT)

    task = asyncio.create_task(answer())
    await asked.wait()
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [message.content async for message in aio.list_messages(conversation)] == [QUESTION]


def test_killed_process_keeps_the_question(sidecar: Sidecar, user: str) -> None:
    code = f"""
import os
from conversation_memory import ConversationMemory
with ConversationMemory({sidecar.address!r}).turn({user!r}, save_question_first=True) as turn:
    turn.user({QUESTION!r})
    os.kill(os.getpid(), 9)
"""
    ended = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), timeout=TIMEOUT)
    assert ended.returncode == -9
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        (conversation,) = memory.list_conversations(user)
        assert contents(memory, conversation.id) == [QUESTION]


@pytest.mark.parametrize("has_extra", [False, True])
async def test_messages_after_the_question_are_not_saved_with_it(
    aio: AsyncConversationMemory, user: str, has_extra: bool
) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}
    with pytest.raises(ZeroDivisionError):
        async with aio.turn(user, save_question_first=True) as turn:
            turn.user(QUESTION)
            if has_extra:
                turn.system("context")
            # The save in the background has not begun.
            turn.assistant(tool_calls=[call])
            turn.tool("result", tool_call_id="1")
            raise ZeroDivisionError
    stored = [each.content async for each in aio.list_messages(turn.conversation_id)]
    assert stored == [QUESTION]


def test_messages_that_are_added_with_the_question_belong_to_it(
    memory: ConversationMemory, user: str
) -> None:
    with pytest.raises(ZeroDivisionError), memory.turn(user, save_question_first=True) as turn:
        turn.system("Be brief.")
        turn.add(Message("user", QUESTION), Message("system", "context"))
        turn.system("later")
        raise ZeroDivisionError
    assert contents(memory, turn.conversation_id) == ["Be brief.", QUESTION, "context"]


def test_question_that_is_added_with_its_answer_is_saved_first(
    memory: ConversationMemory, user: str
) -> None:
    with pytest.raises(ZeroDivisionError), memory.turn(user, save_question_first=True) as turn:
        turn.add(Message("user", QUESTION), Message("assistant", ANSWER))
        raise ZeroDivisionError
    assert contents(memory, turn.conversation_id) == [QUESTION]
