import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NamespaceMatchType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NAMESPACE_MATCH_TYPE_UNSPECIFIED: _ClassVar[NamespaceMatchType]
    NAMESPACE_MATCH_TYPE_PREFIX: _ClassVar[NamespaceMatchType]
    NAMESPACE_MATCH_TYPE_SUFFIX: _ClassVar[NamespaceMatchType]
NAMESPACE_MATCH_TYPE_UNSPECIFIED: NamespaceMatchType
NAMESPACE_MATCH_TYPE_PREFIX: NamespaceMatchType
NAMESPACE_MATCH_TYPE_SUFFIX: NamespaceMatchType

class Item(_message.Message):
    __slots__ = ("namespace", "key", "value", "created_at", "updated_at", "expires_at")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    namespace: _containers.RepeatedScalarFieldContainer[str]
    key: str
    value: str
    created_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    expires_at: _timestamp_pb2.Timestamp
    def __init__(self, namespace: _Optional[_Iterable[str]] = ..., key: _Optional[str] = ..., value: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Vector(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class PutItemRequest(_message.Message):
    __slots__ = ("user_id", "namespace", "key", "value", "ttl_minutes", "vectors")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TTL_MINUTES_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    namespace: _containers.RepeatedScalarFieldContainer[str]
    key: str
    value: str
    ttl_minutes: float
    vectors: _containers.RepeatedCompositeFieldContainer[Vector]
    def __init__(self, user_id: _Optional[str] = ..., namespace: _Optional[_Iterable[str]] = ..., key: _Optional[str] = ..., value: _Optional[str] = ..., ttl_minutes: _Optional[float] = ..., vectors: _Optional[_Iterable[_Union[Vector, _Mapping]]] = ...) -> None: ...

class PutItemResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetItemRequest(_message.Message):
    __slots__ = ("user_id", "namespace", "key", "refresh_ttl")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    REFRESH_TTL_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    namespace: _containers.RepeatedScalarFieldContainer[str]
    key: str
    refresh_ttl: bool
    def __init__(self, user_id: _Optional[str] = ..., namespace: _Optional[_Iterable[str]] = ..., key: _Optional[str] = ..., refresh_ttl: _Optional[bool] = ...) -> None: ...

class GetItemResponse(_message.Message):
    __slots__ = ("item", "omitted")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    OMITTED_FIELD_NUMBER: _ClassVar[int]
    item: Item
    omitted: bool
    def __init__(self, item: _Optional[_Union[Item, _Mapping]] = ..., omitted: _Optional[bool] = ...) -> None: ...

class DeleteItemRequest(_message.Message):
    __slots__ = ("user_id", "namespace", "key")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    namespace: _containers.RepeatedScalarFieldContainer[str]
    key: str
    def __init__(self, user_id: _Optional[str] = ..., namespace: _Optional[_Iterable[str]] = ..., key: _Optional[str] = ...) -> None: ...

class DeleteItemResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SearchItemsRequest(_message.Message):
    __slots__ = ("user_id", "namespace_prefix", "filter", "limit", "offset", "query_vector", "refresh_ttl")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_PREFIX_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    QUERY_VECTOR_FIELD_NUMBER: _ClassVar[int]
    REFRESH_TTL_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    namespace_prefix: _containers.RepeatedScalarFieldContainer[str]
    filter: str
    limit: int
    offset: int
    query_vector: Vector
    refresh_ttl: bool
    def __init__(self, user_id: _Optional[str] = ..., namespace_prefix: _Optional[_Iterable[str]] = ..., filter: _Optional[str] = ..., limit: _Optional[int] = ..., offset: _Optional[int] = ..., query_vector: _Optional[_Union[Vector, _Mapping]] = ..., refresh_ttl: _Optional[bool] = ...) -> None: ...

class FoundItem(_message.Message):
    __slots__ = ("item", "score")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    item: Item
    score: float
    def __init__(self, item: _Optional[_Union[Item, _Mapping]] = ..., score: _Optional[float] = ...) -> None: ...

class SearchItemsResponse(_message.Message):
    __slots__ = ("items", "next_offset")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[FoundItem]
    next_offset: int
    def __init__(self, items: _Optional[_Iterable[_Union[FoundItem, _Mapping]]] = ..., next_offset: _Optional[int] = ...) -> None: ...

class NamespaceCondition(_message.Message):
    __slots__ = ("match_type", "labels")
    MATCH_TYPE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    match_type: NamespaceMatchType
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, match_type: _Optional[_Union[NamespaceMatchType, str]] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...

class ListNamespacesRequest(_message.Message):
    __slots__ = ("user_id", "conditions", "max_depth", "limit", "offset")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_DEPTH_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    conditions: _containers.RepeatedCompositeFieldContainer[NamespaceCondition]
    max_depth: int
    limit: int
    offset: int
    def __init__(self, user_id: _Optional[str] = ..., conditions: _Optional[_Iterable[_Union[NamespaceCondition, _Mapping]]] = ..., max_depth: _Optional[int] = ..., limit: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class Namespace(_message.Message):
    __slots__ = ("labels",)
    LABELS_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, labels: _Optional[_Iterable[str]] = ...) -> None: ...

class ListNamespacesResponse(_message.Message):
    __slots__ = ("namespaces", "next_offset")
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    namespaces: _containers.RepeatedCompositeFieldContainer[Namespace]
    next_offset: int
    def __init__(self, namespaces: _Optional[_Iterable[_Union[Namespace, _Mapping]]] = ..., next_offset: _Optional[int] = ...) -> None: ...

class ItemOperation(_message.Message):
    __slots__ = ("get", "put", "delete", "search", "list_namespaces")
    GET_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    LIST_NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    get: GetItemRequest
    put: PutItemRequest
    delete: DeleteItemRequest
    search: SearchItemsRequest
    list_namespaces: ListNamespacesRequest
    def __init__(self, get: _Optional[_Union[GetItemRequest, _Mapping]] = ..., put: _Optional[_Union[PutItemRequest, _Mapping]] = ..., delete: _Optional[_Union[DeleteItemRequest, _Mapping]] = ..., search: _Optional[_Union[SearchItemsRequest, _Mapping]] = ..., list_namespaces: _Optional[_Union[ListNamespacesRequest, _Mapping]] = ...) -> None: ...

class ItemResult(_message.Message):
    __slots__ = ("get", "put", "delete", "search", "list_namespaces")
    GET_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    LIST_NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    get: GetItemResponse
    put: PutItemResponse
    delete: DeleteItemResponse
    search: SearchItemsResponse
    list_namespaces: ListNamespacesResponse
    def __init__(self, get: _Optional[_Union[GetItemResponse, _Mapping]] = ..., put: _Optional[_Union[PutItemResponse, _Mapping]] = ..., delete: _Optional[_Union[DeleteItemResponse, _Mapping]] = ..., search: _Optional[_Union[SearchItemsResponse, _Mapping]] = ..., list_namespaces: _Optional[_Union[ListNamespacesResponse, _Mapping]] = ...) -> None: ...

class BatchItemsRequest(_message.Message):
    __slots__ = ("user_id", "operations")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    operations: _containers.RepeatedCompositeFieldContainer[ItemOperation]
    def __init__(self, user_id: _Optional[str] = ..., operations: _Optional[_Iterable[_Union[ItemOperation, _Mapping]]] = ...) -> None: ...

class BatchItemsResponse(_message.Message):
    __slots__ = ("results", "incomplete")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    INCOMPLETE_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ItemResult]
    incomplete: bool
    def __init__(self, results: _Optional[_Iterable[_Union[ItemResult, _Mapping]]] = ..., incomplete: _Optional[bool] = ...) -> None: ...
