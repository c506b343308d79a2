from conversation_memory._proto.v1 import resources_pb2 as _resources_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PruneStrategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRUNE_STRATEGY_UNSPECIFIED: _ClassVar[PruneStrategy]
    PRUNE_STRATEGY_KEEP_LATEST: _ClassVar[PruneStrategy]
    PRUNE_STRATEGY_DELETE: _ClassVar[PruneStrategy]
PRUNE_STRATEGY_UNSPECIFIED: PruneStrategy
PRUNE_STRATEGY_KEEP_LATEST: PruneStrategy
PRUNE_STRATEGY_DELETE: PruneStrategy

class CheckpointPiece(_message.Message):
    __slots__ = ("data", "digest")
    DATA_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    digest: bytes
    def __init__(self, data: _Optional[bytes] = ..., digest: _Optional[bytes] = ...) -> None: ...

class CheckpointData(_message.Message):
    __slots__ = ("type", "pieces")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    type: str
    pieces: _containers.RepeatedCompositeFieldContainer[CheckpointPiece]
    def __init__(self, type: _Optional[str] = ..., pieces: _Optional[_Iterable[_Union[CheckpointPiece, _Mapping]]] = ...) -> None: ...

class CheckpointList(_message.Message):
    __slots__ = ("base_version", "base_items", "items")
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    BASE_ITEMS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    base_version: str
    base_items: int
    items: _containers.RepeatedCompositeFieldContainer[CheckpointData]
    def __init__(self, base_version: _Optional[str] = ..., base_items: _Optional[int] = ..., items: _Optional[_Iterable[_Union[CheckpointData, _Mapping]]] = ...) -> None: ...

class CheckpointValue(_message.Message):
    __slots__ = ("channel", "version", "single", "list")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SINGLE_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    channel: str
    version: str
    single: CheckpointData
    list: CheckpointList
    def __init__(self, channel: _Optional[str] = ..., version: _Optional[str] = ..., single: _Optional[_Union[CheckpointData, _Mapping]] = ..., list: _Optional[_Union[CheckpointList, _Mapping]] = ...) -> None: ...

