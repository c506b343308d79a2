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
from ._sync.client import ConversationMemory
from ._sync.turn import Turn
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
