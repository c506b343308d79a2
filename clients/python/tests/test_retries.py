"""Retries: which calls are sent again, and that no call takes effect twice."""

from __future__ import annotations

import io
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

from .fake import CONVERSATION, Answer, FakeService, begun, failing, serving
from .proxy import Proxy
from .sidecar import TIMEOUT, Backend, Sidecar, wait_for

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


def test_only_idempotent_calls_are_retried() -> None:
    fake = FakeService()
    fake.answers = dict.fromkeys(CALLS, BUSY)
    failures: dict[str, cm.Unavailable] = {}
    with serving(fake) as address, ConversationMemory(address, timeout=TIMEOUT) as memory:

        def fail(name: str) -> None:
            with pytest.raises(cm.Unavailable) as failed:
                CALLS[name][0](memory)
            failures[name] = failed.value

        with ThreadPoolExecutor(len(CALLS)) as pool:
            list(pool.map(fail, CALLS))
    for name, (_, attempts) in CALLS.items():
        assert fake.calls[name] == attempts, name
        # Repeated with the same arguments these calls would have a second effect, because the
        # client generated their key or id.
        without_key = {"SaveMessages", "TruncateConversation", "CreateConversation"}
        assert failures[name].retryable == (attempts > 1 and name not in without_key), name
        assert failures[name].retry_after == 0.5
    for name in ("SaveMessages", "TruncateConversation"):
        asked = {request for method, request in fake.requests if method == name}
        assert len(asked) == 1, "each attempt is the same request"
        request_id = failures[name].request_id
        assert request_id
        assert request_id.encode() in asked.pop()


def test_call_repeated_under_its_key_takes_effect_once(
    memory: ConversationMemory, user: str
) -> None:
    fake = FakeService()
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
    with serving(fake) as address, ConversationMemory(address, timeout=TIMEOUT) as client:
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


def overloaded(retry_delay: Duration) -> Answer:
    """Returns an answer that rejects a request because of an overload."""
    return failing(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        rpc.RetryInfo(retry_delay=retry_delay),
        message="too many concurrent writes",
    )


def overloaded_until(fake: FakeService, attempt: int) -> Answer:
    """Returns an answer that rejects the saves before an attempt."""
    rejection = overloaded(Duration(nanos=100_000_000))

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        return b"" if fake.calls["SaveMessages"] >= attempt else rejection(request, context)

    return answer


async def test_rejected_save_is_sent_again_after_the_delay() -> None:
    fake = FakeService()
    messages = [Message("user", "a")]
    with serving(fake) as address:
        with ConversationMemory(address, timeout=TIMEOUT) as memory:
            fake.answers["SaveMessages"] = overloaded_until(fake, 4)
            memory.save_messages(CONVERSATION, messages)
            assert fake.calls["SaveMessages"] == 4
        async with AsyncConversationMemory(address, timeout=TIMEOUT) as aio:
            fake.answers["SaveMessages"] = overloaded_until(fake, 8)
            await aio.save_messages(CONVERSATION, messages)
            assert fake.calls["SaveMessages"] == 8
    assert len({request for _, request in fake.requests}) == 2


def test_save_is_not_retried_beyond_its_deadline() -> None:
    fake = FakeService()
    soon = overloaded(Duration(nanos=100_000_000))
    too_late = overloaded(Duration(seconds=2 * int(TIMEOUT)))

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        reject = soon if fake.calls["SaveMessages"] < 3 else too_late
        return reject(request, context)

    fake.answers["SaveMessages"] = answer
    with serving(fake) as address, ConversationMemory(address, timeout=TIMEOUT) as memory:
        with pytest.raises(cm.ResourceExhausted) as failed:
            memory.save_messages(CONVERSATION, [Message("user", "a")])
    assert failed.value.retryable
    assert fake.calls["SaveMessages"] == 3


