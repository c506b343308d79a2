"""Objects of the service as immutable values.

Times are timezone-aware and in UTC. A text field without a value is empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, get_args

from ._forms import anthropic, chat, responses
from ._forms.plain import to_plain
from ._forms.template import to_json, validate
from ._history_forms import HistoryForms
from ._parts import Part, TextPart, texts_of

Role = Literal["user", "assistant", "system", "tool"]
"""Author of a message."""

Source = Literal["cache", "store", "unspecified"]
"""Where messages were read from: the recent window in Redis, or the durable store."""

SessionState = Literal["started", "continued", "resumed", "unavailable", "unspecified"]
"""State in which BeginTurn found the session.

`started`: no session was given, and a new one was started. `continued`: the session was live.
`resumed`: it had expired and was restored under its id. `unavailable`: the service has no access
to its sessions (Redis), and the turn continues without one."""

OpenAIMessage = dict[str, Any]
"""Message in the form of OpenAI's chat completions: `role`, `content` and further keys."""

ResponsesItem = dict[str, Any]
"""Input item of OpenAI's Responses API."""

AnthropicInput = dict[str, Any]
"""Arguments `messages` and, with instructions, `system` of Anthropic's `messages.create`."""


_PARTS = get_args(Part)

_NOT_SHOWN = frozenset(
    ("tokens_used", "latency_ms", "contexts", "token_count", "pinned", "metadata", "created_at")
)
"""Fields of a message that no form shows."""


class SupportsModelDump(Protocol):
    """Interface of a Pydantic model, such as the message in a response of OpenAI's client."""

    def model_dump(self, *, exclude_unset: bool = ...) -> dict[str, Any]:
        """Returns the model as a dict."""
        ...


@dataclass(frozen=True, slots=True)
class Original:
    """The foreign form of a message that this package cannot convert, stored without loss.

    It is stored as JSON in a string, because numbers in a message's metadata are doubles and
    would not all be read back equal.
    """

    form: str
    """Name of the form. A reader that does not know it uses role and content."""
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
        validate(value)
        return cls(form, to_json(value))

    @property
    def value(self) -> Any:
        """A new copy of the value."""
        return json.loads(self.json)


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
    """Plain text. If `parts` has texts and results, it consists of these, one per line."""
    _: KW_ONLY
    parts: tuple[Part, ...] = ()
    """Parts of a message that is more than a plain text, at most 200; empty for a plain text."""
    name: str = ""
    """Name of the author, if several have the same role."""
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
    token_count: int | None = None
    """Number of tokens of the message in a model's input; `None` lets the service count them."""
    pinned: bool = False
    """Whether every history includes the message."""
    redacted: bool = False
    """Whether `redact_messages` has removed the content. The service sets it."""
    is_summary: bool = False
    """Whether this is the summary of a compaction, in place of earlier messages. The service sets
    it."""
    original: Original | None = None
    """Foreign form that this package cannot convert; `None` if there is none."""

    def __post_init__(self) -> None:
        if self.parts == ():
            return
        parts = tuple(self.parts)
        for part in parts:
            if not isinstance(part, _PARTS):
                raise TypeError(f"a part must be a TextPart or the like, not {type(part).__name__}")
        if parts:
            texts = texts_of(parts)
            if self.content and not texts:
                parts = (TextPart(self.content), *parts)
            elif self.content not in ("", text := "\n".join(texts)):
                raise ValueError("content must be empty, or the texts of the parts")
            else:
                object.__setattr__(self, "content", text)
            if len(parts) == 1 and isinstance(parts[0], TextPart):
                # The service stores a single text as a plain text.
                parts = ()
        object.__setattr__(self, "parts", parts)

    @classmethod
    def from_openai(cls, message: Mapping[str, Any], **fields: Any) -> Message:
        """Converts a message of OpenAI's Chat Completions, which `to_openai` returns unchanged.

        Args:
            message: The message. Its role is user, assistant, system, developer, tool or
                function. The keys `pinned` and `token_count` are those of `Message`.
            fields: Further fields of `Message`, such as `tokens_used`.

        Raises:
            TypeError: A value is not a JSON value.
            ValueError: The role is unknown, a number is not finite, the nesting is too deep, or the
                message has a key that only `Message` has.
        """
        if fields.keys() <= _NOT_SHOWN and (text := chat.plain_text(message)) is not None:
            return cls(message["role"], text, **fields)
        value, own = chat.split_fields(to_plain(message))
        return chat.to_message(value, **{**own, **fields})

    @classmethod
    def from_responses(cls, item: Mapping[str, Any] | SupportsModelDump, **fields: Any) -> Message:
        """Converts an item of OpenAI's Responses API, which `to_responses` returns unchanged.

        Args:
            item: An item of the input or the output.
            fields: Further fields of `Message`, such as `tokens_used`.

        Raises:
            TypeError: The item or a value in it is not a JSON value.
            ValueError: A number is not finite, or the nesting is too deep.
        """
        return responses.to_message(_as_mapping(item), **fields)

    @classmethod
    def from_anthropic(
        cls, message: Mapping[str, Any] | SupportsModelDump, **fields: Any
    ) -> Message:
        """Converts a message of Anthropic's API: one of the input, or a response.

        Args:
            message: The message. Only its role and content are kept.
            fields: Further fields of `Message`, such as `tokens_used`.

        Raises:
            TypeError: The message or a value in it is not a JSON value.
            ValueError: The role is unknown, a number is not finite, or the nesting is too deep.
        """
        return anthropic.to_message(_as_mapping(message), **fields)

    def to_openai(self) -> OpenAIMessage:
        """Returns the message in the form of Chat Completions, as a new dict.

        Use `to_openai` of a turn or a history as input for a model: it pairs calls and results.
        """
        return chat.show(self)

    def to_responses(self) -> list[ResponsesItem]:
        """Returns the message as items of the Responses API, as new dicts."""
        return responses.show(self)


