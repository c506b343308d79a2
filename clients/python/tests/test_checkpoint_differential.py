"""Random graphs on the saver, step by step equal to LangGraph's own saver."""

from __future__ import annotations

import os
import uuid

from conversation_memory import AsyncConversationMemory, ConversationMemory
from conversation_memory.langgraph import ConversationMemorySaver

from .checkpoint_pairs import PairedSaver
from .random_graphs import RandomGraph, arun, run
from .sidecar import TIMEOUT, Sidecar

GRAPHS = int(os.environ.get("GRAPHS", "10"))
BLOCKING_SEEDS = range(GRAPHS)
ASYNC_SEEDS = range(1000, 1000 + GRAPHS // 2)
RUNS = 6


def test_graphs_see_what_they_would_in_memory(sidecar: Sidecar) -> None:
    compared = 0
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        for seed in BLOCKING_SEEDS:
            saver = PairedSaver(ConversationMemorySaver(memory))
            run(RandomGraph(seed, saver), f"{uuid.uuid4()}-{seed}", RUNS)
            compared += saver.compared
    assert compared > 20 * len(BLOCKING_SEEDS)


async def test_graphs_see_what_they_would_in_memory_asynchronously(
    aio: AsyncConversationMemory,
) -> None:
    compared = 0
    for seed in ASYNC_SEEDS:
        saver = PairedSaver(ConversationMemorySaver(aio))
        await arun(RandomGraph(seed, saver), f"{uuid.uuid4()}-{seed}", RUNS)
        compared += saver.compared
    assert compared > 20 * len(ASYNC_SEEDS)


def test_a_new_process_continues_equally(sidecar: Sidecar) -> None:
    """Without the lists that another process has read or written."""
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        for seed in range(2000, 2002):
            saver = PairedSaver(ConversationMemorySaver(memory))
            thread = f"{uuid.uuid4()}-{seed}"
            run(RandomGraph(seed, saver), thread, 3)
            saver.saver = ConversationMemorySaver(memory)
            run(RandomGraph(seed, saver), thread, 3)
