"""Conversion between the checkpoints of LangGraph and those of the service."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
    get_checkpoint_id,
    get_checkpoint_metadata,
)

from ._adapters import SESSION_KEY, session_metadata
from ._checkpoint_messages import message_batches, write_messages
from ._checkpoint_values import (
    MAX_LIST_ITEMS,
    KnownList,
    KnownLists,
    SerializedList,
    ValueCodec,
    common_items,
    is_small,
    item_digests,
    read_data,
    write_data,
)
from ._forms.common import is_storable
from ._limits import Limits
from ._names import LANGGRAPH, conversation_id_for
from ._proto.v1 import checkpoint_service_pb2 as api
from ._proto.v1 import resources_pb2 as resources
from ._structs import from_struct, to_struct

DEFAULT_USER = "langgraph"
"""Owner of a thread whose run and saver name no user."""

MAX_THREAD_NAME_CHARS = 1024
"""Upper bound on the characters of a thread's name that is stored."""

MESSAGES = "messages"
"""Channel whose messages become messages of the conversation."""

MAX_ITEMS = 50_000
"""Upper bound on the items of all lists in a checkpoint that are stored as their items."""

MAX_METADATA_BYTES = 64 << 10
"""Upper bound on the metadata that filters can find, as JSON."""

MAX_METADATA_LEVELS = 100
"""Upper bound on the levels of a member of the metadata that filters can find."""

_SEPARATE = ("channel_values", "channel_versions", "id")
"""Fields of a checkpoint that are not part of its state."""

