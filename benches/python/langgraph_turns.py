"""Takes turns of a LangGraph agent, for the benchmark `langgraph`.

    langgraph_turns.py memory
    langgraph_turns.py postgres DATABASE_URL
    langgraph_turns.py client ADDRESS

The first argument is the saver: InMemorySaver, AsyncPostgresSaver or ConversationMemorySaver. The
agent has the nodes `model` and `tools`. A turn has four steps: the question, a tool call, its
result and the answer, each of which has a checkpoint. The model and the tool take no time.

Each line of standard input starts a measurement, whose result is a line of JSON. `CALLERS SECONDS`
measures turns; a caller begins a new thread after ten turns. `0 TURNS` takes turns in one thread.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from turns import AsyncTurn, repeat_async, report

from conversation_memory import AsyncConversationMemory
from conversation_memory.langgraph import ConversationMemorySaver

CONNECTIONS = 20
TURNS_OF_THREAD = 10
"""Turns after which a caller begins a new thread, because the messages of a thread are stored again
at each step by AsyncPostgresSaver."""

SCHEMA = "langgraph_saver"
CREATE_SCHEMA = f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"

_random = random.Random(1)  # noqa: S311
_letters = "etaoinshrdlcumwfgypb"
WORDS = ["".join(_random.choices(_letters, k=_random.randint(2, 10))) for _ in range(3000)]


def text(chars: int) -> str:
    """Returns a text that compresses about as well as a natural one."""
    words = _random.choices(WORDS, k=chars // 4)
    return " ".join(words)[:chars]


@tool
def look_up(subject: str) -> str:
    """Looks up a subject."""
    return f"{subject}: {text(300)}"


async def model(state: MessagesState) -> dict[str, Any]:
    """Calls the tool, and answers when it has returned."""
    if isinstance(state["messages"][-1], HumanMessage):
        call = {"name": "look_up", "args": {"subject": text(20)}, "id": f"call_{uuid.uuid4().hex}"}
        return {"messages": [AIMessage("", tool_calls=[call])]}
    return {"messages": [AIMessage(text(600))]}


def agent(saver: BaseCheckpointSaver) -> Any:
    """Compiles the agent."""
    graph = StateGraph(MessagesState)
    graph.add_node("model", model)
    graph.add_node("tools", ToolNode([look_up]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile(checkpointer=saver)


def new_turn(graph: Any) -> AsyncTurn:
    """Returns the turns of a caller."""
    turns = 0
    config: dict[str, Any] = {}

    async def take() -> None:
        nonlocal turns, config
        if turns % TURNS_OF_THREAD == 0:
            config = {"configurable": {"thread_id": str(uuid.uuid4())}}
        turns += 1
        await graph.ainvoke({"messages": [HumanMessage(text(200))]}, config)

    return take


@asynccontextmanager
async def open_saver(kind: str, arguments: list[str]) -> AsyncIterator[BaseCheckpointSaver]:
    """Opens a saver as its documentation describes."""
    if kind == "memory":
        yield InMemorySaver()
    elif kind == "postgres":
        async with await AsyncConnection.connect(*arguments, autocommit=True) as connection:
            await connection.execute(CREATE_SCHEMA)
        settings = {
            "autocommit": True,
            "prepare_threshold": 0,
            "row_factory": dict_row,
            "options": f"-c search_path={SCHEMA}",
        }
        async with AsyncConnectionPool(
            *arguments, min_size=1, max_size=CONNECTIONS, kwargs=settings
        ) as pool:
            saver = AsyncPostgresSaver(pool)
            await saver.setup()
            yield saver
    else:
        async with AsyncConversationMemory(*arguments, timeout=60) as memory:
            yield ConversationMemorySaver(memory)


async def measure(kind: str, arguments: list[str]) -> None:
    """Measures what standard input requests."""
    async with open_saver(kind, arguments) as saver:
        graph = agent(saver)
        turns: list[AsyncTurn] = []
        while line := await asyncio.to_thread(sys.stdin.readline):
            callers, amount = line.split()
            if callers == "0":
                await one_thread(graph, int(amount))
                continue
            turns += [new_turn(graph) for _ in range(len(turns), int(callers))]
            times: list[float] = []
            start, cpu = time.perf_counter(), time.process_time()
            end = start + float(amount)
            await asyncio.gather(
                *(repeat_async(turn, end, times) for turn in turns[: int(callers)])
            )
            report(start, times, cpu)


async def one_thread(graph: Any, turns: int) -> None:
    """Takes turns in one thread, and reports the bytes of the texts of its messages."""
    config = {"configurable": {"thread_id": str(uuid.uuid4())}}
    for _ in range(turns):
        await graph.ainvoke({"messages": [HumanMessage(text(200))]}, config)
    state = await graph.aget_state(config)
    messages = state.values["messages"]
    if len(messages) != 4 * turns:
        raise ValueError("the thread does not have the messages of all turns")
    size = sum(len(message.model_dump_json(exclude_defaults=True)) for message in messages)
    print(json.dumps({"bytes": size}), flush=True)


if __name__ == "__main__":
    asyncio.run(measure(sys.argv[1], sys.argv[2:]))
