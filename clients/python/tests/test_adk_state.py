"""Snapshots of the state of ADK's sessions, and changes of shared states."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import pytest
from google.adk.errors import StaleSessionError
from google.adk.events import Event
from google.adk.sessions import Session
from google.genai import types

from conversation_memory import (
    AsyncConversationMemory,
    InvalidArgument,
    Message,
    Original,
    Unavailable,
    _adk,
    _adk_events,
    _adk_state,
)
from conversation_memory._async import adapters, operations
from conversation_memory.google_adk import ConversationMemorySessionService

from .adk_sessions import MIB, changing, loaded


@pytest.fixture
def service(aio: AsyncConversationMemory) -> ConversationMemorySessionService:
    return ConversationMemorySessionService(aio)


@pytest.fixture
def app(user: str) -> str:
    return f"app of {user}"


async def filled(
    service: ConversationMemorySessionService, app: str, user: str, count: int, size: int = 10
) -> Session:
    """Returns a session with `count` messages, whose state has about `size` bytes."""
    state = {"large": "s" * size}
    session = await service.create_session(app_name=app, user_id=user, session_id="s", state=state)
    for number in range(count - 1):
        await service.append_event(session, changing({f"k{number % 3}": number}))
    return session


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


LARGE_EVENTS: dict[str, Event] = {
    "text": changing({}, "x" * MIB),
    "state": changing({"k": "x" * 1_000_000}),
    "parts": Event(
        author="agent",
        invocation_id="i",
        content=types.Content(role="model", parts=[types.Part(text=str(n)) for n in range(199)]),
    ),
    "levels": changing({"k": nested(195)}),
    "custom metadata": Event(
        author="agent", invocation_id="i", custom_metadata={"k": "x" * 1_000_000}
    ),
}


@pytest.mark.parametrize("name", LARGE_EVENTS)
async def test_event_is_not_rejected_because_it_is_the_hundredth(
    service: ConversationMemorySessionService, app: str, user: str, name: str
) -> None:
    session = await filled(service, app, user, 99, 200_000)
    event = LARGE_EVENTS[name].model_copy(deep=True)
    await service.append_event(session, event)
    for number in range(3):
        await service.append_event(session, changing({"last": number}))
    found = await loaded(service, app, user, "s")
    assert found.state == session.state
    assert found.events == session.events
    # A later event has taken the snapshot, unless the state is too large now.
    records = await records_of(service, app, user)
    assert any("snapshot" in record for record in records) == (name != "state")


async def records_of(
    service: ConversationMemorySessionService, app: str, user: str
) -> list[_adk.Record]:
    conversation = _adk.session_conversation(app, user, "s")
    operation = service._memory._operation(None)
    messages, _ = await adapters.read_backwards(operation, conversation, 9, lambda _: False)
    return [_adk.record_of(message) for message in messages]


async def test_snapshots_follow_each_other(
    service: ConversationMemorySessionService, app: str, user: str
) -> None:
    session = await filled(service, app, user, 230)
    for _ in range(2):
        session = await loaded(service, app, user, "s")
        await service.append_event(session, changing({"x": 1}))
    throughs = [
        record["snapshot"]["through"]
        for record in await records_of(service, app, user)
        if "snapshot" in record
    ]
    assert throughs == [99, 198]


async def test_state_that_is_too_large_for_snapshots_is_read_rarely_by_appends(
    service: ConversationMemorySessionService,
    app: str,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = await filled(service, app, user, 99, 400_000)
    reads = itertools.count()
    read_state = _adk_state.read_state

    async def counted(*args: Any) -> Any:
        next(reads)
        return await read_state(*args)

    monkeypatch.setattr(_adk_state, "read_state", counted)
    for number in range(20):
        await service.append_event(session, changing({"x": number}))
    assert next(reads) == 1
    assert (await loaded(service, app, user, "s")).state == session.state


@pytest.mark.parametrize("failure", [Unavailable("away"), InvalidArgument("too large")])
async def test_event_is_saved_without_a_snapshot_that_fails(
    service: ConversationMemorySessionService,
    app: str,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
) -> None:
    session = await filled(service, app, user, 99)

    async def failing(*args: Any) -> Any:
        raise failure

    save_messages = operations.save_messages

    async def rejecting(operation: Any, conversation_id: str, messages: Any, **kwargs: Any) -> Any:
        if (
            b"snapshot" in messages[0].SerializeToString()
            if hasattr(messages[0], "SerializeToString")
            else False
        ):
            raise failure
        return await save_messages(operation, conversation_id, messages, **kwargs)

    with monkeypatch.context() as patch:
        if isinstance(failure, Unavailable):
            patch.setattr(_adk_state, "read_state", failing)
        else:
            patch.setattr(operations, "save_messages", rejecting)
        await service.append_event(session, changing({"hundredth": 1}))
    await service.append_event(session, changing({"next": 1}))
    assert (await loaded(service, app, user, "s")).state == session.state


@pytest.mark.parametrize("count", [50, 99])
async def test_event_with_a_lost_response_is_appended_once_by_a_retry(
    service: ConversationMemorySessionService, app: str, user: str, count: int
) -> None:
    session = await filled(service, app, user, count)
    before = session.model_copy(deep=True)
    before._storage_update_marker = session._storage_update_marker
    event = changing({"own": 1, "user:shared": 1, "app:shared": 1})
    await service.append_event(session, event.model_copy(deep=True))
    await service.append_event(
        await service.create_session(app_name=app, user_id=user), changing({"user:other": 2})
    )
    await service.append_event(before, event.model_copy(deep=True))
    assert before.events == session.events
    await service.append_event(before, changing({"on": 1}))
    found = await loaded(service, app, user, "s")
    assert found.events == before.events
    assert found.state == {**before.state, "user:other": 2}
    other = changing({"own": 2})
    other.id = event.id
    with pytest.raises(StaleSessionError):
        await service.append_event(session, other)


# Changes of shared states.


async def crashed(
    service: ConversationMemorySessionService,
    session: Session,
    delta: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Appends an event as a process does that ends before it changes the shared states."""

    def ended(*args: Any, **kwargs: Any) -> Any:
        raise Unavailable("between the event and the shared state")

    with monkeypatch.context() as patch:
        patch.setattr(_adk_state, "change_shared_state", ended)
        with pytest.raises(Unavailable):
            await service.append_event(session, changing(delta))


