"""Validation of the types of arguments, for all public methods alike.

The types are those of the annotations. An annotation that has no simple type, such as a protocol or
a type variable, accepts everything: the method validates it itself.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)

_Check = Callable[[Any], bool]


class _Unchecked(Exception):
    """An annotation that is not checked."""


def validates_arguments(class_: Class) -> Class:
    """Lets the constructor and the public methods of a class validate their arguments' types."""
    for name, value in list(vars(class_).items()):
        if name != "__init__" and name.startswith("_"):
            continue
        if inspect.isfunction(value):
            setattr(class_, name, validated(value))
        elif isinstance(value, staticmethod):
            setattr(class_, name, staticmethod(validated(value.__func__)))
    return class_


def validated(function: Function) -> Function:
    """Returns a function that raises a `TypeError` for an argument of another type.

    The text names the argument and the types, and never the value.
    """
    parameters = inspect.signature(function).parameters
    positional = [
        name
        for name, it in parameters.items()
        if it.kind in (it.POSITIONAL_ONLY, it.POSITIONAL_OR_KEYWORD)
    ]

    @functools.cache
    def checks() -> dict[str, tuple[_Check, str]]:
        # Annotations can name classes that are defined later.
        module = vars(sys.modules[function.__module__])
        return {
            name: found
            for name, it in parameters.items()
            if it.kind not in (it.VAR_POSITIONAL, it.VAR_KEYWORD)
            and (found := _check_of(it.annotation, module)) is not None
        }

    def check(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        known = checks()
        for name, value in (*zip(positional, args, strict=False), *kwargs.items()):
            if (found := known.get(name)) is not None:
                _check(name, value, *found)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            check(args, kwargs)
            return await function(*args, **kwargs)

    else:

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            check(args, kwargs)
            return function(*args, **kwargs)

    return typing.cast("Function", wrapper)


def validate_fields(instance: Any, names: Iterable[str]) -> None:
    """Validates the types of fields of a dataclass, whose names are those of arguments.

    Raises:
        TypeError: A field has another type.
    """
    module = vars(sys.modules[type(instance).__module__])
    for name in names:
        if (found := _check_of(type(instance).__annotations__[name], module)) is not None:
            _check(name, getattr(instance, name), *found)


def _check(name: str, value: Any, is_valid: _Check, types_: str) -> None:
    if not is_valid(value):
        kind = "None" if value is None else type(value).__name__
        raise TypeError(f"{name} must be {types_}, not {kind}")


def _check_of(hint: Any, module: dict[str, Any]) -> tuple[_Check, str] | None:
    """Returns the check of an annotation and the names of its types; `None` if it has none."""
    if hint is inspect.Parameter.empty:
        return None
    try:
        if isinstance(hint, str):
            hint = eval(hint, module)  # noqa: S307
        checks, names = _kinds(hint)
    except (NameError, _Unchecked):
        # A name can be known to type checkers only.
        return None
    return lambda value: any(check(value) for check in checks), " or ".join(names)


def _kinds(hint: Any) -> tuple[list[_Check], list[str]]:
    """Returns the checks of an annotation, one of which must hold, and the names of the types.

    Raises:
        _Unchecked: The annotation accepts everything.
    """
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        checks: list[_Check] = []
        names: list[str] = []
        for each in get_args(hint):
            more, more_names = _kinds(each)
            checks += more
            names += [name for name in more_names if name not in names]
        return checks, names
    if origin is Literal:
        return _kinds(type(get_args(hint)[0]))
    kind = origin or hint
    if kind is None or kind is types.NoneType:
        return [lambda value: value is None], ["None"]
    if (check := _CHECKS.get(kind)) is not None:
        return [check[0]], [check[1]]
    if typing.is_typeddict(kind):
        return _kinds(dict)
    is_abstract = getattr(kind, "_is_protocol", False) or kind.__module__ == "typing"
    if not isinstance(kind, type) or is_abstract or kind is object:
        raise _Unchecked
    name = kind.__name__
    return [lambda value: isinstance(value, kind)], [f"{'an' if name[0] in 'AEIO' else 'a'} {name}"]


def _is_items(value: Any) -> bool:
    # A text or a mapping can be iterated over, but is rather one item.
    return isinstance(value, collections.abc.Iterable) and not isinstance(
        value, (str, bytes, collections.abc.Mapping)
    )


def _is_int(value: Any) -> bool:
    # Integers of NumPy are valid.
    return hasattr(type(value), "__index__") and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return hasattr(type(value), "__float__") and not isinstance(value, (bool, str))


def _of(*kinds: type) -> _Check:
    return lambda value: isinstance(value, kinds)


_CHECKS: dict[Any, tuple[_Check, str]] = {
    str: (_of(str), "a str"),
    bytes: (_of(bytes, bytearray, memoryview), "bytes"),
    bool: (_of(bool), "a bool"),
    int: (_is_int, "an int"),
    float: (_is_number, "a number"),
    list: (_is_items, "a list"),
    dict: (_of(collections.abc.Mapping), "a dict"),
    os.PathLike: (_of(os.PathLike), "a path"),
    collections.abc.Mapping: (_of(collections.abc.Mapping), "a mapping"),
    collections.abc.Iterable: (_is_items, "an iterable"),
    collections.abc.Sequence: (_is_items, "a sequence"),
    collections.abc.Callable: (callable, "a function"),
}