_IS_PARTIAL = "partial"
"""Mark of a checkpoint whose messages are more than one request saves."""


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread and its conversation."""

    name: str
    conversation_id: str
    user_id: str | None
    """User that must be the owner; `None` accepts any."""

    @classmethod
    def of(cls, config: RunnableConfig, user_id: str | None) -> Thread:
        """Returns the thread of a run; its user, if it names one, replaces that of the saver."""
        configurable = config["configurable"]
        given = configurable.get("user_id")
        return _thread(str(configurable["thread_id"]), str(given) if given else user_id)

    def new(self) -> api.NewThread:
        """Returns the conversation to create if it does not exist. It must not be changed."""
        return _new_thread(self)


# Each step of a graph has several calls, of the same thread.
@lru_cache(maxsize=1024)
def _thread(name: str, user_id: str | None) -> Thread:
    return Thread(name, conversation_id_for(name), user_id)


@lru_cache(maxsize=1024)
def _new_thread(thread: Thread) -> api.NewThread:
    named = is_storable(thread.name) and len(thread.name) <= MAX_THREAD_NAME_CHARS
    metadata = session_metadata(LANGGRAPH, app="", name=thread.name)
    return api.NewThread(
        user_id=thread.user_id or DEFAULT_USER,
        thread_id=thread.name if named else "",
        metadata=None if metadata is None else to_struct(metadata),
    )


@dataclass(slots=True)
class PreparedPut:
    """A checkpoint to store."""

    request: api.PutCheckpointRequest
    messages: list[list[api.CheckpointMessage]] = field(default_factory=lambda: [[]])
    """Messages of each request. The first one also stores the checkpoint."""
    lists: dict[str, KnownList] = field(default_factory=dict)
    """Lists, which are known once all requests are done."""


def threads_of(
    conversations: Iterable[resources.Conversation], user_id: str | None
) -> Iterator[Thread]:
    """Yields the threads among conversations, by the names in their metadata."""
    for conversation in conversations:
        names = from_struct(conversation.metadata).get(SESSION_KEY)
        if not isinstance(names, dict) or names.get("framework") != LANGGRAPH:
            continue
        thread = _thread(str(names.get("name")), user_id)
        if thread.conversation_id == conversation.id:
            yield thread


@dataclass(slots=True)
class AttachedWrites:
    """Writes to the checkpoint before that of a put, which are stored with it."""

    writes: Sequence[api.TaskWrites]
    are_stored: bool = False


def namespace_of(config: RunnableConfig) -> str:
    """Returns the namespace of a run."""
    return str(config["configurable"].get("checkpoint_ns") or "")


def write_checkpoint(
    codec: ValueCodec,
    known: KnownLists,
    thread: Thread,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
    limits: Limits,
) -> PreparedPut:
    """Prepares a checkpoint to be stored. Lists are sent without the items that are known."""
    namespace = namespace_of(config)
    _check_items(checkpoint["channel_values"])
    values, versions = checkpoint["channel_values"], checkpoint["channel_versions"]
    all_metadata = get_checkpoint_metadata(config, metadata)
    json_text, opaque = _split_metadata(all_metadata)
    state = {key: value for key, value in checkpoint.items() if key not in _SEPARATE}
    request = api.PutCheckpointRequest(
        conversation_id=thread.conversation_id,
        user_id=thread.user_id or "",
        new_thread=thread.new(),
        run_id=_run_id(all_metadata),
    )
    prepared = PreparedPut(request)
    encoded = request.checkpoint
    encoded.namespace = namespace
    encoded.checkpoint_id = checkpoint["id"]
    encoded.parent_checkpoint_id = get_checkpoint_id(config) or ""
    encoded.metadata_json = json_text
    for channel, version in versions.items():
        encoded.channel_versions.add(channel=channel, version=json.dumps(version))
        if channel in values and is_small(values[channel]):
            small = encoded.values.add(channel=channel)
            write_data(small.single, *codec.dump(values[channel]))
        elif channel in values and channel not in new_versions:
            request.stored_channels.append(channel)
    for channel, version in new_versions.items():
        if channel not in values or is_small(values[channel]):
            continue
        value = values[channel]
        added = encoded.values.add(channel=channel, version=json.dumps(version))
        has_messages = channel == MESSAGES and not namespace and isinstance(value, list)
        items = codec.dump_list(value)
        if items is None:
            write_data(added.single, *codec.dump(value))
            if not has_messages:
                continue
            digests = item_digests(value)
        else:
            digests = items.digests
        base = known.get(thread.conversation_id, namespace, channel)
        first = common_items(base.digests, digests)
        if items is not None:
            base_items = first if base.version else 0
            _write_list(added.list, items, base_items)
            if base_items:
                added.list.base_version = base.version
        version = added.version if items is not None else ""
        prepared.lists[channel] = KnownList(version, digests, len(value))
        if has_messages:
            written = write_messages(
                value, digests, min(first, base.saved), thread.conversation_id, limits
            )
            prepared.messages = list(message_batches(written))
    parts: list[Any] = [state, opaque]
    if len(prepared.messages) > 1:
        # A reader of the checkpoint does not know whether the later requests were successful.
        parts.append(_IS_PARTIAL)
    write_data(encoded.state, *codec.dump(parts))
    return prepared


def _check_items(values: Mapping[str, Any]) -> None:
    """Rejects a checkpoint that could not be read."""
    lists = (value for value in values.values() if type(value) is list)
    number = sum(len(value) for value in lists if len(value) <= MAX_LIST_ITEMS)
    if number > MAX_ITEMS:
        raise ValueError(
            f"the lists of a checkpoint have at most {MAX_ITEMS} items together, not {number}"
        )


def _write_list(written: api.CheckpointList, items: SerializedList, first: int) -> None:
    written.base_items = first
    for kind, data in items.items[first:]:
        write_data(written.items.add(), kind, data)


def _run_id(metadata: Mapping[str, Any]) -> str:
    run_id = metadata.get("run_id")
    return run_id if isinstance(run_id, str) and len(run_id) <= 255 else ""


def _split_metadata(metadata: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns metadata as JSON, and the members that JSON changes, or that are too large for it."""
    members: dict[str, str] = {}
    opaque: dict[str, Any] = {}
    for key, value in metadata.items():
        try:
            text = json.dumps(value, allow_nan=False, ensure_ascii=False)
            # Half of a surrogate pair is not valid in the JSON of the service.
            f"{key}{text}".encode()
            found = json.loads(text, parse_int=_parse_int)
        except (TypeError, ValueError, OverflowError):
            opaque[key] = value
            continue
        if not _has_levels(value, MAX_METADATA_LEVELS):
            opaque[key] = value
            continue
        members[key] = f"{json.dumps(key)}:{text}"
        if not _is_same(found, value):
            opaque[key] = value
    # Each member is followed by a comma or the last brace.
    sizes = {key: len(text.encode()) + 1 for key, text in members.items()}
    excess = sum(sizes.values()) + 1 - MAX_METADATA_BYTES
    for key in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if excess <= 0:
            break
        excess -= sizes[key]
        del members[key]
        opaque[key] = metadata[key]
    return f"{{{','.join(members.values())}}}", opaque


