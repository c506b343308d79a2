"""Long-term memory of LangGraph, stored in conversation-memory.

graph = builder.compile(store=ConversationMemoryStore(memory))
"""

from ._langgraph_store import ConversationMemoryStore

__all__ = ["ConversationMemoryStore"]
