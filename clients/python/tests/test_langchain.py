"""Chat history of LangChain: the test cases of its own back ends, and its runnables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables.history import RunnableWithMessageHistory

from conversation_memory import AsyncConversationMemory, ConversationMemory, NotFound
from conversation_memory.langchain import ConversationMemoryChatMessageHistory

from .sidecar import TIMEOUT, Sidecar


@pytest.fixture
def blocking(sidecar: Sidecar) -> Iterator[ConversationMemory]:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        yield memory


@pytest.fixture
async def on_asyncio(sidecar: Sidecar) -> AsyncIterator[AsyncConversationMemory]:
    async with AsyncConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        yield memory


@pytest.fixture
def history(blocking: ConversationMemory, user: str) -> ConversationMemoryChatMessageHistory:
    return ConversationMemoryChatMessageHistory("thread", user_id=user, memory=blocking)


EVERY_KIND: list[BaseMessage] = [
    SystemMessage("Be brief."),
    HumanMessage("What is our vacation policy?", id="h1", name="ana"),
    AIMessage(
        "",
        tool_calls=[
            {"name": "look_up", "args": {"topic": "vacation", "big": 2**60}, "id": "call_1"}
        ],
        invalid_tool_calls=[{"name": "x", "args": "{", "id": "call_2", "error": "no JSON"}],
        usage_metadata={"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
        response_metadata={"model_name": "m", "finish_reason": "tool_calls"},
        additional_kwargs={"refusal": None, "unknown": [1.5, True]},
    ),
    ToolMessage("25 days", tool_call_id="call_1", artifact={"rows": [1, 2]}, status="success"),
    AIMessage(
        [
            {"type": "reasoning", "summary": [], "id": "rs_1"},
            {"type": "text", "text": "25 days."},
            "And nothing more.",
        ]
    ),
    HumanMessage(
        [
            {"type": "text", "text": "And this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBOR"}},
        ]
    ),
    ChatMessage(content="As you like.", role="critic"),
    AIMessage("", additional_kwargs={"function_call": {"name": "f", "arguments": "{}"}}),
    FunctionMessage(content="done", name="f"),
    AIMessageChunk(content="half", tool_call_chunks=[]),
    HumanMessage(""),
    HumanMessage("\0\ud800"),
    HumanMessage("x" * 70_000),
    AIMessage("", tool_calls=[{"name": "look_up", "args": {}, "id": "call_3"}]),
    ToolMessage([{"type": "text", "text": "ü" * 70_000}], tool_call_id="call_3"),
]


def test_messages_are_read_back_equal(history: ConversationMemoryChatMessageHistory) -> None:
    assert history.messages == []
    history.add_messages(EVERY_KIND)
    assert history.messages == EVERY_KIND
    assert [type(message) for message in history.messages] == [
        type(message) for message in EVERY_KIND
    ]


def test_other_clients_read_role_and_text(
    history: ConversationMemoryChatMessageHistory, blocking: ConversationMemory, user: str
) -> None:
    history.add_messages(EVERY_KIND[:10])
    conversation = blocking.get_conversation(history.conversation_id, user_id=user)
    assert conversation.title == "What is our vacation policy?"
    messages = blocking.list_messages(history.conversation_id)
    assert [(message.role, message.content) for message in messages] == [
        ("system", "Be brief."),
        ("user", "What is our vacation policy?"),
        ("assistant", ""),
        ("tool", "25 days"),
        ("assistant", "25 days.\nAnd nothing more."),
        ("user", "And this?"),
        ("assistant", "As you like."),
        ("assistant", ""),
        ("tool", "done"),
        ("assistant", "half"),
    ]


class CustomMessage(HumanMessage):
    """A type that LangChain cannot read back."""


def test_types_that_cannot_be_read_back_are_rejected(
    history: ConversationMemoryChatMessageHistory,
) -> None:
    with pytest.raises(TypeError, match="CustomMessage"):
        history.add_messages([HumanMessage("beside it"), CustomMessage(content="hi")])
    assert history.messages == []


def test_calls_without_results_are_left_out(
    history: ConversationMemoryChatMessageHistory,
) -> None:
    call = AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}])
    history.add_messages([ToolMessage("x", tool_call_id="0"), call, HumanMessage("stop"), call])
    assert history.messages == [HumanMessage("stop"), call]


def test_messages_of_other_clients_are_included(
    history: ConversationMemoryChatMessageHistory, blocking: ConversationMemory, user: str
) -> None:
    history.add_user_message("one")
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    with blocking.turn(user, conversation_id=history.conversation_id) as turn:
        turn.assistant(tool_calls=[call])
        turn.tool("two", tool_call_id="c")
        turn.assistant("three")
    assert history.messages == [
        HumanMessage("one"),
        AIMessage(
            "",
            tool_calls=[{"name": "f", "args": {"a": 1}, "id": "c"}],
        ),
        ToolMessage("two", tool_call_id="c"),
        AIMessage("three"),
    ]


def test_convenience_methods_of_the_base_class(
    history: ConversationMemoryChatMessageHistory,
) -> None:
    it: BaseChatMessageHistory = history
    it.add_user_message("Hi")
    it.add_ai_message("Hello")
    it.add_message(HumanMessage("Bye"))
    assert str(it) == "Human: Hi\nAI: Hello\nHuman: Bye"


def test_history_can_be_used_after_clear(history: ConversationMemoryChatMessageHistory) -> None:
    history.clear()
    history.add_messages([HumanMessage("a"), AIMessage("b")])
    history.clear()
    assert history.messages == []
    history.add_messages([HumanMessage("c")])
    assert history.messages == [HumanMessage("c")]


def test_newest_messages_are_in_order(
    history: ConversationMemoryChatMessageHistory, blocking: ConversationMemory, user: str
) -> None:
    messages: list[BaseMessage] = [HumanMessage(str(number)) for number in range(1050)]
    history.add_messages(messages)
    assert history.messages == messages
    limited = ConversationMemoryChatMessageHistory("thread", user_id=user, memory=blocking, limit=3)
    assert limited.messages == messages[-3:]


def test_histories_are_isolated(blocking: ConversationMemory, user: str) -> None:
    histories = [
        ConversationMemoryChatMessageHistory(name, user_id=owner, memory=blocking, app=app)
        for name, owner, app in [
            ("a", user, ""),
            ("b", user, ""),
            ("a", user + "'", ""),
            ("a", user, "b"),
        ]
    ]
    for number, history in enumerate(histories):
        history.add_user_message(str(number))
    histories[0].clear()
    found = [[str(message.content) for message in history.messages] for history in histories]
    assert found == [[], ["1"], ["2"], ["3"]]


def test_reading_creates_no_conversation(
    history: ConversationMemoryChatMessageHistory, blocking: ConversationMemory
) -> None:
    assert history.messages == []
    history.add_messages([])
    with pytest.raises(NotFound):
        blocking.get_conversation(history.conversation_id)


def test_concurrent_appends_stay_together(blocking: ConversationMemory, user: str) -> None:
    def write(name: str) -> None:
        history = ConversationMemoryChatMessageHistory("t", user_id=user, memory=blocking)
        for number in range(10):
            history.add_messages([HumanMessage(f"{name}.{number}"), AIMessage(f"{name}.{number}")])

    names = [f"writer {number}" for number in range(8)]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(write, names))
    history = ConversationMemoryChatMessageHistory("t", user_id=user, memory=blocking)
    texts = [str(message.content) for message in history.messages]
    assert texts[::2] == texts[1::2], "messages that are added together are adjacent"
    for name in names:
        mine = [text for text in texts[::2] if text.startswith(name)]
        assert mine == [f"{name}.{number}" for number in range(10)]


@pytest.mark.parametrize("client", ["blocking", "asyncio"])
async def test_asynchronous_methods(
    client: str, blocking: ConversationMemory, on_asyncio: AsyncConversationMemory, user: str
) -> None:
    memory: Any = blocking if client == "blocking" else on_asyncio
    history = ConversationMemoryChatMessageHistory("thread", user_id=user, memory=memory)
    assert await history.aget_messages() == []
    await history.aadd_messages(EVERY_KIND)
    assert await history.aget_messages() == EVERY_KIND
    await history.aclear()
    assert await history.aget_messages() == []
    await asyncio.gather(*[history.aadd_messages([HumanMessage(str(n))]) for n in range(20)])
    found = await history.aget_messages()
    assert sorted(int(str(message.content)) for message in found) == list(range(20))


def test_blocking_method_with_an_asynchronous_client_is_rejected(
    on_asyncio: AsyncConversationMemory, user: str
) -> None:
    history = ConversationMemoryChatMessageHistory("thread", user_id=user, memory=on_asyncio)
    with pytest.raises(TypeError, match="asynchronous"):
        history.add_user_message("Hi")


class Answering(GenericFakeChatModel):
    """Answers from its input only."""

    messages: Iterator[Any] = iter(())

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Any:
        known = "\n".join(str(message.content) for message in messages)
        question = str(messages[-1].content)
        if question == "What is our vacation policy?":
            answer = "25 days."
        else:
            answer = "In the HR portal." if "vacation" in known else "Request what?"
        self.messages = iter([AIMessage(answer)])
        return super()._generate(messages, *args, **kwargs)


def remembering(memory: Any, user: str) -> Any:
    def history(session_id: str) -> BaseChatMessageHistory:
        return ConversationMemoryChatMessageHistory(session_id, user_id=user, memory=memory)

    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{ask}")])
    return RunnableWithMessageHistory(
        prompt | Answering(), history, input_messages_key="ask", history_messages_key="history"
    )


@pytest.mark.filterwarnings("ignore:.*RunnableWithMessageHistory is deprecated")
def test_runnable_continues_a_stored_history(blocking: ConversationMemory, user: str) -> None:
    chain = remembering(blocking, user)

    def ask(question: str, session: str) -> str:
        answer = chain.invoke({"ask": question}, {"configurable": {"session_id": session}})
        return str(answer.content)

    assert ask("What is our vacation policy?", "a") == "25 days."
    assert ask("How do I request it?", "a") == "In the HR portal."
    assert ask("How do I request it?", "b") == "Request what?"


@pytest.mark.filterwarnings("ignore:.*RunnableWithMessageHistory is deprecated")
async def test_asynchronous_runnable_continues_a_stored_history(
    on_asyncio: AsyncConversationMemory, user: str
) -> None:
    chain = remembering(on_asyncio, user)

    async def ask(question: str, session: str) -> str:
        answer = await chain.ainvoke({"ask": question}, {"configurable": {"session_id": session}})
        return str(answer.content)

    assert await ask("What is our vacation policy?", "a") == "25 days."
    assert await ask("How do I request it?", "a") == "In the HR portal."
    assert await ask("How do I request it?", "b") == "Request what?"
