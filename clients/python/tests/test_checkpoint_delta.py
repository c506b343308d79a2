"""Graphs with a channel that stores only what is written to it."""

from __future__ import annotations

import operator
import random
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import START, StateGraph

from conversation_memory import ConversationMemory
from conversation_memory.langgraph import ConversationMemorySaver

from .checkpoint_pairs import PairedSaver
from .sidecar import TIMEOUT, Sidecar

SEEDS = range(4)
RUNS = 10


def extended(state: list[str], writes: Sequence[list[str]]) -> list[str]:
    return [*state, *(text for write in writes for text in write)]


class State(TypedDict):
    texts: Annotated[list[str], DeltaChannel(extended, snapshot_frequency=4)]
    count: Annotated[int, operator.add]


def graph(saver: Any) -> Any:
    """Three nodes that run at once, and one after them."""
    builder = StateGraph(State)
    builder.add_node("last", lambda state: {"texts": [f"last {state['count']}"]})
    for name in ("a", "b", "c"):
        builder.add_node(
            name,
            lambda state, name=name: {"texts": [f"{name} {len(state['texts'])}"], "count": 1},
        )
        builder.add_edge(START, name)
        builder.add_edge(name, "last")
    return builder.compile(checkpointer=saver)


def thread() -> RunnableConfig:
    return {"configurable": {"thread_id": str(uuid.uuid4())}}


def test_delta_channels_are_restored_along_forks(sidecar: Sidecar) -> None:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        for seed in SEEDS:
            choices = random.Random(seed)
            saver = PairedSaver(ConversationMemorySaver(memory))
            agent, config = graph(saver), thread()
            for number in range(RUNS):
                if number and choices.random() < 0.3:
                    fork = choices.choice(list(agent.get_state_history(config))).config
                    agent.update_state(fork, {"texts": [f"update {number}"]}, as_node="last")
                else:
                    agent.invoke({"texts": [f"input {number}"], "count": 0}, config)
            assert saver.compared > RUNS


def test_pruned_and_copied_threads_keep_their_delta_channels(sidecar: Sidecar) -> None:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        saver = ConversationMemorySaver(memory)
        agent, config, copy = graph(saver), thread(), thread()
        for number in range(7):
            agent.invoke({"texts": [f"input {number}"], "count": 0}, config)
        before, length = agent.get_state(config).values, len(list(saver.list(config)))
        saver.prune([config["configurable"]["thread_id"]])
        assert agent.get_state(config).values == before
        assert len(list(saver.list(config))) < length
        agent.invoke({"texts": ["further"], "count": 0}, config)
        texts = agent.get_state(config).values["texts"]
        assert texts[: len(before["texts"])] == before["texts"]
        saver.copy_thread(config["configurable"]["thread_id"], copy["configurable"]["thread_id"])
        assert agent.get_state(copy).values["texts"] == texts
