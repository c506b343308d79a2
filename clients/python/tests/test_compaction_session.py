"""Compactions of the Agents SDK on a session, whose process can end at any time."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from inspect import getsource
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from agents import Agent, ModelResponse, RunConfig, Runner, Usage
from agents.items import TResponseInputItem
from agents.memory import OpenAIResponsesCompactionSession, SQLiteSession
from agents.memory import openai_responses_compaction_session as sdk
from agents.models.interface import Model
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from conversation_memory import AsyncConversationMemory
from conversation_memory._openai_replacement import SUMMARY
from conversation_memory.openai_agents import (
    ConversationMemoryCompactionSession,
    ConversationMemorySession,
)

from .sidecar import TIMEOUT, Sidecar

BEFORE = [
    {"role": "user", "content": "What is our vacation policy?"},
    {"type": "function_call", "call_id": "call_1", "name": "look_up", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_1", "output": "25 days"},
    {"role": "assistant", "content": "25 days a year."},
]
COMPACTED = [
    {"role": "user", "content": "What is our vacation policy?"},
    {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAAA"},
]


def items(given: list[dict[str, Any]]) -> list[TResponseInputItem]:
    return cast("list[TResponseInputItem]", given)


class FakeClient:
    """OpenAI's client, as far as compactions use it."""

    def __init__(self, output: list[dict[str, Any]]) -> None:
        self.output = output
        self.inputs: list[Any] = []
        self.responses = self

    async def compact(self, *, model: str, input: Any) -> Any:
        self.inputs.append(input)
        return SimpleNamespace(output=self.output, usage=None)


def compacting(
    session: ConversationMemorySession, output: list[dict[str, Any]], *, is_sdk: bool = False
) -> OpenAIResponsesCompactionSession:
    class_ = OpenAIResponsesCompactionSession if is_sdk else ConversationMemoryCompactionSession
    return class_(session.session_id, session, client=cast("Any", FakeClient(output)))


# Earlier versions of the SDK clear the session and then add the new items.
CLASSES = [False, *([True] if "_atomic_replace_items" in getsource(sdk) else [])]


class Answering(Model):
    """A model that always answers the same."""

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        text = ResponseOutputText(type="output_text", text="Hello.", annotations=[])
        message = ResponseOutputMessage(
            id="m", type="message", role="assistant", status="completed", content=[text]
        )
        return ModelResponse(output=[message], usage=Usage(), response_id="resp_1")

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
def session(aio: AsyncConversationMemory, user: str) -> ConversationMemorySession:
    return ConversationMemorySession("thread", user_id=user, memory=aio)


async def contents(
    session: ConversationMemorySession, memory: AsyncConversationMemory
) -> list[str]:
    return [message.content async for message in memory.list_messages(session.conversation_id)]


@pytest.mark.parametrize("is_sdk", CLASSES)
async def test_a_compaction_replaces_the_items_and_keeps_the_messages(
    session: ConversationMemorySession, aio: AsyncConversationMemory, user: str, is_sdk: bool
) -> None:
    await session.add_items(items(BEFORE))
    wrapped = compacting(session, COMPACTED, is_sdk=is_sdk)
    await wrapped.run_compaction({"force": True})
    assert await session.get_items() == COMPACTED
    assert [await session.get_items(limit) for limit in (1, 2, 3)] == [
        COMPACTED[1:],
        COMPACTED,
        COMPACTED,
    ]
    assert (await contents(session, aio))[:4] == [
        "What is our vacation policy?",
        "",
        "25 days",
        "25 days a year.",
    ]
    # Other clients read the summary and the new items.
    history = await aio.get_history(session.conversation_id, user_id=user, limit=100)
    assert [message.content for message in history.messages][:2] == [
        SUMMARY,
        "What is our vacation policy?",
    ]
    assert history.messages[0].is_summary
    added = [{"role": "user", "content": "How do I request it?"}]
    await wrapped.add_items(items(added))
    assert await session.get_items() == [*COMPACTED, *added]
    # A second compaction replaces the items of the first one.
    await compacting(session, COMPACTED[1:]).run_compaction({"force": True})
    assert await session.get_items() == COMPACTED[1:]


