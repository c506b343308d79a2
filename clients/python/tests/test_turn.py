"""Turns: the history on entry, the added messages and the save on exit."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

import conversation_memory as cm
from conversation_memory import AsyncConversationMemory, BlobPart, ConversationMemory, Message
from conversation_memory._limits import DEFAULT_LIMITS

from .fake import FakeService, begun, failing, serving
from .sidecar import TIMEOUT

TOOL_CALL = {"id": "1", "type": "function", "function": {"name": "days", "arguments": "{}"}}
QUESTION, ANSWER = "What is our vacation policy?", "25 days."


def test_turn_is_saved_on_exit(memory: ConversationMemory, user: str) -> None:
    with memory.turn(user, dept_id="hr") as turn:
        turn.system("Be brief.")
        turn.user(QUESTION)
        turn.assistant(tool_calls=[TOOL_CALL])
        assert not turn.is_complete
        turn.tool("25", tool_call_id="1")
        turn.assistant(ANSWER, tokens_used=3, latency_ms=9)
        assert turn.is_complete
        assert turn.history == ()
        assert list(memory.list_messages(turn.conversation_id)) == []
        messages = turn.to_openai()
    assert turn.saved is not None
    assert turn.saved.last_seq == 5
    with memory.turn(user, session_id=turn.session_id) as second:
        assert (second.session_state, second.conversation_id) == (
            "continued",
            turn.conversation_id,
        )
        assert second.history_openai() == messages
        second.add({"role": "user", "content": "How?"}, Message("assistant", "In the portal."))
        assert len(second.to_openai()) == 7
    assert messages[2] == {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
    assert memory.get_history(turn.conversation_id, limit=3).messages[0].tokens_used == 3


def test_exception_saves_nothing(memory: ConversationMemory, user: str) -> None:
    with pytest.raises(ZeroDivisionError), memory.turn(user) as turn:
        turn.user(QUESTION)
        turn.assistant(ANSWER)
        raise ZeroDivisionError
    assert turn.saved is None
    assert list(memory.list_messages(turn.conversation_id)) == []


def test_abandoned_first_turn_is_in_no_list(memory: ConversationMemory, user: str) -> None:
    with pytest.raises(ZeroDivisionError), memory.turn(user) as turn:
        turn.user(QUESTION)
        raise ZeroDivisionError
    assert list(memory.list_conversations(user)) == []
    with memory.turn(user, conversation_id=turn.conversation_id) as again:
        again.user(QUESTION)
    (listed,) = memory.list_conversations(user)
    assert (listed.id, listed.title) == (turn.conversation_id, QUESTION)


def test_empty_turn_saves_nothing(memory: ConversationMemory, user: str) -> None:
    with memory.turn(user) as turn:
        pass
    assert turn.saved is None
    assert memory.get_conversation(turn.conversation_id).last_seq == 0


def test_message_beyond_the_maximum_count_is_rejected(
    memory: ConversationMemory, user: str
) -> None:
    with memory.turn(user) as turn:
        turn.add(*[Message("user", str(n)) for n in range(100)])
        with pytest.raises(ValueError, match="100 messages"):
            turn.user("one more")
    assert turn.saved is not None
    assert turn.saved.last_seq == 100


def test_if_unchanged_rejects_a_concurrent_save(memory: ConversationMemory, user: str) -> None:
    with (
        pytest.raises(cm.SeqMismatch) as refused,
        memory.turn(user, if_unchanged=True) as turn,
    ):
        memory.save_messages(turn.conversation_id, [Message("user", "first")])
        turn.user("second")
    assert refused.value.current_seq == 1
    assert turn.saved is None


def test_repeated_save_takes_effect_once(memory: ConversationMemory, user: str) -> None:
    with memory.turn(user) as turn:
        turn.user(QUESTION)
        assert turn.save() == turn.save()
        with pytest.raises(RuntimeError):
            turn.assistant(ANSWER)
    memory.save_messages(turn.conversation_id, turn.added, request_id=turn.request_id)
    assert len(list(memory.list_messages(turn.conversation_id))) == 1
    with pytest.raises(RuntimeError, match="once"), turn:
        pass


def test_turn_that_has_not_begun_raises() -> None:
    with pytest.raises(RuntimeError, match="with statement"):
        _ = ConversationMemory().turn("ana").history


def test_failed_save_is_raised_and_can_be_repeated() -> None:
    fake = FakeService()
    fake.answers["BeginTurn"] = lambda *_: begun(last_seq=0)
    fake.answers["SaveMessages"] = failing(grpc.StatusCode.INTERNAL)
    with serving(fake) as address, ConversationMemory(address, timeout=TIMEOUT) as memory:
        with pytest.raises(cm.Internal) as failed, memory.turn("ana") as turn:
            turn.user(QUESTION)
        assert failed.value.request_id == turn.request_id
        del fake.answers["SaveMessages"]
        assert turn.save().request_id == turn.request_id
    saves = [request for name, request in fake.requests if name == "SaveMessages"]
    assert len(saves) == 2
    assert saves[0] == saves[1]


async def contents(memory: AsyncConversationMemory, conversation: str) -> list[str]:
    return [message.content async for message in memory.list_messages(conversation)]


def test_messages_added_after_an_attempt_are_saved_separately(
    memory: ConversationMemory, user: str
) -> None:
    """The attempt was committed although its response was lost."""
    attempted_ids: list[str] = []
    with memory.turn(user, if_unchanged=True) as turn:
        turn.user(QUESTION)
        memory.save_messages(
            turn.conversation_id,
            turn.added,
            user_id=user,
            session_id=turn.session_id,
            request_id=turn.request_id,
            expected_last_seq=0,
        )
        client: Any = turn._memory
        save = client.save_messages

        def lose(*_: Any, request_id: str, **__: Any) -> Any:
            attempted_ids.append(request_id)
            client.save_messages = save
            raise cm.DeadlineExceeded

        client.save_messages = lose
        with pytest.raises(cm.DeadlineExceeded):
            turn.save()
        turn.assistant(ANSWER)
    assert turn.request_id != attempted_ids[0]
    assert turn.saved is not None
    assert [message.content for message in turn.saved.messages] == [QUESTION, ANSWER]
    assert (turn.saved.last_seq, turn.saved.replayed) == (2, False)
    stored = [message.content for message in memory.list_messages(turn.conversation_id)]
    assert stored == [QUESTION, ANSWER]


async def test_messages_added_during_a_save_are_saved_after_it(
    aio: AsyncConversationMemory, user: str
) -> None:
    async with aio.turn(user) as turn:
        turn.user(QUESTION)
        save = asyncio.create_task(turn.save())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        turn.assistant(ANSWER)
    assert (await save).last_seq == 2
    assert await contents(aio, turn.conversation_id) == [QUESTION, ANSWER]


def test_saving_an_empty_turn_is_rejected(memory: ConversationMemory, user: str) -> None:
    with memory.turn(user) as turn:
        with pytest.raises(cm.InvalidArgument) as refused:
            turn.save()
        assert "messages" in refused.value.violations
        turn.user(QUESTION)
    assert turn.saved is not None


@pytest.mark.parametrize(
    "message",
    [
        Message("user", "half \ud800"),
        Message("user", metadata={"n": 2**60 + 1}),
        Message("user", tokens_used=2**40),
        Message("developer", "x"),  # type: ignore[arg-type]
    ],
)
def test_invalid_message_is_rejected_when_it_is_added(
    memory: ConversationMemory, user: str, message: Message
) -> None:
    with memory.turn(user) as turn:
        turn.user(QUESTION)
        with pytest.raises(ValueError):  # noqa: PT011
            turn.add(Message("user", "beside it"), message)
        turn.assistant(ANSWER)
    stored = [message.content for message in memory.list_messages(turn.conversation_id)]
    assert stored == [QUESTION, ANSWER]


def test_turn_does_not_depend_on_the_callers_dicts(memory: ConversationMemory, user: str) -> None:
    metadata = {"k": 1}
    with memory.turn(user) as turn:
        turn.add(Message("user", QUESTION, metadata=metadata))
        metadata["k"] = 2
    assert memory.get_history(turn.conversation_id).messages[0].metadata == {"k": 1}


def test_message_beyond_the_maximum_size_is_rejected(memory: ConversationMemory, user: str) -> None:
    with memory.turn(user) as turn:
        for _ in range(11):
            turn.user("x" * 1_047_000)
        with pytest.raises(ValueError, match="bytes"):
            turn.add(Message("user", "y"), *[Message("assistant", "x" * 1_047_000)] * 2)
        turn.assistant("z" * min(1 << 20, DEFAULT_LIMITS.turn_bytes - turn._encoded_bytes - 16))
    assert turn.saved is not None
    assert turn.saved.last_seq == 12


def test_photo_of_the_maximum_size_is_saved_and_read(memory: ConversationMemory, user: str) -> None:
    photo = BlobPart("image/jpeg", b"\xff\xd8" * (4 << 20), "image")
    with memory.turn(user) as turn:
        turn.add(Message("user", "What is this?", parts=(photo,)))
        turn.assistant("A cat.")
    with memory.turn(user, conversation_id=turn.conversation_id) as second:
        assert second.history[0].parts[1] == photo
        (_, image) = second.to_openai()[0]["content"]
        assert len(image["image_url"]["url"]) > 4 * (8 << 20) // 3
    data = memory.get_blob(turn.conversation_id, 1, 1, user_id=user)
    assert data == photo.data
    (found, _) = memory.list_messages(turn.conversation_id)
    assert found.parts[1] == BlobPart("image/jpeg", None, "image", 8 << 20)
    with pytest.raises(cm.NotFound):
        memory.get_blob(turn.conversation_id, 1, 0)


def test_window_of_a_turn(memory: ConversationMemory, user: str) -> None:
    with memory.turn(user) as turn:
        turn.add(Message("system", "Be brief.", pinned=True, token_count=5))
        for number in range(10):
            turn.add(Message("user", f"question {number}", token_count=10))
            turn.add(Message("assistant", f"answer {number}", token_count=10))
    conversation = turn.conversation_id
    with memory.turn(user, conversation_id=conversation, limit=3) as second:
        assert [each.content for each in second.history] == [
            "Be brief.",
            "answer 8",
            "question 9",
            "answer 9",
        ]
        assert (second.token_count, second.older_omitted) == (35, True)
        assert not second.compaction_due
    with memory.turn(user, conversation_id=conversation, limit=3, start_on_user=True) as third:
        assert [each.content for each in third.history[1:]] == ["question 9", "answer 9"]
    with memory.turn(user, conversation_id=conversation, limit=100, max_tokens=45) as fourth:
        assert [each.token_count for each in fourth.history] == [5, 10, 10, 10, 10]
    begun = memory.begin_turn(user, conversation_id=conversation, max_tokens=25, limit=100)
    assert (len(begun.messages), begun.token_count) == (3, 25)
    history = memory.get_history(conversation, max_tokens=15, limit=100)
    assert (len(history.messages), history.token_count, history.older_omitted) == (2, 15, True)
    assert not memory.get_history(conversation, limit=100).older_omitted


def test_maximum_of_no_tokens_is_no_maximum(memory: ConversationMemory, user: str) -> None:
    with memory.turn(user) as turn:
        turn.user(QUESTION)
    assert len(memory.get_history(turn.conversation_id, max_tokens=0).messages) == 1
    begun = memory.begin_turn(user, conversation_id=turn.conversation_id, max_tokens=0)
    assert begun.to_openai() == [{"role": "user", "content": QUESTION}]
    assert begun.to_responses() == [{"role": "user", "content": QUESTION}]
    assert begun.to_anthropic() == {"messages": [{"role": "user", "content": QUESTION}]}


def test_summary_is_removed_without_a_new_one(memory: ConversationMemory, user: str) -> None:
    with memory.turn(user) as turn:
        turn.user(QUESTION)
        turn.assistant(ANSWER)
    memory.compact(turn.conversation_id, 1, "They asked.")
    assert memory.get_history(turn.conversation_id).messages[0].is_summary
    assert memory.compact(turn.conversation_id, 0) == 2
    history = memory.get_history(turn.conversation_id)
    assert [message.content for message in history.messages] == [QUESTION, ANSWER]


@pytest.mark.parametrize("bounds", [{"limit": -1}, {"max_tokens": -1}])
def test_invalid_window_creates_no_conversation(
    memory: ConversationMemory, user: str, bounds: dict[str, int]
) -> None:
    with pytest.raises(cm.InvalidArgument), memory.turn(user, **bounds):  # type: ignore[arg-type]
        pass
    assert list(memory.list_conversations(user)) == []


def test_a_turn_creates_its_conversation(memory: ConversationMemory, user: str) -> None:
    id_ = cm.conversation_id_for("thread-1", framework="mine", user_id=user)
    with pytest.raises(cm.NotFound):
        memory.begin_turn(user, conversation_id=id_)
    for question in ("one", "two"):
        with memory.turn(user, conversation_id=id_, create=True, dept_id="hr") as turn:
            turn.user(question)
    assert [message.content for message in turn.history] == ["one"]
    assert turn.conversation_id == id_
    assert memory.get_conversation(id_, user_id=user).dept_id == "hr"
    # A conversation of another user cannot be distinguished from one that is not created.
    with pytest.raises(cm.NotFound):
        memory.begin_turn(user + "'", conversation_id=id_, create=True)
    with pytest.raises(cm.SessionExpired):
        session = "00000000-0000-4000-8000-000000000000"
        memory.begin_turn(user, session_id=session, create=True)
    assert memory.begin_turn(user, create=True).conversation.id != id_


async def test_concurrent_turns_create_one_conversation(
    aio: AsyncConversationMemory, user: str
) -> None:
    id_ = cm.conversation_id_for("thread-1", framework="mine", user_id=user)

    async def one(question: str) -> None:
        async with aio.turn(user, conversation_id=id_, create=True) as turn:
            turn.user(question)

    await asyncio.gather(*[one(str(n)) for n in range(8)])
    listed = [message.content async for message in aio.list_messages(id_)]
    assert sorted(listed) == [str(n) for n in range(8)]
