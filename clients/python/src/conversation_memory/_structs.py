"""JSON as protobuf writes it: metadata and `google.protobuf.Struct`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.struct_pb2 import Struct, Value

MAX_DEPTH = 32
"""The service's limit for levels of metadata, itself included."""

_EXACT = 2**53


def to_struct(metadata: Mapping[str, Any], path: str = "metadata") -> Struct:
    """Writes metadata. What would not come back equal is a TypeError or ValueError."""
    struct = Struct()
    _write_object(struct, metadata, path, MAX_DEPTH)
    return struct


def from_struct(struct: Struct) -> dict[str, Any]:
    """Reads metadata. Whole numbers are ints."""
    return {key: _read(value) for key, value in struct.fields.items()}


def _write_object(struct: Struct, metadata: Mapping[str, Any], path: str, levels: int) -> None:
    _check_levels(levels, path)
    for key, item in metadata.items():
        if not isinstance(key, str):
            raise TypeError(f"{path} must have strings as keys")
        _write(struct.fields[key], item, path, levels - 1)


def _write(value: Value, item: Any, path: str, levels: int) -> None:
    if item is None:
        value.null_value = 0  # type: ignore[assignment]
    elif isinstance(item, bool):
        value.bool_value = item
    elif isinstance(item, str):
        value.string_value = item
    elif isinstance(item, int):
        if abs(item) > _EXACT:
            raise ValueError(f"{path} has an integer beyond 2^53, which is not kept exactly")
        value.number_value = item
    elif isinstance(item, float):
        if not math.isfinite(item):
            raise ValueError(f"{path} must have finite numbers only")
        value.number_value = item
    elif isinstance(item, Mapping):
        # Present though it may be empty.
        value.struct_value.SetInParent()
        _write_object(value.struct_value, item, path, levels)
    elif isinstance(item, Sequence) and not isinstance(item, (bytes, bytearray)):
        _check_levels(levels, path)
        value.list_value.SetInParent()
        for element in item:
            _write(value.list_value.values.add(), element, path, levels - 1)
    else:
        raise TypeError(f"{path} must have JSON values only, not {type(item).__name__}")


def _check_levels(levels: int, path: str) -> None:
    if levels == 0:
        raise ValueError(f"{path} must be at most {MAX_DEPTH} levels deep")


def _read(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) <= _EXACT else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return from_struct(value.struct_value)
    if kind == "list_value":
        return [_read(item) for item in value.list_value.values]
    return None
