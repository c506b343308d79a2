"""Values of every type in ADK's sessions, and values that cannot be stored."""

from __future__ import annotations

import datetime
import enum
import math
from typing import Any

import pytest
from google.adk.events import Event, EventActions
from google.adk.sessions import InMemorySessionService
from google.genai import types
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from conversation_memory import (
    AsyncConversationMemory,
    _adk,
)
from conversation_memory._forms.template import is_same
from conversation_memory.google_adk import ConversationMemorySessionService

from .adk_sessions import MIB, changing, loaded


@pytest.fixture
def service(aio: AsyncConversationMemory) -> ConversationMemorySessionService:
    return ConversationMemorySessionService(aio)


@pytest.fixture
def app(user: str) -> str:
    return f"app of {user}"


class Color(enum.Enum):
    RED = "red"


class Point(BaseModel):
    x: int = 1
    y: int | None = None
    ratio: float = math.nan
    at: datetime.datetime | None = None


def unserializable() -> None:
    """A value that JSON cannot represent."""


VALUES: dict[str, Any] = {
    "none": None,
    "nan": math.nan,
    "infinity": math.inf,
    "negative infinity": -math.inf,
    "nested numbers": {"a": [math.nan, {"b": -math.inf}], "$": "nan"},
    "texts that stand for numbers": ["nan", "inf", {"$": "nan"}, {"$": {"$": "inf"}}],
    "integers": [2**70, -(2**63), 0],
    "floats": [1.0, -0.0, 1e308, 5e-324],
    "booleans": [True, False, 1, 0],
    "tuple": (1, (2, "x")),
    "set": {3},
    "bytes": b"abc",
    "bytes that are no text": b"\xff\xfb\x00",
    "keys": {1: "a", 2.5: "b", None: "c"},
    "model": Point(),
    "models": [Point(x=2, y=3), {"p": Point(at=datetime.datetime(2020, 1, 2))}],
    "times": [
        datetime.datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=datetime.timezone.utc),
        datetime.date(2020, 1, 2),
        datetime.timedelta(seconds=1.5),
    ],
    "enumeration": [Color.RED, {"c": Color.RED}],
    "nested temporary key": {"temp:a": 1, "b": {"temp:c": None}},
    "texts": ["", "\0", "\ud800", "ü", "x" * 300],
    "keys of templates": {"$": 1, "": {"$": [0, "text"]}},
    "function": [unserializable],
    "empty": [{}, [], ""],
}


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal, where NaN equals NaN, and 1, 1.0 and True differ."""
    return is_same(one, other)


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("prefix", ["", "user:", "app:"])
async def test_value_is_stored_alike_by_every_write(
    service: ConversationMemorySessionService, app: str, user: str, name: str, prefix: str
) -> None:
    value, key = VALUES[name], f"{prefix}key"
    expected = to_jsonable_python({key: value}, bytes_mode="base64", serialize_unknown=True)
    created = await service.create_session(
        app_name=app, user_id=user, session_id="created", state={key: value}
    )
    assert same(created.state, expected)
    appended = await service.create_session(app_name=f"{app}'", user_id=user, session_id="appended")
    await service.append_event(appended, changing({key: value}))
    for app_name, session in ((app, "created"), (f"{app}'", "appended")):
        # The second load computes the state from what the first one may have applied again.
        for _ in range(2):
            assert same((await loaded(service, app_name, user, session)).state, expected)
    event = (await loaded(service, f"{app}'", user, "appended")).events[0]
    assert same(event.actions.state_delta, expected)


@pytest.mark.parametrize("name", VALUES)
async def test_values_outside_of_the_state_keep_their_unset_fields(
    service: ConversationMemorySessionService, app: str, user: str, name: str
) -> None:
    value = VALUES[name]
    result = types.FunctionResponse(id="c", name="f", response={"result": value})
    call = types.FunctionCall(id="d", name="f", args={"argument": value})
    parts = [types.Part(function_response=result), types.Part(function_call=call)]
    event = Event(
        author="agent",
        invocation_id="i",
        output={"v": value},
        custom_metadata={"v": value},
        content=types.Content(role="user", parts=parts),
        actions=EventActions(agent_state={"v": value}, set_model_response={"v": value}),
    )
    session = await service.create_session(app_name=app, user_id=user, session_id="s")
    await service.append_event(session, event)
    (found,) = (await loaded(service, app, user, "s")).events
    assert found.content is not None
    assert found.content.parts is not None
    response, args = found.content.parts[0].function_response, found.content.parts[1].function_call
    assert response is not None
    assert args is not None
    expected = _adk.storable(value)
    for container in (
        found.output,
        found.custom_metadata,
        found.actions.agent_state,
        found.actions.set_model_response,
    ):
        assert isinstance(container, dict)
        assert same(container["v"], expected)
    assert same((response.response or {})["result"], expected)
    assert same((args.args or {})["argument"], expected)


async def test_json_values_are_those_of_the_service_in_memory(
    service: ConversationMemorySessionService, app: str, user: str
) -> None:
    theirs = InMemorySessionService()
    state = {name: VALUES[name] for name in VALUES if "bytes" not in name and name != "function"}
    names: dict[str, Any] = {"app_name": app, "user_id": user, "session_id": "s"}
    for each in (service, theirs):
        session = await each.create_session(**names, state={**state, "temp:x": 1})
        await each.append_event(session, changing({f"user:{name}": state[name] for name in state}))
    mine, other = await service.get_session(**names), await theirs.get_session(**names)
    assert mine is not None
    assert other is not None
    assert same(mine.state, to_jsonable_python(other.state))


@pytest.mark.parametrize("state", [{1: 2}, {None: 1}])
async def test_state_with_other_keys_than_texts_is_rejected_by_name(
    service: ConversationMemorySessionService,
    aio: AsyncConversationMemory,
    app: str,
    user: str,
    state: Any,
) -> None:
    with pytest.raises(TypeError, match="the keys of state"):
        await service.create_session(app_name=app, user_id=user, state=state)
    assert [each async for each in aio.list_conversations(user)] == []


TOO_LARGE = {"k": "x" * (MIB + 1)}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"state": TOO_LARGE}, "state: "),
        ({"state": {"user:k": "x" * (MIB + 1)}}, "state_delta: "),
        ({"state": {"k": "x", "app:k": ["x" * MIB]}}, "state_delta: "),
        ({"user_id": "u" * 256}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"session_id": "a\0b"}, "session_id"),
        ({"app_name": "\ud800"}, "app_name"),
    ],
)
async def test_session_that_cannot_be_saved_leaves_nothing_behind(
    service: ConversationMemorySessionService,
    aio: AsyncConversationMemory,
    app: str,
    user: str,
    fields: dict[str, Any],
    text: str,
) -> None:
    names = {"app_name": app, "user_id": user, "session_id": "s", **fields}
    with pytest.raises(ValueError, match=text):
        await service.create_session(**names)
    assert [each async for each in aio.list_conversations(user)] == []
    assert (await service.list_sessions(app_name=app)).sessions == []


@pytest.mark.parametrize("prefix", ["user:", "app:"])
async def test_event_whose_shared_state_cannot_be_saved_is_not_appended(
    service: ConversationMemorySessionService, app: str, user: str, prefix: str
) -> None:
    session = await service.create_session(app_name=app, user_id=user, session_id="s")
    # The event refers to its text, but the shared state has it in full, with escape sequences.
    text = "\n" * (MIB * 3 // 4)
    with pytest.raises(ValueError, match="state_delta: "):
        await service.append_event(session, changing({f"{prefix}k": text}, text))
    found = await loaded(service, app, user, "s")
    assert (found.events, found.state) == ([], {})


async def test_large_changes_of_shared_state_are_saved(
    service: ConversationMemorySessionService, app: str, user: str
) -> None:
    state = {f"user:{number}": chr(97 + number) * 100_000 for number in range(9)}
    session = await service.create_session(app_name=app, user_id=user, session_id="s", state=state)
    text = "y" * 900_000
    await service.append_event(session, changing({"user:answer": text, "app:answer": text}, text))
    expected = {**state, "user:answer": text, "app:answer": text}
    for _ in range(2):
        assert (await loaded(service, app, user, "s")).state == expected
