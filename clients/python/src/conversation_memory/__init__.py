"""Client of conversation-memory, a sidecar that remembers conversations for agents.

`ConversationMemory` blocks, `AsyncConversationMemory` is for asyncio; both have a
`turn`, which is all that most agents need.
"""

from ._async_client import AsyncConversationMemory
from ._channel import DEFAULT_TARGET, Tls
from ._client import ConversationMemory
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
from ._turn import AsyncTurn, Turn
from ._types import (
    BegunTurn,
    Conversation,
    History,
    Hit,
    Imported,
    Message,
    MessageLike,
    OpenAIMessage,
    Original,
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
    "AsyncConversationMemory",
    "AsyncTurn",
    "BegunTurn",
    "Conversation",
    "ConversationMemory",
    "ConversationMemoryError",
    "DeadlineExceeded",
    "FailedPrecondition",
    "History",
    "Hit",
    "Imported",
    "Internal",
    "InvalidArgument",
    "Message",
    "MessageLike",
    "MinSeqNotReached",
    "NotFound",
    "OpenAIMessage",
    "Original",
    "OutcomeUnknown",
    "PermissionDenied",
    "ResourceExhausted",
    "RetrievedContext",
    "Role",
    "SavedMessages",
    "SeqMismatch",
    "Session",
    "SessionExpired",
    "SessionState",
    "Source",
    "Tls",
    "Truncated",
    "Turn",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "__version__",
]
