"""Messages that were saved in a form, and the value that they were saved as.

The service stores parts, which every client can read. What they cannot represent is in the last
part: a generic one of the type `delta:FORM`, with the template of the value. It is left out if the
form shows the parts as that value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .._limits import MAX_PARTS
from .._parts import (
    DELTA,
    GenericPart,
    Part,
    TextPart,
    ToolCallPart,
    ToolCallResponsePart,
)
from . import template

if TYPE_CHECKING:
    from .._types import Message, Role


_WITH_ANY_NUMBER = {"agent-framework", "google-adk", "langchain"}
"""Forms of Python objects, which can have numbers that are not finite. No API reads them."""


def validate(form: str, value: Any) -> None:
    """Rejects a value that could not be stored in a form.

    Raises:
        TypeError: A value is not a JSON value, or a key not a string.
        ValueError: A number is not finite, or the nesting is too deep.
    """
    template.validate(value, is_finite=form not in _WITH_ANY_NUMBER)


def message_of(
    form: str,
    value: Any,
    role: Role,
    parts: Sequence[Part],
    *,
    show: Callable[[Message], Any] | None = None,
    name: str = "",
    **fields: Any,
) -> Message:
    """Returns the message of a valid value in a form.

    Args:
        form: Name of the form.
        value: The value, which `validate` has accepted.
        role: Role of the message.
        parts: Parts that represent the value.
        show: Function that shows the message in the form; `None` always keeps the value.
        name: Name of the author.
        fields: Further fields of the message.

    Raises:
        ValueError: There are too many parts.
    """
    from .._types import Message

    parts = _acceptable(role, parts)
    if len(parts) >= MAX_PARTS:
        raise ValueError(f"a message must have fewer than {MAX_PARTS} parts")
    if len(parts) == 1 and isinstance(parts[0], TextPart):
        message = Message(role, parts[0].content, name=name, **fields)
    else:
        message = Message(role, parts=tuple(parts), name=name, **fields)
    # The service rejects a message that has neither text nor parts.
    if parts and show is not None and template.is_same(show(message), value):
        return message
    delta = GenericPart(DELTA + form, template.encode(value, parts))
    return Message(role, parts=(*parts, delta), name=name, **fields)


def _acceptable(role: Role, parts: Sequence[Part]) -> list[Part]:
    """Returns parts without calls and results that the service rejects.

    A message has calls only if it is the assistant's, and results only if it is a tool's. Their ids
    are not repeated.
    """
    found: list[Part] = []
    ids: set[str] = set()
    for part in parts:
        if isinstance(part, (ToolCallPart, ToolCallResponsePart)):
            author = "assistant" if isinstance(part, ToolCallPart) else "tool"
            if role != author or part.id in ids:
                continue
            ids.add(part.id)
        found.append(part)
    return found


def value_of(message: Message, form: str, *, missing: str | None = None) -> Any:
    """Returns the value that a message was saved as in a form; `None` if it was not.

    `missing` replaces data that a response has left out; without it, such a value is `None`.
    """
    last = message.parts[-1] if message.parts and not message.redacted else None
    if not isinstance(last, GenericPart) or last.type != DELTA + form:
        return None
    try:
        return template.decode(
            last.json, message.parts, missing=missing, is_finite=form not in _WITH_ANY_NUMBER
        )
    except ValueError:
        # Another client has written it, or the data of a part is missing.
        return None