async def test_a_compaction_without_items_and_a_failed_one(
    session: ConversationMemorySession, aio: AsyncConversationMemory
) -> None:
    await session.add_items(items(BEFORE))
    wrapped = compacting(session, [{"role": "user", "content": float("nan")}])
    with pytest.raises(ValueError, match="finite"):
        await wrapped.run_compaction({"force": True})
    assert await session.get_items() == BEFORE
    await compacting(session, []).run_compaction({"force": True})
    assert await session.get_items() == []
    assert (await contents(session, aio))[:4] == [
        "What is our vacation policy?",
        "",
        "25 days",
        "25 days a year.",
    ]
    # Outside of a compaction, the methods are those of the session.
    await wrapped.add_items(items(BEFORE))
    assert await wrapped.pop_item() == BEFORE[-1]
    assert await wrapped.get_items() == BEFORE[:-1]
    await wrapped.clear_session()
    assert await contents(session, aio) == []


async def test_a_run_compacts_the_session(
    session: ConversationMemorySession, aio: AsyncConversationMemory
) -> None:
    wrapped = ConversationMemoryCompactionSession(
        "thread",
        session,
        client=cast("Any", client := FakeClient(COMPACTED)),
        compaction_mode="input",
        should_trigger_compaction=lambda _: True,
    )
    agent = Agent(name="hr", model=Answering())
    await Runner.run(agent, "Hi", session=wrapped, run_config=RunConfig(tracing_disabled=True))
    assert client.inputs
    assert await session.get_items() == COMPACTED
    assert (await contents(session, aio))[:2] == ["Hi", "Hello."]


@pytest.mark.parametrize("seed", range(4))
async def test_compacted_sessions_are_those_of_the_sdk(
    session: ConversationMemorySession, seed: int
) -> None:
    source = random.Random(seed)
    other = SQLiteSession("thread")
    for step in range(40):
        text = f"step {step}"
        turn = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
        kind = source.choice(["add", "add", "add", "pop", "compact", "clear", "limit"])
        output = COMPACTED[: source.randrange(3)]
        limit = source.randrange(1, 6)
        outcomes: list[Any] = []
        for each in (session, other):
            is_own = isinstance(each, ConversationMemorySession)
            class_: Any = (
                ConversationMemoryCompactionSession if is_own else OpenAIResponsesCompactionSession
            )
            wrapped: Any = class_("thread", each, client=FakeClient(output))
            if kind == "add":
                await wrapped.add_items(items(turn))
            elif kind == "pop":
                outcomes.append(await wrapped.pop_item())
            elif kind == "compact":
                await wrapped.run_compaction({"force": True})
            elif kind == "clear" and step % 3 == 0:
                await wrapped.clear_session()
            elif kind == "limit":
                outcomes.append(await each.get_items(limit))
            outcomes.append(await each.get_items())
        half = len(outcomes) // 2
        assert outcomes[:half] == outcomes[half:], f"step {step}: {kind}"
    other.close()


async def test_items_before_a_compaction_are_not_popped(
    session: ConversationMemorySession, aio: AsyncConversationMemory
) -> None:
    await session.add_items(items(BEFORE))
    await session.replace_items(items(COMPACTED))
    assert [await session.pop_item() for _ in range(3)] == [*COMPACTED[::-1], None]
    assert await session.get_items() == []
    assert len(await contents(session, aio)) == 5
    await session.add_items(items(BEFORE[:1]))
    assert await session.get_items() == BEFORE[:1]
    await session.clear_session()
    assert (await session.get_items(), await contents(session, aio)) == ([], [])
    await session.add_items(items(BEFORE))
    assert await session.get_items() == BEFORE


async def test_a_new_session_can_be_replaced(session: ConversationMemorySession) -> None:
    await session.replace_items(items(COMPACTED))
    assert await session.get_items() == COMPACTED
    await session.replace_items([])
    assert await session.get_items() == []


