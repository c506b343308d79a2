"""Every method of both clients, with both backends."""

from __future__ import annotations

import io
import json
import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal

import pytest

import conversation_memory as cm
from conversation_memory import ConversationMemory, Message, RetrievedContext

from .sidecar import TIMEOUT, Backend, Sidecar
from .test_openai_messages import EXAMPLES

UNKNOWN_ID = "0198a2f0-7c4e-7b1e-9d5a-3f1c2b4d5e6f"


def test_second_turn_includes_first_turn(memory: ConversationMemory, user: str) -> None:
    begun = memory.begin_turn(user, dept_id="hr")
    assert begun.session is not None
    assert (begun.session_state, begun.messages) == ("started", ())
    session, conversation = begun.session.id, begun.conversation.id
    saved = memory.save_messages(
        conversation,
        [{"role": "user", "content": "What is our vacation policy?"}, Message("assistant", "25")],
        session_id=session,
        user_id=user,
    )
    assert (saved.last_seq, saved.replayed) == (2, False)
    again = memory.begin_turn(user, session_id=session)
    assert (again.session_state, again.conversation.id) == ("continued", conversation)
    assert [message.content for message in again.messages] == ["What is our vacation policy?", "25"]


def test_message_fields_are_read_back_equal(memory: ConversationMemory, user: str) -> None:
    conversation = memory.create_conversation(user).id
    message = Message(
        "assistant",
        "25 days",
        id=str(uuid.uuid4()),
        created_at=datetime(2026, 5, 1, 12, 0, 0, 123456, timezone(timedelta(hours=2))),
        metadata={"model": "m", "deep": {"list": [1, 2.5, None, True, {}]}},
        tokens_used=12,
        latency_ms=0,
        contexts=(
            RetrievedContext("25 days", doc_id="hr.pdf", score=0.0, metadata={"page": 3}),
            RetrievedContext("30 days"),
        ),
    )
    memory.save_messages(conversation, [message])
    (plain,) = memory.get_history(conversation).messages
    (whole,) = memory.get_history(conversation, include_contexts=True).messages
    assert plain.contexts == ()
    for field in ("role", "content", "id", "created_at", "metadata", "tokens_used", "latency_ms"):
        assert getattr(plain, field) == getattr(message, field)
    assert (plain.seq, plain.conversation_id) == (1, conversation)
    assert whole.contexts == message.contexts
    assert list(memory.list_messages(conversation, include_contexts=True)) == [whole]


def test_conversation_is_created_updated_and_deleted(memory: ConversationMemory, user: str) -> None:
    made = memory.create_conversation(user, title="Holidays", dept_id="hr", metadata={"model": "m"})
    assert (made.title, made.dept_id, made.metadata) == ("Holidays", "hr", {"model": "m"})
    assert made.created_at is not None
    assert made.created_at.tzinfo is not None
    assert memory.get_conversation(made.id, user_id=user) == made
    again = memory.create_conversation(
        user, title="Holidays", dept_id="hr", metadata={"model": "m"}, conversation_id=made.id
    )
    assert again.id == made.id
    with pytest.raises(cm.AlreadyExists) as taken:
        memory.create_conversation("bob", conversation_id=made.id)
    assert taken.value.reason == "CONVERSATION_ID_REUSED"
    changed = memory.update_conversation(made.id, title="Leave")
    assert (changed.title, changed.metadata) == ("Leave", {"model": "m"})
    cleared = memory.update_conversation(made.id, metadata={})
    assert (cleared.title, cleared.metadata) == ("Leave", {})
    memory.delete_conversation(made.id)
    with pytest.raises(cm.NotFound):
        memory.get_conversation(made.id)


def test_listings_read_all_pages(memory: ConversationMemory, user: str) -> None:
    made = [memory.create_conversation(user, title=str(n)).id for n in range(45)]
    listed = [conversation.id for conversation in memory.list_conversations(user)]
    assert listed == made[::-1]
    texts = [str(number) for number in range(520)]
    for at in range(0, len(texts), 100):
        memory.save_messages(made[0], [Message("user", text) for text in texts[at : at + 100]])
    assert [m.content for m in memory.list_messages(made[0], page_size=99)] == texts
    newest = memory.list_messages(made[0], page_size=7, newest_first=True)
    assert [next(newest).content for _ in range(20)] == texts[:-21:-1]
    assert list(memory.list_messages(made[1])) == []