@pytest.mark.parametrize("scope", ["user:", "app:"])
@pytest.mark.parametrize("changes", [1, 130])
async def test_late_change_of_shared_state_does_not_revert_newer_values(
    service: ConversationMemorySessionService,
    app: str,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
    scope: str,
    changes: int,
) -> None:
    names: dict[str, Any] = {"app_name": app, "user_id": user}
    other = await service.create_session(**names, state={f"{scope}a": "first", f"{scope}b": 0})
    old = await service.create_session(**names, session_id="old")
    delta = {"own": 1, f"{scope}a": "old", f"{scope}b": "old", f"{scope}c": "old"}
    await crashed(service, old, delta, monkeypatch)
    for number in range(changes):
        await service.append_event(other, changing({f"{scope}a": f"new {number}"}))
    expected = {f"{scope}a": f"new {changes - 1}", f"{scope}b": "old", f"{scope}c": "old"}
    for _ in range(2):
        found = await loaded(service, app, user, "old")
        assert found.state == {**expected, "own": 1}
    await service.append_event(other, changing({f"{scope}b": "newest"}))
    found = await loaded(service, app, user, "old")
    assert found.state == {**expected, "own": 1, f"{scope}b": "newest"}


async def test_late_change_is_applied_though_another_client_has_written_since(
    service: ConversationMemorySessionService,
    aio: AsyncConversationMemory,
    app: str,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = await service.create_session(app_name=app, user_id=user, session_id="s")
    await crashed(service, session, {"user:a": 1}, monkeypatch)
    conversation = service.conversation_id(app_name=app, user_id=user, session_id="s")
    async with aio.turn(user, conversation_id=conversation) as turn:
        turn.user("question")
    assert (await loaded(service, app, user, "s")).state == {"user:a": 1}


@pytest.mark.parametrize("is_applied", [True, False])
async def test_sessions_of_earlier_versions_do_not_revert_newer_values(
    service: ConversationMemorySessionService,
    aio: AsyncConversationMemory,
    app: str,
    user: str,
    is_applied: bool,
) -> None:
    """They have no numbers of the last older changes, and their records are in the metadata."""

    def old(record: _adk.Record) -> Message:
        return Message("system", original=Original.of("google-adk", record))

    session = _adk.session_conversation(app, user, "old")
    shared = _adk.earlier_user_conversation(app, user)
    delta = {"a": "old", "b": "old"}
    record = {
        "session": {"created": 1.0, "state_delta": {"own": 1, "user:a": "old", "user:b": "old"}}
    }
    saved = await adapters.save(aio._operation(None), session, [old(record)])
    if is_applied:
        await adapters.save(
            aio._operation(None),
            shared,
            [old({"delta": delta})],
            request_id=f"{saved.messages[0].id}:user:",
        )
    other = await service.create_session(app_name=app, user_id=user)
    await service.append_event(other, changing({"user:a": "new"}))
    for _ in range(2):
        found = await loaded(service, app, user, "old")
        assert found.state == {"own": 1, "user:a": "new", "user:b": "old"}
        assert found.last_update_time == 1.0


async def test_session_is_loaded_though_its_shared_state_cannot_be_changed(
    service: ConversationMemorySessionService,
    app: str,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = await service.create_session(
        app_name=app, user_id=user, session_id="s", state={"user:a": 1}
    )
    await crashed(service, session, {"own": 1, "user:secret": "s3cret"}, monkeypatch)

    async def rejected(*args: Any) -> None:
        raise InvalidArgument("the service has lower limits now")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(_adk_state, "recover_shared_state", rejected)
        assert (await loaded(service, app, user, "s")).state == {"own": 1, "user:a": 1}
    assert "are not applied" in caplog.text
    assert "s3cret" not in caplog.text
    assert (await loaded(service, app, user, "s")).state["user:secret"] == "s3cret"


@pytest.mark.parametrize(
    "record",
    [
        {"event": 5},
        {"event": {"actions": None}},
        {"event": {"actions": {"state_delta": [1]}}},
        {"session": {}},
        {"session": {"created": "now", "state_delta": 3}},
        {"delta": [["a"]]},
        {"snapshot": {"state": [], "through": 1}},
        {"snapshot": {"state": {"forged": 1}, "through": 10**9}},
        {"snapshot": {"state": {"forged": 1}, "through": True}},
        {"base": {"user:": -1}},
        [],
    ],
)
async def test_invalid_records_of_other_clients_change_nothing(
    service: ConversationMemorySessionService,
    aio: AsyncConversationMemory,
    app: str,
    user: str,
    record: Any,
) -> None:
    names: dict[str, Any] = {"app_name": app, "user_id": user, "session_id": "s"}
    await service.create_session(**names, state={"own": 1, "user:a": 2})
    for conversation in (
        _adk.session_conversation(app, user, "s"),
        _adk.user_conversation(app, user),
        _adk.users_conversation(app),
    ):
        await adapters.save(aio._operation(None), conversation, [_adk.to_message(record)])
    session = await loaded(service, app, user, "s")
    assert session.state == {"own": 1, "user:a": 2}
    assert session == await loaded(service, app, user, "s")
    odd = list(session.events)
    assert all(each.content is None and not each.actions.state_delta for each in odd)
    assert len((await service.list_sessions(app_name=app)).sessions) == 1
    event = changing({"own": 3, "user:b": 4})
    await service.append_event(session, event)
    session = await loaded(service, app, user, "s")
    assert session.state == {"own": 3, "user:a": 2, "user:b": 4}
    assert session.events == [*odd, event]


async def test_event_of_a_newer_version_of_adk_keeps_its_content(
    service: ConversationMemorySessionService, aio: AsyncConversationMemory, app: str, user: str
) -> None:
    await service.create_session(app_name=app, user_id=user, session_id="s")
    call = types.FunctionCall(id="c", name="f", args={"a": 1})
    content = types.Content(role="model", parts=[types.Part(function_call=call)])
    event = Event(author="hr", invocation_id="i", content=content)
    record = _adk_events.event_record(event)
    record["event"]["actions"] = {"from_the_future": 1, "state_delta": {"k": 1}}
    message = _adk_events.event_message(event, record)
    conversation = _adk.session_conversation(app, user, "s")
    await adapters.save(aio._operation(None), conversation, [message])
    found = await loaded(service, app, user, "s")
    assert found.state == {"k": 1}
    assert (found.events[0].author, found.events[0].content) == ("hr", content)
    assert found.events[0].id == event.id
