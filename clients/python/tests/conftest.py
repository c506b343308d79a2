from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from conversation_memory import AsyncConversationMemory, ConversationMemory

from .blocking import LoopThread
from .sidecar import TIMEOUT, Backend, Sidecar

# A slow machine must not fail a test.
settings.register_profile(
    "slow machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("slow machine")


@pytest.fixture(scope="session", params=["embedded", "servers"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backend:
    if request.param == "servers":
        return Backend.servers()
    return Backend.embedded(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def sidecar(backend: Backend) -> Iterator[Sidecar]:
    """A sidecar with each backend, for tests that leave it running."""
    sidecar = Sidecar(backend)
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
    """A client: the blocking one, then the asyncio one behind a blocking interface."""
    if request.param == "blocking":
        with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
            yield memory
    else:
        client = AsyncConversationMemory(sidecar.address, timeout=TIMEOUT)
        with event_loop_thread.blocking(client) as memory:
            yield memory


@pytest.fixture
async def aio(sidecar: Sidecar) -> AsyncIterator[AsyncConversationMemory]:
    """An asyncio client."""
    async with AsyncConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        yield memory


@pytest.fixture
def user() -> str:
    """A user that no other test uses."""
    return f"ana-{uuid.uuid4()}"
