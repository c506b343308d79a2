"""The conformance suite of LangGraph, on both stores, with both clients."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test
from langgraph.checkpoint.conformance.validate import validate

from conversation_memory import AsyncConversationMemory, ConversationMemory
from conversation_memory.langgraph import ConversationMemorySaver

from .sidecar import TIMEOUT, Sidecar

CHECKS = 81


@pytest.mark.parametrize("kind", [ConversationMemory, AsyncConversationMemory])
async def test_the_saver_passes_all_checks(sidecar: Sidecar, kind: type[Any]) -> None:
    memory = kind(sidecar.address, timeout=TIMEOUT)

    @checkpointer_test(name=f"{kind.__name__} on {sidecar.backend.name}")
    async def saver() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        yield ConversationMemorySaver(memory)

    report = await validate(saver)
    results = report.results
    assert {name: found.failures for name, found in results.items() if found.failures} == {}
    assert all(found.detected for found in results.values())
    assert sum(found.tests_passed for found in results.values()) == CHECKS
    if isinstance(memory, AsyncConversationMemory):
        await memory.close()
    else:
        memory.close()
