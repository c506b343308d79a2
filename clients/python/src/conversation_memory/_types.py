"""What the service remembers, as plain immutable values.

Times are aware datetimes in UTC. Text fields that have no value are empty.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from . import _openai

Role = Literal["user", "assistant", "system", "tool"]
Source = Literal["cache", "store", "unspecified"]
SessionState = Literal["started", "continued", "resumed", "unavailable", "unspecified"]

OpenAIMessage = dict[str, Any]
"""A message in the form of OpenAI's chat completions: `role`, `content` and more."""


MAX_LEVELS = 200
"""How deep an original's JSON is at most: far less than Python's parser takes."""


class SupportsModelDump(Protocol):
    """A Pydantic model, such as the message of an OpenAI answer."""

    def model_dump(self, *, exclude_unset: bool = ...) -> dict[str, Any]:
        """Gives the model as a dict."""
        ...


@dataclass(frozen=True, slots=True)
class Original:
    """The form that a message had before it became one: kept word for word.

    It is stored as JSON in a string, since numbers of a message's metadata are
    doubles and would not all come back as they went in.
    """

    form: str
    """Whose form it is, such as `openai`: whoever does not know it reads role and content."""
    json: str
    """The value, as JSON."""

    @classmethod
    def of(cls, form: str, value: Any) -> Original:
        """Keeps a value that JSON can express; others are a TypeError or ValueError."""
        _check(value)
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            # Half of a character cannot be sent, but its escape can.
            text = json.dumps(value, separators=(",", ":"))
        return cls(form, text)

    @property
    def value(self) -> Any:
        """A fresh copy of the value."""
        return json.loads(self.json)


def _check(value: Any, levels: int = MAX_LEVELS) -> None:
    """Refuses what JSON would turn into something else, or what could not be read back."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a message must have finite numbers only")
        return
    items: Iterable[Any]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a message's keys must be strings")
        items = value.values()
    elif isinstance(value, (list, tuple)):
        items = value
    else:
        return
    if levels == 0:
        raise ValueError(f"a message must have at most {MAX_LEVELS} levels")
    for item in items:
        _check(item, levels - 1)


@dataclass(frozen=True, slots=True)
class RetrievedContext:
    """A document that retrieval put in front of the model for one message."""

    content: str = ""
    _: KW_ONLY
    doc_id: str = ""
    """The document's id in its own system, at most 512 characters."""
    score: float | None = None
    """Relevance as the retriever gave it."""
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Message:
    """One thing that was said."""

    role: Role
    content: str = ""
    """The text; of a message in several parts, the texts of its parts, a line each."""
    _: KW_ONLY
    id: str = ""
    """A UUID. The service makes one when it is empty, or when the message was read of another
    conversation."""
    conversation_id: str = ""
    """Set by the service."""
    seq: int = 0
    """The message's number in its conversation, from 1 in the order of saving. Set by the
    service."""
    created_at: datetime | None = None
    """When it was said: the time of saving unless set. It never decides the order."""
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Anything JSON can express, at most 64 KiB of it and 32 levels. Numbers are doubles."""
    tokens_used: int | None = None
    """Tokens that the model used for this message."""
    latency_ms: int | None = None
    """How long the answer took, in milliseconds."""
    contexts: Sequence[RetrievedContext] = field(default=(), hash=False)
    """What retrieval found for it. Read back only where `include_contexts` asks for them."""
    original: Original | None = None
    """What `role` and `content` cannot say of the form that the message came in."""

    @classmethod
    def from_openai(cls, message: Mapping[str, Any], **fields: Any) -> Message:
        """Takes a message in the OpenAI form, which `to_openai` gives back as it was.

        Tool calls, parts and every further key are kept. `fields` are those of `Message`, such
        as `tokens_used`. A role is one of user, assistant, system, developer, tool and function;
        another one is a ValueError, and so is what JSON cannot express.
        """
        return cls(**_openai.parse(message), **fields)

    def to_openai(self) -> OpenAIMessage:
        """The message in the OpenAI form: a fresh dict."""
        return _openai.render(self)


MessageLike = Message | Mapping[str, Any] | SupportsModelDump
"""What is taken for a message: one, a dict in the OpenAI form, or an answer of OpenAI's client."""


def to_message(message: MessageLike) -> Message:
    """Takes what callers have for a message."""
    if isinstance(message, Message):
        return message
    if isinstance(message, Mapping):
        return Message.from_openai(message)
    if hasattr(message, "model_dump"):
        return Message.from_openai(message.model_dump(exclude_unset=True))
    raise TypeError(f"a message is a Message or a dict, not {type(message).__name__}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A sequence of messages that belongs to one user."""

    id: str
    user_id: str = ""
    dept_id: str = ""
    title: str = ""
    """Taken from the first user message unless it was set."""
    last_seq: int = 0
    """The number of the newest message ever saved, 0 before the first."""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    parent_id: str = ""
    """The conversation that this one branched from."""
    branched_at_seq: int = 0
    """The last message that it shares with its parent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A user's presence. It ends when it has not been used for its time to live."""

    id: str
    user_id: str = ""
    dept_id: str = ""
    conversation_id: str = ""
    """The conversation that it is on; empty before the first."""
    created_at: datetime | None = None
    last_active_at: datetime | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunTurn:
    """What a turn begins with."""

    session: Session | None
    """None when the session tier is down: the turn goes on without one."""
    session_state: SessionState
    conversation: Conversation
    """`id`, `user_id` and `last_seq` always, the rest where it costs no extra trip."""
    messages: tuple[Message, ...]
    """The newest messages, oldest first."""
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The newest messages of a conversation."""

    messages: tuple[Message, ...]
    """Oldest first."""
    last_seq: int
    """The conversation's last number at the moment of the read."""
    source: Source

    def to_openai(self) -> list[OpenAIMessage]:
        """The messages in the OpenAI form."""
        return [message.to_openai() for message in self.messages]


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedMessages:
    """What a save did."""

    messages: tuple[Message, ...]
    """As stored, contexts left out."""
    last_seq: int
    """The number of the last message of this save."""
    replayed: bool
    """Whether it had been saved before, and this is the first outcome again."""
    request_id: str
    """The key under which it was saved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncated:
    """What a truncation did."""

    removed_messages: int
    last_seq: int
    """The conversation's last number, which a truncation leaves as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import did."""

    conversation: Conversation
    imported_messages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A message that a search found."""

    message: Message
    conversation_title: str
    snippet: str
    """A few words around the first match; matches stand between ⟦ and ⟧. Plain text: escape it
    before it becomes part of HTML."""
    rank: float
    """How well it fits: higher is better. Compares hits of one search only."""
