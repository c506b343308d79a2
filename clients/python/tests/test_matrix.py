"""What one client saves, every other client reads in a valid form of its framework."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from agent_framework import Content
from agent_framework import Message as AgentMessage
from google.adk.events import Event
from google.genai import types
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from conversation_memory import (
    AsyncConversationMemory,
    BlobPart,
    FilePart,
    GenericPart,
    Message,
    ReasoningPart,
    ToolCallPart,
    ToolCallResponsePart,
)
from conversation_memory._adapters import NamedConversation
from conversation_memory._proto.v1 import conversation_memory_pb2 as api
from conversation_memory._proto.v1 import methods
from conversation_memory.agent_framework import ConversationMemoryHistoryProvider
from conversation_memory.google_adk import ConversationMemorySessionService
from conversation_memory.langchain import ConversationMemoryChatMessageHistory
from conversation_memory.openai_agents import ConversationMemorySession

from .sidecar import TIMEOUT, Backend, Sidecar
from .strict import (
    check_agent_framework,
    check_anthropic,
    check_chat,
    check_events,
    check_langchain,
    check_responses,
)

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
PNG_BASE64 = base64.b64encode(PNG).decode()
DATA_URL = f"data:image/png;base64,{PNG_BASE64}"
PHOTO = b"\xff\xd8\xff" + b"\x01" * (4 << 20)
"""A picture that no response of the service contains, because it exceeds about 3 MiB."""

LONG = "25 days a year. " * 4_000

QUESTION, SECRET, FACT = "What is our vacation policy?", "My password is canary.", "Be brief."

CALL = "call_1"


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    sidecar = Sidecar(Backend.embedded(tmp_path_factory.mktemp("matrix")))
    yield sidecar
    sidecar.stop()


@pytest.fixture
async def memory(sidecar: Sidecar) -> AsyncIterator[AsyncConversationMemory]:
    async with AsyncConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        yield memory


class Setting:
    """A conversation that all adapters find by its id."""

    def __init__(self, memory: AsyncConversationMemory, user: str) -> None:
        self.memory = memory
        self.user = user
        self.agents = ConversationMemorySession("s", user_id=user, memory=memory)
        self.langchain = ConversationMemoryChatMessageHistory("s", user_id=user, memory=memory)
        self.adk = ConversationMemorySessionService(memory)
        self.microsoft = ConversationMemoryHistoryProvider(user_id=user, memory=memory)
        self.id = ""

    def use(self, conversation: str) -> None:
        """Lets all adapters use one conversation."""
        self.id = conversation
        for adapter in (self.agents, self.langchain):
            adapter._conversation = NamedConversation(conversation, self.user)
        named = NamedConversation(conversation, self.user)
        self.microsoft._conversation = lambda *_: named  # type: ignore[method-assign]


Writer = Callable[[Setting], Awaitable[None]]


async def write_turn(it: Setting) -> None:
    call = {"name": "look_up", "arguments": '{"topic": "vacation"}'}
    calls = [{"id": each, "type": "function", "function": call} for each in ("call_2", "call_3")]
    async with it.memory.turn(it.user, conversation_id=it.id) as turn:
        turn.add(Message("system", FACT, pinned=True))
        turn.user(QUESTION)
        turn.assistant(tool_calls=[{"id": CALL, "type": "function", "function": call}])
        turn.tool("25 days", tool_call_id=CALL)
        turn.assistant("Let me look twice.", tool_calls=calls)
        turn.tool("one", tool_call_id="call_2")
        turn.tool("two", tool_call_id="call_3")
        turn.user(
            [
                {"type": "text", "text": "And this?"},
                {"type": "image_url", "image_url": {"url": DATA_URL}},
                {"type": "file", "file": {"file_id": "file-1"}},
                {"type": "of_the_future", "value": 2**60},
            ]
        )
        turn.assistant(LONG)
        turn.user(SECRET)


async def write_raw(it: Setting) -> None:
    messages = [
        Message("system", FACT, pinned=True),
        Message("user", QUESTION, name="ana"),
        Message("assistant", parts=(ReasoningPart("Hm."), ToolCallPart(CALL, "look_up", "{}"))),
        Message("tool", parts=(ToolCallResponsePart(CALL, "25 days"),)),
        Message(
            "assistant",
            parts=(ToolCallPart("call_2", "f g", "not JSON"), ToolCallPart("call_3", "f", "[1]")),
        ),
        Message(
            "tool",
            parts=(ToolCallResponsePart("call_3", "two"), ToolCallResponsePart("call_2", "one")),
        ),
        Message(
            "user",
            "And this?",
            parts=(
                BlobPart("image/jpeg", PHOTO, "image"),
                BlobPart("image/png", PNG, "image"),
                FilePart("file-1"),
                GenericPart("of_the_future", '{"value":1}'),
            ),
        ),
        Message("assistant", LONG),
        Message("user", SECRET),
    ]
    from conversation_memory._convert import write_messages

    request = api.SaveMessagesRequest(
        conversation_id=it.id, messages=write_messages(messages, it.id), request_id="raw"
    )
    await it.memory._operation(None).call(methods.SAVE_MESSAGES, request)


async def write_agents(it: Setting) -> None:
    call = {"type": "function_call", "name": "look_up", "arguments": "{}"}
    output = {"type": "function_call_output"}
    screenshot = {"type": "computer_screenshot", "image_url": DATA_URL}
    items: list[Any] = [
        {"role": "developer", "content": FACT},
        {"role": "user", "content": QUESTION},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {**call, "id": "fc_1", "call_id": CALL, "status": "completed"},
        {**output, "call_id": CALL, "output": "25 days"},
        {**call, "call_id": "call_2"},
        {**call, "call_id": "call_3"},
        {**output, "call_id": "call_3", "output": [{"type": "input_text", "text": "two"}]},
        {**output, "call_id": "call_2", "output": "one"},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "And this?"},
                {"type": "input_image", "image_url": DATA_URL, "detail": "low"},
                {"type": "input_file", "file_id": "file-1"},
            ],
        },
        {
            "type": "computer_call",
            "id": "cu_1",
            "call_id": "call_4",
            "action": {"type": "screenshot"},
            "pending_safety_checks": [],
            "status": "completed",
        },
        {"type": "computer_call_output", "call_id": "call_4", "output": screenshot},
        {
            "type": "web_search_call",
            "id": "ws_1",
            "status": "completed",
            "action": {"type": "search", "query": "vacation"},
        },
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": LONG, "annotations": []}],
        },
        {"role": "user", "content": SECRET},
    ]
    await it.agents.add_items(items)


async def write_langchain(it: Setting) -> None:
    def calls(*ids: str) -> list[Any]:
        return [{"name": "look_up", "args": {"n": 1}, "id": each} for each in ids]

    messages: list[BaseMessage] = [
        SystemMessage(FACT),
        HumanMessage(QUESTION, name="ana", id="h"),
        AIMessage([{"type": "reasoning", "reasoning": "Hm."}], tool_calls=calls(CALL)),
        ToolMessage("25 days", tool_call_id=CALL, artifact={"rows": [1]}),
        AIMessage("Twice.", tool_calls=calls("call_2", "call_3")),
        ToolMessage("two", tool_call_id="call_3"),
        ToolMessage([{"type": "text", "text": "one"}], tool_call_id="call_2"),
        HumanMessage(
            [
                {"type": "text", "text": "And this?"},
                {"type": "image", "base64": PNG_BASE64, "mime_type": "image/png"},
                {"type": "file", "file_id": "file-1"},
                {"type": "of_the_future", "value": 1},
            ]
        ),
        AIMessage(LONG, usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
        HumanMessage(SECRET),
    ]
    await it.langchain.aadd_messages(messages)


async def write_adk(it: Setting) -> None:
    session = await it.adk.get_session(app_name="hr", user_id=it.user, session_id="s")
    assert session is not None

    def call(call_id: str) -> types.Part:
        return types.Part(function_call=types.FunctionCall(id=call_id, name="look_up", args={}))

    def result(call_id: str, text: str) -> types.Part:
        return types.Part(
            function_response=types.FunctionResponse(
                id=call_id, name="look_up", response={"result": text}
            )
        )

    contents = [
        ("user", [types.Part(text=QUESTION)]),
        ("hr", [types.Part(text="Hm.", thought=True, thought_signature=b"\xff"), call(CALL)]),
        ("hr", [result(CALL, "25 days")]),
        ("hr", [call("call_2"), call("call_3")]),
        ("hr", [result("call_2", "one"), result("call_3", "two")]),
        (
            "user",
            [
                types.Part(text="And this?"),
                types.Part(inline_data=types.Blob(data=PNG, mime_type="image/png")),
                types.Part(
                    file_data=types.FileData(file_uri="gs://a/b.pdf", mime_type="application/pdf")
                ),
                types.Part(
                    executable_code=types.ExecutableCode(code="1", language=types.Language.PYTHON)
                ),
            ],
        ),
        ("hr", [types.Part(text=LONG)]),
        ("user", [types.Part(text=SECRET)]),
    ]
    for author, parts in contents:
        role = "model" if author == "hr" and not parts[0].function_response else "user"
        content = types.Content(role=role, parts=parts)
        await it.adk.append_event(session, Event(author=author, content=content))


async def write_microsoft(it: Setting) -> None:
    def call(id_: str, arguments: Any) -> Content:
        return Content.from_function_call(id_, "look_up", arguments=arguments)

    messages = [
        AgentMessage("user", [QUESTION]),
        AgentMessage("assistant", [Content.from_text_reasoning(text="Hm."), call(CALL, {"a": 1})]),
        AgentMessage("tool", [Content.from_function_result(CALL, result="25 days")]),
        AgentMessage("assistant", ["Look.", call("call_2", "not JSON"), call("call_3", {})]),
        AgentMessage(
            "tool",
            [
                Content.from_function_result("call_3", result="two"),
                Content.from_function_result("call_2", result={"one": 1}),
            ],
        ),
        AgentMessage(
            "user",
            [
                "And this?",
                Content.from_data(PNG, "image/png"),
                Content.from_hosted_file("file-1"),
            ],
        ),
        AgentMessage("assistant", [LONG]),
        AgentMessage("user", [SECRET]),
    ]
    await it.memory.save_messages(it.id, [Message("system", FACT, pinned=True)], user_id=it.user)
    await it.microsoft.save_messages("s", messages)


WRITERS: dict[str, Writer] = {
    "turn": write_turn,
    "raw": write_raw,
    "agents": write_agents,
    "langchain": write_langchain,
    "adk": write_adk,
    "microsoft": write_microsoft,
}


async def settled(memory: AsyncConversationMemory, user: str, writer: str) -> Setting:
    """A conversation that a client has written, with the secret redacted."""
    it = Setting(memory, user)
    await it.adk.create_session(app_name="hr", user_id=user, session_id="s")
    (conversation,) = [
        each
        async for each in memory.list_conversations(user)
        if each.metadata["google_adk"]["kind"] == "session"
    ]
    it.use(conversation.id)
    await WRITERS[writer](it)
    last = [each async for each in memory.list_messages(it.id)][-1]
    assert last.content == SECRET
    (redacted,) = await memory.redact_messages(it.id, [last.seq], user_id=user)
    assert (redacted.redacted, redacted.content, redacted.role) == (True, "", "user")
    return it


def assert_complete(shown: str, *, has_reasoning: bool = False) -> None:
    """Every client shows the texts, results and references, and no redacted text."""
    for text in (QUESTION, "25 days", "one", "two", "And this?", LONG[:100], "[redacted]"):
        assert text in shown, text
    assert "canary" not in shown
    assert "Hm." in shown or not has_reasoning


@pytest.mark.parametrize("writer", WRITERS)
async def test_every_client_reads_what_another_one_has_saved(
    memory: AsyncConversationMemory, user: str, writer: str
) -> None:
    it = await settled(memory, user, writer)
    async with memory.turn(user, conversation_id=it.id, limit=100) as turn:
        chat, items, arguments = turn.to_openai(), turn.to_responses(), turn.to_anthropic()
    # A client reads types that its API does not know as it has saved them.
    check_chat(chat, types=writer != "turn")
    check_responses(items)
    check_anthropic(arguments)
    for shown in (chat, items, arguments):
        assert_complete(str(shown))
        assert PNG_BASE64 in str(shown)
        if writer == "raw":
            assert base64.b64encode(PHOTO).decode() in str(shown)
    read = await it.agents.get_items()
    assert read == items
    messages = await it.langchain.aget_messages()
    check_langchain(messages)
    assert_complete(str(messages), has_reasoning=writer != "turn")
    assert PNG_BASE64 in str(messages)
    agent_messages = await it.microsoft.get_messages("s")
    check_agent_framework(agent_messages)
    contents = str([message.to_dict() for message in agent_messages])
    assert_complete(contents, has_reasoning=writer != "turn")
    assert PNG_BASE64 in contents
    session = await it.adk.get_session(app_name="hr", user_id=user, session_id="s")
    assert session is not None
    check_events([event for event in session.events if event.content])
    texts = str([event.content for event in session.events])
    assert_complete(texts, has_reasoning=writer != "turn")
    blobs = [
        part.inline_data.data
        for event in session.events
        for part in (event.content.parts or [] if event.content else [])
        if part.inline_data
    ]
    assert PNG in blobs


@pytest.mark.parametrize("writer", WRITERS)
async def test_window_of_any_size_is_valid(
    memory: AsyncConversationMemory, user: str, writer: str
) -> None:
    it = await settled(memory, user, writer)
    for limit in range(1, 16):
        history = await memory.get_history(it.id, limit=limit, max_tokens=limit * 20)
        check_chat(history.to_openai(), types=writer != "turn")
        check_responses(history.to_responses())
        check_anthropic(history.to_anthropic())
        it.langchain._limit = limit
        check_langchain(await it.langchain.aget_messages())
        it.microsoft._limit = limit
        check_agent_framework(await it.microsoft.get_messages("s"))
        check_responses(await it.agents.get_items(limit))


async def test_writer_reads_its_own_messages_unchanged(
    memory: AsyncConversationMemory, user: str
) -> None:
    async def read(writer: str) -> tuple[Any, Any]:
        it = Setting(memory, f"{user}-{writer}")
        it.use((await memory.create_conversation(it.user)).id)
        await WRITERS[writer](it)
        return await it.agents.get_items(), await it.langchain.aget_messages()

    (items, _), (_, messages) = await asyncio.gather(read("agents"), read("langchain"))
    assert items[3]["status"] == "completed"
    assert items[10]["pending_safety_checks"] == []
    assert items[11]["output"]["image_url"] == DATA_URL
    assert messages[1] == HumanMessage(QUESTION, name="ana", id="h")
    assert messages[3].artifact == {"rows": [1]}


async def test_summary_and_pinned_messages_are_shown_to_every_client(
    memory: AsyncConversationMemory, user: str
) -> None:
    it = await settled(memory, user, "turn")
    last = [each async for each in memory.list_messages(it.id)][-1]
    await memory.compact(it.id, last.seq - 3, "They talked about vacation.", user_id=user)
    history = await memory.get_history(it.id, limit=100)
    assert [each.is_summary for each in history.messages][:2] == [False, True]
    assert history.messages[0].pinned
    items = await it.agents.get_items()
    messages = await it.langchain.aget_messages()
    for shown in (history.to_openai(), history.to_responses(), history.to_anthropic(), items):
        assert FACT in str(shown)
        assert "They talked about vacation." in str(shown)
        assert QUESTION not in str(shown)
    assert [message.type for message in messages[:2]] == ["system", "system"]
    check_anthropic(history.to_anthropic())
