"""Connections: credentials, transports, timeouts, closing and forking."""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import trustme

import conversation_memory as cm
from conversation_memory import AsyncConversationMemory, ConversationMemory, Message, Tls

from .fake import CONVERSATION, FakeService, failing, serving
from .proxy import Proxy
from .sidecar import TIMEOUT, Sidecar


def test_every_call_sends_the_token() -> None:
    fake = FakeService()
    with serving(fake) as address:
        with ConversationMemory(address, token="t0p") as memory:
            memory.get_history(CONVERSATION)
        assert fake.metadata["authorization"] == ["Bearer t0p"]
        assert "t0p" not in repr(memory._config)
        numbers = itertools.count()
        with ConversationMemory(address, token=lambda: f"t{next(numbers)}") as memory:
            memory.get_history(CONVERSATION)
            memory.get_history(CONVERSATION)
        assert fake.metadata["authorization"] == ["Bearer t1"]


async def test_closing_the_client_ends_calls_with_unavailable() -> None:
    fake, reached, answer = FakeService(), threading.Semaphore(0), threading.Event()

    def hold(*_: object) -> bytes:
        reached.release()
        answer.wait(TIMEOUT)
        return b""

    fake.answers = dict.fromkeys(("GetHistory", "SaveMessages"), hold)
    with serving(fake) as address, ThreadPoolExecutor(1) as pool:
        with ConversationMemory(address, timeout=TIMEOUT) as memory:
            read = pool.submit(memory.get_history, CONVERSATION)
            await asyncio.to_thread(reached.acquire)
        with pytest.raises(cm.Unavailable) as failed:
            read.result()
        assert failed.value.retryable
        async with AsyncConversationMemory(address, timeout=TIMEOUT) as aio:
            task = asyncio.create_task(aio.get_history(CONVERSATION))
            turn = aio.turn("ana", conversation_id=CONVERSATION)

            async def take_turn() -> None:
                async with turn:
                    turn.assistant("25 days.")

            turn_task = asyncio.create_task(take_turn())
            for _ in range(2):
                await asyncio.to_thread(reached.acquire)
        for each in (task, turn_task):
            with pytest.raises(cm.Unavailable):
                await each
        # The service answers before the client opens another connection.
        answer.set()
        assert (await turn.save()).request_id == turn.request_id
        await aio.close()


async def test_cancellation_takes_precedence_over_closing_the_client() -> None:
    fake, reached, answer = FakeService(), threading.Semaphore(0), threading.Event()

    def hold(*_: object) -> bytes:
        reached.release()
        answer.wait(TIMEOUT)
        return b""

    fake.answers["GetHistory"] = hold
    with serving(fake) as address:
        async with AsyncConversationMemory(address, timeout=TIMEOUT) as aio:
            task = asyncio.create_task(aio.get_history(CONVERSATION))
            await asyncio.to_thread(reached.acquire)
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        answer.set()


def test_threads_reconnect_after_the_client_is_closed() -> None:
    fake = FakeService()
    failures: list[Exception] = []
    with serving(fake) as address, ConversationMemory(address, timeout=TIMEOUT) as memory:

        def call() -> None:
            for _ in range(200):
                try:
                    memory.get_history(CONVERSATION)
                except cm.Unavailable:
                    continue
                except Exception as error:
                    failures.append(error)

        with ThreadPoolExecutor(4) as pool:
            callers = [pool.submit(call) for _ in range(4)]
            while not all(caller.done() for caller in callers):
                memory.close()
                time.sleep(0.002)
    assert failures == []


def test_unix_socket(tmp_path: Path) -> None:
    fake = FakeService()
    with serving(fake, f"unix:{tmp_path}/memory.sock") as address:
        with ConversationMemory(address, timeout=TIMEOUT) as memory:
            assert memory.get_history(CONVERSATION).messages == ()


async def test_mutual_tls(tmp_path: Path) -> None:
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
    assert "PRIVATE" not in repr(Tls(cert=b"", key=key.read_bytes()))
    with serving(FakeService(), credentials=credentials) as address:
        with ConversationMemory(address, tls=tls) as memory:
            assert memory.get_history(CONVERSATION).messages == ()
        async with AsyncConversationMemory(address, tls=tls) as aio:
            assert (await aio.get_history(CONVERSATION)).messages == ()
        with (
            ConversationMemory(address, tls=Tls(ca, server_name="memory.test")) as memory,
            pytest.raises(cm.Unavailable),
        ):
            memory.get_history(CONVERSATION)


def test_refused_connection_raises_unavailable_before_the_deadline() -> None:
    with ConversationMemory("127.0.0.1:1", timeout=TIMEOUT) as memory:
        with pytest.raises(cm.Unavailable) as failed:
            memory.get_history(CONVERSATION)
        assert failed.value.retryable