def test_foreign_conversation_is_reported_as_missing(memory: ConversationMemory, user: str) -> None:
    conversation = memory.create_conversation(user).id
    for named in (conversation, UNKNOWN_ID):
        with pytest.raises(cm.NotFound) as refused:
            memory.get_history(named, user_id="mallory")
        assert refused.value.reason == "CONVERSATION_NOT_FOUND"
        assert not refused.value.retryable


def test_search_finds_saved_messages(memory: ConversationMemory, user: str) -> None:
    with memory.turn(user) as turn:
        turn.user("What is our vacation policy?")
        turn.assistant("25 days of vacation a year.")
    hits = list(memory.search_messages(user, "vacation -salary", page_size=1))
    assert {hit.message.seq for hit in hits} == {1, 2}
    assert all("⟦vacation⟧" in hit.snippet for hit in hits)
    assert hits[0].conversation_title == "What is our vacation policy?"
    assert hits[0].rank >= hits[1].rank >= 0
    (answer,) = memory.search_messages(
        user, "days", role="assistant", conversation_id=turn.conversation_id
    )
    assert answer.message.role == "assistant"
    created = answer.message.created_at
    assert created is not None
    assert list(memory.search_messages(user, "vacation", created_from=created)) == hits
    for found in (
        memory.search_messages(user, "vacation", created_until=created),
        memory.search_messages(user, "vacation", metadata_key="lang"),
        memory.search_messages(user, "vacation", metadata_key="lang", metadata_value=True),
    ):
        assert list(found) == []
    assert all(hit.corrected_query is None for hit in hits)
    (corrected,) = memory.search_messages(user, "polciy")
    assert corrected.corrected_query == "policy"
    with pytest.raises(ValueError, match="metadata_key"):
        memory.search_messages(user, "vacation", metadata_value="de")
    assert list(memory.search_messages(user, "salary")) == []


def test_truncation_does_not_affect_branches(memory: ConversationMemory, user: str) -> None:
    conversation = memory.create_conversation(user).id
    memory.save_messages(conversation, [Message("user", str(n)) for n in range(1, 7)])
    branch = memory.branch_conversation(conversation, 4, title="Another way")
    assert (branch.parent_id, branch.branched_at_seq) == (conversation, 4)
    assert [found.id for found in memory.list_branches(conversation)] == [branch.id]
    with pytest.raises(cm.SeqMismatch) as refused:
        memory.truncate_conversation(conversation, 2, expected_last_seq=5)
    assert refused.value.current_seq == 6
    done = memory.truncate_conversation(conversation, 2, expected_last_seq=6)
    assert (done.removed_messages, done.last_seq) == (4, 6)
    assert [m.content for m in memory.get_history(conversation).messages] == ["1", "2"]
    assert [m.content for m in memory.list_messages(branch.id)] == ["1", "2", "3", "4"]
    memory.truncate_conversation(conversation, 0)
    assert memory.get_history(conversation).messages == ()
    assert memory.save_messages(conversation, [Message("user", "7")]).last_seq == 7


def test_message_read_from_another_conversation_gets_a_new_id(
    memory: ConversationMemory, user: str
) -> None:
    one, other = (memory.create_conversation(user).id for _ in range(2))
    saved = memory.save_messages(one, [Message("user", "hi"), Message("assistant", "hello")])
    history = memory.get_history(one).messages
    memory.save_messages(other, history)
    with memory.turn(user, conversation_id=other) as turn:
        turn.add(*history)
    copied = memory.get_history(other).messages
    assert [message.content for message in copied] == ["hi", "hello"] * 2
    assert len({message.id for message in [*saved.messages, *copied]}) == 6


def test_session_is_created_extended_and_ended(memory: ConversationMemory, user: str) -> None:
    conversation = memory.create_conversation(user).id
    session = memory.create_session(user, dept_id="hr", conversation_id=conversation)
    assert (session.user_id, session.conversation_id) == (user, conversation)
    assert memory.get_session(session.id).id == session.id
    for call in (memory.get_session, memory.extend_session, memory.end_session):
        with pytest.raises(cm.SessionExpired):
            call(session.id, user_id="another user")
    extended = memory.extend_session(session.id, user_id=user)
    assert extended.expires_at is not None
    assert session.expires_at is not None
    assert extended.expires_at >= session.expires_at
    assert [live.id for live in memory.list_sessions(user)] == [session.id]
    more = [memory.create_session(user).id for _ in range(4)]
    listed = [live.id for live in memory.list_sessions(user, page_size=2)]
    assert listed == [*reversed(more), session.id]
    memory.end_session(session.id)
    with pytest.raises(cm.SessionExpired):
        memory.get_session(session.id)
    assert memory.begin_turn(user, session_id=session.id).session_state == "resumed"
    with pytest.raises(cm.SessionExpired):
        memory.begin_turn(user, session_id=UNKNOWN_ID)