@pytest.mark.parametrize("timeout", [0, -1])
async def test_call_without_time_is_not_sent(tmp_path: Path, timeout: float) -> None:
    """gRPC sends a call whose time limit is 0, and a fast service could respond to it."""
    fake = FakeService()
    fake.streams = {"GetBlob": lambda *_: [], "ExportConversation": lambda *_: []}
    messages = [Message("user", "a")]
    destination = tmp_path / "exported"
    with serving(fake) as address:
        with ConversationMemory(address, timeout=TIMEOUT) as memory:
            memory.get_conversation(CONVERSATION)
            fake.calls.clear()
            for call in (
                lambda: memory.get_history(CONVERSATION, timeout=timeout),
                lambda: memory.save_messages(CONVERSATION, messages, timeout=timeout),
                lambda: memory.get_blob(CONVERSATION, 1, 0, timeout=timeout),
                lambda: memory.export_conversation(CONVERSATION, destination, timeout=timeout),
                lambda: memory.import_conversation(io.BytesIO(b"{}"), timeout=timeout),
            ):
                with pytest.raises(cm.DeadlineExceeded):
                    call()
        async with AsyncConversationMemory(address, timeout=TIMEOUT) as aio:
            for awaitable in (
                aio.get_history(CONVERSATION, timeout=timeout),
                aio.save_messages(CONVERSATION, messages, timeout=timeout),
                aio.get_blob(CONVERSATION, 1, 0, timeout=timeout),
                aio.export_conversation(CONVERSATION, destination, timeout=timeout),
                aio.import_conversation(io.BytesIO(b"{}"), timeout=timeout),
            ):
                with pytest.raises(cm.DeadlineExceeded):
                    await awaitable
    assert not fake.calls
    assert not destination.exists()


def test_large_request_is_retried() -> None:
    """The request exceeds gRPC's default buffer for retries."""
    fake = FakeService()

    def busy_once(request: bytes, context: grpc.ServicerContext) -> bytes:
        return b"" if fake.calls["SaveMessages"] > 1 else BUSY(request, context)

    fake.answers["SaveMessages"] = busy_once
    with serving(fake) as address, ConversationMemory(address, timeout=TIMEOUT) as memory:
        memory.save_messages(CONVERSATION, [Message("user", "x" * 1_000_000)] * 3)
    assert fake.calls["SaveMessages"] == 2


def test_save_waits_for_an_unavailable_sidecar(tmp_path: Path) -> None:
    """It waits for longer than other calls are retried."""
    fake = FakeService()
    address = f"unix:{tmp_path}/memory.sock"
    with ConversationMemory(address, timeout=TIMEOUT) as memory, ThreadPoolExecutor(1) as pool:
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
def test_permanent_errors_are_not_retried(
    code: grpc.StatusCode, kind: type[cm.ConversationMemoryError]
) -> None:
    fake = FakeService()
    fake.answers["GetHistory"] = failing(code)
    with serving(fake) as address, ConversationMemory(address, timeout=TIMEOUT) as memory:
        with pytest.raises(cm.ConversationMemoryError) as failed:
            memory.get_history(CONVERSATION)
    assert type(failed.value) is kind
    assert (failed.value.code, failed.value.retryable) == (code, False)
    assert fake.calls["GetHistory"] == 1


def test_unknown_commit_outcome_has_its_own_error() -> None:
    fake = FakeService()
    info = rpc.ErrorInfo(reason="COMMIT_OUTCOME_UNKNOWN", domain="conversation-memory")
    fake.answers["BranchConversation"] = failing(grpc.StatusCode.UNKNOWN, info)
    with serving(fake) as address, ConversationMemory(address, timeout=TIMEOUT) as memory:
        with pytest.raises(cm.OutcomeUnknown):
            memory.branch_conversation(CONVERSATION, 1)