def test_slow_connection_is_established() -> None:
    with serving(FakeService()) as address:
        proxy = Proxy(address, delay=1.5)
        try:
            with ConversationMemory(proxy.address, timeout=TIMEOUT) as memory:
                assert memory.get_history(CONVERSATION).messages == ()
        finally:
            proxy.close()


def test_closed_client_connects_again(sidecar: Sidecar, user: str) -> None:
    memory = ConversationMemory(sidecar.address, timeout=TIMEOUT)
    conversation = memory.create_conversation(user).id
    memory.close()
    memory.close()
    assert memory.get_conversation(conversation).id == conversation
    memory.close()


def test_sequential_event_loops_have_separate_connections(sidecar: Sidecar, user: str) -> None:
    """A client that is created at import time is used by several calls of `asyncio.run`."""
    memory = AsyncConversationMemory(sidecar.address, timeout=TIMEOUT)

    async def save() -> int:
        conversation = await memory.create_conversation(user)
        await memory.save_messages(conversation.id, [Message("user", "hi")])
        return len([found async for found in memory.list_conversations(user)])

    assert [asyncio.run(save()) for _ in range(3)] == [1, 2, 3]


def test_concurrent_event_loops_have_separate_connections(sidecar: Sidecar, user: str) -> None:
    memory = AsyncConversationMemory(sidecar.address, timeout=TIMEOUT)

    async def read() -> None:
        conversation = await memory.create_conversation(user)
        for _ in range(5):
            reads = [memory.get_conversation(conversation.id) for _ in range(10)]
            assert {read.id for read in await asyncio.gather(*reads)} == {conversation.id}
        await memory.close()
        # The next call connects again, independent of the other loops.
        await memory.get_conversation(conversation.id)

    with ThreadPoolExecutor() as threads:
        for finished in [threads.submit(asyncio.run, read()) for _ in range(4)]:
            finished.result(TIMEOUT)


def test_blocking_client_works_after_a_fork(sidecar: Sidecar, user: str) -> None:
    script = (
        "import os, sys\n"
        "from conversation_memory import ConversationMemory\n"
        "memory = ConversationMemory(sys.argv[1], timeout=float(sys.argv[3]))\n"
        "memory.create_conversation(sys.argv[2])\n"
        "channel = memory._channel._channel\n"
        "for _ in range(8):\n"
        "    if os.fork() == 0:\n"
        "        memory.create_conversation(sys.argv[2])\n"
        # gRPC closes the connections of the parent asynchronously: a call on them may fail.
        "        os._exit(0 if memory._channel._channel is not channel else 1)\n"
        "assert [os.wait()[1] for _ in range(8)] == [0] * 8\n"
        "assert len(list(memory.list_conversations(sys.argv[2]))) == 9\n"
        "assert memory._channel._channel is channel\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, sidecar.address, user, str(TIMEOUT)],
        check=True,
        timeout=TIMEOUT,
        env={**os.environ, "GRPC_VERBOSITY": "ERROR"},
    )


@pytest.mark.parametrize("is_closed", [False, True])
def test_asyncio_client_after_a_fork(sidecar: Sidecar, user: str, is_closed: bool) -> None:
    """With an open connection, gRPC would never end a call, not even at its deadline."""
    script = (
        "import asyncio, os, sys\n"
        "from conversation_memory import AsyncConversationMemory\n"
        "address, user, timeout, is_closed = sys.argv[1:]\n"
        "async def create(close):\n"
        "    memory = AsyncConversationMemory(address, timeout=float(timeout))\n"
        "    await memory.create_conversation(user)\n"
        "    if close:\n"
        "        await memory.close()\n"
        "    return memory\n"
        "kept = asyncio.run(create(is_closed == 'True'))\n"
        "if os.fork() == 0:\n"
        "    try:\n"
        "        asyncio.run(create(True))\n"
        "    except RuntimeError as error:\n"
        "        os._exit(1 if 'forked' in str(error) else 2)\n"
        "    os._exit(0)\n"
        "assert os.waitstatus_to_exitcode(os.wait()[1]) == (0 if is_closed == 'True' else 1)\n"
        "asyncio.run(create(True))\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, sidecar.address, user, str(TIMEOUT), str(is_closed)],
        check=True,
        timeout=TIMEOUT,
        env={**os.environ, "GRPC_VERBOSITY": "ERROR"},
    )


@pytest.mark.parametrize("half", ["cert", "key"])
def test_cert_without_key_is_rejected(half: str) -> None:
    with pytest.raises(ValueError, match="cert and key go together"):
        Tls(**{half: b"x"})  # type: ignore[arg-type]


