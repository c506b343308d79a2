"""Propagation of trace contexts, whose errors do not fail a call."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from langsmith.run_helpers import tracing_context
from langsmith.run_trees import RunTree
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider

from conversation_memory import AsyncConversationMemory, ConversationMemory, _tracing

from .fake import CONVERSATION, FakeService, serving
from .sidecar import TIMEOUT


@pytest.fixture
def fake() -> FakeService:
    return FakeService()


@pytest.fixture
def memory(fake: FakeService) -> Iterator[ConversationMemory]:
    with serving(fake) as address, ConversationMemory(address, timeout=TIMEOUT) as memory:
        yield memory


def test_current_span_is_the_parent(fake: FakeService, memory: ConversationMemory) -> None:
    tracer = TracerProvider().get_tracer("agent")
    with tracer.start_as_current_span("turn") as span:
        memory.get_history(CONVERSATION)
    inside = span.get_span_context()
    (parent,) = fake.metadata["traceparent"]
    assert parent.startswith(f"00-{inside.trace_id:032x}-{inside.span_id:016x}-")
    memory.get_history(CONVERSATION)
    assert "traceparent" not in fake.metadata


async def test_current_span_is_the_parent_on_asyncio(fake: FakeService) -> None:
    tracer = TracerProvider().get_tracer("agent")
    with serving(fake) as address:
        async with AsyncConversationMemory(address, timeout=TIMEOUT) as memory:
            with tracer.start_as_current_span("turn") as span:
                async with memory.turn("ana", conversation_id=CONVERSATION) as turn:
                    turn.assistant("25 days.")
    # The last request is the save, which runs in a separate task.
    assert fake.requests[-1][0] == "SaveMessages"
    assert f"{span.get_span_context().trace_id:032x}" in fake.metadata["traceparent"][0]


def test_current_run_is_the_parent(fake: FakeService, memory: ConversationMemory) -> None:
    run = RunTree(name="agent", run_type="chain", project_name="desk")
    with tracing_context(parent=run, enabled=True):
        memory.get_history(CONVERSATION)
    assert fake.metadata["langsmith-trace"] == [run.dotted_order]
    assert "langsmith-project=desk" in fake.metadata["baggage"][0]
    memory.get_history(CONVERSATION)
    assert "langsmith-trace" not in fake.metadata


def test_baggage_of_both_is_combined(fake: FakeService, memory: ConversationMemory) -> None:
    run = RunTree(name="agent", run_type="chain", project_name="desk")
    token = context.attach(baggage.set_baggage("tenant", "hr"))
    try:
        with tracing_context(parent=run, enabled=True):
            memory.get_history(CONVERSATION)
    finally:
        context.detach(token)
    (sent,) = fake.metadata["baggage"]
    assert "tenant=hr" in sent
    assert "langsmith-project=desk" in sent


def test_invalid_header_does_not_fail_a_call(
    fake: FakeService, memory: ConversationMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = {
        "traceparent": "00-ä",
        "tracestate": "a\nb",
        "baggage": "x" * 8193,
        "grpc-timeout": "1n",
        "b-bin": "x",
        "": "x",
        "sp ace": "x",
        "n": 1,
    }
    monkeypatch.setattr(_tracing, "_opentelemetry", lambda: bad | {"X-Good": "yes"})
    memory.get_history(CONVERSATION)
    assert fake.metadata["x-good"] == ["yes"]
    assert not {"traceparent", "tracestate", "baggage", "b-bin", "n"} & fake.metadata.keys()


def test_failing_propagator_does_not_fail_a_call(
    fake: FakeService, memory: ConversationMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("opentelemetry.propagate.inject", fail)
    monkeypatch.setattr("langsmith.run_helpers.get_current_run_tree", fail)
    with TracerProvider().get_tracer("agent").start_as_current_span("turn"):
        memory.get_history(CONVERSATION)
    assert "traceparent" not in fake.metadata
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_client_imports_no_tracing_library() -> None:
    script = (
        "import sys, conversation_memory as cm\n"
        "try: cm.ConversationMemory('127.0.0.1:1', timeout=0.5).get_session('x')\n"
        "except cm.ConversationMemoryError: pass\n"
        "assert not {'opentelemetry', 'langsmith'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=TIMEOUT)
