"""Graphs of LangGraph on the saver: what users of both see."""

from __future__ import annotations

import asyncio
import operator
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt

from conversation_memory import (
    AsyncConversationMemory,
    ConversationMemory,
    FailedPrecondition,
    _checkpoints,
    conversation_id_for,
)
from conversation_memory._async import checkpoints as async_checkpoints
from conversation_memory._async.base import AsyncOperation
from conversation_memory._checkpoints import PreparedPut
from conversation_memory._sync import checkpoints
from conversation_memory.langgraph import ConversationMemorySaver

from .checkpoint_pairs import PairedSaver
from .sidecar import TIMEOUT, Backend, Sidecar


def thread(**more: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": f"thread {uuid.uuid4()} ☃", **more}}


def conversation(config: RunnableConfig) -> str:
    return conversation_id_for(config["configurable"]["thread_id"])


def agent(saver: Any) -> Any:
    """An agent that asks a person before it uses a tool."""

    def model(state: MessagesState) -> dict[str, Any]:
        last = state["messages"][-1]
        number = len(state["messages"])
        if isinstance(last, ToolMessage):
            return {"messages": [AIMessage(f"It is {last.content}.", id=f"a{number}")]}
        call = {"name": "balance", "args": {"days": 3}, "id": f"call-{number}"}
        return {"messages": [AIMessage("", tool_calls=[call], id=f"c{number}")]}

    def tool(state: MessagesState) -> dict[str, Any]:
        last: Any = state["messages"][-1]
        call = last.tool_calls[0]
        answer = interrupt(call["args"])
        result = ToolMessage(str(answer), tool_call_id=call["id"], id=f"r-{call['id']}")
        return {"messages": [result]}

    def route(state: MessagesState) -> str:
        last: Any = state["messages"][-1]
        return "tool" if last.tool_calls else END

    builder: Any = StateGraph(MessagesState)
    builder.add_node("model", model)
    builder.add_node("tool", tool)
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", route, ["tool", END])
    builder.add_edge("tool", "model")
    return builder.compile(checkpointer=saver)


def ask(graph: Any, config: RunnableConfig, number: int) -> Any:
    question = HumanMessage(f"How many days, {number}?", id=f"q{number}")
    graph.invoke({"messages": [question]}, config)
    return graph.invoke(Command(resume=f"{number} days"), config)


def texts(memory: ConversationMemory, config: RunnableConfig) -> list[str]:
    messages = memory.list_messages(conversation(config))
    return [message.content or message.role for message in messages]


def test_a_thread_is_a_conversation_of_its_user(sidecar: Sidecar, user: str) -> None:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        graph = agent(ConversationMemorySaver(memory))
        config = thread(user_id=user)
        ask(graph, config, 1)
        ask(graph, config, 2)
        (listed,) = memory.list_conversations(user)
        assert (listed.id, listed.title) == (conversation(config), "How many days, 1?")
        assert listed.metadata["framework_session"]["name"] == config["configurable"]["thread_id"]
        roles = [message.role for message in memory.list_messages(listed.id)]
        assert roles == ["user", "assistant", "tool", "assistant"] * 2
        history = memory.get_history(listed.id, limit=4)
        assert [message.role for message in history.messages] == roles[4:]
        (hit, *_) = memory.search_messages(user, "days")
        assert hit.message.conversation_id == listed.id
        # The messages are also in the checkpoints.
        with pytest.raises(FailedPrecondition, match="checkpoints"):
            memory.truncate_conversation(listed.id, 0)
        ConversationMemorySaver(memory).delete_thread(config["configurable"]["thread_id"])
        assert list(memory.list_conversations(user)) == []


def test_a_thread_of_another_user_is_not_found(sidecar: Sidecar, user: str) -> None:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        config = thread(user_id=user)
        ask(agent(ConversationMemorySaver(memory)), config, 1)
        foreign = ConversationMemorySaver(memory, user_id=f"not {user}")
        name = config["configurable"]["thread_id"]
        assert foreign.get_tuple({"configurable": {"thread_id": name}}) is None
        foreign.delete_thread(name)
        foreign.prune([name], strategy="delete")
        assert ConversationMemorySaver(memory).get_tuple(config) is not None


def test_time_travel_adds_the_new_branch_to_the_conversation(sidecar: Sidecar) -> None:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        graph = agent(PairedSaver(ConversationMemorySaver(memory)))
        config = thread()
        ask(graph, config, 1)
        before = texts(memory, config)
        waiting = next(each for each in graph.get_state_history(config) if each.next == ("tool",))
        graph.invoke(None, waiting.config)
        other = graph.invoke(Command(resume="12 days"), config)
        assert other["messages"][-1].content == "It is 12 days."
        # The messages of the other branch have the ids of those that they replace.
        assert texts(memory, config) == before


def test_a_copy_continues_by_itself(sidecar: Sidecar) -> None:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        saver = ConversationMemorySaver(memory)
        config, copy = thread(), thread()
        graph = agent(saver)
        ask(graph, config, 1)
        saver.copy_thread(config["configurable"]["thread_id"], copy["configurable"]["thread_id"])
        ask(agent(ConversationMemorySaver(memory)), copy, 2)
        assert len(texts(memory, config)) == 4
        assert len(texts(memory, copy)) == 8
        assert len(graph.get_state(copy).values["messages"]) == 8


def test_a_large_value_is_sent_and_read_in_pieces(sidecar: Sidecar) -> None:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        for serde in (None, JsonPlusSerializer(pickle_fallback=True)):
            saver = PairedSaver(ConversationMemorySaver(memory, serde=serde))
            large = [uuid.uuid4().bytes * (100 << 10) for _ in range(9)]
            checkpoint = empty_checkpoint()
            checkpoint["channel_values"] = {"large": large, "small": 1}
            versions: dict[str, str | int | float] = {"large": "1", "small": "1"}
            checkpoint["channel_versions"] = versions
            config = thread(checkpoint_ns="")
            stored = saver.put(config, checkpoint, {"source": "input"}, versions)
            saver.put_writes(stored, [("large", large[:5])], "t1")
            assert list(saver.list(config))
            found = saver.get_tuple(stored)
            assert found is not None
            assert found.checkpoint["channel_values"]["large"] == large


def test_a_message_that_was_changed_in_place_is_stored_again(sidecar: Sidecar) -> None:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        saver = PairedSaver(ConversationMemorySaver(memory))
        messages: list[AnyMessage] = [AIMessage(f"{n}" * 99, id=f"m{n}") for n in range(5)]
        config = thread(checkpoint_ns="")
        for version in ("1", "2", "3"):
            checkpoint = empty_checkpoint()
            checkpoint["channel_values"] = {"messages": messages}
            checkpoint["channel_versions"] = {"messages": version}
            config = saver.put(config, checkpoint, {}, {"messages": version})
            messages[2].content = f"changed after {version}"
            messages.append(HumanMessage(version, id=f"new {version}"))


class Xor:
    """A cipher for tests, whose output differs each time."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        key = uuid.uuid4().bytes[:1]
        return "xor", key + bytes(each ^ key[0] for each in plaintext)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        assert ciphername == "xor"
        return bytes(each ^ ciphertext[0] for each in ciphertext[1:])


def test_encrypted_lists_are_stored_once(sidecar: Sidecar) -> None:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        config = thread()
        for number in range(3):
            # Each run is another process.
            saver = ConversationMemorySaver(memory, serde=EncryptedSerializer(Xor()))
            result = ask(agent(saver), config, number)
            assert len(result["messages"]) == 4 * (number + 1)
        assert len(texts(memory, config)) == 12


def test_a_checkpoint_that_could_not_be_read_is_rejected(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_checkpoints, "MAX_ITEMS", 500)
    channels = {f"c{number}": Annotated[list[str], operator.add] for number in range(6)}
    builder: Any = StateGraph(TypedDict("State", channels))  # type: ignore[operator]
    builder.add_node("node", lambda state: {})
    builder.add_edge(START, "node")
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        graph, config = builder.compile(checkpointer=ConversationMemorySaver(memory)), thread()
        for number in range(5):
            graph.invoke({f"c{number}": ["x" * 100] * 99}, config)
        with pytest.raises(ValueError, match="at most 500 items"):
            graph.invoke({"c5": ["x" * 100] * 99}, config)
        found = graph.checkpointer.get_tuple(config)
        assert sum(map(len, found.checkpoint["channel_values"].values())) >= 495


def test_reads_see_one_state_while_another_process_prunes(sidecar: Sidecar) -> None:
    config = thread()
    name = config["configurable"]["thread_id"]
    is_done = threading.Event()

    def read() -> list[int]:
        with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
            saver = ConversationMemorySaver(memory)
            lengths: list[int] = []
            while not is_done.is_set():
                for found in (saver.get_tuple(config), *saver.list(config, limit=3)):
                    if found is not None and found.metadata["source"] == "loop":
                        values = found.checkpoint["channel_values"]
                        lengths.append(len(values["messages"]) - found.metadata["step"])
            return lengths

    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        saver = ConversationMemorySaver(memory)
        graph, other = agent(saver), ConversationMemorySaver(memory)
        with ThreadPoolExecutor(2) as readers:
            reads = [readers.submit(read) for _ in range(2)]
            for number in range(12):
                ask(graph, config, number)
                other.prune([name])
            is_done.set()
            for each in reads:
                assert each.result()


class OtherSerializer(JsonPlusSerializer):
    """A serializer of the caller, whose lists are stored as a whole."""


def test_messages_of_lists_that_are_stored_as_a_whole_are_saved(sidecar: Sidecar) -> None:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        config = thread()
        saver = ConversationMemorySaver(memory, serde=OtherSerializer())
        ask(agent(saver), config, 0)
        ask(agent(saver), config, 1)
        # This run is another process.
        ask(agent(ConversationMemorySaver(memory, serde=OtherSerializer())), config, 2)
        assert len(texts(memory, config)) == 12


def test_an_interrupted_put_of_many_messages_is_completed(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_prepared = checkpoints._put_prepared

    def interrupted(operation: Any, prepared: PreparedPut, attached: None) -> None:
        is_partial = len(prepared.messages) > 1
        del prepared.messages[1:]
        put_prepared(operation, prepared, attached)
        if is_partial:
            raise ConnectionError("interrupted")

    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        config = thread()
        builder: Any = StateGraph(MessagesState)
        builder.add_node("model", lambda state: {"messages": [AIMessage("answer")]})
        builder.add_edge(START, "model")
        messages = [HumanMessage(str(number)) for number in range(2500)]
        with monkeypatch.context() as patched, pytest.raises(ConnectionError):
            patched.setattr(checkpoints, "_put_prepared", interrupted)
            graph = builder.compile(checkpointer=ConversationMemorySaver(memory))
            graph.invoke({"messages": messages}, config, durability="sync")
        for saver in (ConversationMemorySaver(memory), ConversationMemorySaver(memory)):
            graph = builder.compile(checkpointer=saver)
            result = graph.invoke({"messages": [HumanMessage("next")]}, config)
            found = memory.get_conversation(conversation(config))
            assert found.last_seq == len(result["messages"])
        assert found.last_seq > 2500


class Many(TypedDict):
    found: Annotated[list[int], operator.add]
    messages: Annotated[list[Any], operator.add]


async def test_parallel_branches(aio: AsyncConversationMemory) -> None:
    async def branch(state: dict[str, int]) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"found": [state["n"]], "messages": [HumanMessage(f"branch {state['n']}")]}

    builder: Any = StateGraph(Many)
    builder.add_node("branch", branch)
    builder.add_conditional_edges(
        START, lambda _: [Send("branch", {"n": n}) for n in range(20)], ["branch"]
    )
    graph = builder.compile(checkpointer=PairedSaver(ConversationMemorySaver(aio)))
    config = thread()
    streamed = [part async for part in graph.astream({"found": []}, config, stream_mode="updates")]
    assert len(streamed) == 20
    state = await graph.aget_state(config)
    assert state.values["found"] == list(range(20))
    found = [each.content async for each in aio.list_messages(conversation(config))]
    assert found == [f"branch {n}" for n in range(20)]


async def test_writes_of_a_task_are_stored_with_the_next_checkpoint(
    aio: AsyncConversationMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    original = AsyncOperation.call

    async def counted(self: AsyncOperation, method: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(method.path.rsplit("/", 1)[1])
        return await original(self, method, *args, **kwargs)

    monkeypatch.setattr(AsyncOperation, "call", counted)
    graph = agent(ConversationMemorySaver(aio))
    config = thread()
    await graph.ainvoke({"messages": [HumanMessage("How much?", id="q")]}, config)
    # Nothing follows the writes of a task that waits for a person.
    assert calls.count("PutWrites") == 1
    calls.clear()
    result = await graph.ainvoke(Command(resume="21"), config)
    assert result["messages"][-1].content == "It is 21."
    # The answer is stored before the task continues: for the run, and for the task.
    assert calls == ["GetCheckpoint", *["PutWrites"] * 2, *["PutCheckpoint"] * 2]
    states = [state async for state in graph.aget_state_history(config)]
    assert states[0].values["messages"] == result["messages"]


async def test_writes_of_a_task_do_not_wait_for_other_tasks(aio: AsyncConversationMemory) -> None:
    saver, config = ConversationMemorySaver(aio), thread()

    async def fast(_: Any) -> dict[str, Any]:
        return {"messages": [HumanMessage("fast", id="fast")]}

    async def slow(_: Any) -> dict[str, Any]:
        while True:
            found = await saver.aget_tuple(config)
            if found and any(channel == "messages" for _, channel, _ in found.pending_writes or ()):
                return {"messages": [HumanMessage("slow", id="slow")]}
            await asyncio.sleep(0.01)

    builder: Any = StateGraph(MessagesState)
    builder.add_node("fast", fast)
    builder.add_node("slow", slow)
    builder.add_edge(START, "fast")
    builder.add_edge(START, "slow")
    graph = builder.compile(checkpointer=saver)
    result = await graph.ainvoke({"messages": []}, config)
    assert [each.id for each in result["messages"]] == ["fast", "slow"]


@pytest.mark.parametrize("outcome", ["ignored", "rejected"])
async def test_writes_that_a_put_has_not_stored_are_sent_by_themselves(
    aio: AsyncConversationMemory, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    put_prepared = async_checkpoints._put_prepared

    async def put(operation: Any, prepared: PreparedPut, attached: Any) -> None:
        if attached.writes and outcome == "rejected":
            raise ConnectionError("rejected")
        # A service of an earlier version ignores them.
        await put_prepared(operation, prepared, None)

    monkeypatch.setattr(async_checkpoints, "_put_prepared", put)
    saver = ConversationMemorySaver(aio)
    config = thread(checkpoint_ns="")
    first = await saver.aput(config, empty_checkpoint(), {}, {})
    second: Any = {**empty_checkpoint(), "id": str(uuid6())}
    written = asyncio.create_task(saver.aput_writes(first, [("messages", ["written"])], "task"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    put_second = saver.aput(first, second, {}, {})
    if outcome == "rejected":
        with pytest.raises(ConnectionError):
            await put_second
    else:
        await put_second
    await written
    found = await saver.aget_tuple(first)
    assert found is not None
    assert found.pending_writes == [("task", "messages", ["written"])]


async def test_a_cancelled_run_continues(aio: AsyncConversationMemory) -> None:
    reached, release = asyncio.Event(), asyncio.Event()

    async def first(_: Any) -> dict[str, Any]:
        return {"messages": [AIMessage("first", id="first")]}

    async def second(_: Any) -> dict[str, Any]:
        reached.set()
        await release.wait()
        return {"messages": [AIMessage("second", id="second")]}

    builder: Any = StateGraph(MessagesState)
    builder.add_node("first", first)
    builder.add_node("second", second)
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    graph = builder.compile(checkpointer=ConversationMemorySaver(aio))
    config = thread()
    run = asyncio.create_task(graph.ainvoke({"messages": []}, config))
    await reached.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    release.set()
    result = await graph.ainvoke(None, config)
    assert [each.content for each in result["messages"]] == ["first", "second"]


def test_a_run_survives_a_restart_of_the_sidecar(
    backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if backend.name == "embedded":
        backend = Backend.embedded(tmp_path_factory.mktemp("restarted"))
    sidecar = Sidecar(backend)
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        config = thread()
        graph = agent(ConversationMemorySaver(memory))
        question = HumanMessage("How many days?", id="q1")
        for _ in graph.stream({"messages": [question]}, config, durability="sync"):
            sidecar.kill()
            sidecar = sidecar.restarted()
        result = graph.invoke(Command(resume="3 days"), config)
        assert [each.type for each in result["messages"]] == ["human", "ai", "tool", "ai"]
        assert len(texts(memory, config)) == 4
    sidecar.stop()


def test_the_blocking_methods_need_the_blocking_client(sidecar: Sidecar) -> None:
    saver = ConversationMemorySaver(AsyncConversationMemory(sidecar.address))
    with pytest.raises(TypeError, match="ainvoke"):
        saver.get_tuple(thread())
    with pytest.raises(TypeError, match="ainvoke"):
        saver.list(None)


class Pruned(MessagesState):
    notes: list[str]


@pytest.mark.parametrize("durability", ["sync", "exit"])
def test_a_run_that_a_prune_overtakes_keeps_its_values(sidecar: Sidecar, durability: Any) -> None:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        saver = ConversationMemorySaver(memory)
        config = thread()
        prunes = False

        def step(state: Pruned) -> dict[str, Any]:
            if prunes:
                saver.prune([config["configurable"]["thread_id"]])
            return {"messages": [AIMessage("answer")]}

        builder: Any = StateGraph(Pruned)
        builder.add_node("step", step)
        builder.add_edge(START, "step")
        graph = builder.compile(checkpointer=saver)
        notes = ["the note of the first run" * 10]
        graph.invoke({"messages": [HumanMessage("1")], "notes": notes}, config)
        first = graph.get_state(config).config
        graph.invoke({"messages": [HumanMessage("2")], "notes": ["other"]}, config)
        # Continues an earlier checkpoint, which the prune removes with its values.
        prunes = True
        graph.invoke({"messages": [HumanMessage("3")]}, first, durability=durability)
        found = graph.get_state(config).values
        assert found["notes"] == notes
        assert [each.content for each in found["messages"]] == ["1", "answer", "3", "answer"]


def test_a_deleted_thread_begins_again_while_its_copy_exists(sidecar: Sidecar) -> None:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        saver = ConversationMemorySaver(memory)
        graph = agent(saver)
        config, copy = thread(), thread()
        ask(graph, config, 1)
        before = texts(memory, config)
        saver.copy_thread(config["configurable"]["thread_id"], copy["configurable"]["thread_id"])
        saver.delete_thread(config["configurable"]["thread_id"])
        assert saver.get_tuple(config) is None
        for number in (1, 2):
            ask(graph, config, number)
        assert texts(memory, config)[:4] == before
        assert len(texts(memory, config)) == 8
        assert texts(memory, copy) == before
        assert len(graph.get_state(copy).values["messages"]) == 4


@pytest.mark.parametrize("value", [bytearray(b"three"), [bytearray(b"three")]])
def test_a_bytearray_is_stored(sidecar: Sidecar, value: Any) -> None:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        saver = ConversationMemorySaver(memory)
        checkpoint = {**empty_checkpoint(), "channel_values": {"found": value}}
        checkpoint["channel_versions"] = {"found": "1"}
        config = saver.put(thread(checkpoint_ns=""), checkpoint, {}, {"found": "1"})  # type: ignore[arg-type]
        saver.put_writes(config, [("found", value)], "task")
        stored = saver.get_tuple(config)
        assert stored is not None
        assert stored.checkpoint["channel_values"] == {"found": value}
        assert stored.pending_writes == [("task", "found", value)]


def test_a_name_is_no_list_of_names(sidecar: Sidecar) -> None:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        saver = ConversationMemorySaver(memory)
        with pytest.raises(TypeError, match="thread_ids"):
            saver.prune("name")
        with pytest.raises(TypeError, match="run_ids"):
            saver.delete_for_runs("abc")


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    ["\ud800", {"\udfff": 1}, 10**400, -(10**400), 10**5000, "x" * 200_000, nested(200)],
    ids=["surrogate", "name", "large", "negative", "digits", "long", "deep"],
)
def test_metadata_is_as_in_memory(sidecar: Sidecar, value: Any) -> None:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        config = thread(checkpoint_ns="")
        checkpoint = empty_checkpoint()
        outcomes: list[Any] = []
        for saver in (InMemorySaver(), ConversationMemorySaver(memory)):
            try:
                saver.put(config, checkpoint, {"source": "loop", "given": value}, {})  # type: ignore[typeddict-unknown-key]
            except Exception as error:
                outcomes.append(type(error))
            else:
                found = saver.get_tuple(config)
                outcomes.append(found and found.metadata["given"])  # type: ignore[typeddict-item]
        assert outcomes[1] == outcomes[0]


def test_all_threads_of_a_user_are_listed(sidecar: Sidecar, user: str) -> None:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        saver = ConversationMemorySaver(memory, user_id=user)
        in_memory = InMemorySaver()
        for number in range(3):
            config = thread(checkpoint_ns="")
            for each in (saver, in_memory):
                each.put(config, {**empty_checkpoint(), "id": str(uuid6())}, {"step": number}, {})
        memory.create_conversation(user)

        def found(saver: Any, **more: Any) -> list[Any]:
            listed = saver.list(None, **more)
            return [(each.config["configurable"]["thread_id"], each.metadata) for each in listed]

        assert sorted(map(str, found(saver))) == sorted(map(str, found(in_memory)))
        source = config["configurable"]["thread_id"]
        saver.copy_thread(source, f"{source} copy")
        assert len(found(saver)) == 4
        assert found(saver)[0][0] == f"{source} copy"
        assert len(found(saver, limit=2)) == 2
        assert len(found(saver, filter={"step": 2})) == 2
        other = ConversationMemorySaver(memory, user_id=f"{user} other")
        assert found(other) == []


async def test_all_threads_are_listed_asynchronously(
    aio: AsyncConversationMemory, user: str
) -> None:
    saver = ConversationMemorySaver(aio, user_id=user)
    for _ in range(2):
        await saver.aput(thread(checkpoint_ns=""), empty_checkpoint(), {}, {})
    assert len([each async for each in saver.alist(None)]) == 2