def test_stale_beginning_of_a_turn_is_followed_by_a_read() -> None:
    fake = FakeService()
    saved = api.SaveMessagesResponse(last_seq=7).SerializeToString()
    history = api.GetHistoryResponse(last_seq=7).SerializeToString()
    fake.answers["SaveMessages"] = lambda *_: saved
    fake.answers["BeginTurn"] = lambda *_: begun(last_seq=3)
    fake.answers["GetHistory"] = lambda *_: history
    with serving(fake) as address, ConversationMemory(address, timeout=TIMEOUT) as memory:
        memory.save_messages(CONVERSATION, [Message("user", "a")])
        turn = memory.begin_turn("ana", conversation_id=CONVERSATION.upper())
        assert turn.conversation.last_seq == 7
        name, request = fake.requests[-1]
        assert (name, api.GetHistoryRequest.FromString(request).min_seq) == ("GetHistory", 7)
        fake.answers["BeginTurn"] = lambda *_: begun(last_seq=7)
        memory.begin_turn("ana", conversation_id=CONVERSATION)
        assert fake.calls["GetHistory"] == 1


def test_stale_beginning_of_a_turn_is_replaced_by_the_read() -> None:
    """The history is the one that was read. After a loss the durable store is read."""
    fake = FakeService()
    saved = api.SaveMessagesResponse(last_seq=7).SerializeToString()
    history = api.GetHistoryResponse(last_seq=7)
    history.messages.add(role="ROLE_USER", content="newest", seq=7)
    fake.answers["SaveMessages"] = lambda *_: saved
    fake.answers["BeginTurn"] = lambda *_: begun(last_seq=3)
    fake.answers["GetHistory"] = lambda *_: history.SerializeToString()
    with serving(fake) as address, ConversationMemory(address, timeout=TIMEOUT) as memory:
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


def test_save_of_a_turn_sends_user_and_session() -> None:
    fake = FakeService()
    answer = api.BeginTurnResponse.FromString(begun(last_seq=0))
    answer.session.id = "s1"
    fake.answers["BeginTurn"] = lambda *_: answer.SerializeToString()
    with serving(fake) as address, ConversationMemory(address, timeout=TIMEOUT) as memory:
        with memory.turn("ana", conversation_id=CONVERSATION) as turn:
            turn.user("a")
    request = api.SaveMessagesRequest.FromString(fake.requests[-1][1])
    assert (request.user_id, request.session_id) == ("ana", "s1")


def test_failed_read_keeps_the_observed_seq(memory: ConversationMemory, user: str) -> None:
    conversation = memory.create_conversation(user).id
    memory.save_messages(conversation, [Message("user", "a")])
    with pytest.raises(cm.NotFound):
        memory.get_history(conversation, user_id="mallory")
    assert memory._observed_seqs.last_seq(conversation) == 1


def test_invalid_bounds_send_no_request() -> None:
    fake = FakeService()
    with serving(fake) as address, ConversationMemory(address, timeout=TIMEOUT) as memory:
        with pytest.raises(cm.InvalidArgument):
            memory.begin_turn("ana", limit=-1)
    assert not fake.requests


@pytest.fixture
def proxy(sidecar: Sidecar) -> Iterator[Proxy]:
    proxy = Proxy(sidecar.address)
    yield proxy
    proxy.close()


@pytest.fixture
def proxied(proxy: Proxy) -> Iterator[ConversationMemory]:
    """A connected client behind the proxy."""
    with ConversationMemory(proxy.address, timeout=TIMEOUT) as memory:
        list(memory.list_conversations("unknown user"))
        yield memory


@pytest.fixture
def direct(sidecar: Sidecar) -> Iterator[ConversationMemory]:
    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
        yield memory


def drop_response(proxy: Proxy, call: Callable[[], Any], is_done: Callable[[], Any]) -> Future[Any]:
    """Makes a call whose response is dropped after the server has executed it."""
    proxy.drop_responses()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call)
        wait_for(is_done, "the call does not reach the server")
        proxy.close_connections()
    return future


