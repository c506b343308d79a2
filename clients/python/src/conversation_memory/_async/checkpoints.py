"""Operations of the LangGraph saver on an asynchronous client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
)

from .. import _checkpoints as forms
from .._checkpoint_values import KnownLists, ValueCodec, batches, pieces_of, take_contents
from .._checkpoints import Thread
from .._errors import FailedPrecondition, NotFound
from .._method import Method
from .._names import conversation_id_for
from .._proto.v1 import checkpoint_service_pb2 as api
from .._proto.v1 import conversation_memory_pb2 as memory_api
from .._proto.v1 import methods
from .base import AsyncOperation

MAX_DIRECT_BYTES = 4 << 20
"""Size of a request above which its data is sent before it."""

MAX_BATCH_BYTES = 2 << 20
"""Upper bound on the data of one request, unless it is a single piece."""

MAX_DIGESTS = 1000
"""Upper bound on the digests of one request."""

MAX_THREADS = 100
"""Upper bound on the threads or runs of one request."""


async def put(
    operation: AsyncOperation,
    codec: ValueCodec,
    known: KnownLists,
    thread: Thread,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
    attached: forms.AttachedWrites | None = None,
) -> RunnableConfig:
    """Stores a checkpoint, and the messages that the conversation does not have yet."""

    async def attempt(new_versions: ChannelVersions) -> None:
        prepared = forms.write_checkpoint(
            codec, known, thread, config, checkpoint, metadata, new_versions, operation.limits
        )
        await _put_prepared(operation, prepared, attached)
        for channel, stored in prepared.lists.items():
            known.put(thread.conversation_id, forms.namespace_of(config), channel, stored)

    try:
        await attempt(new_versions)
    except FailedPrecondition as error:
        if error.reason != "BASE_VERSION_MISSING":
            raise
        # The thread was pruned, or deleted and created again: send all values completely.
        versions = checkpoint["channel_versions"]
        for channel in versions:
            known.forget(thread.conversation_id, forms.namespace_of(config), channel)
        await attempt(versions)
    return forms.stored_config(thread, config, checkpoint["id"])


async def _put_prepared(
    operation: AsyncOperation, prepared: forms.PreparedPut, attached: forms.AttachedWrites | None
) -> None:
    request = prepared.request
    if attached is not None:
        request.task_writes.extend(attached.writes)
    for batch in prepared.messages:
        del request.messages[:]
        request.messages.extend(batch)
        response = await _send(
            operation, methods.PUT_CHECKPOINT, request, request.checkpoint.values
        )
        if attached is not None and request.task_writes:
            # A service of an earlier version ignores them.
            attached.are_stored = response.stored_task_writes == len(request.task_writes)
            del request.task_writes[:]


async def put_writes(
    operation: AsyncOperation,
    codec: ValueCodec,
    thread: Thread,
    config: RunnableConfig,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
) -> None:
    """Stores writes that belong to a checkpoint."""
    if writes:
        request = forms.write_writes(codec, thread, config, writes, task_id, task_path)
        await send_writes(operation, request)


async def send_writes(operation: AsyncOperation, request: api.PutWritesRequest) -> None:
    """Stores encoded writes."""
    await _send(operation, methods.PUT_WRITES, request, request.writes)


async def _send(
    operation: AsyncOperation, method: Method[Any, Any], request: Any, values: Iterable[Any]
) -> Any:
    """Sends a request, and before it the data that does not fit into it."""
    contents: list[bytes] = []
    if request.ByteSize() > MAX_DIRECT_BYTES:
        contents = take_contents(pieces_of(values))
        await _put_contents(operation, request, contents)
    try:
        return await operation.call(method, request, is_save=True)
    except FailedPrecondition as error:
        if error.reason != "CONTENT_MISSING":
            raise
        # The thread was pruned in between.
        await _put_contents(operation, request, contents)
        return await operation.call(method, request, is_save=True)


async def _put_contents(operation: AsyncOperation, request: Any, contents: list[bytes]) -> None:
    for batch in batches(contents, MAX_BATCH_BYTES):
        upload = api.PutContentsRequest(
            conversation_id=request.conversation_id,
            user_id=request.user_id,
            new_thread=request.new_thread,
            contents=batch,
        )
        await operation.call(methods.PUT_CONTENTS, upload, is_save=True)


async def get_tuple(
    operation: AsyncOperation,
    codec: ValueCodec,
    known: KnownLists,
    thread: Thread,
    config: RunnableConfig,
) -> CheckpointTuple | None:
    """Reads a checkpoint, the latest one if the config names none; `None` if there is none."""
    request = api.GetCheckpointRequest(
        conversation_id=thread.conversation_id,
        user_id=thread.user_id or "",
        namespace=forms.namespace_of(config),
        checkpoint_id=get_checkpoint_id(config) or "",
    )
    try:
        found = await _read(operation, thread, methods.GET_CHECKPOINT, request)
    except NotFound:
        return None
    return forms.read_tuple(codec, known, thread, found)


async def _read(
    operation: AsyncOperation, thread: Thread, method: Method[Any, Any], request: Any
) -> Any:
    """Reads checkpoints with all of their data."""
    for is_last in (False, False, True):
        response = await operation.call(method, request)
        try:
            await _complete(operation, thread, forms.records_of(response))
        except FailedPrecondition as error:
            # The thread was pruned in between: what is left is read again.
            if is_last or error.reason != "CONTENT_MISSING":
                raise
        else:
            break
    return response


async def _complete(
    operation: AsyncOperation, thread: Thread, found: Sequence[api.GetCheckpointResponse]
) -> None:
    """Reads the data that did not fit into a response."""
    missing: dict[bytes, list[api.CheckpointPiece]] = {}
    for each in found:
        for piece in pieces_of([*each.checkpoint.values, *each.writes]):
            if piece.WhichOneof("piece") == "digest":
                missing.setdefault(piece.digest, []).append(piece)
    digests = list(missing)
    while digests:
        request = api.GetContentsRequest(
            conversation_id=thread.conversation_id,
            user_id=thread.user_id or "",
            digests=digests[:MAX_DIGESTS],
        )
        contents = (await operation.call(methods.GET_CONTENTS, request)).contents
        for digest, data in zip(digests, contents, strict=False):
            for piece in missing[digest]:
                piece.data = data
        digests = digests[len(contents) :]


async def list_tuples(
    start: Any,
    codec: ValueCodec,
    known: KnownLists,
    thread: Thread,
    config: RunnableConfig,
    *,
    filter: Mapping[str, Any] | None,
    before: RunnableConfig | None,
    limit: int | None,
) -> AsyncIterator[CheckpointTuple]:
    """Yields checkpoints page by page. `start` starts the operation of a page."""
    if limit is not None and limit <= 0:
        return
    request = forms.list_request(thread, config, filter, before, limit)
    while True:
        operation: AsyncOperation = start()
        try:
            page = await _read(operation, thread, methods.LIST_CHECKPOINTS, request)
        except NotFound:
            return
        for found in page.checkpoints:
            yield forms.read_tuple(codec, known, thread, found)
            if limit is not None:
                limit -= 1
                if limit == 0:
                    return
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def list_all(
    start: Any,
    codec: ValueCodec,
    known: KnownLists,
    user_id: str | None,
    *,
    filter: Mapping[str, Any] | None,
    before: RunnableConfig | None,
    limit: int | None,
) -> AsyncIterator[CheckpointTuple]:
    """Yields the checkpoints of all threads of a user, thread by thread."""
    if limit is not None and limit <= 0:
        return
    request = memory_api.ListConversationsRequest(
        user_id=user_id or forms.DEFAULT_USER, page_size=MAX_THREADS
    )
    while True:
        operation: AsyncOperation = start()
        page = await operation.call(methods.LIST_CONVERSATIONS, request)
        for thread in forms.threads_of(page.conversations, user_id):
            config: RunnableConfig = {"configurable": {"thread_id": thread.name}}
            async for found in list_tuples(
                start, codec, known, thread, config, filter=filter, before=before, limit=limit
            ):
                yield found
                if limit is not None:
                    limit -= 1
                    if limit == 0:
                        return
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def get_delta_history(
    operation: AsyncOperation,
    codec: ValueCodec,
    thread: Thread,
    config: RunnableConfig,
    channels: Sequence[str],
) -> Mapping[str, DeltaChannelHistory]:
    """Reads what the ancestors of a checkpoint have contributed to channels."""
    history = forms.DeltaHistory(codec, channels)
    request = api.GetDeltaHistoryRequest(
        conversation_id=thread.conversation_id,
        user_id=thread.user_id or "",
        namespace=forms.namespace_of(config),
        checkpoint_id=get_checkpoint_id(config) or "",
        channels=history.remaining,
    )
    pages: set[str] = set()
    while history.remaining:
        try:
            page = await _read(operation, thread, methods.GET_DELTA_HISTORY, request)
        except NotFound:
            break
        for ancestor in page.ancestors:
            history.add(ancestor)
        last = page.ancestors[-1].checkpoint.checkpoint_id if page.ancestors else ""
        # Ancestors can form a circle that is longer than a page.
        if not page.has_more or last in pages:
            break
        pages.add(last)
        request.checkpoint_id = last
        del request.channels[:]
        request.channels.extend(history.remaining)
    return history.result()


async def delete_thread(operation: AsyncOperation, thread_id: str, user_id: str | None) -> None:
    """Deletes a thread with its conversation."""
    request = api.DeleteThreadRequest(
        conversation_id=conversation_id_for(str(thread_id)), user_id=user_id or ""
    )
    await operation.call(methods.DELETE_THREAD, request)


async def copy_thread(
    operation: AsyncOperation, source: str, target: str, user_id: str | None
) -> None:
    """Copies a thread; nothing if it does not exist."""
    copy = Thread(str(target), conversation_id_for(str(target)), user_id)
    request = api.CopyThreadRequest(
        conversation_id=conversation_id_for(str(source)),
        user_id=user_id or "",
        target_conversation_id=copy.conversation_id,
        new_thread=copy.new(),
    )
    try:
        await operation.call(methods.COPY_THREAD, request)
    except NotFound:
        return


async def delete_for_runs(
    operation: AsyncOperation, run_ids: Sequence[str], user_id: str | None
) -> None:
    """Deletes the checkpoints of runs."""
    forms.reject_text("run_ids", run_ids)
    for start in range(0, len(run_ids), MAX_THREADS):
        request = api.DeleteRunsRequest(
            user_id=user_id or "", run_ids=map(str, run_ids[start : start + MAX_THREADS])
        )
        await operation.call(methods.DELETE_RUNS, request)


async def prune(
    operation: AsyncOperation, thread_ids: Sequence[str], strategy: str, user_id: str | None
) -> None:
    """Deletes all checkpoints but the latest ones, or the threads."""
    forms.reject_text("thread_ids", thread_ids)
    strategies = {
        "keep_latest": api.PRUNE_STRATEGY_KEEP_LATEST,
        "delete": api.PRUNE_STRATEGY_DELETE,
    }
    if strategy not in strategies:
        raise ValueError(f"a strategy must be one of {', '.join(strategies)}")
    for start in range(0, len(thread_ids), MAX_THREADS):
        threads = thread_ids[start : start + MAX_THREADS]
        request = api.PruneThreadsRequest(
            conversation_ids=[conversation_id_for(str(thread_id)) for thread_id in threads],
            user_id=user_id or "",
            strategy=strategies[strategy],
        )
        await operation.call(methods.PRUNE_THREADS, request)
