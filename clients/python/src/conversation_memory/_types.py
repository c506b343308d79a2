"""Objects of the service as immutable values.

Times are timezone-aware and in UTC. A text field without a value is empty.
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
"""Author of a message."""

Source = Literal["cache", "store", "unspecified"]
"""Where messages were read from: the recent window in Redis, or the durable store."""

SessionState = Literal["started", "continued", "resumed", "unavailable", "unspecified"]
"""State in which BeginTurn found the session.

`started`: no session was given, and a new one was started. `continued`: the session was live.
`resumed`: it had expired and was restored under its id. `unavailable`: the session tier is down,
and the turn continues without a session."""

OpenAIMessage = dict[str, Any]
"""Message in the form of OpenAI's chat completions: `role`, `content` and further keys."""

MAX_ORIGINAL_DEPTH = 200
"""Upper bound on the nesting levels of an original, far below the limit of Python's parser."""


class SupportsModelDump(Protocol):
    """Interface of a Pydantic model, such as the message in a response of OpenAI's client."""

    def model_dump(self, *, exclude_unset: bool = ...) -> dict[str, Any]:
        """Returns the model as a dict."""
        ...


@dataclass(frozen=True, slots=True)
class Original:
    """The foreign form that a `Message` was converted from, stored without loss.

    It is stored as JSON in a string, because numbers in a message's metadata are doubles and
    would not all be read back equal.
    """

    form: str
    """Name of the form, such as `openai`. A reader that does not know it uses role and content."""
    json: str
    """Value in the foreign form, as JSON."""

    @classmethod
    def of(cls, form: str, value: Any) -> Original:
        """Converts a value in a foreign form.

        Args:
            form: Name of the form.
            value: The value, which consists of JSON values.

        Raises:
            TypeError: A value is not a JSON value.
            ValueError: A number is not finite, or the nesting is too deep.
        """
        _validate(value)
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            # A lone surrogate cannot be encoded as UTF-8, but its escape sequence can.
            text = json.dumps(value, separators=(",", ":"))
        return cls(form, text)

    @property
    def value(self) -> Any:
        """A new copy of the value."""
        return json.loads(self.json)


def _validate(value: Any, levels: int = MAX_ORIGINAL_DEPTH) -> None:
    """Rejects values that JSON would change, or that could not be parsed again."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a message must contain finite numbers only")
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
        raise ValueError(f"a message must have at most {MAX_ORIGINAL_DEPTH} nesting levels")
    for item in items:
        _validate(item, levels - 1)


@dataclass(frozen=True, slots=True)
class RetrievedContext:
    """A document that retrieval provided to the model for one message."""

    content: str = ""
    """Text of the document."""
    _: KW_ONLY
    doc_id: str = ""
    """Id of the document in its source system, at most 512 characters."""
    score: float | None = None
    """Relevance according to the retriever; `None` if unknown."""
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Anything that JSON can represent, with the limits of `Message.metadata`."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a conversation."""

    role: Role
    """Author of the message."""
    content: str = ""
    """Plain text. For a message in several parts it is the texts of the parts, one per line."""
    _: KW_ONLY
    id: str = ""
    """UUID of the message. The service generates one if it is empty, or if the message was read
    from another conversation."""
    conversation_id: str = ""
    """Conversation of the message. The service sets it."""
    seq: int = 0
    """Number of the message in its conversation, from 1 in commit order. The service sets it."""
    created_at: datetime | None = None
    """Time of the message; `None` uses the time of the save. It does not affect the order."""
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Anything that JSON can represent, at most 64 KiB and 32 levels. Numbers are doubles."""
    tokens_used: int | None = None
    """Number of tokens that the model used for the message; `None` if unknown."""
    latency_ms: int | None = None
    """Duration of the answer in milliseconds; `None` if unknown."""
    contexts: Sequence[RetrievedContext] = field(default=(), hash=False)
    """Documents that retrieval found for the message. They are read with `include_contexts`."""
    original: Original | None = None
    """Part of a foreign form that `role` and `content` cannot represent; `None` if there is no
    such part."""

    @classmethod
    def from_openai(cls, message: Mapping[str, Any], **fields: Any) -> Message:
        """Converts a message in the OpenAI form, which `to_openai` returns unchanged.

        Tool calls, parts and all further keys are kept.

        Args:
            message: The message. Its role is user, assistant, system, developer, tool or
                function.
            fields: Further fields of `Message`, such as `tokens_used`.

        Raises:
            TypeError: A value is not a JSON value.
            ValueError: The role is unknown, a number is not finite, or the nesting is too deep.
        """
        return cls(**_openai.parse(message), **fields)

    def to_openai(self) -> OpenAIMessage:
        """Returns the message in the OpenAI form, as a new dict."""
        return _openai.render(self)


MessageLike = Message | Mapping[str, Any] | SupportsModelDump
"""A message, a dict in the OpenAI form, or the message in a response of OpenAI's client."""


