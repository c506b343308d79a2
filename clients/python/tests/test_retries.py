"""What is tried again, what is not, and that nothing is done twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

import conversation_memory as cm
from conversation_memory import AsyncConversationMemory, ConversationMemory, Message
from conversation_memory._proto import error_details_pb2 as rpc
from conversation_memory._proto.v1 import conversation_memory_pb2 as api

from .fake import CONVERSATION, Fake, begun, failing, serving
from .proxy import Proxy
from .sidecar import PATIENCE, Form, Sidecar, wait_for

BUSY = failing(grpc.StatusCode.UNAVAILABLE, rpc.RetryInfo(retry_delay=Duration(nanos=500_000_000)))

CALLS: dict[str, tuple[Callable[[ConversationMemory], Any], int]] = {
    "BeginTurn": (lambda m: m.begin_turn("ana", conversation_id=CONVERSATION), 4),
    "GetHistory": (lambda m: m.get_history(CONVERSATION), 4),
    "SaveMessages": (lambda m: m.save_messages(CONVERSATION, [Message("user", "a")]), 4),
    "CreateConversation": (lambda m: m.create_conversation("ana"), 4),
    "UpdateConversation": (lambda m: m.update_conversation(CONVERSATION, title="t"), 4),
    "TruncateConversation": (lambda m: m.truncate_conversation(CONVERSATION, 0), 4),
    "ListMessages": (lambda m: list(m.list_messages(CONVERSATION)), 4),
    "GetSession": (lambda m: m.get_session(CONVERSATION), 4),
    "CreateSession": (lambda m: m.create_session("ana"), 1),
    "EndSession": (lambda m: m.end_session(CONVERSATION), 1),
    "BranchConversation": (lambda m: m.branch_conversation(CONVERSATION, 1), 1),
    "DeleteConversation": (lambda m: m.delete_conversation(CONVERSATION), 1),
}


def test_only_what_is_safe_is_tried_again() -> None:
    fake = Fake()
    fake.answers = dict.fromkeys(CALLS, BUSY)
    failures: dict[str, cm.Unavailable] = {}
    with serving(fake) as address, ConversationMemory(address, timeout=20) as memory:

        def fail(name: str) -> None:
            with pytest.raises(cm.Unavailable) as failed:
                CALLS[name][0](memory)
            failures[name] = failed.value

        with ThreadPoolExecutor(len(CALLS)) as pool:
            list(pool.map(fail, CALLS))
    for name, (_, attempts) in CALLS.items():
        assert fake.calls[name] == attempts, name
        # As it was called it would be done twice: under another key, or as another conversation.
        made = {"SaveMessages", "TruncateConversation", "CreateConversation"}
        assert failures[name].retryable == (attempts > 1 and name not in made), name
        assert failures[name].retry_after == 0.5
    for name in ("SaveMessages", "TruncateConversation"):
        asked = {request for method, request in fake.requests if method == name}
        assert len(asked) == 1, "each attempt is the same request"
        request_id = failures[name].request_id
        assert request_id
        assert request_id.encode() in asked.pop()


def test_what_a_caller_repeats_under_its_key_is_done_once(
    memory: ConversationMemory, user: str
) -> None:
    fake = Fake()
    calls: dict[str, Callable[[ConversationMemory], Any]] = {
        "SaveMessages": lambda m: m.save_messages(
            CONVERSATION, [Message("user", "a")], request_id="key"
        ),
        "TruncateConversation": lambda m: m.truncate_conversation(
            CONVERSATION, 0, request_id="key"
        ),
        "CreateConversation": lambda m: m.create_conversation("ana", conversation_id=CONVERSATION),
    }
    fake.answers = dict.fromkeys(calls, failing(grpc.StatusCode.DEADLINE_EXCEEDED))
    with serving(fake) as address, ConversationMemory(address) as client:
        for call in calls.values():
            with pytest.raises(cm.DeadlineExceeded) as failed:
                call(client)
            assert failed.value.retryable
        with pytest.raises(cm.DeadlineExceeded) as failed:
            client.create_conversation(user)
    assert not failed.value.retryable
    made = failed.value.conversation_id
    assert made
    assert made.encode() in fake.requests[-1][1]
    for _ in range(2):
        memory.create_conversation(user, conversation_id=made)
    assert [conversation.id for conversation in memory.list_conversations(user)] == [made]


def overloaded_until(fake: Fake, attempt: int) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    overloaded = failing(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        rpc.RetryInfo(retry_delay=Duration(nanos=100_000_000)),
        message="too many writes at once",
    )

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        return b"" if fake.calls["SaveMessages"] >= attempt else overloaded(request, context)

    return answer


async def test_a_save_comes_back_when_the_service_says_so() -> None:
    fake = Fake()
    messages = [Message("user", "a")]
    with serving(fake) as address:
        with ConversationMemory(address) as memory:
            fake.answers["SaveMessages"] = overloaded_until(fake, 4)
            memory.save_messages(CONVERSATION, messages)
            assert fake.calls["SaveMessages"] == 4
        async with AsyncConversationMemory(address) as aio:
            fake.answers["SaveMessages"] = overloaded_until(fake, 8)
            await aio.save_messages(CONVERSATION, messages)
            assert fake.calls["SaveMessages"] == 8
    assert len({request for _, request in fake.requests}) == 2


def test_a_save_that_is_refused_too_long_says_so() -> None:
    fake = Fake()
    fake.answers["SaveMessages"] = overloaded_until(fake, 1000)
    with serving(fake) as address, ConversationMemory(address, timeout=1) as memory:
        with pytest.raises(cm.ResourceExhausted) as failed:
            memory.save_messages(CONVERSATION, [Message("user", "a")])
    assert failed.value.retryable
    assert fake.calls["SaveMessages"] > 2


def test_a_large_turn_is_tried_again() -> None:
    """Beyond what gRPC keeps for a retry, unless it is told to keep more."""
    fake = Fake()

    def busy_once(request: bytes, context: grpc.ServicerContext) -> bytes:
        return b"" if fake.calls["SaveMessages"] > 1 else BUSY(request, context)

    fake.answers["SaveMessages"] = busy_once
    with serving(fake) as address, ConversationMemory(address) as memory:
        memory.save_messages(CONVERSATION, [Message("user", "x" * 1_000_000)] * 3)
    assert fake.calls["SaveMessages"] == 2


def test_a_save_waits_for_a_sidecar_that_is_away() -> None:
    """For longer than calls are tried again."""
    fake = Fake()
    with serving(fake) as address:
        pass
    with ConversationMemory(address, timeout=30) as memory, ThreadPoolExecutor(1) as pool:
        save = pool.submit(memory.save_messages, CONVERSATION, [Message("user", "a")])
        with pytest.raises(cm.Unavailable):
            memory.get_history(CONVERSATION)
        with serving(fake, address):
            assert save.result().request_id
    assert fake.calls["SaveMessages"] == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INTERNAL, cm.Internal),
        (grpc.StatusCode.PERMISSION_DENIED, cm.PermissionDenied),
        (grpc.StatusCode.UNAUTHENTICATED, cm.Unauthenticated),
        (grpc.StatusCode.UNIMPLEMENTED, cm.Unimplemented),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, cm.ResourceExhausted),
        (grpc.StatusCode.FAILED_PRECONDITION, cm.FailedPrecondition),
        (grpc.StatusCode.DATA_LOSS, cm.ConversationMemoryError),
    ],
)
def test_what_does_not_pass_is_not_tried_again(
    code: grpc.StatusCode, kind: type[cm.ConversationMemoryError]
) -> None:
    fake = Fake()
    fake.answers["GetHistory"] = failing(code)
    with serving(fake) as address, ConversationMemory(address) as memory:
        with pytest.raises(cm.ConversationMemoryError) as failed:
            memory.get_history(CONVERSATION)
    assert type(failed.value) is kind
    assert (failed.value.code, failed.value.retryable) == (code, False)
    assert fake.calls["GetHistory"] == 1


def test_an_unknown_outcome_says_so() -> None:
    fake = Fake()
    info = rpc.ErrorInfo(reason="COMMIT_OUTCOME_UNKNOWN", domain="conversation-memory")
    fake.answers["BranchConversation"] = failing(grpc.StatusCode.UNKNOWN, info)
    with serving(fake) as address, ConversationMemory(address) as memory:
        with pytest.raises(cm.OutcomeUnknown):
            memory.branch_conversation(CONVERSATION, 1)


def test_a_turn_that_begins_behind_what_was_seen_reads_on() -> None:
    fake = Fake()
    saved = api.SaveMessagesResponse(last_seq=7).SerializeToString()
    history = api.GetHistoryResponse(last_seq=7).SerializeToString()
    fake.answers["SaveMessages"] = lambda *_: saved
    fake.answers["BeginTurn"] = lambda *_: begun(last_seq=3)
    fake.answers["GetHistory"] = lambda *_: history
    with serving(fake) as address, ConversationMemory(address) as memory:
        memory.save_messages(CONVERSATION, [Message("user", "a")])
        turn = memory.begin_turn("ana", conversation_id=CONVERSATION.upper())
        assert turn.conversation.last_seq == 7
        name, request = fake.requests[-1]
        assert (name, api.GetHistoryRequest.FromString(request).min_seq) == ("GetHistory", 7)
        fake.answers["BeginTurn"] = lambda *_: begun(last_seq=7)
        memory.begin_turn("ana", conversation_id=CONVERSATION)
        assert fake.calls["GetHistory"] == 1


def test_a_turn_that_begins_behind_what_was_seen_shows_what_it_read() -> None:
    """Not what BeginTurn showed; and what was lost is read from the durable store."""
    fake = Fake()
    saved = api.SaveMessagesResponse(last_seq=7).SerializeToString()
    history = api.GetHistoryResponse(last_seq=7)
    history.messages.add(role="ROLE_USER", content="newest", seq=7)
    fake.answers["SaveMessages"] = lambda *_: saved
    fake.answers["BeginTurn"] = lambda *_: begun(last_seq=3)
    fake.answers["GetHistory"] = lambda *_: history.SerializeToString()
    with serving(fake) as address, ConversationMemory(address) as memory:
        memory.save_messages(CONVERSATION, [Message("user", "a")])
        turn = memory.begin_turn("ana", conversation_id=CONVERSATION)
        assert [message.content for message in turn.messages] == ["newest"]
        beyond = failing(
            grpc.StatusCode.OUT_OF_RANGE,
            rpc.ErrorInfo(reason="MIN_SEQ_NOT_REACHED", metadata={"last_seq": "3"}),
        )
        fake.answers["GetHistory"] = lambda request, context: (
            beyond(request, context)
            if api.GetHistoryRequest.FromString(request).min_seq
            else history.SerializeToString()
        )
        memory.get_history(CONVERSATION)
        last = api.GetHistoryRequest.FromString(fake.requests[-1][1])
        assert last.consistency == api.CONSISTENCY_STRONG
        fake.answers = {}
        memory.delete_conversation(CONVERSATION)
        memory.get_history(CONVERSATION)
        assert api.GetHistoryRequest.FromString(fake.requests[-1][1]).min_seq == 0


def test_a_turn_is_saved_as_its_users_and_keeps_its_session() -> None:
    fake = Fake()
    answer = api.BeginTurnResponse.FromString(begun(last_seq=0))
    answer.session.id = "s1"
    fake.answers["BeginTurn"] = lambda *_: answer.SerializeToString()
    with serving(fake) as address, ConversationMemory(address) as memory:
        with memory.turn("ana", conversation_id=CONVERSATION) as turn:
            turn.user("a")
    request = api.SaveMessagesRequest.FromString(fake.requests[-1][1])
    assert (request.user_id, request.session_id) == ("ana", "s1")


def test_another_users_read_does_not_make_the_client_forget(
    memory: ConversationMemory, user: str
) -> None:
    conversation = memory.create_conversation(user).id
    memory.save_messages(conversation, [Message("user", "a")])
    with pytest.raises(cm.NotFound):
        memory.get_history(conversation, user_id="mallory")
    assert memory._observed_seqs.last_seq(conversation) == 1


def test_turns_that_cannot_begin_leave_one_conversation_that_the_next_one_has() -> None:
    fake = Fake()

    def create(request: bytes, _: grpc.ServicerContext) -> bytes:
        answer = api.CreateConversationResponse()
        answer.conversation.id = api.CreateConversationRequest.FromString(request).conversation_id
        return answer.SerializeToString()

    fake.answers["CreateConversation"] = create
    fake.answers["BeginTurn"] = failing(grpc.StatusCode.INTERNAL)
    with serving(fake) as address, ConversationMemory(address) as memory:
        with pytest.raises(cm.InvalidArgument):
            memory.begin_turn("ana", limit=-1)
        assert not fake.requests
        for _ in range(3):
            with pytest.raises(cm.Internal):
                memory.begin_turn("ana")
        del fake.answers["BeginTurn"]
        for _ in range(2):
            memory.begin_turn("ana")
    created = [
        api.CreateConversationRequest.FromString(request).conversation_id
        for name, request in fake.requests
        if name == "CreateConversation"
    ]
    assert len(created) == 5
    assert len(set(created)) == 2
    assert len(set(created[:4])) == 1


@pytest.fixture
def proxy(sidecar: Sidecar) -> Iterator[Proxy]:
    proxy = Proxy(sidecar.address)
    yield proxy
    proxy.close()


@pytest.fixture
def unlucky(proxy: Proxy) -> Iterator[ConversationMemory]:
    """A client behind the proxy, connected."""
    with ConversationMemory(proxy.address, timeout=20) as memory:
        list(memory.list_conversations("nobody"))
        yield memory


@pytest.fixture
def direct(sidecar: Sidecar) -> Iterator[ConversationMemory]:
    with ConversationMemory(sidecar.address, timeout=PATIENCE) as memory:
        yield memory


def losing_the_answer(
    proxy: Proxy, call: Callable[[], Any], is_done: Callable[[], Any]
) -> Future[Any]:
    """Makes a call whose answer is lost after the server has done it."""
    proxy.swallow()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call)
        wait_for(is_done, "call that reached the server")
        proxy.cut()
    return future


def test_a_save_whose_answer_is_lost_is_there_once(
    proxy: Proxy, unlucky: ConversationMemory, direct: ConversationMemory, user: str
) -> None:
    conversation = direct.create_conversation(user).id

    def is_saved() -> bool:
        return direct.get_conversation(conversation).last_seq > 0

    turn = [Message("user", "question"), Message("assistant", "answer")]
    saved = losing_the_answer(proxy, lambda: unlucky.save_messages(conversation, turn), is_saved)
    assert saved.result().replayed
    assert [m.content for m in direct.list_messages(conversation)] == ["question", "answer"]


def test_a_conversation_whose_answer_is_lost_is_there_once(
    proxy: Proxy, unlucky: ConversationMemory, direct: ConversationMemory, user: str
) -> None:
    def conversations() -> list[str]:
        return [conversation.id for conversation in direct.list_conversations(user)]

    begun = losing_the_answer(proxy, lambda: unlucky.begin_turn(user), conversations)
    assert conversations() == [begun.result().conversation.id]


def test_a_truncation_whose_answer_is_lost_removes_nothing_more(
    proxy: Proxy, unlucky: ConversationMemory, direct: ConversationMemory, user: str
) -> None:
    conversation = direct.create_conversation(user).id
    direct.save_messages(conversation, [Message("user", "1"), Message("assistant", "2")])

    def is_truncated_and_saved_to() -> bool:
        if len(list(direct.list_messages(conversation))) == 2:
            return False
        direct.save_messages(conversation, [Message("user", "3")])
        return True

    done = losing_the_answer(
        proxy, lambda: unlucky.truncate_conversation(conversation, 1), is_truncated_and_saved_to
    )
    assert done.result().removed_messages == 1
    assert [m.content for m in direct.list_messages(conversation)] == ["1", "3"]


def test_a_branch_whose_answer_is_lost_is_not_made_again(
    proxy: Proxy, unlucky: ConversationMemory, direct: ConversationMemory, user: str
) -> None:
    conversation = direct.create_conversation(user).id
    direct.save_messages(conversation, [Message("user", "1")])

    def branches() -> list[Any]:
        return list(direct.list_branches(conversation))

    lost = losing_the_answer(proxy, lambda: unlucky.branch_conversation(conversation, 1), branches)
    with pytest.raises(cm.Unavailable) as failed:
        lost.result()
    assert not failed.value.retryable
    assert len(branches()) == 1


def test_a_sidecar_killed_in_mid_call_loses_and_doubles_nothing(
    form: Form, tmp_path: Path, user: str
) -> None:
    """Savers go on over three crashes, none of them hears of an error, each turn is there once."""
    if form.name == "embedded":
        form = Form.embedded(tmp_path)
    sidecar = Sidecar(form)
    stop = threading.Event()
    acknowledged: list[list[str]] = [[], []]

    def save_turns(conversation: str, saved: list[str]) -> None:
        with ConversationMemory(sidecar.address, timeout=30) as memory:
            while not stop.is_set():
                text = str(len(saved))
                memory.save_messages(
                    conversation, [Message("user", text), Message("assistant", text)]
                )
                saved.append(text)

    with ConversationMemory(sidecar.address, timeout=PATIENCE) as memory:
        conversations = [memory.create_conversation(user).id for _ in acknowledged]
        with ThreadPoolExecutor(2) as pool:
            savers = [
                pool.submit(save_turns, *each)
                for each in zip(conversations, acknowledged, strict=True)
            ]
            try:
                for _ in range(3):
                    wait_for_turns(savers, acknowledged)
                    sidecar.kill()
                    sidecar = sidecar.restarted()
            finally:
                stop.set()
            for saver in savers:
                saver.result()
        for conversation, saved in zip(conversations, acknowledged, strict=True):
            there = [message.content for message in memory.list_messages(conversation)]
            assert there == [text for text in saved for _ in range(2)]
            assert memory.get_conversation(conversation).last_seq == len(there)
    sidecar.stop()


def wait_for_turns(savers: list[Future[None]], acknowledged: list[list[str]]) -> None:
    """Waits until each saver has saved a few more, or has failed."""
    enough = [len(saved) + 5 for saved in acknowledged]

    def are_saved() -> bool:
        return all(
            saver.done() or len(saved) > least
            for saver, saved, least in zip(savers, acknowledged, enough, strict=True)
        )

    wait_for(are_saved, "turns saved")