class CheckpointVersion(_message.Message):
    __slots__ = ("channel", "version")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    channel: str
    version: str
    def __init__(self, channel: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class CheckpointWrite(_message.Message):
    __slots__ = ("task_id", "task_path", "index", "channel", "single", "list")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_PATH_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    SINGLE_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    task_path: str
    index: int
    channel: str
    single: CheckpointData
    list: CheckpointList
    def __init__(self, task_id: _Optional[str] = ..., task_path: _Optional[str] = ..., index: _Optional[int] = ..., channel: _Optional[str] = ..., single: _Optional[_Union[CheckpointData, _Mapping]] = ..., list: _Optional[_Union[CheckpointList, _Mapping]] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("namespace", "checkpoint_id", "parent_checkpoint_id", "state", "metadata_json", "channel_versions", "values")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    checkpoint_id: str
    parent_checkpoint_id: str
    state: CheckpointData
    metadata_json: str
    channel_versions: _containers.RepeatedCompositeFieldContainer[CheckpointVersion]
    values: _containers.RepeatedCompositeFieldContainer[CheckpointValue]
    def __init__(self, namespace: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., parent_checkpoint_id: _Optional[str] = ..., state: _Optional[_Union[CheckpointData, _Mapping]] = ..., metadata_json: _Optional[str] = ..., channel_versions: _Optional[_Iterable[_Union[CheckpointVersion, _Mapping]]] = ..., values: _Optional[_Iterable[_Union[CheckpointValue, _Mapping]]] = ...) -> None: ...

class NewThread(_message.Message):
    __slots__ = ("user_id", "thread_id", "metadata")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    thread_id: str
    metadata: _struct_pb2.Struct
    def __init__(self, user_id: _Optional[str] = ..., thread_id: _Optional[str] = ..., metadata: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class PutCheckpointRequest(_message.Message):
    __slots__ = ("conversation_id", "user_id", "new_thread", "checkpoint", "run_id", "messages", "stored_channels", "task_writes")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    NEW_THREAD_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    STORED_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    TASK_WRITES_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user_id: str
    new_thread: NewThread
    checkpoint: Checkpoint
    run_id: str
    messages: _containers.RepeatedCompositeFieldContainer[CheckpointMessage]
    stored_channels: _containers.RepeatedScalarFieldContainer[str]
    task_writes: _containers.RepeatedCompositeFieldContainer[TaskWrites]
    def __init__(self, conversation_id: _Optional[str] = ..., user_id: _Optional[str] = ..., new_thread: _Optional[_Union[NewThread, _Mapping]] = ..., checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., run_id: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[CheckpointMessage, _Mapping]]] = ..., stored_channels: _Optional[_Iterable[str]] = ..., task_writes: _Optional[_Iterable[_Union[TaskWrites, _Mapping]]] = ...) -> None: ...

class TaskWrites(_message.Message):
    __slots__ = ("task_id", "task_path", "writes")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_PATH_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    task_path: str
    writes: _containers.RepeatedCompositeFieldContainer[CheckpointWrite]
    def __init__(self, task_id: _Optional[str] = ..., task_path: _Optional[str] = ..., writes: _Optional[_Iterable[_Union[CheckpointWrite, _Mapping]]] = ...) -> None: ...

class CheckpointMessage(_message.Message):
    __slots__ = ("key", "message")
    KEY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    key: str
    message: _resources_pb2.Message
    def __init__(self, key: _Optional[str] = ..., message: _Optional[_Union[_resources_pb2.Message, _Mapping]] = ...) -> None: ...

class PutCheckpointResponse(_message.Message):
    __slots__ = ("last_seq", "saved_messages", "stored_task_writes")
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    SAVED_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    STORED_TASK_WRITES_FIELD_NUMBER: _ClassVar[int]
    last_seq: int
    saved_messages: int
    stored_task_writes: int
    def __init__(self, last_seq: _Optional[int] = ..., saved_messages: _Optional[int] = ..., stored_task_writes: _Optional[int] = ...) -> None: ...

class PutWritesRequest(_message.Message):
    __slots__ = ("conversation_id", "user_id", "new_thread", "namespace", "checkpoint_id", "task_id", "task_path", "writes")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    NEW_THREAD_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_PATH_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user_id: str
    new_thread: NewThread
    namespace: str
    checkpoint_id: str
    task_id: str
    task_path: str
    writes: _containers.RepeatedCompositeFieldContainer[CheckpointWrite]
    def __init__(self, conversation_id: _Optional[str] = ..., user_id: _Optional[str] = ..., new_thread: _Optional[_Union[NewThread, _Mapping]] = ..., namespace: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., task_id: _Optional[str] = ..., task_path: _Optional[str] = ..., writes: _Optional[_Iterable[_Union[CheckpointWrite, _Mapping]]] = ...) -> None: ...

class PutWritesResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PutContentsRequest(_message.Message):
    __slots__ = ("conversation_id", "user_id", "new_thread", "contents")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    NEW_THREAD_FIELD_NUMBER: _ClassVar[int]
    CONTENTS_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user_id: str
    new_thread: NewThread
    contents: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, conversation_id: _Optional[str] = ..., user_id: _Optional[str] = ..., new_thread: _Optional[_Union[NewThread, _Mapping]] = ..., contents: _Optional[_Iterable[bytes]] = ...) -> None: ...

class PutContentsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCheckpointRequest(_message.Message):
    __slots__ = ("conversation_id", "user_id", "namespace", "checkpoint_id")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user_id: str
    namespace: str
    checkpoint_id: str
    def __init__(self, conversation_id: _Optional[str] = ..., user_id: _Optional[str] = ..., namespace: _Optional[str] = ..., checkpoint_id: _Optional[str] = ...) -> None: ...

class GetCheckpointResponse(_message.Message):
    __slots__ = ("checkpoint", "writes")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    checkpoint: Checkpoint
    writes: _containers.RepeatedCompositeFieldContainer[CheckpointWrite]
    def __init__(self, checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., writes: _Optional[_Iterable[_Union[CheckpointWrite, _Mapping]]] = ...) -> None: ...