def to_message(message: MessageLike) -> Message:
    """Converts the forms of a message that callers pass.

    Raises:
        TypeError: The value is not a message.
        ValueError: The message is not valid in the OpenAI form.
    """
    if isinstance(message, Message):
        return message
    if isinstance(message, Mapping):
        return Message.from_openai(message)
    if hasattr(message, "model_dump"):
        return Message.from_openai(message.model_dump(exclude_unset=True))
    raise TypeError(f"a message must be a Message or a dict, not {type(message).__name__}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A sequence of messages that belongs to one user."""

    id: str
    """UUID of the conversation."""
    user_id: str = ""
    """Owner of the conversation."""
    dept_id: str = ""
    """Department or tenant of the owner."""
    title: str = ""
    """Title, which is derived from the first user message if none was set."""
    last_seq: int = 0
    """Number of the newest message ever saved; 0 before the first."""
    created_at: datetime | None = None
    """Time of the creation."""
    updated_at: datetime | None = None
    """Time of the last change."""
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Metadata of the conversation. Whole numbers are `int`."""
    parent_id: str = ""
    """Conversation that this one was branched from; empty if it is no branch."""
    branched_at_seq: int = 0
    """Number of the last message that is shared with the parent; 0 if it is no branch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A user's session. It expires if it is not used for its time to live."""

    id: str
    """UUID of the session."""
    user_id: str = ""
    """User that the session belongs to."""
    dept_id: str = ""
    """Department or tenant of the user."""
    conversation_id: str = ""
    """Conversation of the session; empty before the first one."""
    created_at: datetime | None = None
    """Time of the start."""
    last_active_at: datetime | None = None
    """Time of the last use."""
    expires_at: datetime | None = None
    """Time at which the session expires unless it is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunTurn:
    """Session, conversation and history at the beginning of a turn."""

    session: Session | None
    """Session of the turn; `None` while the session tier is unavailable."""
    session_state: SessionState
    """State in which the service found the session."""
    conversation: Conversation
    """Conversation of the turn. `id`, `user_id` and `last_seq` are always set, the other fields
    only where reading them needs no additional round trip."""
    messages: tuple[Message, ...]
    """Newest messages, oldest first."""
    source: Source
    """Where the messages were read from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The newest messages of a conversation."""

    messages: tuple[Message, ...]
    """Messages, oldest first."""
    last_seq: int
    """Number of the message that the conversation ended with at the time of the read."""
    source: Source
    """Where the messages were read from."""

    def to_openai(self) -> list[OpenAIMessage]:
        """Returns the messages in the OpenAI form."""
        return [message.to_openai() for message in self.messages]


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedMessages:
    """Outcome of a save."""

    messages: tuple[Message, ...]
    """Messages as stored, without their contexts."""
    last_seq: int
    """Number of the last message of this save."""
    replayed: bool
    """Whether an earlier request with the same key made the save; the outcome is that request's."""
    request_id: str
    """Idempotency key of the save."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncated:
    """Outcome of a truncation."""

    removed_messages: int
    """Number of messages that were removed."""
    last_seq: int
    """Last number of the conversation, which a truncation does not change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """Outcome of an import."""

    conversation: Conversation
    """The new conversation."""
    imported_messages: int
    """Number of messages that were imported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A message that a search found."""

    message: Message
    """The message, without its contexts."""
    conversation_title: str
    """Current title of the message's conversation."""
    snippet: str
    """Text around the first match, with the matches between ⟦ and ⟧. It is plain text: escape it
    before inserting it into HTML."""
    rank: float
    """Relevance; higher is better. Only hits of the same search are comparable."""
