"""A saver that gives every call to two savers and compares what they return."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.memory import InMemorySaver


class PairedSaver(BaseCheckpointSaver[str]):
    """Runs a graph on a saver, and fails at the first difference from LangGraph's own."""

    def __init__(self, saver: BaseCheckpointSaver[str]) -> None:
        super().__init__()
        self.saver = saver
        self.reference = InMemorySaver()
        self.compared = 0
        # The graph writes in the background: nothing must come between two calls that are compared.
        self._lock = threading.RLock()
        self._alock = asyncio.Lock()

    def get_next_version(self, current: str | None, channel: None) -> str:
        return self.saver.get_next_version(current, channel)

    def _same(
        self, found: CheckpointTuple | None, expected: CheckpointTuple | None
    ) -> CheckpointTuple | None:
        self.compared += 1
        assert described(found) == described(expected)
        return found

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        with self._lock:
            found = self.saver.get_tuple(config)
            return self._same(found, self.reference.get_tuple(config))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        async with self._alock:
            return await self._aget_tuple(config)

    async def _aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found = await self.saver.aget_tuple(config)
        return self._same(found, self.reference.get_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        with self._lock:
            found = [*self.saver.list(config, filter=filter, before=before, limit=limit)]
            expected = [*self.reference.list(config, filter=filter, before=before, limit=limit)]
        for one, other in zip(found, expected, strict=True):
            self._same(one, other)
            yield one

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        async with self._alock:
            listed = self.saver.alist(config, filter=filter, before=before, limit=limit)
            found = [each async for each in listed]
            expected = [*self.reference.list(config, filter=filter, before=before, limit=limit)]
        for one, other in zip(found, expected, strict=True):
            self._same(one, other)
            yield one

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        with self._lock:
            stored = self.saver.put(config, checkpoint, metadata, new_versions)
            assert stored == self.reference.put(config, checkpoint, metadata, new_versions)
            self.get_tuple(stored)
        return stored

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        async with self._alock:
            stored = await self.saver.aput(config, checkpoint, metadata, new_versions)
            assert stored == self.reference.put(config, checkpoint, metadata, new_versions)
            await self._aget_tuple(stored)
        return stored

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        with self._lock:
            self.saver.put_writes(config, writes, task_id, task_path)
            self.reference.put_writes(config, writes, task_id, task_path)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        async with self._alock:
            await self.saver.aput_writes(config, writes, task_id, task_path)
            self.reference.put_writes(config, writes, task_id, task_path)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        with self._lock:
            found = self.saver.get_delta_channel_history(config=config, channels=channels)
            expected = self.reference.get_delta_channel_history(config=config, channels=channels)
        assert found == expected
        self.compared += 1
        return found

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        async with self._alock:
            found = await self.saver.aget_delta_channel_history(config=config, channels=channels)
            expected = self.reference.get_delta_channel_history(config=config, channels=channels)
        assert found == expected
        self.compared += 1
        return found


def described(found: CheckpointTuple | None) -> Any:
    """Returns what two savers must return equally."""
    if found is None:
        return None
    keys = ("thread_id", "checkpoint_ns", "checkpoint_id")
    configurable = found.config["configurable"]
    parent = found.parent_config["configurable"] if found.parent_config else None
    return {
        "config": {key: configurable.get(key, "") for key in keys},
        "checkpoint": found.checkpoint,
        "metadata": found.metadata,
        "parent": parent,
        "writes": found.pending_writes,
    }
