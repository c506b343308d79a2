"""How the service is reached."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
import trustme

import conversation_memory as cm
from conversation_memory import AsyncConversationMemory, ConversationMemory, Message, Tls

from .fake import CONVERSATION, Fake, serving
from .proxy import Proxy
from .sidecar import Sidecar


def test_a_token_goes_with_every_call() -> None:
    fake = Fake()
    with serving(fake) as address:
        with ConversationMemory(address, token="t0p") as memory:
            memory.get_history(CONVERSATION)
        assert fake.metadata["authorization"] == ["Bearer t0p"]
        assert "t0p" not in repr(memory._settings)
        numbers = itertools.count()
        with ConversationMemory(address, token=lambda: f"t{next(numbers)}") as memory:
            memory.get_history(CONVERSATION)
            memory.get_history(CONVERSATION)
        assert fake.metadata["authorization"] == ["Bearer t1"]


def test_a_unix_socket(tmp_path: Path) -> None:
    fake = Fake()
    with serving(fake, f"unix:{tmp_path}/memory.sock") as address:
        with ConversationMemory(address) as memory:
            assert memory.get_history(CONVERSATION).messages == ()


async def test_tls_both_ways(tmp_path: Path) -> None:
    authority = trustme.CA()
    server, client = authority.issue_cert("memory.test"), authority.issue_cert("agent.test")
    root = authority.cert_pem.bytes()
    credentials = grpc.ssl_server_credentials(
        [(server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())], root, True
    )
    ca, key = tmp_path / "ca.pem", tmp_path / "key.pem"
    ca.write_bytes(root)
    key.write_bytes(client.private_key_pem.bytes())
    tls = Tls(ca, client.cert_chain_pems[0].bytes(), str(key), server_name="memory.test")
    assert "PRIVATE" not in repr(Tls(key=key.read_bytes()))
    with serving(Fake(), credentials=credentials) as address:
        with ConversationMemory(address, tls=tls) as memory:
            assert memory.get_history(CONVERSATION).messages == ()
        async with AsyncConversationMemory(address, tls=tls) as aio:
            assert (await aio.get_history(CONVERSATION)).messages == ()
        with (
            ConversationMemory(address, tls=Tls(ca, server_name="memory.test")) as memory,
            pytest.raises(cm.Unavailable),
        ):
            memory.get_history(CONVERSATION)


def test_nobody_there_is_said_before_the_deadline() -> None:
    with ConversationMemory("127.0.0.1:1", timeout=20) as memory:
        with pytest.raises(cm.Unavailable) as failed:
            memory.get_history(CONVERSATION)
        assert failed.value.retryable


def test_a_connection_may_take_its_time() -> None:
    with serving(Fake()) as address:
        proxy = Proxy(address, delay=1.5)
        try:
            with ConversationMemory(proxy.address, timeout=15) as memory:
                assert memory.get_history(CONVERSATION).messages == ()
        finally:
            proxy.close()


def test_a_closed_client_connects_again(sidecar: Sidecar, user: str) -> None:
    memory = ConversationMemory(sidecar.address)
    conversation = memory.create_conversation(user).id
    memory.close()
    memory.close()
    assert memory.get_conversation(conversation).id == conversation
    memory.close()


def test_each_event_loop_has_a_connection(sidecar: Sidecar, user: str) -> None:
    """A client that is made at import time is used by one `asyncio.run` after another."""
    memory = AsyncConversationMemory(sidecar.address)

    async def save() -> int:
        conversation = await memory.create_conversation(user)
        await memory.save_messages(conversation.id, [Message("user", "hi")])
        return len([found async for found in memory.list_conversations(user)])

    assert [asyncio.run(save()) for _ in range(3)] == [1, 2, 3]


def test_a_client_that_was_used_before_a_fork_works_after_it(sidecar: Sidecar, user: str) -> None:
    script = (
        "import os, sys\n"
        "from conversation_memory import ConversationMemory\n"
        "memory = ConversationMemory(sys.argv[1])\n"
        "memory.create_conversation(sys.argv[2])\n"
        "for _ in range(2):\n"
        "    if os.fork() == 0:\n"
        "        memory.create_conversation(sys.argv[2])\n"
        "        os._exit(0)\n"
        "assert [os.wait()[1] for _ in range(2)] == [0, 0]\n"
        "assert len(list(memory.list_conversations(sys.argv[2]))) == 3\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, sidecar.address, user],
        check=True,
        timeout=30,
        env={**os.environ, "GRPC_VERBOSITY": "ERROR"},
    )