def test_errors_carry_machine_readable_details(memory: ConversationMemory, user: str) -> None:
    conversation = memory.create_conversation(user).id
    with pytest.raises(cm.InvalidArgument) as invalid:
        memory.save_messages(conversation, [])
    assert list(invalid.value.violations) == ["messages"]
    secret = "s3cr3t"
    with pytest.raises(cm.InvalidArgument) as too_large:
        memory.save_messages(conversation, [Message("user", secret * 200_000)])
    assert list(too_large.value.violations) == ["messages[0].content"]
    assert secret not in str(too_large.value)
    memory.save_messages(conversation, [Message("user", "a")], request_id="turn-1")
    again = memory.save_messages(conversation, [Message("user", "a")], request_id="turn-1")
    assert (again.replayed, again.last_seq) == (True, 1)
    with pytest.raises(cm.AlreadyExists) as reused:
        memory.save_messages(conversation, [Message("user", "b")], request_id="turn-1")
    assert (reused.value.reason, reused.value.request_id) == ("REQUEST_ID_REUSED", "turn-1")
    with pytest.raises(cm.SeqMismatch) as mismatch:
        memory.save_messages(conversation, [Message("user", "b")], expected_last_seq=0)
    assert mismatch.value.current_seq == 1
    assert not mismatch.value.retryable
    with pytest.raises(cm.MinSeqNotReached) as beyond:
        memory.get_history(conversation, min_seq=9)
    assert beyond.value.last_seq == 1
    with pytest.raises(cm.DeadlineExceeded) as late:
        memory.get_history(conversation, timeout=0)
    assert late.value.retryable


def test_export_writes_the_complete_file(
    memory: ConversationMemory, user: str, tmp_path: Path
) -> None:
    conversation = memory.create_conversation(user, title="Leave").id
    memory.save_messages(conversation, [Message("user", "x" * 400_000) for _ in range(3)])
    path = tmp_path / "leave.json"
    memory.export_conversation(conversation, path)
    document = json.loads(path.read_text())
    assert document["conversation"]["title"] == "Leave"
    assert [len(message["content"]) for message in document["messages"]] == [400_000] * 3
    lines = io.BytesIO()
    memory.export_conversation(conversation, lines, format="jsonl", user_id=user)
    assert len(lines.getvalue().splitlines()) == 4
    assert not lines.closed
    table = tmp_path / "leave.csv"
    memory.export_conversation(conversation, str(table), format="csv")
    assert table.read_bytes().startswith(b"seq,id,role,content")


@pytest.mark.parametrize("format", ["json", "jsonl"])
def test_exported_file_can_be_imported(
    memory: ConversationMemory, user: str, tmp_path: Path, format: Literal["json", "jsonl"]
) -> None:
    conversation = memory.create_conversation(user, title="Leave", dept_id="hr").id
    forms = [*EXAMPLES, {"role": "user", "content": "x" * 600_000}]
    memory.save_messages(conversation, forms)
    path = tmp_path / f"leave.{format}"
    memory.export_conversation(conversation, path, format=format)
    imported = memory.import_conversation(path, format=format, user_id=f"{user}-2")
    assert imported.imported_messages == len(forms)
    assert imported.conversation.id != conversation
    assert (imported.conversation.user_id, imported.conversation.title) == (f"{user}-2", "Leave")
    there = memory.list_messages(imported.conversation.id, user_id=f"{user}-2", include_blobs=True)
    assert [message.to_openai() for message in there] == forms
    with path.open("rb") as file:
        again = memory.import_conversation(file, dept_id="legal")
    assert (again.conversation.user_id, again.conversation.dept_id) == (user, "legal")