def test_invalid_pem_is_rejected() -> None:
    issued = trustme.CA().issue_cert("agent.test")
    chain, key = issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes()
    for tls, name in (
        (Tls(ca=b"garbage"), "ca"),
        (Tls(ca=b""), "ca"),
        (Tls(cert=key, key=key), "cert"),
        (Tls(cert=chain, key=b"s3cret"), "key"),
    ):
        with ConversationMemory("127.0.0.1:1", tls=tls) as memory:
            with pytest.raises(ValueError, match=f"{name} has no") as refused:
                memory.get_history(CONVERSATION)
            assert "s3cret" not in str(refused.value)


async def test_white_space_around_a_token_is_removed() -> None:
    fake = FakeService()
    with serving(fake) as address:
        with ConversationMemory(address, token=lambda: "t0p\n") as memory:
            memory.get_history(CONVERSATION)
        assert fake.metadata["authorization"] == ["Bearer t0p"]
        async with AsyncConversationMemory(address, token="t0p\r\n") as aio:
            await aio.get_history(CONVERSATION)
        assert fake.metadata["authorization"] == ["Bearer t0p"]


@pytest.mark.parametrize("token", ["", "\n", "s3c\nret", "s3crét", "s3c\0ret"])
async def test_invalid_token_is_rejected_without_its_text(token: str) -> None:
    for client in (ConversationMemory, AsyncConversationMemory):
        with pytest.raises(ValueError, match="a token must be") as refused:
            client(token=token)
        assert "s3c" not in str(refused.value)
    with ConversationMemory(token=lambda: token) as memory:
        with pytest.raises(ValueError, match="a token must be"):
            memory.get_history(CONVERSATION)


async def test_long_calls_have_the_longer_default_timeout() -> None:
    remaining: list[float] = []

    def record(request: bytes, context: grpc.ServicerContext) -> bytes:
        remaining.append(context.time_remaining() or 0)
        return b""

    def assert_within(remaining: list[float], expected: list[float]) -> None:
        """A slow machine may have used a part of the time, but less than the differences."""
        for one, other in zip(remaining, expected, strict=True):
            # gRPC rounds a timeout up when it encodes it.
            assert other - 25 < one <= other + 1

    fake = FakeService()
    fake.answers = dict.fromkeys(
        ("DeleteConversation", "TruncateConversation", "GetHistory"), record
    )
    with serving(fake) as address:
        for timeout, expected in ((25.0, [60.0, 60.0, 25.0]), (100.0, [100.0] * 3)):
            remaining.clear()
            with ConversationMemory(address, timeout=timeout) as memory:
                memory.delete_conversation(CONVERSATION)
                memory.truncate_conversation(CONVERSATION, 0, timeout=None)
                memory.get_history(CONVERSATION)
            assert_within(remaining, expected)
            remaining.clear()
            async with AsyncConversationMemory(address, timeout=timeout) as aio:
                await aio.delete_conversation(CONVERSATION)
                await aio.truncate_conversation(CONVERSATION, 0, timeout=None)
                await aio.get_history(CONVERSATION)
            assert_within(remaining, expected)


@pytest.mark.parametrize("timeout", [float("inf"), float("nan")])
def test_timeout_that_is_not_finite_is_rejected(timeout: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        ConversationMemory(timeout=timeout)
    with ConversationMemory("127.0.0.1:1") as memory:
        with pytest.raises(ValueError, match="finite"):
            memory.get_history(CONVERSATION, timeout=timeout)
        with pytest.raises(ValueError, match="finite"):
            memory.delete_conversation(CONVERSATION, timeout=timeout)


def test_an_error_of_the_connection_names_the_address_and_the_time() -> None:
    with ConversationMemory("127.0.0.1:1", timeout=1) as memory:
        with pytest.raises((cm.Unavailable, cm.DeadlineExceeded)) as failed:
            memory.get_conversation(CONVERSATION)
        assert re.search(r" \(127\.0\.0\.1:1, after \d+\.\d s\)$", str(failed.value))
        with pytest.raises((cm.Unavailable, cm.DeadlineExceeded)) as failed:
            memory.export_conversation(CONVERSATION, io.BytesIO())
        assert re.search(r" \(127\.0\.0\.1:1, after \d+\.\d s\)$", str(failed.value))
    # Other errors do not depend on the address.
    fake = FakeService()
    fake.answers = {"GetConversation": failing(grpc.StatusCode.NOT_FOUND)}
    with serving(fake) as address:
        with ConversationMemory(address) as memory, pytest.raises(cm.NotFound) as missing:
            memory.get_conversation(CONVERSATION)
    assert address not in str(missing.value)
