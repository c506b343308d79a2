"""The generated code is up to date, and the docstrings of both clients are complete."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conversation_memory import AsyncConversationMemory, AsyncTurn, ConversationMemory, Turn

CLIENT = Path(__file__).resolve().parent.parent

CLIENTS = [(ConversationMemory, AsyncConversationMemory), (Turn, AsyncTurn)]


def public_members(kind: type[Any]) -> dict[str, Any]:
    """Returns the public methods and properties of a class."""
    return {
        name: member
        for name, member in inspect.getmembers(kind)
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
    }


@pytest.mark.parametrize("script", ["async_to_sync.py", "generate.py"])
def test_generated_code_is_up_to_date(script: str) -> None:
    done = subprocess.run(
        [sys.executable, CLIENT / "tools" / script, "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_check_reports_an_edited_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(CLIENT / "tools")
    import async_to_sync

    modules = async_to_sync.generate()
    monkeypatch.setattr(async_to_sync, "OUTPUT", tmp_path)
    for name, text in modules.items():
        (tmp_path / name).write_text(text)
    assert async_to_sync.check(modules) == 0
    (tmp_path / "client.py").write_text(modules["client.py"] + "# edited\n")
    assert async_to_sync.check(modules) == 1
    (tmp_path / "client.py").write_text(modules["client.py"])
    (tmp_path / "obsolete.py").write_text("")
    assert async_to_sync.check(modules) == 1


def convert(monkeypatch: pytest.MonkeyPatch, source: str) -> str:
    """Returns the body of the blocking form of a module."""
    monkeypatch.syspath_prepend(CLIENT / "tools")
    import async_to_sync

    converted: str = async_to_sync.convert("example.py", source, set())
    return converted.partition("\n")[2]


def test_conversion_replaces_the_syntax_of_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
import asyncio
import time
from collections.abc import AsyncGenerator

from .._channel_async import AsyncChannel


async def read(channel: AsyncChannel, path: str) -> AsyncGenerator[int, None]:
    # An asynchronous reader.
    async with channel.open() as stream:
        try:
            async for item in stream:
                await asyncio.sleep(1)
                yield await asyncio.to_thread(parse, item, path)
        except asyncio.CancelledError:
            raise
        except ValueError:
            time.sleep(2)
"""
    assert (
        convert(monkeypatch, source)
        == """import time
from collections.abc import Iterator

from .._channel_sync import Channel


def read(channel: Channel, path: str) -> Iterator[int]:
    # A blocking reader.
    with channel.open() as stream:
        try:
            for item in stream:
                time.sleep(1)
                yield parse(item, path)
        except ValueError:
            time.sleep(2)
"""
    )


@pytest.mark.parametrize(
    "source",
    [
        "import asyncio\nasyncio.gather()\n",
        '"""The event loop."""\n',
        "import asyncio\ntry:\n    f()\nexcept asyncio.CancelledError:\n    raise\n",
    ],
)
def test_conversion_rejects_code_without_a_blocking_form(
    monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    with pytest.raises(SystemExit):
        convert(monkeypatch, source)


@pytest.mark.parametrize(("blocking", "asynchronous"), CLIENTS)
def test_both_clients_have_the_same_signatures(
    blocking: type[Any], asynchronous: type[Any]
) -> None:
    methods, others = public_members(blocking), public_members(asynchronous)
    assert methods.keys() == others.keys()
    for name in [name for name, member in methods.items() if inspect.isfunction(member)]:
        one, other = inspect.signature(methods[name]), inspect.signature(others[name])
        assert one.parameters == other.parameters, name


def test_both_clients_take_the_same_arguments() -> None:
    signature = inspect.signature(ConversationMemory)
    assert signature == inspect.signature(AsyncConversationMemory)
    for kind in (ConversationMemory, AsyncConversationMemory):
        for name in signature.parameters:
            assert f"    {name}: " in (inspect.getdoc(kind) or ""), name


@pytest.mark.parametrize(("blocking", "asynchronous"), CLIENTS)
def test_docstrings_are_complete(blocking: type[Any], asynchronous: type[Any]) -> None:
    for kind in (blocking, asynchronous):
        assert inspect.getdoc(kind)
        for name, member in public_members(kind).items():
            text = inspect.getdoc(member)
            assert text, f"{kind.__name__}.{name} has no docstring"
            if isinstance(member, property):
                continue
            signature = inspect.signature(member)
            for parameter in signature.parameters.values():
                if parameter.name == "self":
                    continue
                documented = f"{parameter.name}: " in text or f"`{parameter.name}`" in text
                assert documented or parameter.kind is inspect.Parameter.VAR_POSITIONAL, (
                    f"{kind.__name__}.{name} does not describe {parameter.name}"
                )
            if signature.return_annotation not in (
                "None",
                "list[OpenAIMessage]",
                "list[ResponsesItem]",
                "AnthropicInput",
            ):
                assert "Returns:" in text, f"{kind.__name__}.{name} has no section Returns"


@pytest.mark.parametrize("blocking", [kind for kind, _ in CLIENTS])
def test_docstrings_of_the_blocking_client_do_not_mention_asyncio(blocking: type[Any]) -> None:
    texts = [inspect.getdoc(member) for member in (blocking, *public_members(blocking).values())]
    for text in texts:
        assert text
        assert not {"await", "async", "asyncio", "asynchronous"} & set(text.lower().split())