class GetContentsRequest(_message.Message):
    __slots__ = ("conversation_id", "user_id", "digests")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user_id: str
    digests: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, conversation_id: _Optional[str] = ..., user_id: _Optional[str] = ..., digests: _Optional[_Iterable[bytes]] = ...) -> None: ...

class GetContentsResponse(_message.Message):
    __slots__ = ("contents",)
    CONTENTS_FIELD_NUMBER: _ClassVar[int]
    contents: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, contents: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ListCheckpointsRequest(_message.Message):
    __slots__ = ("conversation_id", "user_id", "namespace", "checkpoint_id", "before_checkpoint_id", "filter_json", "page_size", "page_token")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    BEFORE_CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    FILTER_JSON_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user_id: str
    namespace: str
    checkpoint_id: str
    before_checkpoint_id: str
    filter_json: str
    page_size: int
    page_token: str
    def __init__(self, conversation_id: _Optional[str] = ..., user_id: _Optional[str] = ..., namespace: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., before_checkpoint_id: _Optional[str] = ..., filter_json: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCheckpointsResponse(_message.Message):
    __slots__ = ("checkpoints", "next_page_token")
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    checkpoints: _containers.RepeatedCompositeFieldContainer[GetCheckpointResponse]
    next_page_token: str
    def __init__(self, checkpoints: _Optional[_Iterable[_Union[GetCheckpointResponse, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetDeltaHistoryRequest(_message.Message):
    __slots__ = ("conversation_id", "user_id", "namespace", "checkpoint_id", "channels")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user_id: str
    namespace: str
    checkpoint_id: str
    channels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, conversation_id: _Optional[str] = ..., user_id: _Optional[str] = ..., namespace: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., channels: _Optional[_Iterable[str]] = ...) -> None: ...

class GetDeltaHistoryResponse(_message.Message):
    __slots__ = ("ancestors", "has_more")
    ANCESTORS_FIELD_NUMBER: _ClassVar[int]
    HAS_MORE_FIELD_NUMBER: _ClassVar[int]
    ancestors: _containers.RepeatedCompositeFieldContainer[GetCheckpointResponse]
    has_more: bool
    def __init__(self, ancestors: _Optional[_Iterable[_Union[GetCheckpointResponse, _Mapping]]] = ..., has_more: _Optional[bool] = ...) -> None: ...

class DeleteThreadRequest(_message.Message):
    __slots__ = ("conversation_id", "user_id")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user_id: str
    def __init__(self, conversation_id: _Optional[str] = ..., user_id: _Optional[str] = ...) -> None: ...

class DeleteThreadResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CopyThreadRequest(_message.Message):
    __slots__ = ("conversation_id", "user_id", "target_conversation_id", "new_thread")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    NEW_THREAD_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user_id: str
    target_conversation_id: str
    new_thread: NewThread
    def __init__(self, conversation_id: _Optional[str] = ..., user_id: _Optional[str] = ..., target_conversation_id: _Optional[str] = ..., new_thread: _Optional[_Union[NewThread, _Mapping]] = ...) -> None: ...

class CopyThreadResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeleteRunsRequest(_message.Message):
    __slots__ = ("user_id", "run_ids")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_IDS_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    run_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, user_id: _Optional[str] = ..., run_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class DeleteRunsResponse(_message.Message):
    __slots__ = ("deleted_checkpoints",)
    DELETED_CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    deleted_checkpoints: int
    def __init__(self, deleted_checkpoints: _Optional[int] = ...) -> None: ...

class PruneThreadsRequest(_message.Message):
    __slots__ = ("conversation_ids", "user_id", "strategy")
    CONVERSATION_IDS_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    conversation_ids: _containers.RepeatedScalarFieldContainer[str]
    user_id: str
    strategy: PruneStrategy
    def __init__(self, conversation_ids: _Optional[_Iterable[str]] = ..., user_id: _Optional[str] = ..., strategy: _Optional[_Union[PruneStrategy, str]] = ...) -> None: ...

class PruneThreadsResponse(_message.Message):
    __slots__ = ("deleted_checkpoints",)
    DELETED_CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    deleted_checkpoints: int
    def __init__(self, deleted_checkpoints: _Optional[int] = ...) -> None: ...
