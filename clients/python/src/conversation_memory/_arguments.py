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
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)


class _Unchecked(Exception):
    """An annotation that accepts everything."""


@dataclass(slots=True)
class _Rule:
    """Types that an argument can have."""

    quick: set[type] = field(default_factory=set)
    """Types that are valid without a further check."""
    checks: list[Callable[[Any], bool]] = field(default_factory=list)
    """Checks, one of which must hold for a value of another type."""
    names: list[str] = field(default_factory=list)

    def check(self, name: str, value: Any) -> None:
        """Rejects a value of another type. The text names the types, and never the value."""
        if not any(check(value) for check in self.checks):
            kind = "None" if value is None else type(value).__name__
            raise TypeError(f"{name} must be {' or '.join(self.names)}, not {kind}")


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
    parameters = inspect.signature(function).parameters.values()
    named = [it for it in parameters if it.kind not in (it.VAR_POSITIONAL, it.VAR_KEYWORD)]
    positional = [it.name for it in named if it.kind is not it.KEYWORD_ONLY]
    rules: dict[str, _Rule] | None = None

    def check(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal rules
        if rules is None:
            # Annotations can name classes that are defined after the function.
            rules = _rules({it.name: it.annotation for it in named}, function.__module__)
        for name, value in kwargs.items():
            if (rule := rules.get(name)) is not None and type(value) not in rule.quick:
                rule.check(name, value)
        for name, value in zip(positional, args, strict=False):
            if (rule := rules.get(name)) is not None and type(value) not in rule.quick:
                rule.check(name, value)

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
    class_ = type(instance)
    hints = {name: class_.__annotations__[name] for name in names}
    for name, rule in _rules(hints, class_.__module__).items():
        rule.check(name, getattr(instance, name))


def _rules(hints: dict[str, Any], module: str) -> dict[str, _Rule]:
    """Returns the rules of annotations, except those that accept everything."""
    rules: dict[str, _Rule] = {}
    for name, hint in hints.items():
        if hint is inspect.Parameter.empty:
            continue
        rule = _Rule()
        try:
            if isinstance(hint, str):
                hint = eval(hint, vars(sys.modules[module]))  # noqa: S307
            _add(rule, hint)
        except (NameError, _Unchecked):
            # A name can be known to type checkers only.
            continue
        rules[name] = rule
    return rules


def _add(rule: _Rule, hint: Any) -> None:
    """Adds the types of an annotation to a rule.

    Raises:
        _Unchecked: The annotation accepts everything.
    """
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        for each in get_args(hint):
            _add(rule, each)
        return
    kind = types.NoneType if hint is None else origin or hint
    if kind is Literal:
        kind = type(get_args(hint)[0])
    if typing.is_typeddict(kind):
        kind = dict
    if kind not in _CHECKS:
        is_abstract = getattr(kind, "_is_protocol", False) or kind.__module__ == "typing"
        if not isinstance(kind, type) or is_abstract or kind is object:
            raise _Unchecked
        article = "an" if kind.__name__[0] in "AEIO" else "a"
        check, name = _of(kind), f"{article} {kind.__name__}"
    else:
        check, name = _CHECKS[kind]
    if isinstance(kind, type) and not inspect.isabstract(kind):
        rule.quick.add(kind)
    rule.checks.append(check)
    if name not in rule.names:
        rule.names.append(name)


def _of(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


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


_CHECKS: dict[Any, tuple[Callable[[Any], bool], str]] = {
    types.NoneType: (_of(types.NoneType), "None"),
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
