"""A server whose answers a test defines, and which records the requests."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as Packed

from conversation_memory._proto import error_details_pb2 as rpc
from conversation_memory._proto.v1 import conversation_memory_pb2 as api

Answer = Callable[[bytes, grpc.ServicerContext], bytes]
Stream = Callable[[bytes, grpc.ServicerContext], Iterable[bytes]]

CONVERSATION = "0198a2f0-7c4e-7b1e-9d5a-3f1c2b4d5e6f"


class FakeService(grpc.GenericRpcHandler):
    """Answers each method with an empty message, unless a function answers it."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.streams: dict[str, Stream] = {}
        self.calls: Counter[str] = Counter()
        self.metadata: dict[str, list[str]] = {}
        self.requests: list[tuple[str, bytes]] = []
        self._lock = threading.Lock()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        name = details.method.rpartition("/")[2]
        with self._lock:
            self.calls[name] += 1
            self.metadata = {}
            for key, value in details.invocation_metadata or ():
                self.metadata.setdefault(str(key), []).append(str(value))

        def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.requests.append((name, request))
            answer = self.answers.get(name)
            return b"" if answer is None else answer(request, context)

        def handle_stream(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            self.requests.append((name, request))
            yield from self.streams[name](request, context)

        if name in self.streams:
            return grpc.unary_stream_rpc_method_handler(handle_stream)
        return grpc.unary_unary_rpc_method_handler(handle)


@contextmanager
def serving(
    fake: FakeService,
    address: str = "127.0.0.1:0",
    credentials: grpc.ServerCredentials | None = None,
) -> Iterator[str]:
    """Serves at an address, a free port by default, and yields the address."""
    server = grpc.server(ThreadPoolExecutor(4), handlers=[fake])
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    server.start()
    try:
        yield address if address.startswith("unix:") else f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def failing(code: grpc.StatusCode, *details: Any, message: str = "no") -> Answer:
    """Returns an answer that fails with a status and google.rpc details."""

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        packed = [
            Packed(
                type_url=f"type.googleapis.com/google.rpc.{type(detail).__name__}",
                value=detail.SerializeToString(),
            )
            for detail in details
        ]
        status = rpc.Status(code=code.value[0], message=message, details=packed)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(code, message)
        raise AssertionError("abort raises")

    return answer


def begun(last_seq: int) -> bytes:
    """Encodes a response of BeginTurn."""
    answer = api.BeginTurnResponse()
    answer.conversation.id = CONVERSATION
    answer.conversation.last_seq = last_seq
    return answer.SerializeToString()
