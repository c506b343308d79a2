"""Session service of ADK: the test cases of ADK's own services, and its runner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events import Event, EventActions
from google.adk.models import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.adk.sessions import Session
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.tools.tool_context import ToolContext
from google.genai import types

from conversation_memory import AsyncConversationMemory, Unavailable, _adk, _adk_state
from conversation_memory._async import adapters, operations
from conversation_memory.google_adk import ConversationMemorySessionService

from .sidecar import TIMEOUT, Sidecar


@pytest.fixture
async def memory(sidecar: Sidecar) -> AsyncIterator[AsyncConversationMemory]:
    async with AsyncConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        yield memory


@pytest.fixture
def service(memory: AsyncConversationMemory) -> ConversationMemorySessionService:
    return ConversationMemorySessionService(memory)


@pytest.fixture
def app(user: str) -> str:
    return f"app of {user}"


def text(content: str, author: str = "user", **fields: Any) -> Event:
    role = "user" if author == "user" else "model"
    parts = types.Content(role=role, parts=[types.Part(text=content)])
    return Event(author=author, content=parts, invocation_id="i", **fields)


def changing(**delta: Any) -> Event:
    """Returns an event that changes the state; `app_x` stands for the key `app:x`."""
    for prefix in ("app", "user", "temp"):
        delta = {key.replace(f"{prefix}_", f"{prefix}:"): delta[key] for key in delta}
    return Event(author="agent", invocation_id="i", actions=EventActions(state_delta=delta))


async def loaded(
    service: ConversationMemorySessionService, session: Session, **config: Any
) -> Session:
    found = await service.get_session(
        app_name=session.app_name,
        user_id=session.user_id,
        session_id=session.id,
        config=GetSessionConfig(**config) if config else None,
    )
    assert found is not None
    return found


def texts(session: Session) -> list[str]:
    return [
        part.text or ""
        for event in session.events
        for part in (event.content and event.content.parts) or []
    ]


async def test_empty_service(
    service: ConversationMemorySessionService, app: str, user: str
) -> None:
    names: dict[str, Any] = {"app_name": app, "user_id": user}
    assert await service.get_session(**names, session_id="none") is None
    assert (await service.list_sessions(**names)).sessions == []
    assert (await service.list_sessions(app_name=app)).sessions == []
    assert await service.get_user_state(**names) == {}
    await service.delete_session(**names, session_id="none")
    session = Session(id="none", **names)
    with pytest.raises(SessionNotFoundError):
        await service.append_event(session, text("lost"))


async def test_created_session_is_loaded_equal(
    service: ConversationMemorySessionService, app: str, user: str
) -> None:
    created = await service.create_session(
        app_name=app, user_id=user, session_id=" s 1 ", state={"key": [1, 2**60, {"a": None}]}
    )
    assert (created.id, created.app_name, created.user_id) == ("s 1", app, user)
    assert created.state == {"key": [1, 2**60, {"a": None}]}
    assert created.last_update_time > 0
    found = await loaded(service, created)
    assert found == created
    assert (await loaded(service, created, num_recent_events=3)) == created
    named = await service.create_session(app_name=app, user_id=user)
    assert named.id
    assert named.id != created.id


async def test_existing_session_id_is_rejected(
    service: ConversationMemorySessionService, app: str, user: str
) -> None:
    async def create(number: int) -> int | None:
        try:
            await service.create_session(
                app_name=app, user_id=user, session_id="s", state={"n": number}
            )
        except AlreadyExistsError:
            return None
        return number

    outcomes = await asyncio.gather(*[create(number) for number in range(6)])
    (first,) = [number for number in outcomes if number is not None]
    found = await service.get_session(app_name=app, user_id=user, session_id="s")
    assert found is not None
    assert found.state == {"n": first}


EVERY_KIND = [
    text("What is our vacation policy?", timestamp=1700000000.1234567),
    Event(
        author="hr",
        invocation_id="i",
        branch="hr.policies",
        content=types.Content(
            role="model",
            parts=[
                types.Part(text="Let me think.", thought=True, thought_signature=b"\0\xff"),
                types.Part(
                    function_call=types.FunctionCall(id="c", name="look_up", args={"n": 1.5})
                ),
            ],
        ),
        long_running_tool_ids={"c"},
        usage_metadata=types.GenerateContentResponseUsageMetadata(total_token_count=7),
        custom_metadata={"any": ["thing", None]},
    ),
    Event(
        author="hr",
        invocation_id="i",
        content=types.Content(
            role="user",
            parts=[
                types.Part(
                    function_response=types.FunctionResponse(
                        id="c", name="look_up", response={"days": 25}
                    )
                )
            ],
        ),
        actions=EventActions(
            state_delta={"topic": "vacation", "none": None},
            artifact_delta={"file.txt": 2},
            escalate=True,
            transfer_to_agent="other",
        ),
    ),
    Event(
        author="user",
        invocation_id="i",
        content=types.Content(
            role="user",
            parts=[
                types.Part(text="And this?"),
                types.Part(inline_data=types.Blob(data=b"\x89PNG" * 20_000, mime_type="image/png")),
            ],
        ),
    ),
    Event(author="hr", error_code="SAFETY", error_message="no", turn_complete=True),
    text("\0 and half a \ud83d"),
    text("25 days.", "hr", output={"typed": 1}),
]


async def test_events_are_read_back_equal(
    service: ConversationMemorySessionService, app: str, user: str
) -> None:
    session = await service.create_session(app_name=app, user_id=user)
    for event in EVERY_KIND:
        copy = event.model_copy(deep=True)
        assert await service.append_event(session, copy) == event
    found = await loaded(service, session)
    assert found.events == EVERY_KIND
    assert found == session
    assert found.last_update_time == EVERY_KIND[-1].timestamp


async def test_other_clients_read_the_text_of_events(
    service: ConversationMemorySessionService,
    memory: AsyncConversationMemory,
    app: str,
    user: str,
) -> None:
    session = await service.create_session(app_name=app, user_id=user)
    for event in EVERY_KIND[:4]:
        await service.append_event(session, event.model_copy(deep=True))
    (conversation,) = [it async for it in memory.list_conversations(user)]
    assert conversation.title == "What is our vacation policy?"
    contents = [
        (message.role, message.content) async for message in memory.list_messages(conversation.id)
    ]
    assert contents == [
        ("system", ""),
        ("user", "What is our vacation policy?"),
        ("assistant", ""),
        ("tool", '{"days":25}'),
        ("user", "And this?"),
    ]
    async with memory.turn(user, conversation_id=conversation.id) as turn:
        turn.user("by another client")
    event = (await loaded(service, session)).events[-1]
    assert (event.author, event.content) == ("user", text("by another client").content)


async def test_agent_reads_messages_of_other_clients_as_its_own_turns(
    service: ConversationMemorySessionService,
    memory: AsyncConversationMemory,
    app: str,
    user: str,
) -> None:
    requests: list[LlmRequest] = []

    class Recording(BaseLlm):
        async def generate_content_async(
            self, llm_request: LlmRequest, stream: bool = False
        ) -> AsyncGenerator[LlmResponse, None]:
            requests.append(llm_request)
            part = types.Part(text="own answer")
            yield LlmResponse(content=types.Content(role="model", parts=[part]))

    async def ask() -> list[tuple[str | None, str]]:
        agent = LlmAgent(name="hr", model=Recording(model="recording"))
        runner = Runner(agent=agent, app_name=app, session_service=service)
        question = types.Content(role="user", parts=[types.Part(text="own question")])
        async for _ in runner.run_async(user_id=user, session_id="s", new_message=question):
            pass
        await runner.close()
        return [
            (content.role, " ".join(part.text or "" for part in content.parts or []))
            for content in requests[-1].contents
        ]

    await service.create_session(app_name=app, user_id=user, session_id="s")
    await ask()
    conversation = service.conversation_id(app_name=app, user_id=user, session_id="s")
    async with memory.turn(user, conversation_id=conversation) as turn:
        turn.system("Be brief.")
        turn.user("question")
        turn.assistant("answer")
    assert await ask() == [
        ("user", "own question"),
        ("model", "own answer"),
        ("user", "[system]\nBe brief."),
        ("user", "question"),
        ("model", "answer"),
        ("user", "own question"),
    ]


async def test_author_before_the_first_own_event_is_the_app(
    service: ConversationMemorySessionService,
    memory: AsyncConversationMemory,
    app: str,
    user: str,
) -> None:
    session = await service.create_session(app_name=app, user_id=user)
    conversation = service.conversation_id(app_name=app, user_id=user, session_id=session.id)
    async with memory.turn(user, conversation_id=conversation) as turn:
        turn.user("question")
        turn.assistant("answer")
    events = (await loaded(service, session)).events
    assert [event.author for event in events] == ["user", app]


async def test_config_selects_events(
    service: ConversationMemorySessionService, app: str, user: str
) -> None:
    session = await service.create_session(app_name=app, user_id=user, state={"first": True})
    for number in range(1, 8):
        await service.append_event(session, text(str(number), timestamp=float(number)))
    every = [str(number) for number in range(1, 8)]

    async def picked(**config: Any) -> list[str]:
        found = await loaded(service, session, **config)
        assert found.state == {"first": True}
        assert found.last_update_time == 7
        return texts(found)

    assert await picked() == every
    assert await picked(num_recent_events=3) == ["5", "6", "7"]
    assert await picked(num_recent_events=0) == []
    assert await picked(num_recent_events=99) == every
    assert await picked(after_timestamp=4.0) == ["4", "5", "6", "7"]
    assert await picked(after_timestamp=6.5) == ["7"]
    assert await picked(after_timestamp=9.0) == []
    assert await picked(after_timestamp=2.0, num_recent_events=2) == ["6", "7"]


async def test_state_is_shared_by_its_scope(
    service: ConversationMemorySessionService, app: str, user: str
) -> None:
    async def state_of(user_id: str, session_id: str) -> dict[str, Any]:
        found = await service.get_session(app_name=app, user_id=user_id, session_id=session_id)
        assert found is not None
        return found.state

    mine = await service.create_session(
        app_name=app,
        user_id=user,
        session_id="mine",
        state={"own": 1, "user:lang": "de", "app:policy": "old", "temp:x": 1},
    )
    assert mine.state == {"own": 1, "user:lang": "de", "app:policy": "old"}
    await service.create_session(app_name=app, user_id=user, session_id="second")
    await service.create_session(app_name=app, user_id=user + "'", session_id="mine")
    await service.create_session(app_name=app + "'", user_id=user, session_id="mine")

    event = changing(own=2, user_name="Ana", app_policy="new", temp_y=2)
    await service.append_event(mine, event)
    assert event.actions.state_delta == {"own": 2, "user:name": "Ana", "app:policy": "new"}
    assert mine.state == {
        "own": 2,
        "user:lang": "de",
        "user:name": "Ana",
        "app:policy": "new",
        "temp:y": 2,
    }
    shared = {"user:lang": "de", "user:name": "Ana", "app:policy": "new"}
    assert await state_of(user, "mine") == {"own": 2, **shared}
    assert await state_of(user, "second") == shared
    assert await state_of(user + "'", "mine") == {"app:policy": "new"}
    other_app = await service.get_session(app_name=app + "'", user_id=user, session_id="mine")
    assert other_app is not None
    assert other_app.state == {}
    assert await service.get_user_state(app_name=app, user_id=user) == {
        "lang": "de",
        "name": "Ana",
    }


async def test_shared_state_outlives_its_sessions(
    service: ConversationMemorySessionService, app: str, user: str
) -> None:
    names: dict[str, Any] = {"app_name": app, "user_id": user, "session_id": "s"}
    await service.create_session(**names, state={"own": 1, "user:a": 1, "app:b": 2})
    await service.delete_session(**names)
    assert await service.get_session(**names) is None
    again = await service.create_session(**names)
    assert again.state == {"user:a": 1, "app:b": 2}
    assert (await loaded(service, again)).events == []
    await service.append_event(again, text("hello"))


async def test_values_that_are_not_json_are_converted(
    service: ConversationMemorySessionService, app: str, user: str
) -> None:
    session = await service.create_session(app_name=app, user_id=user, state={"f": print})
    await service.append_event(session, changing(s={3}))
    found = await loaded(service, session)
    assert found.state == {"f": repr(print), "s": [3]}


async def test_sessions_are_listed_by_last_use(
    service: ConversationMemorySessionService,
    memory: AsyncConversationMemory,
    app: str,
    user: str,
) -> None:
    for app_name, owner in [(app, user), (app, user + "'"), (app + "'", user)]:
        for name in ("a", "b", "c"):
            await service.create_session(
                app_name=app_name, user_id=owner, session_id=name, state={"is": name}
            )
    await memory.create_conversation(user, title="not a session")
    first = await service.get_session(app_name=app, user_id=user, session_id="a")
    assert first is not None
    await service.append_event(first, changing(user_x=1))

    mine = (await service.list_sessions(app_name=app, user_id=user)).sessions
    assert [session.id for session in mine] == ["b", "c", "a"], "the session used last comes last"
    assert [session.state["is"] for session in mine] == ["b", "c", "a"]
    assert all(session.state["user:x"] == 1 for session in mine)
    assert all(session.events == [] for session in mine)
    everybody = (await service.list_sessions(app_name=app)).sessions
    assert sorted((session.user_id, session.id) for session in everybody) == [
        (owner, name) for owner in (user, user + "'") for name in ("a", "b", "c")
    ]
    # A listed session can be appended to.
    await service.append_event(mine[0], text("on"))

    await service.delete_session(app_name=app, user_id=user, session_id="a")
    mine = (await service.list_sessions(app_name=app, user_id=user)).sessions
    assert [session.id for session in mine] == ["c", "b"]


async def test_sessions_are_isolated(
    service: ConversationMemorySessionService, app: str, user: str
) -> None:
    for number, (app_name, owner, name) in enumerate(
        [(app, user, "s"), (app, user, "t"), (app, user + "'", "s"), (app + "'", user, "s")]
    ):
        session = await service.create_session(app_name=app_name, user_id=owner, session_id=name)
        await service.append_event(session, text(str(number)))
    await service.delete_session(app_name=app, user_id=user, session_id="s")
    for number, (app_name, owner, name) in enumerate(
        [(app, user, "t"), (app, user + "'", "s"), (app + "'", user, "s")], start=1
    ):
        found = await service.get_session(app_name=app_name, user_id=owner, session_id=name)
        assert found is not None
        assert texts(found) == [str(number)]


async def test_append_to_a_stale_session_is_rejected(
    service: ConversationMemorySessionService,
    memory: AsyncConversationMemory,
    app: str,
    user: str,
) -> None:
    session = await service.create_session(app_name=app, user_id=user)
    elsewhere = await loaded(ConversationMemorySessionService(memory), session)
    await service.append_event(session, text("one"))
    with pytest.raises(ValueError, match="modified in storage since it was loaded"):
        await service.append_event(elsewhere, changing(app_x="lost", own="lost"))
    again = await loaded(service, session)
    assert texts(again) == ["one"]
    assert again.state == {}, "a rejected event changes nothing"
    await service.append_event(again, text("two"))
    with pytest.raises(StaleSessionError):
        await service.append_event(session, text("three"))
    assert texts(await loaded(service, session)) == ["one", "two"]


@pytest.mark.parametrize("times", [[5.0, 5.0, 5.0], [9.0, 3.0, 6.0], [1e9 + 1e-7, 1e9, 1e9 + 2e-7]])
async def test_timestamps_do_not_make_a_session_stale(
    service: ConversationMemorySessionService, app: str, user: str, times: list[float]
) -> None:
    session = await service.create_session(app_name=app, user_id=user)
    for number, timestamp in enumerate(times):
        await service.append_event(session, text(f"{number} ?", timestamp=timestamp))
        session = await loaded(service, session, num_recent_events=number % 2)
        # Changes of shared states do not change this session.
        other = await service.create_session(app_name=app, user_id=user)
        await service.append_event(other, changing(app_n=number, user_n=number))
        await service.append_event(session, text(f"{number} !", timestamp=timestamp))
    expected = [f"{number} {end}" for number in range(len(times)) for end in "?!"]
    assert texts(await loaded(service, session)) == expected


async def test_deserialized_session_is_compared_by_its_last_event(
    service: ConversationMemorySessionService, app: str, user: str
) -> None:
    def deserialized(session: Session) -> Session:
        return Session.model_validate_json(session.model_dump_json())

    session = await service.create_session(app_name=app, user_id=user)
    await service.append_event(deserialized(session), text("one"))
    with pytest.raises(StaleSessionError):
        await service.append_event(deserialized(session), text("lost"))
    session = deserialized(await loaded(service, session))
    session.last_update_time = 0
    await service.append_event(session, text("two"))
    eventless = deserialized(await loaded(service, session, num_recent_events=0))
    await service.append_event(eventless, text("three"))
    assert texts(await loaded(service, session)) == ["one", "two", "three"]


async def test_concurrent_appends_to_a_shared_session_object_are_serialized(
    service: ConversationMemorySessionService, app: str, user: str
) -> None:
    session = await service.create_session(app_name=app, user_id=user)
    events = [text(str(number)) for number in range(20)]
    await asyncio.gather(*[service.append_event(session, event) for event in events])
    found = await loaded(service, session)
    assert found.events == session.events == events


async def test_repeated_append_stores_an_event_once(
    service: ConversationMemorySessionService, app: str, user: str
) -> None:
    session = await service.create_session(app_name=app, user_id=user)
    before = await loaded(service, session)
    event = changing(own=1, app_n=1)
    await service.append_event(session, event)
    assert await service.append_event(session, event.model_copy(deep=True)) == event
    # A caller that received no response repeats the call.
    await service.append_event(before, event.model_copy(deep=True))
    assert before.events == session.events == [event]
    await service.append_event(before, text("on"))
    assert (await loaded(service, session)).events == before.events


async def test_concurrent_changes_of_shared_state_are_all_applied(
    service: ConversationMemorySessionService, app: str, user: str
) -> None:
    """They are applied across snapshots too."""

    async def write(name: str) -> None:
        session = await service.create_session(app_name=app, user_id=user)
        for number in range(30):
            await service.append_event(session, changing(**{f"app_{name}": number}))

    names = [f"w{number}" for number in range(8)]
    await asyncio.gather(*[write(name) for name in names])
    session = await service.create_session(app_name=app, user_id=user)
    assert session.state == {f"app:{name}": 29 for name in names}


async def test_snapshot_includes_changes_saved_before_it(
    service: ConversationMemorySessionService,
    memory: AsyncConversationMemory,
    app: str,
    user: str,
) -> None:
    conversation = _adk.user_conversation(app, user)
    for value in (
        {"delta": {"a": 1}},
        {"delta": {"b": 1}},
        _adk_state.snapshot({"a": 1}, through=1),
        {"delta": {"c": 1}},
    ):
        await adapters.save(memory._operation(None), conversation, [_adk.to_message(value)])
    state = await service.get_user_state(app_name=app, user_id=user)
    assert state == {"a": 1, "b": 1, "c": 1}


async def test_long_session_is_loaded_from_a_snapshot(
    service: ConversationMemorySessionService,
    app: str,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = await service.create_session(app_name=app, user_id=user, state={"start": 0})
    for number in range(250):
        await service.append_event(session, changing(**{f"k{number % 7}": number}))
    expected = {"start": 0} | {f"k{number % 7}": number for number in range(250)}
    assert session.state == expected
    every = await loaded(service, session)
    assert (len(every.events), every.state) == (250, expected)

    pages = []

    async def counted(*args: Any, **kwargs: Any) -> Any:
        pages.append(await list_newest_messages(*args, **kwargs))
        return pages[-1]

    list_newest_messages = operations.list_newest_messages
    monkeypatch.setattr(operations, "list_newest_messages", counted)
    found = await loaded(service, session, num_recent_events=5)
    assert len(pages) == 1
    assert found.events == session.events[-5:]
    assert found.state == expected
    assert (await service.list_sessions(app_name=app, user_id=user)).sessions[0].state == expected


@pytest.mark.parametrize("repeated_by", ["another process", "the same caller"])
async def test_shared_state_is_applied_after_a_crash_between_the_saves(
    service: ConversationMemorySessionService,
    memory: AsyncConversationMemory,
    app: str,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
    repeated_by: str,
) -> None:
    session = await service.create_session(app_name=app, user_id=user)
    event = changing(own=1, app_n=1, user_n=1)

    def ended(*args: Any, **kwargs: Any) -> Any:
        raise Unavailable("between the event and the shared state")

    with monkeypatch.context() as patch:
        patch.setattr(_adk_state, "change_shared_state", ended)
        with pytest.raises(Unavailable):
            await service.append_event(session, event.model_copy(deep=True))
    expected = {"own": 1, "app:n": 1, "user:n": 1}
    if repeated_by == "the same caller":
        await service.append_event(session, event)
        assert session.state == expected
    session = await loaded(ConversationMemorySessionService(memory), session)
    assert session.state == expected
    assert session.events == [event]
    other = await service.create_session(app_name=app, user_id=user)
    await service.append_event(other, changing(app_n=2))
    found = await loaded(service, session)
    assert found.state == {**expected, "app:n": 2}, "an applied change is not applied again"


async def test_cancelled_append_is_atomic(
    service: ConversationMemorySessionService, app: str, user: str
) -> None:
    session = await service.create_session(app_name=app, user_id=user)
    for steps in range(10):
        event = changing(n=steps, app_n=steps)
        appending = asyncio.ensure_future(service.append_event(session, event))
        for _ in range(steps):
            await asyncio.sleep(0)
        appending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await appending
        found = await loaded(service, session)
        assert found.events == session.events
        assert len(found.events) == steps, "an append that has begun is completed"
        if steps:
            assert found.state == {"n": steps, "app:n": steps}


def look_up(topic: str, tool_context: ToolContext) -> str:
    """Looks up a policy."""
    tool_context.state["user:topic"] = topic
    tool_context.state["temp:scratch"] = "gone after the turn"
    return "25 days a year, requested in the HR portal"


class Scripted(BaseLlm):
    """Calls the tool first, and then answers from its input only."""

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        known = str(llm_request.contents)
        if "25 days a year" not in known:
            part = types.Part.from_function_call(name="look_up", args={"topic": "vacation"})
        else:
            asked = "How do I request it?" in known
            part = types.Part(text="In the HR portal." if asked else "25 days.")
        yield LlmResponse(content=types.Content(role="model", parts=[part]))


async def test_runner_continues_a_stored_session(
    memory: AsyncConversationMemory, app: str, user: str
) -> None:
    async def ask(question: str, session_id: str) -> list[str]:
        # A separate process would create its own service too.
        agent = LlmAgent(name="hr", model=Scripted(model="scripted"), tools=[look_up])
        runner = Runner(
            agent=agent,
            app_name=app,
            session_service=ConversationMemorySessionService(memory),
            auto_create_session=True,
        )
        content = types.Content(role="user", parts=[types.Part(text=question)])
        contents = []
        async for event in runner.run_async(
            user_id=user, session_id=session_id, new_message=content
        ):
            contents += [part.text for part in (event.content and event.content.parts) or []]
        await runner.close()
        return [text or "call" for text in contents]

    assert await ask("What is our vacation policy?", "s") == ["call", "call", "25 days."]
    assert await ask("How do I request it?", "s") == ["In the HR portal."]
    session = await ConversationMemorySessionService(memory).get_session(
        app_name=app, user_id=user, session_id="s"
    )
    assert session is not None
    assert session.state == {"user:topic": "vacation"}
    assert len(session.events) == 6
