"""Listings of ADK's sessions, and what the lists of a user's conversations have."""

from __future__ import annotations

from typing import Any

import pytest

from conversation_memory import AsyncConversationMemory, Unavailable, _adk, _adk_list
from conversation_memory._async import adapters
from conversation_memory.google_adk import ConversationMemorySessionService

from .adk_sessions import changing, loaded


@pytest.fixture
def service(aio: AsyncConversationMemory) -> ConversationMemorySessionService:
    return ConversationMemorySessionService(aio)


@pytest.fixture
def app(user: str) -> str:
    return f"app of {user}"


@pytest.fixture
def calls(aio: AsyncConversationMemory, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the methods that the client calls."""
    names: list[str] = []
    unary = aio._channel.unary

    async def recorded(call: Any, seconds: float) -> Any:
        names.append(call.method.path.rpartition("/")[2])
        return await unary(call, seconds)

    monkeypatch.setattr(aio._channel, "unary", recorded)
    return names


async def states(service: ConversationMemorySessionService, app: str, user: str) -> dict[str, Any]:
    found = await service.list_sessions(app_name=app, user_id=user)
    return {session.id: session.state for session in found.sessions}


async def test_a_listing_reads_no_session(
    service: ConversationMemorySessionService, app: str, user: str, calls: list[str]
) -> None:
    names: dict[str, Any] = {"app_name": app, "user_id": user}
    for n in range(120):
        await service.create_session(**names, session_id=f"s{n}", state={"n": n, "odd": "\0\ud800"})
    changed = await loaded(service, app, user, "s7")
    await service.append_event(changed, changing({}, "hello"))
    await service.append_event(changed, changing({"own": [2**60, float("inf")], "user:a": 1}))
    await service.append_event(changed, changing({}, "bye"))
    calls.clear()
    listed = (await service.list_sessions(**names)).sessions
    assert calls.count("ListConversations") == 2
    # The other calls read the shared states.
    assert len(calls) <= 2 + 6
    assert len(listed) == 120
    assert listed[-1].id == "s7"
    assert listed[-1].state == {
        "n": 7,
        "odd": "\0\ud800",
        "own": [2**60, float("inf")],
        "user:a": 1,
    }
    assert {session.state["n"] for session in listed} == set(range(120))
    # The time of a session whose last event has changed its state is exact.
    await service.append_event(changed, event := changing({"own": 1}))
    listed = (await service.list_sessions(**names)).sessions
    assert (listed[-1].id, listed[-1].last_update_time) == ("s7", event.timestamp)


async def test_metadata_of_other_clients_is_kept(
    service: ConversationMemorySessionService, aio: AsyncConversationMemory, app: str, user: str
) -> None:
    session = await service.create_session(app_name=app, user_id=user, session_id="s")
    id_ = service.conversation_id(app_name=app, user_id=user, session_id="s")
    found = await aio.get_conversation(id_)
    await aio.update_conversation(id_, metadata={**found.metadata, "topic": "vacation"})
    await service.append_event(session, changing({"own": 1}))
    assert (await aio.get_conversation(id_)).metadata["topic"] == "vacation"
    assert await states(service, app, user) == {"s": {"own": 1}}


async def test_a_listed_state_is_corrected_by_the_next_load(
    service: ConversationMemorySessionService,
    app: str,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = await service.create_session(
        app_name=app, user_id=user, session_id="s", state={"own": 1}
    )

    async def failing(*args: Any, **kwargs: Any) -> Any:
        raise Unavailable("the process ends")

    with monkeypatch.context() as patch:
        patch.setattr(service._memory, "update_conversation", failing)
        await service.append_event(session, changing({"own": "s3cret"}))
    assert "earlier state" in caplog.text
    assert "s3cret" not in caplog.text
    assert await states(service, app, user) == {"s": {"own": 1}}
    assert (await loaded(service, app, user, "s")).state == {"own": "s3cret"}
    assert await states(service, app, user) == {"s": {"own": "s3cret"}}


@pytest.mark.parametrize(
    "listed",
    [
        None,
        5,
        {},
        {"state": 5},
        {"state": "{"},
        {"state": "[]"},
        _adk_list.TOO_LARGE,
    ],
)
async def test_sessions_without_a_valid_listed_state_are_loaded(
    service: ConversationMemorySessionService,
    aio: AsyncConversationMemory,
    app: str,
    user: str,
    listed: Any,
) -> None:
    session = await service.create_session(
        app_name=app, user_id=user, session_id="s", state={"own": 1}
    )
    id_ = service.conversation_id(app_name=app, user_id=user, session_id="s")
    description = {**(await aio.get_conversation(id_)).metadata["google_adk"], "listed": listed}
    await aio.update_conversation(id_, metadata={"google_adk": description})
    assert await states(service, app, user) == {"s": {"own": 1}}
    await service.append_event(session, changing({"other": 2}))
    assert await states(service, app, user) == {"s": {"own": 1, "other": 2}}


async def test_large_states_are_listed(
    service: ConversationMemorySessionService, app: str, user: str
) -> None:
    large = {"own": "x" * 100_000}
    session = await service.create_session(
        app_name=app, user_id=user, session_id="s", state=dict(large)
    )
    small = await service.create_session(app_name=app, user_id=user, session_id="t")
    assert await states(service, app, user) == {"s": large, "t": {}}
    await service.append_event(session, changing({"other": 1}))
    await service.append_event(small, changing(large))
    assert await states(service, app, user) == {"s": {**large, "other": 1}, "t": large}


async def test_lists_of_a_user_have_sessions_only(
    service: ConversationMemorySessionService, aio: AsyncConversationMemory, app: str, user: str
) -> None:
    await service.create_session(
        app_name=app, user_id=user, session_id="s", state={"user:a": 1, "app:b": 1}
    )
    listed = [conversation async for conversation in aio.list_conversations(user)]
    assert [each.metadata["google_adk"]["session_id"] for each in listed] == ["s"]


async def test_user_state_of_earlier_versions_is_read(
    service: ConversationMemorySessionService, aio: AsyncConversationMemory, app: str, user: str
) -> None:
    names: dict[str, Any] = {"app_name": app, "user_id": user}
    await adapters.save(
        aio._operation(None),
        _adk.earlier_user_conversation(app, user),
        [_adk.to_message({"delta": {"a": "old", "b": "old"}})],
    )
    assert await service.get_user_state(**names) == {"a": "old", "b": "old"}
    await service.create_session(**names, session_id="s", state={"user:a": "new"})
    assert await service.get_user_state(**names) == {"a": "new", "b": "old"}
    assert await states(service, app, user) == {"s": {"user:a": "new", "user:b": "old"}}
    await service.delete_user_state(**names)
    assert await service.get_user_state(**names) == {}
    assert await states(service, app, user) == {"s": {}}


async def test_secrets_are_never_stored(
    service: ConversationMemorySessionService, aio: AsyncConversationMemory, app: str, user: str
) -> None:
    names: dict[str, Any] = {"app_name": app, "user_id": user, "session_id": "s"}
    session = await service.create_session(**names, state={"secret:a": "s3cret", "own": 1})
    assert session.state == {"own": 1}
    event = changing({"secret:b": "s3cret", "own": 2, "temp:c": 3})
    appended = await service.append_event(session, event)
    assert appended.actions.state_delta == {"own": 2}
    assert session.state == {"own": 2, "secret:b": "s3cret", "temp:c": 3}
    assert (await loaded(service, app, user, "s")).state == {"own": 2}
    assert await states(service, app, user) == {"s": {"own": 2}}
    id_ = service.conversation_id(**names)
    exported = [message async for message in aio.list_messages(id_)]
    assert "s3cret" not in repr((exported, await aio.get_conversation(id_)))
