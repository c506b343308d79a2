from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from hypothesis import settings

from conversation_memory import AsyncConversationMemory, ConversationMemory

from .blocking import LoopThread
from .sidecar import PATIENCE, Form, Sidecar

# A busy machine is no failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session", params=["embedded", "servers"])
def form(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Form:
    if request.param == "servers":
        return Form.servers()
    return Form.embedded(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def sidecar(form: Form) -> Iterator[Sidecar]:
    """A sidecar in each form, for tests that leave it running."""
    sidecar = Sidecar(form)
    yield sidecar
    sidecar.stop()


@pytest.fixture(scope="session")
def event_loop_thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.stop()


@pytest.fixture(params=["blocking", "asyncio"])
def memory(
    request: pytest.FixtureRequest, sidecar: Sidecar, event_loop_thread: LoopThread
) -> Iterator[ConversationMemory]:
    """Each client in turn."""
    if request.param == "blocking":
        with ConversationMemory(sidecar.address, timeout=PATIENCE) as memory:
            yield memory
    else:
        client = AsyncConversationMemory(sidecar.address, timeout=PATIENCE)
        with event_loop_thread.blocking(client) as memory:
            yield memory


@pytest.fixture
def user() -> str:
    """A user whom no other test knows."""
    return f"ana-{uuid.uuid4()}"
