import datetime

from conversation_memory._proto.v1 import resources_pb2 as _resources_pb2
from conversation_memory._proto import http_body_pb2 as _http_body_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Consistency(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONSISTENCY_UNSPECIFIED: _ClassVar[Consistency]
    CONSISTENCY_CACHED: _ClassVar[Consistency]
    CONSISTENCY_STRONG: _ClassVar[Consistency]

class Source(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SOURCE_UNSPECIFIED: _ClassVar[Source]
    SOURCE_CACHE: _ClassVar[Source]
    SOURCE_STORE: _ClassVar[Source]

class SessionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SESSION_STATE_UNSPECIFIED: _ClassVar[SessionState]
    SESSION_STATE_STARTED: _ClassVar[SessionState]
    SESSION_STATE_CONTINUED: _ClassVar[SessionState]
    SESSION_STATE_RESUMED: _ClassVar[SessionState]
    SESSION_STATE_UNAVAILABLE: _ClassVar[SessionState]

class ExportFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXPORT_FORMAT_UNSPECIFIED: _ClassVar[ExportFormat]
    EXPORT_FORMAT_JSON: _ClassVar[ExportFormat]
    EXPORT_FORMAT_JSONL: _ClassVar[ExportFormat]
    EXPORT_FORMAT_CSV: _ClassVar[ExportFormat]
    EXPORT_FORMAT_MARKDOWN: _ClassVar[ExportFormat]
CONSISTENCY_UNSPECIFIED: Consistency
CONSISTENCY_CACHED: Consistency
CONSISTENCY_STRONG: Consistency
SOURCE_UNSPECIFIED: Source
SOURCE_CACHE: Source
SOURCE_STORE: Source
SESSION_STATE_UNSPECIFIED: SessionState
SESSION_STATE_STARTED: SessionState
SESSION_STATE_CONTINUED: SessionState
SESSION_STATE_RESUMED: SessionState
SESSION_STATE_UNAVAILABLE: SessionState
EXPORT_FORMAT_UNSPECIFIED: ExportFormat
EXPORT_FORMAT_JSON: ExportFormat
EXPORT_FORMAT_JSONL: ExportFormat
EXPORT_FORMAT_CSV: ExportFormat
EXPORT_FORMAT_MARKDOWN: ExportFormat

class BeginTurnRequest(_message.Message):
    __slots__ = ("user_id", "dept_id", "session_id", "conversation_id", "limit", "max_tokens", "start_on_user")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    DEPT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    START_ON_USER_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    dept_id: str
    session_id: str
    conversation_id: str
    limit: int
    max_tokens: int
    start_on_user: bool
    def __init__(self, user_id: _Optional[str] = ..., dept_id: _Optional[str] = ..., session_id: _Optional[str] = ..., conversation_id: _Optional[str] = ..., limit: _Optional[int] = ..., max_tokens: _Optional[int] = ..., start_on_user: _Optional[bool] = ...) -> None: ...

class BeginTurnResponse(_message.Message):
    __slots__ = ("session", "session_state", "conversation", "messages", "source", "token_count", "older_omitted", "compaction_due")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SESSION_STATE_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    OLDER_OMITTED_FIELD_NUMBER: _ClassVar[int]
    COMPACTION_DUE_FIELD_NUMBER: _ClassVar[int]
    session: _resources_pb2.Session
    session_state: SessionState
    conversation: _resources_pb2.Conversation
    messages: _containers.RepeatedCompositeFieldContainer[_resources_pb2.Message]
    source: Source
    token_count: int
    older_omitted: bool
    compaction_due: bool
    def __init__(self, session: _Optional[_Union[_resources_pb2.Session, _Mapping]] = ..., session_state: _Optional[_Union[SessionState, str]] = ..., conversation: _Optional[_Union[_resources_pb2.Conversation, _Mapping]] = ..., messages: _Optional[_Iterable[_Union[_resources_pb2.Message, _Mapping]]] = ..., source: _Optional[_Union[Source, str]] = ..., token_count: _Optional[int] = ..., older_omitted: _Optional[bool] = ..., compaction_due: _Optional[bool] = ...) -> None: ...

class GetHistoryRequest(_message.Message):
    __slots__ = ("conversation_id", "user_id", "limit", "min_seq", "consistency", "session_id", "include_contexts", "max_tokens", "start_on_user")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    MIN_SEQ_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    START_ON_USER_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user_id: str
    limit: int
    min_seq: int
    consistency: Consistency
    session_id: str
    include_contexts: bool
    max_tokens: int
    start_on_user: bool
    def __init__(self, conversation_id: _Optional[str] = ..., user_id: _Optional[str] = ..., limit: _Optional[int] = ..., min_seq: _Optional[int] = ..., consistency: _Optional[_Union[Consistency, str]] = ..., session_id: _Optional[str] = ..., include_contexts: _Optional[bool] = ..., max_tokens: _Optional[int] = ..., start_on_user: _Optional[bool] = ...) -> None: ...

class GetHistoryResponse(_message.Message):
    __slots__ = ("messages", "last_seq", "source", "token_count", "older_omitted", "compaction_due")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    OLDER_OMITTED_FIELD_NUMBER: _ClassVar[int]
    COMPACTION_DUE_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[_resources_pb2.Message]
    last_seq: int
    source: Source
    token_count: int
    older_omitted: bool
    compaction_due: bool
    def __init__(self, messages: _Optional[_Iterable[_Union[_resources_pb2.Message, _Mapping]]] = ..., last_seq: _Optional[int] = ..., source: _Optional[_Union[Source, str]] = ..., token_count: _Optional[int] = ..., older_omitted: _Optional[bool] = ..., compaction_due: _Optional[bool] = ...) -> None: ...

class SaveMessagesRequest(_message.Message):
    __slots__ = ("conversation_id", "user_id", "messages", "request_id", "expected_last_seq", "session_id")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user_id: str
    messages: _containers.RepeatedCompositeFieldContainer[_resources_pb2.Message]
    request_id: str
    expected_last_seq: int
    session_id: str
    def __init__(self, conversation_id: _Optional[str] = ..., user_id: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[_resources_pb2.Message, _Mapping]]] = ..., request_id: _Optional[str] = ..., expected_last_seq: _Optional[int] = ..., session_id: _Optional[str] = ...) -> None: ...