def test_deleted_conversation_is_restored_with_its_ids(
    memory: ConversationMemory, user: str, tmp_path: Path
) -> None:
    conversation = memory.create_conversation(user, title="Leave").id
    memory.save_messages(conversation, EXAMPLES)
    before = memory.get_history(conversation).messages
    path = tmp_path / "leave.jsonl"
    memory.export_conversation(conversation, path, format="jsonl")
    with pytest.raises(cm.AlreadyExists) as raised:
        memory.import_conversation(path, keep_ids=True)
    assert raised.value.reason == "CONVERSATION_ID_REUSED"
    memory.delete_conversation(conversation)
    assert memory.import_conversation(path, keep_ids=True).conversation.id == conversation
    after = memory.get_history(conversation).messages
    assert [message.id for message in after] == [message.id for message in before]
    branch = memory.branch_conversation(conversation, 1, branch_id=str(uuid.uuid4()))
    with pytest.raises(cm.AlreadyExists):
        memory.branch_conversation(conversation, 1, branch_id=branch.id)
    text = io.BytesIO()
    memory.export_conversation(conversation, text, format="markdown")
    assert text.getvalue().startswith(b"# Leave\n")


def test_failed_import_raises_the_cause(
    memory: ConversationMemory, user: str, tmp_path: Path
) -> None:
    path = tmp_path / "leave.json"
    path.write_text("{")
    with pytest.raises(cm.InvalidArgument):
        memory.import_conversation(path, user_id=user)
    with path.open() as text, pytest.raises(TypeError):
        memory.import_conversation(text, user_id=user)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        memory.import_conversation(tmp_path / "none.json", user_id=user)
    assert list(memory.list_conversations(user)) == []


def test_failed_export_keeps_the_existing_file(memory: ConversationMemory, tmp_path: Path) -> None:
    path = tmp_path / "leave.json"
    path.write_text("the previous file")
    with pytest.raises(cm.NotFound):
        memory.export_conversation(UNKNOWN_ID, path)
    assert path.read_text() == "the previous file"
    assert list(tmp_path.iterdir()) == [path]


def test_client_reads_its_own_writes(sidecar: Sidecar, user: str) -> None:
    """It does so even if the conversation was deleted and created again under its id."""
    with (
        ConversationMemory(sidecar.address, timeout=TIMEOUT) as mine,
        ConversationMemory(sidecar.address, timeout=TIMEOUT) as other,
    ):
        conversation = mine.create_conversation(user).id
        for number in range(1, 21):
            mine.save_messages(conversation, [Message("user", str(number))])
            assert mine.get_history(conversation, limit=1).messages[0].content == str(number)
        other.delete_conversation(conversation)
        with pytest.raises(cm.NotFound):
            mine.get_history(conversation)
        other.create_conversation(user, conversation_id=conversation)
        assert mine.get_history(conversation).last_seq == 0
        mine.save_messages(conversation, [Message("user", "a"), Message("user", "b")])
        other.delete_conversation(conversation)
        other.create_conversation(user, conversation_id=conversation)
        other.save_messages(conversation, [Message("user", "c")])
        assert [m.content for m in mine.get_history(conversation).messages] == ["c"]
        assert mine.get_history(conversation).last_seq == 1


async def test_operators_transfer_conversations(backend: Backend, user: str) -> None:
    operated = Backend(backend.name, {**backend.settings, "OPERATORS": "*"})
    if backend.name == "embedded":
        operated.settings["DATA_DIR"] += "-operated"
    sidecar = Sidecar(operated)
    try:
        with ConversationMemory(sidecar.address, timeout=TIMEOUT) as blocking:
            conversation = blocking.create_conversation(user, dept_id="hr").id
            blocking.save_messages(conversation, [Message("user", "Vacation?")])
            branch = blocking.branch_conversation(conversation, 1).id
            new = f"{user}-new"
            transferred = blocking.transfer_conversation(conversation, new, user_id=user)
            assert set(transferred) == {conversation, branch}
            assert blocking.get_conversation(branch).user_id == new
        async with cm.AsyncConversationMemory(sidecar.address, timeout=TIMEOUT) as aio:
            again = await aio.transfer_conversation(branch, new, new_dept_id="it", user_id=user)
            assert set(again) == {conversation, branch}
            assert (await aio.get_conversation(conversation, user_id=new)).dept_id == "it"
            with pytest.raises(cm.NotFound):
                await aio.transfer_conversation(branch, "third", user_id=user)
    finally:
        sidecar.stop()


def test_only_operators_transfer_conversations(memory: ConversationMemory) -> None:
    with pytest.raises(cm.PermissionDenied, match="OPERATORS"):
        memory.transfer_conversation(UNKNOWN_ID, "bob")
