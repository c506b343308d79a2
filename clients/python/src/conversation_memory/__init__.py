"""Client of conversation-memory, a sidecar that stores conversations for agents.

`ConversationMemory` is the blocking client, `AsyncConversationMemory` the one for asyncio. Their
method `turn` is all that most agents need.
"""

from ._async.client import AsyncConversationMemory
from ._async.turn import AsyncTurn
from ._config import DEFAULT_TARGET, Tls
from ._errors import (
    AlreadyExists,
    ConversationMemoryError,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    MinSeqNotReached,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    ResourceExhausted,
    SeqMismatch,
    SessionExpired,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from ._limits import Limits
from ._names import conversation_id_for
from ._parts import (
    BlobPart,
    FilePart,
    GenericPart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolCallResponsePart,
    UriPart,
)
from ._plaintext import PlaintextTokenWarning
from ._sync.client import ConversationMemory
from ._sync.turn import Turn
from ._types import (
    AnthropicInput,
    BegunTurn,
    Conversation,
    History,
    Hit,
    Imported,
    Message,
    MessageLike,
    OpenAIMessage,
    Original,
    ResponsesItem,
    RetrievedContext,
    Role,
    SavedMessages,
    Session,
    SessionState,
    Source,
    Truncated,
)
from ._version import __version__

__all__ = [
    "DEFAULT_TARGET",
    "AlreadyExists",
    "AnthropicInput",
    "AsyncConversationMemory",
    "AsyncTurn",
    "BegunTurn",
    "BlobPart",
    "Conversation",
    "ConversationMemory",
    "ConversationMemoryError",
    "DeadlineExceeded",
    "FailedPrecondition",
    "FilePart",
    "GenericPart",
    "History",
    "Hit",
    "Imported",
    "Internal",
    "InvalidArgument",
    "Limits",
    "Message",
    "MessageLike",
    "MinSeqNotReached",
    "NotFound",
    "OpenAIMessage",
    "Original",
    "OutcomeUnknown",
    "Part",
    "PermissionDenied",
    "PlaintextTokenWarning",
    "ReasoningPart",
    "ResourceExhausted",
    "ResponsesItem",
    "RetrievedContext",
    "Role",
    "SavedMessages",
    "SeqMismatch",
    "Session",
    "SessionExpired",
    "SessionState",
    "Source",
    "TextPart",
    "Tls",
    "ToolCallPart",
    "ToolCallResponsePart",
    "Truncated",
    "Turn",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "UriPart",
    "__version__",
    "conversation_id_for",
]