class SaveMessagesResponse(_message.Message):
    __slots__ = ("messages", "last_seq", "replayed", "compaction_due")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    COMPACTION_DUE_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[_resources_pb2.Message]
    last_seq: int
    replayed: bool
    compaction_due: bool
    def __init__(self, messages: _Optional[_Iterable[_Union[_resources_pb2.Message, _Mapping]]] = ..., last_seq: _Optional[int] = ..., replayed: _Optional[bool] = ..., compaction_due: _Optional[bool] = ...) -> None: ...

class CreateConversationRequest(_message.Message):
    __slots__ = ("user_id", "dept_id", "title", "metadata", "conversation_id")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    DEPT_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    dept_id: str
    title: str
    metadata: _struct_pb2.Struct
    conversation_id: str
    def __init__(self, user_id: _Optional[str] = ..., dept_id: _Optional[str] = ..., title: _Optional[str] = ..., metadata: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., conversation_id: _Optional[str] = ...) -> None: ...

class CreateConversationResponse(_message.Message):
    __slots__ = ("conversation",)
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    conversation: _resources_pb2.Conversation
    def __init__(self, conversation: _Optional[_Union[_resources_pb2.Conversation, _Mapping]] = ...) -> None: ...

class GetConversationRequest(_message.Message):
    __slots__ = ("conversation_id", "user_id", "omit_messages", "page_size", "include_contexts", "include_blobs")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    OMIT_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_BLOBS_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user_id: str
    omit_messages: bool
    page_size: int
    include_contexts: bool
    include_blobs: bool
    def __init__(self, conversation_id: _Optional[str] = ..., user_id: _Optional[str] = ..., omit_messages: _Optional[bool] = ..., page_size: _Optional[int] = ..., include_contexts: _Optional[bool] = ..., include_blobs: _Optional[bool] = ...) -> None: ...

