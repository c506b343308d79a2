"""Checkpoints of LangGraph, stored in conversation-memory.

graph = builder.compile(checkpointer=ConversationMemorySaver(memory))
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from ._adapters import missing_framework

try:
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import (
        BaseCheckpointSaver,
        ChannelVersions,
        Checkpoint,
        CheckpointMetadata,
        CheckpointTuple,
        DeltaChannelHistory,
        get_checkpoint_id,
    )
    from langgraph.checkpoint.serde.base import SerializerProtocol
except ImportError as error:
    raise missing_framework("langgraph", error) from error

from ._async import checkpoints as async_checkpoints
from ._async.client import AsyncConversationMemory
from ._checkpoint_values import KnownLists, ValueCodec
from ._checkpoints import Thread, namespace_of, write_writes
from ._completion_async import run_to_completion
from ._config import LONG_TIMEOUT
from ._joint_writes import JointWrites
from ._proto.v1 import checkpoint_service_pb2 as api
from ._sync import checkpoints
from ._sync.client import ConversationMemory


class ConversationMemorySaver(BaseCheckpointSaver[str]):
    """A checkpointer whose threads are conversations.

    The messages in the channel `messages` of a graph become messages of the conversation, in the
    list and the searches of its user. A thread belongs to the user in `configurable["user_id"]` of
    its first run, else to the saver's user, else to the user `langgraph`. The id of the
    conversation is `conversation_id_for(thread_id)`.

    Time travel adds the messages of the new branch to the conversation. A message that a graph
    changes or removes stays in the conversation as it was first stored; the checkpoints have the
    change. A message that a conversation cannot contain is left out of it.

    With a `ConversationMemory` all methods can be used; the asynchronous ones run the blocking
    client in a thread. With an `AsyncConversationMemory` only the asynchronous ones can be used:
    run the graph with `ainvoke` and `astream`.
    """

    def __init__(
        self,
        memory: ConversationMemory | AsyncConversationMemory,
        *,
        user_id: str | None = None,
        serde: SerializerProtocol | None = None,
    ) -> None:
        """Creates a checkpointer.

        Args:
            memory: Client to use. It is not closed with the saver.
            user_id: User of threads whose runs name none. If it is given, threads of other users
                are not found.
            serde: Serializer; `None` uses LangGraph's. With it, or with an `EncryptedSerializer`
                around it, a list is stored once, and not again at each step.
        """
        super().__init__(serde=serde)
        self._memory = memory
        self._user_id = user_id
        self._known = KnownLists()
        self._joint_writes = JointWrites()

    def get_next_version(self, current: str | None, channel: None) -> str:
        """Returns a version above the current one, which no other run chooses.

        Args:
            current: Current version of the channel; `None` if it has none.
            channel: Not used.
        """
        number = 0 if current is None else int(str(current).split(".")[0])
        # Two runs can continue from the same checkpoint.
        return f"{number + 1:032}.{random.getrandbits(48):012x}"

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Reads a checkpoint, the latest one if the config names none.

        Args:
            config: Thread, namespace and checkpoint.
        """
        operation = self._blocking._operation(None)
        return checkpoints.get_tuple(
            operation, self._codec, self._known, self._thread(config), config
        )

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Reads a checkpoint, the latest one if the config names none.

        Args:
            config: Thread, namespace and checkpoint.
        """
        if not isinstance(self._memory, AsyncConversationMemory):
            return await asyncio.to_thread(self.get_tuple, config)
        operation = self._memory._operation(None)
        return await async_checkpoints.get_tuple(
            operation, self._codec, self._known, self._thread(config), config
        )

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Lists the checkpoints of a thread, of each namespace the latest first.

        Without a config, those of all threads of the saver's user, else of the user `langgraph`: of
        the thread that was active last first. Threads whose names cannot be stored are left out.

        Args:
            config: Thread, and optionally namespace and checkpoint; `None` for all threads.
            filter: Members that the metadata must have.
            before: Config of a checkpoint: only those with lower ids are listed.
            limit: Maximum number of checkpoints.
        """
        memory = self._blocking
        if config is None:
            return checkpoints.list_all(
                lambda: memory._operation(None, at_least=LONG_TIMEOUT),
                self._codec,
                self._known,
                self._user_id,
                filter=filter,
                before=before,
                limit=limit,
            )
        return checkpoints.list_tuples(
            lambda: memory._operation(None, at_least=LONG_TIMEOUT),
            self._codec,
            self._known,
            self._thread(config),
            config,
            filter=filter,
            before=before,
            limit=limit,
        )

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Lists the checkpoints of a thread, of each namespace the latest first.

        Without a config, those of all threads of the saver's user, else of the user `langgraph`: of
        the thread that was active last first. Threads whose names cannot be stored are left out.

        Args:
            config: Thread, and optionally namespace and checkpoint; `None` for all threads.
            filter: Members that the metadata must have.
            before: Config of a checkpoint: only those with lower ids are listed.
            limit: Maximum number of checkpoints.
        """
        memory = self._memory
        if not isinstance(memory, AsyncConversationMemory):
            found = self.list(config, filter=filter, before=before, limit=limit)
            while (each := await asyncio.to_thread(next, found, None)) is not None:
                yield each
            return
        if config is None:
            listed = async_checkpoints.list_all(
                lambda: memory._operation(None, at_least=LONG_TIMEOUT),
                self._codec,
                self._known,
                self._user_id,
                filter=filter,
                before=before,
                limit=limit,
            )
        else:
            listed = async_checkpoints.list_tuples(
                lambda: memory._operation(None, at_least=LONG_TIMEOUT),
                self._codec,
                self._known,
                self._thread(config),
                config,
                filter=filter,
                before=before,
                limit=limit,
            )
        async for each in listed:
            yield each

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Stores a checkpoint and the messages that the conversation does not have.

        Args:
            config: Thread, namespace and the checkpoint before.
            checkpoint: Checkpoint.
            metadata: Its metadata.
            new_versions: Versions of the channels whose values are new.

        Raises:
            ValueError: A value is too large, or the lists have too many items.
        """
        return checkpoints.put(
            self._blocking._operation(None),
            self._codec,
            self._known,
            self._thread(config),
            config,
            checkpoint,
            metadata,
            new_versions,
        )

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Stores a checkpoint like `put`. A cancellation is raised after the write has ended.

        Args:
            config: Thread, namespace and the checkpoint before.
            checkpoint: Checkpoint.
            metadata: Its metadata.
            new_versions: Versions of the channels whose values are new.

        Raises:
            ValueError: A value is too large, or the lists have too many items.
        """
        thread = self._thread(config)
        subject = f"a checkpoint of conversation {thread.conversation_id}"
        if not isinstance(self._memory, AsyncConversationMemory):
            return await run_to_completion(
                subject, asyncio.to_thread, self.put, config, checkpoint, metadata, new_versions
            )
        return await run_to_completion(
            subject, self._put_with_writes, thread, config, checkpoint, metadata, new_versions
        )

    async def _put_with_writes(
        self,
        thread: Thread,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        place = thread.conversation_id, namespace_of(config)
        put = self._joint_writes.begin_put(place, get_checkpoint_id(config))
        try:
            return await async_checkpoints.put(
                self._async._operation(None),
                self._codec,
                self._known,
                thread,
                config,
                checkpoint,
                metadata,
                new_versions,
                put.attached,
            )
        finally:
            self._joint_writes.end_put(place, put)

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Stores writes that belong to a checkpoint.

        Args:
            config: Thread, namespace and checkpoint.
            writes: Channels and values.
            task_id: Task that writes them.
            task_path: Position of the task in the graph.

        Raises:
            ValueError: A value is too large.
        """
        operation = self._blocking._operation(None)
        checkpoints.put_writes(
            operation, self._codec, self._thread(config), config, writes, task_id, task_path
        )

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Stores writes like `put_writes`. A cancellation is raised after the write has ended.

        Writes that the next checkpoint of the thread follows at once are stored with it.

        Args:
            config: Thread, namespace and checkpoint.
            writes: Channels and values.
            task_id: Task that writes them.
            task_path: Position of the task in the graph.

        Raises:
            ValueError: A value is too large.
        """
        thread = self._thread(config)
        subject = f"writes of conversation {thread.conversation_id}"
        if not isinstance(self._memory, AsyncConversationMemory):
            await run_to_completion(
                subject, asyncio.to_thread, self.put_writes, config, writes, task_id, task_path
            )
        elif writes:
            request = write_writes(self._codec, thread, config, writes, task_id, task_path)
            await run_to_completion(subject, self._put_joint_writes, request)

    async def _put_joint_writes(self, request: api.PutWritesRequest) -> None:
        operation = self._async._operation(None)
        place = request.conversation_id, request.namespace
        writes = api.TaskWrites(
            task_id=request.task_id, task_path=request.task_path, writes=request.writes
        )
        if not await self._joint_writes.are_stored(place, request.checkpoint_id, writes):
            await async_checkpoints.send_writes(operation, request)

    def delete_thread(self, thread_id: str) -> None:
        """Deletes a thread: its checkpoints, and its conversation with all messages.

        Args:
            thread_id: Name of the thread.
        """
        operation = self._blocking._operation(None, at_least=LONG_TIMEOUT)
        checkpoints.delete_thread(operation, thread_id, self._user_id)

    async def adelete_thread(self, thread_id: str) -> None:
        """Deletes a thread: its checkpoints, and its conversation with all messages.

        Args:
            thread_id: Name of the thread.
        """
        if not isinstance(self._memory, AsyncConversationMemory):
            return await asyncio.to_thread(self.delete_thread, thread_id)
        operation = self._memory._operation(None, at_least=LONG_TIMEOUT)
        return await async_checkpoints.delete_thread(operation, thread_id, self._user_id)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies all checkpoints of a thread to a new one, which has its messages too.

        Args:
            source_thread_id: Name of the thread.
            target_thread_id: Name of the copy.

        Raises:
            AlreadyExists: The target has checkpoints, or messages of its own.
        """
        operation = self._blocking._operation(None, at_least=LONG_TIMEOUT)
        checkpoints.copy_thread(operation, source_thread_id, target_thread_id, self._user_id)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies all checkpoints of a thread to a new one, which has its messages too.

        Args:
            source_thread_id: Name of the thread.
            target_thread_id: Name of the copy.

        Raises:
            AlreadyExists: The target has checkpoints, or messages of its own.
        """
        if not isinstance(self._memory, AsyncConversationMemory):
            return await asyncio.to_thread(self.copy_thread, source_thread_id, target_thread_id)
        operation = self._memory._operation(None, at_least=LONG_TIMEOUT)
        return await async_checkpoints.copy_thread(
            operation, source_thread_id, target_thread_id, self._user_id
        )

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Deletes the checkpoints that runs have created. Messages of conversations stay.

        Args:
            run_ids: Runs, as `run_id` in the metadata of checkpoints.
        """
        operation = self._blocking._operation(None, at_least=LONG_TIMEOUT)
        checkpoints.delete_for_runs(operation, run_ids, self._user_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Deletes the checkpoints that runs have created. Messages of conversations stay.

        Args:
            run_ids: Runs, as `run_id` in the metadata of checkpoints.
        """
        if not isinstance(self._memory, AsyncConversationMemory):
            return await asyncio.to_thread(self.delete_for_runs, run_ids)
        operation = self._memory._operation(None, at_least=LONG_TIMEOUT)
        return await async_checkpoints.delete_for_runs(operation, run_ids, self._user_id)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Deletes checkpoints of threads, or the threads.

        Args:
            thread_ids: Names of the threads.
            strategy: `keep_latest` keeps the latest checkpoint of each namespace, and the ancestors
                that a `DeltaChannel` needs. `delete` deletes the threads with their messages.

        Raises:
            ValueError: The strategy is unknown.
        """
        operation = self._blocking._operation(None, at_least=LONG_TIMEOUT)
        checkpoints.prune(operation, thread_ids, strategy, self._user_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Deletes checkpoints of threads, or the threads.

        Args:
            thread_ids: Names of the threads.
            strategy: As in `prune`.

        Raises:
            ValueError: The strategy is unknown.
        """
        if not isinstance(self._memory, AsyncConversationMemory):
            return await asyncio.to_thread(self.prune, thread_ids, strategy=strategy)
        operation = self._memory._operation(None, at_least=LONG_TIMEOUT)
        return await async_checkpoints.prune(operation, thread_ids, strategy, self._user_id)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Reads what the ancestors of a checkpoint have contributed to channels.

        Args:
            config: Thread, namespace and checkpoint.
            channels: Names of the channels.
        """
        if not channels:
            return {}
        return checkpoints.get_delta_history(
            self._blocking._operation(None, at_least=LONG_TIMEOUT),
            self._codec,
            self._thread(config),
            config,
            channels,
        )

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Reads what the ancestors of a checkpoint have contributed to channels.

        Args:
            config: Thread, namespace and checkpoint.
            channels: Names of the channels.
        """
        if not channels:
            return {}
        if not isinstance(self._memory, AsyncConversationMemory):
            return await asyncio.to_thread(
                self.get_delta_channel_history, config=config, channels=channels
            )
        return await async_checkpoints.get_delta_history(
            self._memory._operation(None, at_least=LONG_TIMEOUT),
            self._codec,
            self._thread(config),
            config,
            channels,
        )

    @property
    def _codec(self) -> ValueCodec:
        # LangGraph replaces the serializer in copies of a saver.
        return ValueCodec(self.serde)

    @property
    def _async(self) -> AsyncConversationMemory:
        assert isinstance(self._memory, AsyncConversationMemory)  # noqa: S101
        return self._memory

    def _thread(self, config: RunnableConfig) -> Thread:
        return Thread.of(config, self._user_id)

    @property
    def _blocking(self) -> ConversationMemory:
        if isinstance(self._memory, AsyncConversationMemory):
            raise TypeError(
                "this saver has an AsyncConversationMemory: run the graph with ainvoke or astream,"
                " or give the saver a ConversationMemory"
            )
        return self._memory
