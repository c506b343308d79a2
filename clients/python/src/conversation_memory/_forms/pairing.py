"""Pairing of tool calls with their results, as model APIs require it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from .._parts import (
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolCallResponsePart,
    is_delta,
)
from .common import REDACTED, is_result_as_text, portable_parts

if TYPE_CHECKING:
    from .._types import Message


def paired(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Returns messages whose results directly follow their calls.

    - Messages with calls that follow each other are one block; all results of the block follow it,
      also those that were saved later.
    - A call that was never answered is left out, unless the conversation ends with its block,
      because then the result can still follow.
    - A result without its call, and a second result of a call, are left out.
    - A result that names no call belongs to the call that it follows. Without one it stays in its
      place, for the forms to show it as text; a redacted one is left out.

    Messages that need no change are returned as they are. Others lose the details of the form
    that they were saved in.
    """
    pairing = _Pairing()
    for message in messages:
        pairing.add(message)
    return pairing.result()


def renamed(messages: Iterable[Message], name: Callable[[str], str]) -> tuple[Message, ...]:
    """Returns paired messages whose calls have unique ids that `name` has mapped."""
    used: set[str] = set()
    open_calls: dict[str, list[str]] = {}
    changed = []
    for message in messages:
        parts: list[Part] = []
        for part in message.parts:
            if isinstance(part, ToolCallPart):
                new = base = name(part.id)
                number = 1
                while new in used:
                    number += 1
                    new = f"{base}_{number}"
                used.add(new)
                open_calls.setdefault(part.id, []).append(new)
                part = replace(part, id=new)
            elif isinstance(part, ToolCallResponsePart):
                # Every result has a call, unless a message has a part that its role does not allow.
                names = open_calls.get(part.id)
                part = replace(part, id=names.pop(0) if names else name(part.id))
            parts.append(part)
        changed.append(message if tuple(parts) == message.parts else _with_parts(message, parts))
    return tuple(changed)


class _Call(NamedTuple):
    id: str
    message: int
    """Index of the message in its block."""
    part: int
    """Index of the part in the message."""


@dataclass
class _Block:
    """Messages with calls, and the results of these calls."""

    messages: list[Message] = field(default_factory=list)
    results: list[Message] = field(default_factory=list)
    open: list[_Call] = field(default_factory=list)
    """Calls that have no result yet."""

    def emit(self, *, is_last: bool) -> Iterable[Message]:
        """Yields the messages; `is_last` keeps calls that have no result yet."""
        is_open = is_last and bool(self.open)
        kept = self.messages
        if not is_last:
            without_open = (self._without_open(index) for index in range(len(kept)))
            kept = [message for message in without_open if message is not None]
        # Nothing but reasoning may come between the calls, and nothing before the results.
        texts = [each for each in kept if not _is_call(each) and not _is_reasoning(each)]
        yield from texts
        kept = [each for each in kept if each not in texts]
        end = max((at + 1 for at, message in enumerate(kept) if _is_call(message)), default=0)
        yield from kept[:end]
        yield from self.results
        if not is_open:
            yield from kept[end:]

    def _without_open(self, index: int) -> Message | None:
        message = self.messages[index]
        dropped = {call.part for call in self.open if call.message == index}
        if not dropped:
            return message
        parts = [part for at, part in enumerate(message.parts) if at not in dropped]
        if all(is_delta(part) for part in parts):
            return None
        return _with_parts(message, parts)


class _Pairing:
    def __init__(self) -> None:
        self._items: list[Message | _Block] = []
        self._open: dict[str, list[_Block]] = {}
        """Blocks with a call that has no result yet, by the id of the call."""
        self._block: _Block | None = None
        """Block that the previous message belongs to."""

    def add(self, message: Message) -> None:
        if message.role == "tool":
            self._add_tool(message)
            return
        block = self._block
        if message.role == "assistant" and _is_call(message):
            if block is None or block.results:
                block = self._block = _Block()
                self._items.append(block)
            for index, part in enumerate(message.parts):
                if isinstance(part, ToolCallPart):
                    block.open.append(_Call(part.id, len(block.messages), index))
                    self._open.setdefault(part.id, []).append(block)
            block.messages.append(message)
        elif block is not None and not block.results and _is_reasoning(message):
            block.messages.append(message)
        else:
            self._items.append(message)
            self._block = None

    def _add_tool(self, message: Message) -> None:
        if is_result_as_text(message):
            self._add_plain(message)
            return
        taken: list[tuple[_Block, list[Part]]] = []
        for part in message.parts:
            if isinstance(part, ToolCallResponsePart) and (block := self._take(part.id)):
                if not taken or taken[-1][0] is not block:
                    taken.append((block, []))
                taken[-1][1].append(part)
                self._block = block
        if len(taken) == 1 and len(taken[0][1]) == _count_results(message):
            taken[0][0].results.append(message)
            return
        rest = [part for part in message.parts if not isinstance(part, ToolCallResponsePart)]
        for block, parts in taken:
            block.results.append(_with_parts(message, [*parts, *rest]))
            rest = []

    def _add_plain(self, message: Message) -> None:
        block = self._block
        if block is None or not block.open:
            if message.redacted:
                return
            self._items.append(message)
            self._block = None
            return
        call = block.open.pop(0)
        self._open[call.id].remove(block)
        content = REDACTED if message.redacted else message.content
        rest = [part for part in message.parts if not isinstance(part, TextPart)]
        block.results.append(_with_parts(message, [ToolCallResponsePart(call.id, content), *rest]))

    def _take(self, call_id: str) -> _Block | None:
        """Removes the newest open call with an id; returns its block."""
        blocks = self._open.get(call_id)
        if not blocks:
            return None
        block = blocks.pop()
        index = next(index for index, call in enumerate(block.open) if call.id == call_id)
        del block.open[index]
        return block

    def result(self) -> tuple[Message, ...]:
        found: list[Message] = []
        for item in self._items:
            if isinstance(item, _Block):
                found += item.emit(is_last=item is self._items[-1])
            else:
                found.append(item)
        return tuple(found)


def _with_parts(message: Message, parts: Iterable[Part]) -> Message:
    kept = tuple(part for part in parts if not is_delta(part))
    return replace(message, parts=kept, content="", redacted=False, original=None)


def _is_call(message: Message) -> bool:
    return any(isinstance(part, ToolCallPart) for part in message.parts)


def _is_reasoning(message: Message) -> bool:
    parts = portable_parts(message)
    return (
        message.role == "assistant"
        and bool(parts)
        and all(isinstance(part, ReasoningPart) for part in parts)
    )


def _count_results(message: Message) -> int:
    return sum(isinstance(part, ToolCallResponsePart) for part in message.parts)
