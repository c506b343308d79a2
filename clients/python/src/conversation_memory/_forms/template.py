"""Storage of a JSON value beside the parts that were derived from it, without storing them twice.

A template is the JSON value in which everything that a part contains is replaced by a reference:
`{"$": [index, kind, …]}`. An object that has the key `$` itself is `{"$": {…}}`. Filling the
references yields the value again, whatever a later version derives from the parts. A number that is
not finite is `{"$": "nan"}`, `{"$": "inf"}` or `{"$": "-inf"}`.

| Reference | Value |
|---|---|
| `[index, "text"]` | the text of the part |
| `[index, "text", start, end]` | a piece of the text, in characters |
| `[index, "json"]` | the text of the part, parsed |
| `[index, "b64", prefix]` | the prefix followed by the data of the part in Base64 |
| `[index, "b64url"]` | the data of the part in URL-safe Base64 |
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .._parts import BlobPart, GenericPart, Part, ToolCallPart, ToolCallResponsePart, text_of

MAX_DEPTH = 200
"""Upper bound on the nesting levels of a value, far below the limit of Python's parser."""

MIN_REFERENCE = 24
"""Number of characters below which a text is not worth a reference."""

MIN_PIECE = 64
"""Number of characters below which a text is not searched in the texts of the parts."""

MIN_REFERENCED = 64 << 20
"""Upper bound on the characters that the references of a template yield, unless the parts have
more than a quarter of them."""

_KEY = "$"

_NUMBERS = ("nan", "inf", "-inf")


def to_json(value: Any) -> str:
    """Encodes a value so that it can be stored as UTF-8.

    A number that is not finite becomes null, because JSON has none.
    """
    try:
        text = _dumps(value)
    except ValueError:
        value = _finite(value)
        text = _dumps(value)
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        # A lone surrogate cannot be encoded as UTF-8, but its escape sequence can.
        text = _dumps(value, ensure_ascii=True)
    return text