def _as_mapping(value: Mapping[str, Any] | SupportsModelDump) -> Mapping[str, Any]:
    plain = to_plain(value)
    if isinstance(plain, Mapping):
        return plain
    raise TypeError(f"a message must be a Message or a dict, not {type(value).__name__}")


MessageLike = Message | Mapping[str, Any] | SupportsModelDump
"""A message, a dict of Chat Completions, or the message in a response of OpenAI's client."""


def to_message(message: MessageLike) -> Message:
    """Converts the forms of a message that callers pass.

    Raises:
        TypeError: The value is not a message.
        ValueError: The message is not valid in the OpenAI form.
    """
    if isinstance(message, Message):
        return message
    return Message.from_openai(_as_mapping(message))


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
    compacted_upto_seq: int = 0
    """Number of the last message that a summary replaces in histories; 0 if there is no summary."""


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
class BegunTurn(HistoryForms):
    """Session, conversation and history at the beginning of a turn."""

    session: Session | None
    """Session of the turn; `None` while the service has no access to its sessions."""
    session_state: SessionState
    """State in which the service found the session."""
    conversation: Conversation
    """Conversation of the turn. `id`, `user_id` and `last_seq` are always set, the other fields
    only where reading them needs no additional round trip."""
    messages: tuple[Message, ...]
    """Pinned messages, the summary and the newest messages, each oldest first."""
    source: Source
    """Where the messages were read from."""
    token_count: int = 0
    """Number of tokens of the messages."""
    older_omitted: bool = False
    """Whether older messages exist that are neither here nor in a summary."""
    compaction_due: bool = False
    """Whether the conversation should be compacted: it has more tokens than COMPACTION_TOKENS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History(HistoryForms):
    """The newest messages of a conversation."""

    messages: tuple[Message, ...]
    """Pinned messages, the summary and the newest messages, each oldest first."""
    last_seq: int
    """Number of the message that the conversation ended with at the time of the read."""
    source: Source
    """Where the messages were read from."""
    token_count: int = 0
    """Number of tokens of the messages."""
    older_omitted: bool = False
    """Whether older messages exist that are neither here nor in a summary."""
    compaction_due: bool = False
    """Whether the conversation should be compacted: it has more tokens than COMPACTION_TOKENS."""


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
    compaction_due: bool = False
    """Whether the conversation should be compacted, see `History`."""


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
    corrected_query: str | None = None
    """Query that was searched instead, because the other one matches nothing."""
