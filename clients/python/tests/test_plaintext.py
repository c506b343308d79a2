"""Tokens: a warning before one is sent in plain text, and no text that contains one."""

from __future__ import annotations

import copy
import logging
import pickle
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import conversation_memory as cm
from conversation_memory import (
    AsyncConversationMemory,
    ConversationMemory,
    PlaintextTokenWarning,
    Tls,
)
from conversation_memory._plaintext import is_local

from .fake import CONVERSATION, FakeService, serving

CLIENTS: list[Callable[..., Any]] = [ConversationMemory, AsyncConversationMemory]
TOKEN = "s3cr3t-t0k3n"

LOCAL = [
    "127.0.0.1:50051",
    "127.255.3.4",
    "localhost",
    "LocalHost:50051",
    "localhost.:50051",
    "memory.localhost:50051",
    "[::1]:50051",
    "::1",
    "[::ffff:127.0.0.1]:50051",
    "[::ffff:7f00:1]",
    "dns:localhost:50051",
    "dns:///127.0.0.1:50051",
    "dns:///%6cocalhost:50051",
    "dns://8.8.8.8/localhost:50051",
    "ipv4:127.0.0.1:50051",
    "ipv4:127.0.0.1:50051,127.0.0.2:50051",
    "ipv6:[::1]:50051",
    "ipv6:%5B::1%5D:50051,[::ffff:127.0.0.1]:1",
    "unix:/run/memory.sock",
    "unix:memory.sock",
    "unix:///run/memory.sock",
    "unix-abstract:memory",
]

REMOTE = [
    "memory.example:443",
    "10.0.0.7:50051",
    "0.0.0.0:50051",
    "128.0.0.1:1",
    "127.0.0.1.example:50051",
    "localhost.example:50051",
    "notlocalhost:50051",
    "127.0.0.1@memory.example:50051",
    "localhost:50051,memory.example:50051",
    "[::]:50051",
    "[::2]:50051",
    "[::ffff:10.0.0.7]:50051",
    "[fe80::1%eth0]:50051",
    "dns:memory.example:50051",
    "dns:///memory.example:50051",
    "dns://127.0.0.1/memory.example:50051",
    "ipv4:127.0.0.1:50051,10.0.0.7:50051",
    "ipv6:[::1]:50051,[2001:db8::1]:50051",
    "xds:///localhost",
    "",
]


@pytest.mark.parametrize("target", LOCAL)
def test_loopback_and_unix_sockets_are_local(target: str) -> None:
    assert is_local(target)
    for client in CLIENTS:
        client(target, token=TOKEN)


@pytest.mark.parametrize("target", REMOTE)
def test_other_targets_are_remote(target: str) -> None:
    assert not is_local(target)
    for client in CLIENTS:
        with pytest.warns(PlaintextTokenWarning, match="plain text") as caught:
            client(target, token=TOKEN)
        assert TOKEN not in str(caught[0].message)


@pytest.mark.parametrize("client", CLIENTS)
def test_warning_is_given_once_for_each_client_and_names_the_line_of_the_caller(
    client: Callable[..., Any],
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first = client("memory.example:443", token=lambda: TOKEN)
        partial(client, "memory.example:443")(token=TOKEN)
        first._channel._config.metadata()
    assert [each.category for each in caught] == [PlaintextTokenWarning] * 2
    assert {each.filename for each in caught} == {__file__}
    assert "'memory.example:443'" in str(caught[0].message)


@pytest.mark.parametrize("client", CLIENTS)
def test_warning_is_silenced_by_the_documented_means(client: Callable[..., Any]) -> None:
    client("memory.example:443")
    client("memory.example:443", token=TOKEN, tls=Tls())
    client("memory.example:443", token=TOKEN, allow_plaintext_token=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PlaintextTokenWarning)
        client("memory.example:443", token=TOKEN)


@pytest.mark.parametrize("option", [("grpc.enable_http_proxy", 1), ("grpc.http_proxy", "p:1")])
def test_loopback_through_a_proxy_is_not_local(option: tuple[str, int | str]) -> None:
    with pytest.warns(PlaintextTokenWarning):
        ConversationMemory("127.0.0.1:50051", token=TOKEN, options=[option])


def test_user_information_in_a_target_is_not_in_the_warning() -> None:
    with pytest.warns(PlaintextTokenWarning) as caught:
        ConversationMemory("ana:hunter2@memory.example:1", token=TOKEN)
    assert "hunter2" not in str(caught[0].message)


async def test_representations_and_pickles_do_not_contain_the_token() -> None:
    for client in (ConversationMemory(token=TOKEN), AsyncConversationMemory(token=TOKEN)):
        config = client._config
        shown: list[object] = [client, config, vars(client), client._channel, config.metadata()]
        for value in shown:
            assert TOKEN not in repr(value)
        pickled: list[object] = [client, config, config.token, config.metadata()]
        for value in pickled:
            with pytest.raises(TypeError):
                pickle.dumps(value)
        with pytest.raises(TypeError):
            copy.deepcopy(config.token)


def shown(error: BaseException) -> str:
    """Returns a traceback with the local variables of this package, as error reporters show it."""
    found = traceback.TracebackException.from_exception(error, capture_locals=True)
    causes = [found, found.__cause__, found.__context__]
    frames = [frame for each in causes if each is not None for frame in each.stack]
    own = [frame for frame in frames if "conversation_memory" in frame.filename]
    return "".join(map(str, [error, *(frame.locals for frame in own)]))


def test_errors_do_not_contain_the_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(FakeService()) as address:
        with ConversationMemory(address, token=TOKEN) as memory:
            memory.get_history(CONVERSATION)
    calls: list[Callable[[], object]] = [
        lambda: ConversationMemory("127.0.0.1:1", token=TOKEN).get_history(CONVERSATION),
        lambda: ConversationMemory("127.0.0.1:1", token=lambda: TOKEN).get_history(CONVERSATION),
        lambda: ConversationMemory(token=TOKEN, timeout=float("nan")),
        lambda: ConversationMemory(token=f"{TOKEN}\0"),
        lambda: ConversationMemory(token=lambda: f"{TOKEN}\0").get_history(CONVERSATION),
        lambda: ConversationMemory(token=lambda: TOKEN.encode()).get_history(CONVERSATION),  # type: ignore[arg-type,return-value]
        lambda: ConversationMemory(token=TOKEN.encode()),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises((cm.Unavailable, ValueError, TypeError)) as failed:
            call()
        assert TOKEN not in str(failed.value)
        if "bytes" not in str(failed.value):
            assert TOKEN not in shown(failed.value)
    assert TOKEN not in caplog.text