def _dumps(value: Any, *, ensure_ascii: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, allow_nan=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def is_same(one: Any, other: Any) -> bool:
    """Whether two valid JSON values are equal, where 1, 1.0 and True are different."""
    if isinstance(one, Mapping):
        return (
            isinstance(other, Mapping)
            and one.keys() == other.keys()
            and all(is_same(item, other[key]) for key, item in one.items())
        )
    if isinstance(one, (list, tuple)):
        return (
            isinstance(other, (list, tuple))
            and len(one) == len(other)
            and all(map(is_same, one, other))
        )
    if isinstance(one, float):
        # The sign of zero is a difference too.
        return isinstance(other, float) and repr(one) == repr(other)
    if isinstance(one, str):
        return isinstance(other, str) and one == other
    return type(one) is type(other) and bool(one == other)


def validate(value: Any, levels: int = MAX_DEPTH, *, is_finite: bool = True) -> None:
    """Rejects values that JSON would change, or that could not be parsed again.

    Args:
        value: The value.
        levels: Upper bound on the nesting levels.
        is_finite: Whether all numbers must be finite.

    Raises:
        TypeError: A value is not a JSON value, or a key not a string. The text names its place.
        ValueError: A number is not finite, or the nesting is too deep.
    """
    if value is None or isinstance(value, (str, int)):
        return
    if isinstance(value, float):
        if is_finite and not math.isfinite(value):
            raise ValueError("a message must contain finite numbers only")
        return
    items: Iterable[tuple[Any, Any]]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise _Unsupported("a message's keys must be strings")
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        raise _Unsupported(f"a message must have JSON values only, not {type(value).__name__}")
    if levels == 0:
        raise ValueError(f"a message must have at most {MAX_DEPTH} nesting levels")
    for key, item in items:
        try:
            validate(item, levels - 1, is_finite=is_finite)
        except _Unsupported as error:
            raise error.within(key) from None


class _Unsupported(TypeError):
    """Error of a value that JSON cannot represent, with its place in the message."""

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(f"{problem} (at {path})" if path else problem)
        self._problem = problem
        self._path = path

    def within(self, key: str | int) -> _Unsupported:
        """Returns the error with the place in an outer value."""
        step = f"[{key}]" if isinstance(key, int) else key[:40]
        dot = "." if self._path and not self._path.startswith("[") else ""
        return _Unsupported(self._problem, f"{step}{dot}{self._path}")


def encode(value: Any, parts: Sequence[Part]) -> str:
    """Returns the template of a valid value as JSON."""
    return to_json(_Encoder(parts).encode(value))


def decode(
    template: str, parts: Sequence[Part], *, missing: str | None = None, is_finite: bool = True
) -> Any:
    """Returns the value of a template.

    Args:
        template: The template as JSON.
        parts: Parts that it refers to.
        missing: Replacement for data that a response has left out; `None` rejects it.
        is_finite: Whether all numbers must be finite.

    Raises:
        ValueError: The template is not valid, or its references do not fit the parts.
    """
    try:
        value = _Decoder(parts, missing).decode(json.loads(template))
        validate(value, is_finite=is_finite)
    except (LookupError, TypeError, RecursionError) as error:
        raise ValueError("the template does not fit the parts") from error
    return value


class _Encoder:
    def __init__(self, parts: Sequence[Part]) -> None:
        self._texts: dict[str, list[Any]] = {}
        self._data: dict[str, list[Any]] = {}
        self._values: list[tuple[Any, list[Any]]] = []
        for index, part in enumerate(parts):
            if isinstance(part, BlobPart):
                data = part.data or b""
                self._data[base64.b64encode(data).decode()] = [index, "b64"]
                self._data.setdefault(base64.urlsafe_b64encode(data).decode(), [index, "b64url"])
                continue
            text = text_of(part)
            if len(text) < MIN_REFERENCE:
                continue
            self._texts.setdefault(text, [index, "text"])
            if isinstance(part, (ToolCallPart, ToolCallResponsePart, GenericPart)):
                try:
                    parsed = json.loads(text)
                except (ValueError, RecursionError):
                    continue
                if isinstance(parsed, (dict, list)):
                    self._values.append((parsed, [index, "json"]))

    def encode(self, value: Any) -> Any:
        if isinstance(value, str):
            reference = self._reference(value)
            return value if reference is None else {_KEY: reference}
        if isinstance(value, Mapping):
            for parsed, reference in self._values:
                if is_same(value, parsed):
                    return {_KEY: reference}
            encoded = {key: self.encode(item) for key, item in value.items()}
            return {_KEY: encoded} if _KEY in encoded else encoded
        if isinstance(value, (list, tuple)):
            for parsed, reference in self._values:
                if is_same(value, parsed):
                    return {_KEY: reference}
            return [self.encode(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return {_KEY: repr(value)}
        return value

    def _reference(self, text: str) -> list[Any] | None:
        if len(text) < MIN_REFERENCE:
            return None
        if (reference := self._texts.get(text)) is not None:
            return reference
        if (reference := self._data.get(text)) is not None:
            return [*reference, ""] if reference[1] == "b64" else reference
        if text.startswith("data:"):
            prefix, comma, data = text.partition(",")
            reference = self._data.get(data)
            return [*reference, prefix + comma] if reference and reference[1] == "b64" else None
        if len(text) >= MIN_PIECE:
            for whole, (index, kind) in self._texts.items():
                if (start := whole.find(text)) >= 0:
                    return [index, kind, start, start + len(text)]
        return None


class _Decoder:
    def __init__(self, parts: Sequence[Part], missing: str | None) -> None:
        self._parts = parts
        self._missing = missing
        self._remaining = max(MIN_REFERENCED, 4 * sum(map(_size, parts)))

    def decode(self, template: Any) -> Any:
        if isinstance(template, dict):
            if _KEY not in template:
                return {key: self.decode(item) for key, item in template.items()}
            reference = template[_KEY]
            if isinstance(reference, dict):
                return {key: self.decode(item) for key, item in reference.items()}
            if reference in _NUMBERS:
                return float(reference)
            return self._resolve(reference)
        if isinstance(template, list):
            return [self.decode(item) for item in template]
        return template

    def _resolve(self, reference: list[Any]) -> Any:
        index, kind, *rest = reference
        if not isinstance(index, int) or index < 0:
            raise ValueError("a reference has no valid index")
        part = self._parts[index]
        if kind in ("b64", "b64url"):
            return self._data(part, kind, rest)
        text = text_of(part)
        self._take(len(text))
        if kind == "json":
            return json.loads(text)
        if kind != "text":
            raise ValueError("a reference has an unknown kind")
        return text[rest[0] : rest[1]] if rest else text

    def _data(self, part: Part, kind: str, rest: list[Any]) -> str:
        if not isinstance(part, BlobPart):
            raise ValueError("a reference does not fit its part")
        if part.data is None:
            if self._missing is None:
                raise ValueError("the data of a part is missing")
            return self._missing
        self._take(2 * len(part.data))
        if kind == "b64url":
            return base64.urlsafe_b64encode(part.data).decode()
        return str(rest[0]) + base64.b64encode(part.data).decode()

    def _take(self, characters: int) -> None:
        self._remaining -= characters
        if self._remaining < 0:
            raise ValueError("the template refers to too much text")


def _size(part: Part) -> int:
    return len(part.data or b"") if isinstance(part, BlobPart) else len(text_of(part))
