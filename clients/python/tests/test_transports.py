"""The real sidecar over each transport, as it lets callers in."""

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
from .sidecar import PATIENCE, Form, Sidecar

TOKEN = "t0p-s3cret"

Connect = Callable[..., ConversationMemory]


@pytest.fixture(params=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest, event_loop_thread: LoopThread) -> Connect:
    """Makes a client of each kind."""

    def blocking(target: str, **options: Any) -> ConversationMemory:
        return ConversationMemory(target, timeout=PATIENCE, **options)

    def on_asyncio(target: str, **options: Any) -> ConversationMemory:
        client = AsyncConversationMemory(target, timeout=PATIENCE, **options)
        return event_loop_thread.blocking(client)

    return blocking if request.param == "blocking" else on_asyncio


@contextmanager
def listening(folder: Path, address: str, **settings: str | Path) -> Iterator[str]:
    given = {name: str(value) for name, value in settings.items()}
    sidecar = Sidecar(Form("embedded", {"DATA_DIR": str(folder), **given}), address)
    try:
        yield sidecar.address
    finally:
        sidecar.stop()


def token_file(folder: Path) -> Path:
    path = folder / "tokens"
    path.write_text(f"agent:{hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
    return path


def hold_a_turn(memory: ConversationMemory) -> None:
    """Calls of every kind: one answer, pages, a stream each way."""
    with memory.turn("ana") as turn:
        turn.user("What is our vacation policy?")
        turn.assistant("25 days a year.")
    said = [message.content for message in memory.list_messages(turn.conversation_id)]
    assert said == ["What is our vacation policy?", "25 days a year."]


def test_a_unix_socket_at_an_absolute_path(tmp_path: Path, connect: Connect) -> None:
    address = f"unix:{tmp_path}/memory.sock"
    with listening(tmp_path, address) as served:
        assert served == address
        for target in (address, f"unix://{tmp_path}/memory.sock"):
            with connect(target) as memory:
                hold_a_turn(memory)
                conversation = memory.create_conversation("ana").id
                memory.save_messages(conversation, [Message("user", "hi")])
                file = tmp_path / "out.json"
                memory.export_conversation(conversation, file)
                assert memory.import_conversation(file, user_id="bob").imported_messages == 1


def test_a_callers_authority_is_sent(tmp_path: Path, connect: Connect) -> None:
    with listening(tmp_path, f"unix:{tmp_path}/memory.sock") as address:
        options = [("grpc.default_authority", "memory.test")]
        with connect(address, options=options) as memory:
            hold_a_turn(memory)


def test_a_token_is_asked_for(tmp_path: Path, connect: Connect) -> None:
    addresses = f"unix:{tmp_path}/memory.sock", "127.0.0.1:0"
    for address in addresses:
        with listening(tmp_path, address, AUTH_TOKENS_FILE=token_file(tmp_path)) as served:
            with connect(served, token=TOKEN) as memory:
                hold_a_turn(memory)
            for token in (None, "another"):
                with connect(served, token=token) as memory:
                    with pytest.raises(cm.Unauthenticated):
                        memory.create_conversation("ana")


def test_tls_of_a_private_authority(tmp_path: Path, connect: Connect) -> None:
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
    with listening(tmp_path, "127.0.0.1:0", AUTH_TOKENS_FILE=tokens, **settings) as address:
        with connect(address, token=TOKEN, tls=Tls(ca=root, **mine)) as memory:
            hold_a_turn(memory)
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
