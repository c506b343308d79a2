"""Objects of SDKs as the JSON values that they stand for."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

from .template import MAX_DEPTH, to_json


def to_plain(value: Any, levels: int = MAX_DEPTH) -> Any:
    """Returns a value in which models, dataclasses and enumerations are replaced by JSON values.

    A value without any of them is returned as it is. Other objects are kept, for the validation to
    report their place.
    """
    if isinstance(value, enum.Enum):
        return value.value
    if value is None or isinstance(value, (str, int, float)) or levels == 0:
        return value
    if isinstance(value, Mapping):
        plain = {key: to_plain(item, levels - 1) for key, item in value.items()}
        is_same = type(value) is dict and all(plain[key] is value[key] for key in value)
        return value if is_same else plain
    if isinstance(value, (list, tuple)):
        items = [to_plain(item, levels - 1) for item in value]
        is_same = all(item is given for item, given in zip(items, value, strict=True))
        return value if is_same else items
    dumped = _dumped(value)
    return value if dumped is None else to_plain(dumped, levels - 1)


def _dumped(value: Any) -> Mapping[str, Any] | None:
    """Returns the fields of a model or a dataclass; `None` if the value is neither."""
    if isinstance(value, type):
        return None
    dumped: Any = None
    if callable(getattr(value, "model_dump", None)):
        dumped = value.model_dump(exclude_unset=True)
    elif dataclasses.is_dataclass(value):
        dumped = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    elif callable(getattr(value, "to_dict", None)):
        dumped = value.to_dict()
    return dumped if isinstance(dumped, Mapping) else None


def chat_call(call: Any) -> dict[str, Any] | None:
    """Returns a tool call in the form of Chat Completions; `None` if it has no known form.

    The forms are those of Chat Completions, the Responses API, LangChain, Anthropic and Gemini.
    """
    if not isinstance(call, Mapping):
        return None
    kind = call.get("type")
    if isinstance(call.get(str(kind or "function")), Mapping):
        return dict(call) if kind else {**call, "type": "function"}
    name = call.get("name")
    if not isinstance(name, str) or not name:
        return None
    if kind == "function_call" and isinstance(call.get("arguments"), str):
        return _function(call.get("call_id"), name, call["arguments"])
    for key, kinds in (("args", ("tool_call", None)), ("input", ("tool_use",))):
        if kind in kinds and isinstance(call.get(key, {}), Mapping):
            return _function(call.get("id"), name, to_json(call.get(key) or {}))
    return None


def _function(call_id: Any, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}
