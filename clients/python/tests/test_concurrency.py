"""Concurrent turns in tasks, threads and processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from conversation_memory import AsyncConversationMemory, ConversationMemory

from .sidecar import TIMEOUT, Sidecar

SESSIONS, TURNS = 32, 5


async def test_concurrent_sessions_on_asyncio(sidecar: Sidecar, user: str) -> None:
    async with AsyncConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:

        async def take_turns(number: int) -> None:
            session: str | None = None
            conversation: str | None = None
            contents: list[str] = []
            for turn_number in range(TURNS):
                async with memory.turn(
                    f"{user}-{number}", session_id=session, conversation_id=conversation, limit=99
                ) as turn:
                    assert [message.content for message in turn.history] == contents
                    turn.user(f"question {number}.{turn_number}")
                    turn.assistant(f"answer {number}.{turn_number}")
                session, conversation = turn.session_id, turn.conversation_id
                contents += [message.content for message in turn.added]

        await asyncio.gather(*[take_turns(number) for number in range(SESSIONS)])


def test_concurrent_sessions_on_threads(sidecar: Sidecar, user: str) -> None:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:

        def take_turns(number: int) -> None:
            session: str | None = None
            conversation: str | None = None
            contents: list[str] = []
            for turn_number in range(TURNS):
                with memory.turn(
                    f"{user}-{number}", session_id=session, conversation_id=conversation, limit=99
                ) as turn:
                    assert [message.content for message in turn.history] == contents
                    turn.user(f"question {number}.{turn_number}")
                    turn.assistant(f"answer {number}.{turn_number}")
                session, conversation = turn.session_id, turn.conversation_id
                contents += [message.content for message in turn.added]

        with ThreadPoolExecutor(SESSIONS) as pool:
            list(pool.map(take_turns, range(SESSIONS)))


WRITER = """
import sys
from conversation_memory import ConversationMemory
address, user, conversation, name, timeout = sys.argv[1:]
with ConversationMemory(address, timeout=float(timeout)) as memory:
    for number in range(40):
        with memory.turn(user, conversation_id=conversation, limit=99) as turn:
            mine = [m.content for m in turn.history if m.content.startswith(name)]
            assert mine == [f"{name} {n} {end}" for n in range(number) for end in "?!"][-len(mine):]
            turn.user(f"{name} {number} ?")
            turn.assistant(f"{name} {number} !")
"""


def test_two_processes_write_to_one_conversation(sidecar: Sidecar, user: str) -> None:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        conversation = memory.create_conversation(user).id
        writers = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    WRITER,
                    sidecar.address,
                    user,
                    conversation,
                    name,
                    str(TIMEOUT),
                ]
            )
            for name in ("a", "b")
        ]
        assert [writer.wait(TIMEOUT) for writer in writers] == [0, 0]
        messages = list(memory.list_messages(conversation))
    assert [message.seq for message in messages] == list(range(1, 161))
    contents = [message.content for message in messages]
    for name in ("a", "b"):
        mine = [text for text in contents if text.startswith(name)]
        assert mine == [f"{name} {n} {end}" for n in range(40) for end in "?!"]
    for question, answer in zip(contents[::2], contents[1::2], strict=True):
        assert answer == question.replace("?", "!"), "the messages of a turn are adjacent"
