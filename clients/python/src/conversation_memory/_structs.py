"""Conversion of metadata between JSON values and `google.protobuf.Struct`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.struct_pb2 import Struct, Value

from ._limits import MAX_METADATA_DEPTH

_MAX_EXACT_INTEGER = 2**53


def to_struct(metadata: Mapping[str, Any], path: str = "metadata") -> Struct:
    """Encodes metadata.

    Args:
        metadata: The metadata.
        path: Name of the field in error texts.

    Raises:
        TypeError: A value is not a JSON value.
        ValueError: A value would not be read back equal, or the nesting is too deep.
    """
    struct = Struct()
    _write_object(struct, metadata, path, MAX_METADATA_DEPTH)
    return struct


def from_struct(struct: Struct) -> dict[str, Any]:
    """Decodes metadata. Whole numbers become `int`."""
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
        if not _is_exact(item):
            raise ValueError(
                f"{path} has an integer beyond 2^53 that a double would round; use a string"
            )
        value.number_value = item
    elif isinstance(item, float):
        if not math.isfinite(item):
            raise ValueError(f"{path} must have finite numbers only")
        value.number_value = item
    elif isinstance(item, Mapping):
        # An empty object or list must be present as well.
        value.struct_value.SetInParent()
        _write_object(value.struct_value, item, path, levels)
    elif isinstance(item, Sequence) and not isinstance(item, (bytes, bytearray)):
        _check_levels(levels, path)
        value.list_value.SetInParent()
        for element in item:
            _write(value.list_value.values.add(), element, path, levels - 1)
    else:
        raise TypeError(f"{path} must have JSON values only, not {type(item).__name__}")


def _is_exact(item: int) -> bool:
    try:
        return int(float(item)) == item
    except OverflowError:
        return False


def _check_levels(levels: int, path: str) -> None:
    if levels == 0:
        raise ValueError(f"{path} must be at most {MAX_METADATA_DEPTH} levels deep")


def _read(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        number = value.number_value
        is_exact = number.is_integer() and abs(number) <= _MAX_EXACT_INTEGER
        is_negative_zero = number == 0 and math.copysign(1, number) < 0
        return int(number) if is_exact and not is_negative_zero else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return from_struct(value.struct_value)
    if kind == "list_value":
        return [_read(item) for item in value.list_value.values]
    return None