def _has_levels(value: Any, levels: int) -> bool:
    """Whether a JSON value has at most that many levels of lists and objects."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return True
    return levels > 0 and all(_has_levels(item, levels - 1) for item in value)


def _parse_int(text: str) -> int:
    """Parses a number. Raises OverflowError if it is not one in the JSON of the service."""
    number = int(text)
    float(number)
    return number


def reject_text(name: str, given: Any) -> None:
    """Rejects a text in place of a sequence of texts: it is a sequence of its letters."""
    if isinstance(given, str | bytes):
        raise TypeError(f"{name} must be a sequence of texts, not a single one")


def _is_same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_is_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return bool(one == other)


def write_writes(
    codec: ValueCodec,
    thread: Thread,
    config: RunnableConfig,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
) -> api.PutWritesRequest:
    """Prepares the writes of a task to be stored."""
    request = api.PutWritesRequest(
        conversation_id=thread.conversation_id,
        user_id=thread.user_id or "",
        new_thread=thread.new(),
        namespace=namespace_of(config),
        checkpoint_id=config["configurable"]["checkpoint_id"],
        task_id=task_id,
        task_path=task_path,
    )
    for index, (channel, value) in enumerate(writes):
        write = request.writes.add(index=WRITES_IDX_MAP.get(channel, index), channel=channel)
        items = codec.dump_list(value)
        if items is None:
            write_data(write.single, *codec.dump(value))
        else:
            _write_list(write.list, items, 0)
    return request


def records_of(response: Any) -> Sequence[api.GetCheckpointResponse]:
    """Returns the checkpoints of a response."""
    if isinstance(response, api.GetCheckpointResponse):
        return [response]
    if isinstance(response, api.ListCheckpointsResponse):
        return response.checkpoints
    ancestors: Sequence[api.GetCheckpointResponse] = response.ancestors
    return ancestors


def read_tuple(
    codec: ValueCodec, known: KnownLists, thread: Thread, found: api.GetCheckpointResponse
) -> CheckpointTuple:
    """Decodes a checkpoint whose data is complete, and remembers its lists."""
    stored = found.checkpoint
    state, opaque, *marks = codec.load(*read_data(stored.state))
    values: dict[str, Any] = {}
    for value in stored.values:
        values[value.channel], digests = _read_value(codec, value)
        if digests:
            saved = 0 if _IS_PARTIAL in marks else len(values[value.channel])
            read = KnownList(value.version, digests, saved)
            known.put(thread.conversation_id, stored.namespace, value.channel, read)
    checkpoint: dict[str, Any] = {
        **state,
        "id": stored.checkpoint_id,
        "channel_values": values,
        "channel_versions": {
            each.channel: json.loads(each.version) for each in stored.channel_versions
        },
    }
    parent = stored.parent_checkpoint_id
    return CheckpointTuple(
        config=_config(thread, stored.namespace, stored.checkpoint_id),
        checkpoint=cast("Checkpoint", checkpoint),
        metadata=cast("CheckpointMetadata", {**json.loads(stored.metadata_json), **opaque}),
        parent_config=_config(thread, stored.namespace, parent) if parent else None,
        pending_writes=[_read_write(codec, write) for write in found.writes],
    )


def _read_write(codec: ValueCodec, write: api.CheckpointWrite) -> PendingWrite:
    return write.task_id, write.channel, _read_value(codec, write)[0]


def _read_value(
    codec: ValueCodec, value: api.CheckpointValue | api.CheckpointWrite
) -> tuple[Any, bytes]:
    if not value.HasField("list"):
        return codec.load(*read_data(value.single)), b""
    return codec.load_list([read_data(item) for item in value.list.items])


def _config(thread: Thread, namespace: str, checkpoint_id: str) -> RunnableConfig:
    return {
        "configurable": {
            "thread_id": thread.name,
            "checkpoint_ns": namespace,
            "checkpoint_id": checkpoint_id,
        }
    }


def stored_config(thread: Thread, config: RunnableConfig, checkpoint_id: str) -> RunnableConfig:
    """Returns the config of a stored checkpoint."""
    return _config(thread, namespace_of(config), checkpoint_id)


def list_request(
    thread: Thread,
    config: RunnableConfig,
    filter: Mapping[str, Any] | None,
    before: RunnableConfig | None,
    limit: int | None,
) -> api.ListCheckpointsRequest:
    """Returns the request for the first page of a list."""
    return api.ListCheckpointsRequest(
        conversation_id=thread.conversation_id,
        user_id=thread.user_id or "",
        namespace=config["configurable"].get("checkpoint_ns"),
        checkpoint_id=get_checkpoint_id(config) or "",
        before_checkpoint_id=(get_checkpoint_id(before) or "") if before else "",
        filter_json=json.dumps(filter) if filter else "",
        page_size=min(limit or 0, 100),
    )


class DeltaHistory:
    """What ancestors of a checkpoint have contributed to channels, collected from the newest on."""

    def __init__(self, codec: ValueCodec, channels: Sequence[str]) -> None:
        self._codec = codec
        self.remaining = list(dict.fromkeys(channels))
        self._writes: dict[str, list[PendingWrite]] = {channel: [] for channel in channels}
        self._seeds: dict[str, Any] = {}

    def add(self, ancestor: api.GetCheckpointResponse) -> None:
        """Adds an ancestor, whose data is complete."""
        for write in reversed(ancestor.writes):
            if write.channel in self.remaining:
                self._writes[write.channel].append(_read_write(self._codec, write))
        for value in ancestor.checkpoint.values:
            if value.channel in self.remaining:
                self._seeds[value.channel] = _read_value(self._codec, value)[0]
                self.remaining.remove(value.channel)

    def result(self) -> dict[str, DeltaChannelHistory]:
        """Returns the contributions, oldest first."""
        found: dict[str, DeltaChannelHistory] = {}
        for channel, writes in self._writes.items():
            found[channel] = {"writes": writes[::-1]}
            if channel in self._seeds:
                found[channel]["seed"] = self._seeds[channel]
        return found
