"""The sidecar over each transport, with each kind of authentication."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

import conversation_memory as cm
from conversation_memory import AsyncConversationMemory, ConversationMemory, Message, Tls

from .blocking import LoopThread
from .sidecar import TIMEOUT, Backend, Sidecar

TOKEN = "t0p-s3cret"

Connect = Callable[..., ConversationMemory]


@pytest.fixture(params=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest, event_loop_thread: LoopThread) -> Connect:
    """A function that creates a client: a blocking one, then an asyncio one."""

    def blocking(target: str, **options: Any) -> ConversationMemory:
        return ConversationMemory(target, timeout=TIMEOUT, **options)

    def on_asyncio(target: str, **options: Any) -> ConversationMemory:
        client = AsyncConversationMemory(target, timeout=TIMEOUT, **options)
        return event_loop_thread.blocking(client)

    return blocking if request.param == "blocking" else on_asyncio


@contextmanager
def serving(folder: Path, address: str, **settings: str | Path) -> Iterator[str]:
    given = {name: str(value) for name, value in settings.items()}
    sidecar = Sidecar(Backend("embedded", {"DATA_DIR": str(folder), **given}), address)
    try:
        yield sidecar.address
    finally:
        sidecar.stop()


def token_file(folder: Path) -> Path:
    path = folder / "tokens"
    path.write_text(f"agent:{hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
    return path


def take_turn(memory: ConversationMemory) -> None:
    """Begins a turn, saves it and lists its messages."""
    with memory.turn("ana") as turn:
        turn.user("What is our vacation policy?")
        turn.assistant("25 days a year.")
    contents = [message.content for message in memory.list_messages(turn.conversation_id)]
    assert contents == ["What is our vacation policy?", "25 days a year."]


def test_unix_socket_at_an_absolute_path(tmp_path: Path, connect: Connect) -> None:
    address = f"unix:{tmp_path}/memory.sock"
    with serving(tmp_path, address) as served:
        assert served == address
        for target in (address, f"unix://{tmp_path}/memory.sock"):
            with connect(target) as memory:
                take_turn(memory)
                conversation = memory.create_conversation("ana").id
                memory.save_messages(conversation, [Message("user", "hi")])
                file = tmp_path / "out.json"
                memory.export_conversation(conversation, file)
                assert memory.import_conversation(file, user_id="bob").imported_messages == 1


def test_authority_of_the_caller_is_sent(tmp_path: Path, connect: Connect) -> None:
    with serving(tmp_path, f"unix:{tmp_path}/memory.sock") as address:
        options = [("grpc.default_authority", "memory.test")]
        with connect(address, options=options) as memory:
            take_turn(memory)


def test_token_is_required(tmp_path: Path, connect: Connect) -> None:
    addresses = f"unix:{tmp_path}/memory.sock", "127.0.0.1:0"
    for address in addresses:
        with serving(tmp_path, address, AUTH_TOKENS_FILE=token_file(tmp_path)) as served:
            with connect(served, token=TOKEN) as memory:
                take_turn(memory)
            for token in (None, "another"):
                with connect(served, token=token) as memory:
                    with pytest.raises(cm.Unauthenticated):
                        memory.create_conversation("ana")


def test_mutual_tls_with_a_private_authority(tmp_path: Path, connect: Connect) -> None:
    authority, another = trustme.CA(), trustme.CA()
    server, client = authority.issue_cert("localhost"), authority.issue_cert("agent.test")
    root, chain, key = (tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(str(root))
    server.private_key_pem.write_to_path(str(key))
    chain.write_bytes(b"".join(part.bytes() for part in server.cert_chain_pems))
    settings = {"TLS_CERT_FILE": chain, "TLS_KEY_FILE": key, "TLS_CLIENT_CA_FILE": root}
    mine: dict[str, Any] = {
        "cert": client.cert_chain_pems[0].bytes(),
        "key": client.private_key_pem.bytes(),
        "server_name": "localhost",
    }
    tokens = token_file(tmp_path)
    with serving(tmp_path, "127.0.0.1:0", AUTH_TOKENS_FILE=tokens, **settings) as address:
        with connect(address, token=TOKEN, tls=Tls(ca=root, **mine)) as memory:
            take_turn(memory)
        with connect(address, tls=Tls(ca=root, **mine)) as memory:
            with pytest.raises(cm.Unauthenticated):
                memory.create_conversation("ana")
        for stranger in (
            Tls(ca=root, server_name="localhost"),
            Tls(ca=another.cert_pem.bytes(), **mine),
        ):
            with connect(address, token=TOKEN, tls=stranger) as memory:
                with pytest.raises(cm.Unavailable):
                    memory.create_conversation("ana")
