"""Session store of Claude's Agent SDK: the SDK's own conformance tests, and its functions."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any, cast

import pytest
from claude_agent_sdk import (
    InMemorySessionStore,
    SessionKey,
    SessionStoreEntry,
    get_session_messages_from_store,
    list_sessions_from_store,
    project_key_for_directory,
)
from claude_agent_sdk.testing import run_session_store_conformance

from conversation_memory import AsyncConversationMemory, Unavailable, conversation_id_for
from conversation_memory.claude_agent_sdk import ConversationMemorySessionStore

KEY: SessionKey = {"project_key": "proj", "session_id": "sess"}
AGENT: SessionKey = {**KEY, "subpath": "subagents/agent-1"}


@pytest.fixture
def store(aio: AsyncConversationMemory, user: str) -> ConversationMemorySessionStore:
    return ConversationMemorySessionStore(user_id=user, memory=aio)


def entry(type: str = "x", **fields: Any) -> SessionStoreEntry:
    return cast("SessionStoreEntry", {"type": type, **fields})


def said(role: str, content: Any, **fields: Any) -> SessionStoreEntry:
    message = {"role": role, "content": content}
    return entry(role, message=message, uuid=str(uuid.uuid4()), **fields)


TURN = [
    entry("mode", mode="plan"),
    said("user", "What is our vacation policy?", parentUuid=None),
    said(
        "assistant",
        [
            {"type": "thinking", "thinking": "Hm.", "signature": "s"},
            {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"path": "policy"}},
        ],
        usage={"input_tokens": 2**60},
    ),
    said(
        "user",
        [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "25 days\0\ud800"}],
        toolUseResult={"file": {"content": "25 days", "odd": "\0"}},
    ),
    said("assistant", [{"type": "text", "text": "25 days a year."}]),
    entry("summary", summary="Vacation", leafUuid="x"),
    entry(message=5),
    entry("user", message={"role": "critic", "content": "?"}),
]


async def test_the_contracts_of_the_sdk_hold(aio: AsyncConversationMemory) -> None:
    def fresh() -> ConversationMemorySessionStore:
        return ConversationMemorySessionStore(user_id=f"ana-{uuid.uuid4()}", memory=aio)

    await run_session_store_conformance(fresh)


async def test_entries_are_read_back_equal_and_others_read_the_messages(
    store: ConversationMemorySessionStore, aio: AsyncConversationMemory, user: str
) -> None:
    await store.append(KEY, TURN)
    assert await store.load(KEY) == TURN
    listed = [message async for message in aio.list_messages(store.conversation_id(KEY))]
    assert [(each.role, each.content) for each in listed if each.content] == [
        ("user", "What is our vacation policy?"),
        ("tool", "25 days\ufffd?"),
        ("assistant", "25 days a year."),
    ]
    assert [hit.message.seq async for hit in aio.search_messages(user, "vacation")] == [2]
    assert store.conversation_id(KEY) == conversation_id_for(
        "sess", framework="claude-agent-sdk", app="proj", user_id=user
    )


async def test_entries_with_an_id_are_stored_once(store: ConversationMemorySessionStore) -> None:
    await store.append(KEY, TURN)
    await store.append(KEY, TURN)
    assert await store.load(KEY) == TURN
    more = said("user", "And Lisbon?")
    await store.append(KEY, [TURN[1], more, TURN[4], entry("mode", mode="plan")])
    changed = cast("SessionStoreEntry", {**more, "new": 1})
    await asyncio.gather(*[store.append(KEY, [each]) for each in (more, changed, more)])
    assert await store.load(KEY) == [*TURN, more, entry("mode", mode="plan")]
    # The same entry of another session is another one, as after a fork.
    fork: SessionKey = {**KEY, "session_id": "fork"}
    await store.append(fork, TURN)
    assert await store.load(fork) == TURN


async def test_large_entries_and_batches(
    store: ConversationMemorySessionStore, aio: AsyncConversationMemory
) -> None:
    large = said(
        "user",
        [{"type": "tool_result", "tool_use_id": "t", "content": "ü" * 3_000_000}],
        toolUseResult="x" * 1000,
    )
    many = [entry(n=n) for n in range(250)]
    await store.append(KEY, [large, *many])
    loaded = await store.load(KEY)
    assert loaded == [large, *many]
    with pytest.raises(ValueError, match=r"MiB|bytes"):
        await store.append(KEY, [entry(n=1), said("user", "x" * (9 << 20)), *many])
    assert await store.load(KEY) == [large, *many]


async def test_subagents_are_in_no_list_of_the_user(
    store: ConversationMemorySessionStore, aio: AsyncConversationMemory, user: str
) -> None:
    await store.append(KEY, TURN)
    await store.append(AGENT, TURN[:2])
    listed = [conversation async for conversation in aio.list_conversations(user)]
    assert [each.id for each in listed] == [store.conversation_id(KEY)]
    assert listed[0].metadata["framework_session"] == {
        "framework": "claude-agent-sdk",
        "app": "proj",
        "name": "sess",
    }
    assert [hit.message.seq async for hit in aio.search_messages(user, "vacation")] == [2]


async def test_users_are_isolated(
    store: ConversationMemorySessionStore, aio: AsyncConversationMemory, user: str
) -> None:
    await store.append(KEY, TURN)
    await store.append(AGENT, TURN)
    other = ConversationMemorySessionStore(user_id=user + "'", memory=aio)
    assert [await other.load(key) for key in (KEY, AGENT)] == [None, None]
    assert await other.list_sessions("proj") == []
    assert await other.list_subkeys({"project_key": "proj", "session_id": "sess"}) == []
    await other.delete(KEY)
    assert await store.load(AGENT) == TURN


async def test_messages_of_other_clients_are_no_entries(
    store: ConversationMemorySessionStore, aio: AsyncConversationMemory, user: str
) -> None:
    await store.append(KEY, TURN[:2])
    await aio.save_messages(
        store.conversation_id(KEY), [{"role": "user", "content": "Hi"}], user_id=user
    )
    assert await store.load(KEY) == TURN[:2]


async def test_a_summary_that_was_not_written_is_written_by_the_next_append(
    store: ConversationMemorySessionStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def failing(*args: Any, **kwargs: Any) -> Any:
        raise Unavailable("the process ends")

    first = entry(timestamp="2024-01-01T00:00:00.000Z", customTitle="first")
    await store.append(KEY, [first])
    (before,) = await store.list_session_summaries("proj")
    with monkeypatch.context() as patch:
        patch.setattr(store._memory, "update_conversation", failing)
        await store.append(KEY, [entry(timestamp="2024-01-01T00:00:01.000Z", customTitle="s3cret")])
    assert "is not written" in caplog.text
    assert "s3cret" not in caplog.text
    assert await store.list_session_summaries("proj") == []
    assert len(await store.list_sessions("proj")) == 1
    await store.append(KEY, [entry(timestamp="2024-01-01T00:00:02.000Z")])
    (after,) = await store.list_session_summaries("proj")
    assert "s3cret" in str(after["data"])
    assert "first" in str(before["data"])


async def test_the_sdk_lists_and_reads_the_sessions_like_those_in_memory(
    store: ConversationMemorySessionStore, tmp_path: Any
) -> None:
    other = InMemorySessionStore()
    ids = [str(uuid.uuid4()) for _ in range(3)]
    fields = {"cwd": str(tmp_path), "timestamp": "2026-01-01T00:00:00.000Z"}
    key = project_key_for_directory(str(tmp_path))
    for n, id_ in enumerate(ids):
        turn = [
            said("user", f"Question {n}", parentUuid=None, sessionId=id_, **fields),
            said("assistant", [{"type": "text", "text": "Answer"}], sessionId=id_, **fields),
        ]
        turn[1]["parentUuid"] = turn[0]["uuid"]  # type: ignore[typeddict-unknown-key]
        for each in (store, other):
            await each.append({"project_key": key, "session_id": id_}, turn)
    mine, theirs = [
        await list_sessions_from_store(each, directory=str(tmp_path)) for each in (store, other)
    ]
    assert [it.summary for it in mine] == [it.summary for it in theirs]
    assert len(mine) == 3
    found = [
        await get_session_messages_from_store(each, ids[0], directory=str(tmp_path))
        for each in (store, other)
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 2