class GetConversationResponse(_message.Message):
    __slots__ = ("conversation", "messages", "next_page_token")
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    conversation: _resources_pb2.Conversation
    messages: _containers.RepeatedCompositeFieldContainer[_resources_pb2.Message]
    next_page_token: str
    def __init__(self, conversation: _Optional[_Union[_resources_pb2.Conversation, _Mapping]] = ..., messages: _Optional[_Iterable[_Union[_resources_pb2.Message, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListConversationsRequest(_message.Message):
    __slots__ = ("user_id", "dept_id", "page_size", "page_token")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    DEPT_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    dept_id: str
    page_size: int
    page_token: str
    def __init__(self, user_id: _Optional[str] = ..., dept_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListConversationsResponse(_message.Message):
    __slots__ = ("conversations", "next_page_token")
    CONVERSATIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    conversations: _containers.RepeatedCompositeFieldContainer[_resources_pb2.Conversation]
    next_page_token: str
    def __init__(self, conversations: _Optional[_Iterable[_Union[_resources_pb2.Conversation, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateConversationRequest(_message.Message):
    __slots__ = ("conversation", "update_mask", "user_id")
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    conversation: _resources_pb2.Conversation
    update_mask: _field_mask_pb2.FieldMask
    user_id: str
    def __init__(self, conversation: _Optional[_Union[_resources_pb2.Conversation, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., user_id: _Optional[str] = ...) -> None: ...

class UpdateConversationResponse(_message.Message):
    __slots__ = ("conversation",)
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    conversation: _resources_pb2.Conversation
    def __init__(self, conversation: _Optional[_Union[_resources_pb2.Conversation, _Mapping]] = ...) -> None: ...

class DeleteConversationRequest(_message.Message):
    __slots__ = ("conversation_id", "user_id")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user_id: str
    def __init__(self, conversation_id: _Optional[str] = ..., user_id: _Optional[str] = ...) -> None: ...

class DeleteConversationResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListMessagesRequest(_message.Message):
    __slots__ = ("conversation_id", "user_id", "page_size", "page_token", "newest_first", "include_contexts", "include_blobs")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIRST_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_BLOBS_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user_id: str
    page_size: int
    page_token: str
    newest_first: bool
    include_contexts: bool
    include_blobs: bool
    def __init__(self, conversation_id: _Optional[str] = ..., user_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., newest_first: _Optional[bool] = ..., include_contexts: _Optional[bool] = ..., include_blobs: _Optional[bool] = ...) -> None: ...

class ListMessagesResponse(_message.Message):
    __slots__ = ("messages", "next_page_token")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[_resources_pb2.Message]
    next_page_token: str
    def __init__(self, messages: _Optional[_Iterable[_Union[_resources_pb2.Message, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class TruncateConversationRequest(_message.Message):
    __slots__ = ("conversation_id", "user_id", "after_seq", "expected_last_seq", "request_id")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQ_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user_id: str
    after_seq: int
    expected_last_seq: int
    request_id: str
    def __init__(self, conversation_id: _Optional[str] = ..., user_id: _Optional[str] = ..., after_seq: _Optional[int] = ..., expected_last_seq: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class TruncateConversationResponse(_message.Message):
    __slots__ = ("removed_messages", "last_seq")
    REMOVED_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    removed_messages: int
    last_seq: int
    def __init__(self, removed_messages: _Optional[int] = ..., last_seq: _Optional[int] = ...) -> None: ...

class CompactConversationRequest(_message.Message):
    __slots__ = ("conversation_id", "user_id", "upto_seq", "summary", "expected_last_seq", "request_id", "token_count")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    UPTO_SEQ_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user_id: str
    upto_seq: int
    summary: str
    expected_last_seq: int
    request_id: str
    token_count: int
    def __init__(self, conversation_id: _Optional[str] = ..., user_id: _Optional[str] = ..., upto_seq: _Optional[int] = ..., summary: _Optional[str] = ..., expected_last_seq: _Optional[int] = ..., request_id: _Optional[str] = ..., token_count: _Optional[int] = ...) -> None: ...

class CompactConversationResponse(_message.Message):
    __slots__ = ("last_seq",)
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    last_seq: int
    def __init__(self, last_seq: _Optional[int] = ...) -> None: ...

class RedactMessagesRequest(_message.Message):
    __slots__ = ("conversation_id", "user_id", "seqs")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SEQS_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user_id: str
    seqs: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, conversation_id: _Optional[str] = ..., user_id: _Optional[str] = ..., seqs: _Optional[_Iterable[int]] = ...) -> None: ...

class RedactMessagesResponse(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[_resources_pb2.Message]
    def __init__(self, messages: _Optional[_Iterable[_Union[_resources_pb2.Message, _Mapping]]] = ...) -> None: ...

class TransferConversationRequest(_message.Message):
    __slots__ = ("conversation_id", "user_id", "new_user_id", "new_dept_id")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    NEW_USER_ID_FIELD_NUMBER: _ClassVar[int]
    NEW_DEPT_ID_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user_id: str
    new_user_id: str
    new_dept_id: str
    def __init__(self, conversation_id: _Optional[str] = ..., user_id: _Optional[str] = ..., new_user_id: _Optional[str] = ..., new_dept_id: _Optional[str] = ...) -> None: ...

class TransferConversationResponse(_message.Message):
    __slots__ = ("conversation", "transferred_ids")
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    TRANSFERRED_IDS_FIELD_NUMBER: _ClassVar[int]
    conversation: _resources_pb2.Conversation
    transferred_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, conversation: _Optional[_Union[_resources_pb2.Conversation, _Mapping]] = ..., transferred_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class GetBlobRequest(_message.Message):
    __slots__ = ("conversation_id", "user_id", "seq", "part")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user_id: str
    seq: int
    part: int
    def __init__(self, conversation_id: _Optional[str] = ..., user_id: _Optional[str] = ..., seq: _Optional[int] = ..., part: _Optional[int] = ...) -> None: ...

class GetBlobResponse(_message.Message):
    __slots__ = ("file",)
    FILE_FIELD_NUMBER: _ClassVar[int]
    file: _http_body_pb2.HttpBody
    def __init__(self, file: _Optional[_Union[_http_body_pb2.HttpBody, _Mapping]] = ...) -> None: ...

class BranchConversationRequest(_message.Message):
    __slots__ = ("conversation_id", "user_id", "at_seq", "title", "branch_id")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    AT_SEQ_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    BRANCH_ID_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user_id: str
    at_seq: int
    title: str
    branch_id: str
    def __init__(self, conversation_id: _Optional[str] = ..., user_id: _Optional[str] = ..., at_seq: _Optional[int] = ..., title: _Optional[str] = ..., branch_id: _Optional[str] = ...) -> None: ...

class BranchConversationResponse(_message.Message):
    __slots__ = ("conversation",)
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    conversation: _resources_pb2.Conversation
    def __init__(self, conversation: _Optional[_Union[_resources_pb2.Conversation, _Mapping]] = ...) -> None: ...

class ListBranchesRequest(_message.Message):
    __slots__ = ("conversation_id", "user_id", "page_size", "page_token")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user_id: str
    page_size: int
    page_token: str
    def __init__(self, conversation_id: _Optional[str] = ..., user_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListBranchesResponse(_message.Message):
    __slots__ = ("conversations", "next_page_token")
    CONVERSATIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    conversations: _containers.RepeatedCompositeFieldContainer[_resources_pb2.Conversation]
    next_page_token: str
    def __init__(self, conversations: _Optional[_Iterable[_Union[_resources_pb2.Conversation, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ExportConversationRequest(_message.Message):
    __slots__ = ("conversation_id", "user_id", "format")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    user_id: str
    format: ExportFormat
    def __init__(self, conversation_id: _Optional[str] = ..., user_id: _Optional[str] = ..., format: _Optional[_Union[ExportFormat, str]] = ...) -> None: ...

class ExportConversationResponse(_message.Message):
    __slots__ = ("file",)
    FILE_FIELD_NUMBER: _ClassVar[int]
    file: _http_body_pb2.HttpBody
    def __init__(self, file: _Optional[_Union[_http_body_pb2.HttpBody, _Mapping]] = ...) -> None: ...

class ImportConversationRequest(_message.Message):
    __slots__ = ("options", "file")
    class Options(_message.Message):
        __slots__ = ("user_id", "dept_id", "format", "keep_ids", "new_message_ids")
        USER_ID_FIELD_NUMBER: _ClassVar[int]
        DEPT_ID_FIELD_NUMBER: _ClassVar[int]
        FORMAT_FIELD_NUMBER: _ClassVar[int]
        KEEP_IDS_FIELD_NUMBER: _ClassVar[int]
        NEW_MESSAGE_IDS_FIELD_NUMBER: _ClassVar[int]
        user_id: str
        dept_id: str
        format: ExportFormat
        keep_ids: bool
        new_message_ids: bool
        def __init__(self, user_id: _Optional[str] = ..., dept_id: _Optional[str] = ..., format: _Optional[_Union[ExportFormat, str]] = ..., keep_ids: _Optional[bool] = ..., new_message_ids: _Optional[bool] = ...) -> None: ...
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    options: ImportConversationRequest.Options
    file: _http_body_pb2.HttpBody
    def __init__(self, options: _Optional[_Union[ImportConversationRequest.Options, _Mapping]] = ..., file: _Optional[_Union[_http_body_pb2.HttpBody, _Mapping]] = ...) -> None: ...

class ImportConversationResponse(_message.Message):
    __slots__ = ("conversation", "imported_messages")
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    IMPORTED_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    conversation: _resources_pb2.Conversation
    imported_messages: int
    def __init__(self, conversation: _Optional[_Union[_resources_pb2.Conversation, _Mapping]] = ..., imported_messages: _Optional[int] = ...) -> None: ...

class SearchMessagesRequest(_message.Message):
    __slots__ = ("user_id", "query", "conversation_id", "dept_id", "role", "page_size", "page_token", "created_from", "created_until", "metadata_key", "metadata_value")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    DEPT_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CREATED_FROM_FIELD_NUMBER: _ClassVar[int]
    CREATED_UNTIL_FIELD_NUMBER: _ClassVar[int]
    METADATA_KEY_FIELD_NUMBER: _ClassVar[int]
    METADATA_VALUE_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    query: str
    conversation_id: str
    dept_id: str
    role: _resources_pb2.Role
    page_size: int
    page_token: str
    created_from: _timestamp_pb2.Timestamp
    created_until: _timestamp_pb2.Timestamp
    metadata_key: str
    metadata_value: str
    def __init__(self, user_id: _Optional[str] = ..., query: _Optional[str] = ..., conversation_id: _Optional[str] = ..., dept_id: _Optional[str] = ..., role: _Optional[_Union[_resources_pb2.Role, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., created_from: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., created_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., metadata_key: _Optional[str] = ..., metadata_value: _Optional[str] = ...) -> None: ...

class SearchMessagesResponse(_message.Message):
    __slots__ = ("hits", "next_page_token", "corrected_query")
    class Hit(_message.Message):
        __slots__ = ("message", "conversation_title", "snippet", "rank")
        MESSAGE_FIELD_NUMBER: _ClassVar[int]
        CONVERSATION_TITLE_FIELD_NUMBER: _ClassVar[int]
        SNIPPET_FIELD_NUMBER: _ClassVar[int]
        RANK_FIELD_NUMBER: _ClassVar[int]
        message: _resources_pb2.Message
        conversation_title: str
        snippet: str
        rank: float
        def __init__(self, message: _Optional[_Union[_resources_pb2.Message, _Mapping]] = ..., conversation_title: _Optional[str] = ..., snippet: _Optional[str] = ..., rank: _Optional[float] = ...) -> None: ...
    HITS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CORRECTED_QUERY_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[SearchMessagesResponse.Hit]
    next_page_token: str
    corrected_query: str
    def __init__(self, hits: _Optional[_Iterable[_Union[SearchMessagesResponse.Hit, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., corrected_query: _Optional[str] = ...) -> None: ...
