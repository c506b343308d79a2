"""Types of the arguments of all public methods."""

from __future__ import annotations

import inspect
import io
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import conversation_memory as cm
from conversation_memory import AsyncConversationMemory, ConversationMemory, Message
from conversation_memory._arguments import validated
from conversation_memory.agent_framework import ConversationMemoryHistoryProvider
from conversation_memory.claude_agent_sdk import ConversationMemorySessionStore
from conversation_memory.google_adk import (
    ConversationMemoryMemoryService,
    ConversationMemorySessionService,
)
from conversation_memory.langchain import ConversationMemoryChatMessageHistory
from conversation_memory.langgraph import ConversationMemoryStore
from conversation_memory.openai_agents import ConversationMemorySession

CLASSES = [
    ConversationMemory,
    AsyncConversationMemory,
    cm.Turn,
    cm.AsyncTurn,
    ConversationMemorySession,
    ConversationMemoryChatMessageHistory,
    ConversationMemorySessionService,
    ConversationMemoryMemoryService,
    ConversationMemoryHistoryProvider,
    ConversationMemorySessionStore,
    ConversationMemoryStore,
]

# Annotations whose types are validated; the others are those of contents and of SDKs.
SIMPLE = ("str", "int", "bool", "float", "Mapping[str, Any]", "dict[str, Any]")


def methods(class_: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, function in inspect.getmembers(class_, inspect.isfunction):
        is_own = function.__module__.startswith("conversation_memory.")
        if is_own and not name.startswith("_"):
            yield name, function


def arguments() -> Iterator[Any]:
    for class_ in CLASSES:
        for name, function in methods(class_):
            for parameter in inspect.signature(function).parameters.values():
                hint = str(parameter.annotation).removesuffix(" | None")
                if hint in SIMPLE or hint.startswith(("Iterable[", "list[", "Sequence[")):
                    yield pytest.param(
                        class_,
                        name,
                        parameter.name,
                        id=f"{class_.__name__}.{name}.{parameter.name}",
                    )


@pytest.mark.parametrize(("class_", "name", "argument"), list(arguments()))
async def test_an_argument_of_another_type_is_named(class_: type, name: str, argument: str) -> None:
    instance: Any = object.__new__(class_)
    with pytest.raises(TypeError, match=f"^{argument} must be an? .+, not object$"):
        result = getattr(instance, name)(**{argument: object()})
        if inspect.iscoroutine(result):
            await result


def test_many_arguments_are_validated() -> None:
    assert len(list(arguments())) > 250


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"user_id": 42}, "user_id must be a str, not int"),
        ({"user_id": None}, "user_id must be a str, not None"),
        ({"user_id": b"ana"}, "user_id must be a str, not bytes"),
        ({"conversation_id": uuid.uuid4()}, "conversation_id must be a str or None, not UUID"),
        ({"limit": "6"}, "limit must be an int, not str"),
        ({"limit": True}, "limit must be an int, not bool"),
        ({"max_tokens": 1.5}, "max_tokens must be an int or None, not float"),
        ({"start_on_user": "yes"}, "start_on_user must be a bool, not str"),
    ],
)
def test_the_text_names_the_types(arguments: dict[str, Any], text: str) -> None:
    with ConversationMemory("127.0.0.1:1") as memory, pytest.raises(TypeError) as raised:
        memory.turn(**{"user_id": "ana", **arguments})
    assert str(raised.value) == text


def test_messages_are_not_one_message() -> None:
    with ConversationMemory("127.0.0.1:1") as memory:
        for one in ({"role": "user", "content": "s3cret"}, "s3cret", Message("user", "s3cret")):
            with pytest.raises(TypeError, match=r"^messages must be an iterable, not \w+$"):
                memory.save_messages("id", one)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"target": 50051}, "target must be a str, not int"),
        ({"timeout": "5"}, "timeout must be a number, not str"),
        ({"limits": {}}, "limits must be a Limits, not dict"),
        ({"tls": True}, "tls must be a Tls or None, not bool"),
    ],
)
def test_arguments_of_a_client(arguments: dict[str, Any], text: str) -> None:
    for class_ in (ConversationMemory, AsyncConversationMemory):
        with pytest.raises(TypeError, match=f"^{text}$"):
            class_(**arguments)


def test_constructors_of_adapters_name_the_argument() -> None:
    memory: Any = AsyncConversationMemory()
    for build in (
        lambda user: ConversationMemorySession("s", user_id=user, memory=memory),
        lambda user: ConversationMemoryChatMessageHistory("s", user_id=user, memory=memory),
        lambda user: ConversationMemoryHistoryProvider(user_id=user, memory=memory),
        lambda user: ConversationMemorySessionStore(user_id=user, memory=memory),
    ):
        with pytest.raises(TypeError, match=r"^user_id must be a str"):
            build(42)
    with pytest.raises(TypeError, match=r"^memory must be an AsyncConversationMemory, not Conv"):
        ConversationMemorySession("s", user_id="ana", memory=ConversationMemory())  # type: ignore[arg-type]


class Number:
    def __index__(self) -> int:
        return 6


def test_valid_arguments_are_accepted() -> None:
    @validated
    def function(
        number: int = 0,
        factor: float = 0,
        file: io.BytesIO | None = None,
        data: bytes = b"",
        later: Later | None = None,
        unknown: Unknown | None = None,  # type: ignore[name-defined] # noqa: F821
        *rest: int,
        **more: int,
    ) -> Any:
        return number

    accepted: Any
    for accepted in (5, Number()):
        assert function(accepted) is accepted
    function(2**80, 1, io.BytesIO(), bytearray(), Later(), object(), "x", key="y")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^later must be a Later or None, not int$"):
        function(later=5)  # type: ignore[arg-type]
    # Missing and unknown arguments are reported as ever.
    with ConversationMemory("127.0.0.1:1") as memory:
        with pytest.raises(TypeError, match="missing 1 required"):
            memory.turn()  # type: ignore[call-arg]
        with pytest.raises(TypeError, match=r"unexpected keyword argument 'user'"):
            memory.turn("ana", user="x")  # type: ignore[call-arg]


class Later:
    pass


def test_methods_keep_their_kind_and_signature() -> None:
    assert inspect.iscoroutinefunction(AsyncConversationMemory.get_history)
    assert "conversation_id" in inspect.signature(ConversationMemory.get_history).parameters
    assert (ConversationMemory.get_history.__doc__ or "").startswith("Reads the newest messages")
