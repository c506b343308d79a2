"""Seeded random graphs, and random runs of them."""

from __future__ import annotations

import operator
import random
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    HumanMessage,
    RemoveMessage,
    ToolMessage,
)
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Durability, Interrupt, Send, interrupt

MAX_STEPS = 6


def last(_: Any, new: Any) -> Any:
    """A reducer that several nodes of a step can write to."""
    return new


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    log: Annotated[list[Any], operator.add]
    window: Annotated[list[Any], last]
    text: Annotated[str, last]
    count: Annotated[int, operator.add]
    found: Annotated[dict[str, Any], last]


class RandomGraph:
    """A graph whose nodes do what the seed and the state determine."""

    def __init__(self, seed: int, saver: BaseCheckpointSaver[str]) -> None:
        self._random = random.Random(seed)
        self._seed = seed
        self._actions = [
            self._append,
            self._append_long,
            self._call_tool,
            self._edit,
            self._remove,
            self._replace,
            self._note,
            self._ask,
        ]
        self.durability: Durability = self._random.choice(["sync", "async", "exit"])
        names = [f"n{index}" for index in range(self._random.randint(2, 4))]
        builder: Any = StateGraph(State)
        for name in names:
            if self._random.random() < 0.2:
                builder.add_node(name, self._subgraph(name))
            else:
                builder.add_node(name, self._node(name))
        builder.add_edge(START, names[0])
        if self._random.random() < 0.3:
            builder.add_node("each", self._each)
            builder.add_conditional_edges(names[0], self._fan_out, ["each", *names[1:]])
            builder.add_edge("each", names[-1])
        else:
            for name in names[1:]:
                builder.add_edge(names[0], name)
        builder.add_conditional_edges(names[-1], self._next, [names[0], END])
        self.graph: Any = builder.compile(checkpointer=saver)

    def _node(self, name: str) -> Any:
        actions = self._random.sample(self._actions, self._random.randint(1, 2))

        def run(state: State) -> Any:
            update: dict[str, Any] = {"count": 1}
            for action in actions:
                found = action(name, state)
                for key, value in found.items():
                    known = update.get(key)
                    is_second = known is not None and key in ("messages", "log")
                    update[key] = [*as_list(known), *as_list(value)] if is_second else value
            return update

        return run

    def _subgraph(self, name: str) -> Any:
        inner = StateGraph(State)
        inner.add_node("inner", self._node(f"{name}-inner"))
        inner.add_edge(START, "inner")
        keeps = self._random.random() < 0.3
        return inner.compile(checkpointer=True if keeps else None)

    def _id(self, name: str, state: State) -> str:
        return f"{name}-{state.get('count', 0)}-{len(state.get('messages', []))}"

    def _append(self, name: str, state: State) -> dict[str, Any]:
        return {"messages": [AIMessage(f"answer of {name} ☃", id=self._id(name, state))]}

    def _append_long(self, name: str, state: State) -> dict[str, Any]:
        long = HumanMessage([{"type": "text", "text": name * 300}], id=f"l{self._id(name, state)}")
        return {"messages": long}

    def _call_tool(self, name: str, state: State) -> dict[str, Any]:
        key = self._id(name, state)
        call = {"name": "look_up", "args": {"q": name}, "id": f"call-{key}"}
        return {
            "messages": [
                AIMessage("", tool_calls=[call], id=f"t{key}"),
                ToolMessage("25", tool_call_id=f"call-{key}", id=f"r{key}"),
            ]
        }

    def _edit(self, name: str, state: State) -> dict[str, Any]:
        messages = state.get("messages", [])
        if not messages:
            return {}
        edited = messages[len(messages) // 2]
        return {"messages": [AIMessage(f"edited by {name}", id=edited.id)]}

    def _remove(self, name: str, state: State) -> dict[str, Any]:
        messages = state.get("messages", [])
        # Two nodes of a step must not remove the same message; the first node runs alone.
        if len(messages) < 3 or not name.startswith("n0"):
            return {}
        return {"messages": [RemoveMessage(id=str(messages[1].id))]}

    def _replace(self, name: str, state: State) -> dict[str, Any]:
        window = [*state.get("window", []), {"by": name, "text": "x" * 150}, None, 3]
        return {"window": window[-7:], "text": name * 40, "found": {name: (1, b"two", {3})}}

    def _note(self, name: str, state: State) -> dict[str, Any]:
        return {"log": [name, {"n": len(state.get("log", [])), "pad": "y" * 140}]}

    def _ask(self, name: str, state: State) -> dict[str, Any]:
        if state.get("count", 0) > 2:
            return {}
        return {"log": [f"{name} was told {interrupt({'who': name})}"]}

    def _each(self, state: dict[str, Any]) -> dict[str, Any]:
        key = f"each-{state['count']}-{state['n']}"
        return {"messages": [AIMessage(key, id=key)], "count": 0, "log": [state["n"]]}

    def _fan_out(self, state: State) -> list[Send]:
        return [Send("each", {"n": n, "count": state.get("count", 0)}) for n in range(5)]

    def _next(self, state: State) -> str:
        return END if state.get("count", 0) >= MAX_STEPS else "n0"

    def commands(self) -> random.Random:
        """Returns the source of what the runs do."""
        return random.Random(self._seed + 1)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def question(number: int) -> dict[str, Any]:
    return {"messages": [HumanMessage(f"question {number}", id=f"q{number}")], "count": -number}


def answers(interrupts: Sequence[Interrupt], number: int) -> Command[Any]:
    """Answers some of the interrupts, at least one."""
    answered = interrupts[: 1 + number % 2]
    return Command(resume={each.id: f"yes {number}" for each in answered})


def run(graph: RandomGraph, thread: str, length: int) -> None:
    """Invokes, resumes, updates, forks and replays a thread."""
    choose = graph.commands()
    config: RunnableConfig = {"configurable": {"thread_id": thread}, "recursion_limit": 60}
    compiled, durability = graph.graph, graph.durability
    for number in range(length):
        state = compiled.get_state(config)
        kind = choose.random()
        if state.interrupts:
            compiled.invoke(answers(state.interrupts, number), config, durability=durability)
        elif kind < 0.5 or not state.values:
            compiled.invoke(question(number), config, durability=durability)
        elif kind < 0.65:
            compiled.update_state(config, {"log": [f"update {number}"]}, as_node="n0")
        else:
            history = list(compiled.get_state_history(config, limit=30))
            past = choose.choice(history)
            if kind < 0.8:
                compiled.invoke(None, past.config, durability=durability)
            else:
                fork = compiled.update_state(past.config, {"log": [f"fork {number}"]}, as_node="n0")
                compiled.invoke(None, fork, durability=durability)
    list(compiled.get_state_history(config))
    list(compiled.get_state_history(config, filter={"source": "loop"}, limit=5))


async def arun(graph: RandomGraph, thread: str, length: int) -> None:
    """Does what `run` does, asynchronously."""
    choose = graph.commands()
    config: RunnableConfig = {"configurable": {"thread_id": thread}, "recursion_limit": 60}
    compiled, durability = graph.graph, graph.durability
    for number in range(length):
        state = await compiled.aget_state(config)
        kind = choose.random()
        if state.interrupts:
            await compiled.ainvoke(answers(state.interrupts, number), config, durability=durability)
        elif kind < 0.5 or not state.values:
            await compiled.ainvoke(question(number), config, durability=durability)
        elif kind < 0.65:
            await compiled.aupdate_state(config, {"log": [f"update {number}"]}, as_node="n0")
        else:
            history = [each async for each in compiled.aget_state_history(config, limit=30)]
            past = choose.choice(history)
            if kind < 0.8:
                await compiled.ainvoke(None, past.config, durability=durability)
            else:
                values = {"log": [f"fork {number}"]}
                fork = await compiled.aupdate_state(past.config, values, as_node="n0")
                await compiled.ainvoke(None, fork, durability=durability)
    async for _ in compiled.aget_state_history(config):
        pass