def test_save_takes_effect_once_if_its_response_is_lost(
    proxy: Proxy, proxied: ConversationMemory, direct: ConversationMemory, user: str
) -> None:
    conversation = direct.create_conversation(user).id

    def is_saved() -> bool:
        return direct.get_conversation(conversation).last_seq > 0

    turn = [Message("user", "question"), Message("assistant", "answer")]
    saved = drop_response(proxy, lambda: proxied.save_messages(conversation, turn), is_saved)
    assert saved.result().replayed
    assert [m.content for m in direct.list_messages(conversation)] == ["question", "answer"]


def test_conversation_is_created_once_if_the_response_is_lost(
    proxy: Proxy, proxied: ConversationMemory, direct: ConversationMemory, user: str
) -> None:
    def conversations() -> list[str]:
        return [conversation.id for conversation in direct.list_conversations(user)]

    created = drop_response(proxy, lambda: proxied.create_conversation(user), conversations)
    assert conversations() == [created.result().id]


def test_turn_begins_in_one_listed_conversation_if_the_response_is_lost(
    proxy: Proxy, proxied: ConversationMemory, direct: ConversationMemory, user: str
) -> None:
    def sessions() -> list[cm.Session]:
        return list(direct.list_sessions(user))

    begun = drop_response(proxy, lambda: proxied.begin_turn(user), sessions).result()
    direct.save_messages(begun.conversation.id, [Message("user", "hi")])
    assert [each.id for each in direct.list_conversations(user)] == [begun.conversation.id]


def test_truncation_takes_effect_once_if_its_response_is_lost(
    proxy: Proxy, proxied: ConversationMemory, direct: ConversationMemory, user: str
) -> None:
    conversation = direct.create_conversation(user).id
    direct.save_messages(conversation, [Message("user", "1"), Message("assistant", "2")])

    def is_truncated_and_appended_to() -> bool:
        if len(list(direct.list_messages(conversation))) == 2:
            return False
        direct.save_messages(conversation, [Message("user", "3")])
        return True

    done = drop_response(
        proxy, lambda: proxied.truncate_conversation(conversation, 1), is_truncated_and_appended_to
    )
    assert done.result().removed_messages == 1
    assert [m.content for m in direct.list_messages(conversation)] == ["1", "3"]


def test_branch_is_not_retried_if_its_response_is_lost(
    proxy: Proxy, proxied: ConversationMemory, direct: ConversationMemory, user: str
) -> None:
    conversation = direct.create_conversation(user).id
    direct.save_messages(conversation, [Message("user", "1")])

    def branches() -> list[Any]:
        return list(direct.list_branches(conversation))

    lost = drop_response(proxy, lambda: proxied.branch_conversation(conversation, 1), branches)
    with pytest.raises(cm.Unavailable) as failed:
        lost.result()
    assert not failed.value.retryable
    assert len(branches()) == 1


def test_killed_sidecar_loses_and_duplicates_no_turn(
    backend: Backend, tmp_path: Path, user: str
) -> None:
    """Saves continue over three crashes: none fails, and each turn is stored once."""
    if backend.name == "embedded":
        backend = Backend.embedded(tmp_path)
    # The path of a socket, unlike a port, cannot be taken by another process before the restart.
    sidecar = Sidecar(backend, f"unix:{tmp_path}/memory.sock")
    stop = threading.Event()
    acknowledged: list[list[str]] = [[], []]

    def save_turns(conversation: str, saved: list[str]) -> None:
        with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
            while not stop.is_set():
                text = str(len(saved))
                memory.save_messages(
                    conversation, [Message("user", text), Message("assistant", text)]
                )
                saved.append(text)

    with ConversationMemory(sidecar.address, timeout=TIMEOUT) as memory:
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
    """Waits until each saver has saved several more turns, or has failed."""
    enough = [len(saved) + 5 for saved in acknowledged]

    def are_saved() -> bool:
        return all(
            saver.done() or len(saved) > least
            for saver, saved, least in zip(savers, acknowledged, enough, strict=True)
        )

    wait_for(are_saved, "no turns are saved")
