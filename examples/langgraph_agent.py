"""A LangGraph agent with a tool that a person approves, and that is asked to decide again.

    python examples/langgraph_agent.py [ADDRESS]

Its model answers with scripted text. Each step creates the graph anew, as another process would.
"""

from __future__ import annotations

import sys
import uuid
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from conversation_memory import DEFAULT_TARGET, ConversationMemory, conversation_id_for
from conversation_memory.langgraph import ConversationMemorySaver


def model(state: MessagesState) -> dict[str, Any]:
    """Calls the tool, and then answers with its result."""
    last = state["messages"][-1]
    if isinstance(last, ToolMessage):
        return {"messages": [AIMessage(f"Your vacation is {last.content}.")]}
    call = {"name": "request_vacation", "args": {"days": 3}, "id": str(uuid.uuid4())}
    return {"messages": [AIMessage("", tool_calls=[call])]}


def tool(state: MessagesState) -> dict[str, Any]:
    """Requests the vacation after a person has decided."""
    last = state["messages"][-1]
    assert isinstance(last, AIMessage)  # noqa: S101 - the edge to this node has checked it
    (call,) = last.tool_calls
    decision = interrupt(call["args"])
    return {"messages": [ToolMessage(str(decision), tool_call_id=str(call["id"]))]}


def needs_tool(state: MessagesState) -> str:
    """Returns the next node."""
    last = state["messages"][-1]
    return "tool" if isinstance(last, AIMessage) and last.tool_calls else END


def create_graph(memory: ConversationMemory) -> Any:
    """Creates the agent. It keeps nothing in this process."""
    builder: Any = StateGraph(MessagesState)
    builder.add_node("model", model)
    builder.add_node("tool", tool)
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", needs_tool, ["tool", END])
    builder.add_edge("tool", "model")
    return builder.compile(checkpointer=ConversationMemorySaver(memory))


def main(address: str) -> None:
    """Asks, decides, and decides again from an earlier checkpoint."""
    thread = str(uuid.uuid4())
    config: RunnableConfig = {"configurable": {"thread_id": thread, "user_id": "ana"}}
    with ConversationMemory(address) as memory:
        question = HumanMessage("Please request three days of vacation.")
        paused = create_graph(memory).invoke({"messages": [question]}, config)
        print(f"waits for:  {paused['__interrupt__'][0].value}")
        done = create_graph(memory).invoke(Command(resume="approved"), config)
        print(f"assistant:  {done['messages'][-1].content}")
        graph = create_graph(memory)
        waiting = next(it for it in graph.get_state_history(config) if it.next == ("tool",))
        graph.invoke(None, waiting.config)
        again = create_graph(memory).invoke(Command(resume="refused"), config)
        print(f"instead:    {again['messages'][-1].content}")
        stored = memory.get_conversation(conversation_id_for(thread))
        print(f"stored:     {stored.title} ({stored.last_seq} messages)")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_TARGET)
