"""Memory of LangGraph, stored in conversation-memory: checkpoints, and the long-term memory.

graph = builder.compile(
    checkpointer=ConversationMemorySaver(memory), store=ConversationMemoryStore(memory)
)
"""

from ._langgraph_saver import ConversationMemorySaver
from ._langgraph_store import ConversationMemoryStore

__all__ = ["ConversationMemorySaver", "ConversationMemoryStore"]