async def test_more_items_than_a_save_takes_are_replaced_at_once(
    session: ConversationMemorySession, aio: AsyncConversationMemory
) -> None:
    many = [{"role": "user", "content": str(n)} for n in range(250)]
    await session.add_items(items(BEFORE))
    interrupted = await interrupt_after_first_save(session, aio, items(many))
    assert interrupted
    assert await session.get_items() == BEFORE
    assert await session.get_items(1) == BEFORE[3:]
    assert await session.get_items(3) == BEFORE[1:]
    assert await session.pop_item() == BEFORE[3]
    assert await session.get_items() == BEFORE[:3]
    await session.replace_items(items(many))
    assert await session.get_items() == many
    assert await session.get_items(120) == many[-120:]


async def interrupt_after_first_save(
    session: ConversationMemorySession,
    memory: AsyncConversationMemory,
    given: list[TResponseInputItem],
) -> bool:
    channel, calls = memory._channel, 0
    unary = channel.unary

    async def failing(call: Any, seconds: float) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise RuntimeError("the process ended")
        return await unary(call, seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channel, "unary", failing)
        with pytest.raises(RuntimeError, match="ended"):
            await session.replace_items(given)
    return calls == 2


async def test_metadata_of_other_clients_does_not_hide_messages(
    session: ConversationMemorySession, aio: AsyncConversationMemory, user: str
) -> None:
    from conversation_memory import Message

    await session.add_items(items(BEFORE[:1]))
    for value in (1, "x", {}, {"id": 1, "index": 0}, {"id": "a", "index": True}, {"id": "a"}):
        message = Message("user", "x", metadata={"openai_agents": {"replacement": value}})
        await aio.save_messages(session.conversation_id, [message], user_id=user)
    assert len(await session.get_items()) == 7
    assert await session.pop_item() == {"role": "user", "content": "x"}


def compact_and_die(address: str, user: str, last_call: int, moment: str, is_sdk: bool) -> None:
    """Compacts a session in a process that kills itself before or after its n-th call."""

    async def main() -> None:
        async with AsyncConversationMemory(address, timeout=TIMEOUT) as memory:
            session = ConversationMemorySession("thread", user_id=user, memory=memory)
            unary, calls = memory._channel.unary, 0

            async def dying(call: Any, seconds: float) -> Any:
                nonlocal calls
                calls += 1
                if calls == last_call and moment == "before":
                    os.kill(os.getpid(), signal.SIGKILL)
                answer = await unary(call, seconds)
                if calls == last_call:
                    os.kill(os.getpid(), signal.SIGKILL)
                return answer

            memory._channel.unary = dying  # type: ignore[method-assign]
            await compacting(session, COMPACTED, is_sdk=is_sdk).run_compaction({"force": True})

    asyncio.run(main())


def fork_compactions(address: str, user: str, moment: str, is_sdk: str) -> None:
    """Forks processes that end at their first call, at their second call and so on.

    Importing the SDK takes longer than the rest. This process must not use gRPC itself.
    """
    for call in range(1, 20):
        if (pid := os.fork()) == 0:
            compact_and_die(address, user, call, moment, is_sdk == "True")
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
        sys.stdin.readline()


def endings(*arguments: Any) -> Iterator[int]:
    """Kills a process at its first call, its second call and so on, until one ends by itself."""
    script = f"import sys\nfrom {__name__} import *\nfork_compactions(*sys.argv[1:])"
    with subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            while (code := int(process.stdout.readline())) != 0:
                assert code == -signal.SIGKILL
                yield code
                process.stdin.write("\n")
                process.stdin.flush()
        finally:
            process.kill()


@pytest.mark.parametrize("is_sdk", CLASSES)
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_killed_process_loses_no_item(
    sidecar: Sidecar, aio: AsyncConversationMemory, user: str, moment: str, is_sdk: bool
) -> None:
    seen: list[str] = []
    session = ConversationMemorySession("thread", user_id=user, memory=aio)
    await session.add_items(items(BEFORE))
    for _ in endings(sidecar.address, user, moment, is_sdk):
        found = await session.get_items()
        assert found in (BEFORE, COMPACTED), json.dumps(found)
        seen.append("compacted" if found == COMPACTED else "before")
        listed = await contents(session, aio)
        assert listed[:4] == ["What is our vacation policy?", "", "25 days", "25 days a year."]
    assert await session.get_items() == COMPACTED
    assert "before" in seen
    if moment == "after":
        assert "compacted" in seen
