"""The examples, with scripted answers and with a model over HTTP."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from conversation_memory import Message

from .sidecar import ROOT, TIMEOUT, Backend, Sidecar

EXAMPLES = ROOT / "examples"


def run(name: str, *arguments: str, **settings: str) -> list[str]:
    environment = {key: it for key, it in os.environ.items() if not key.startswith("OPENAI_")}
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        env=environment | settings,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line]


def test_plain_loop(sidecar: Sidecar) -> None:
    assert run("plain_loop.py", sidecar.address) == [
        "remembered: 0 messages",
        "user:       What is our vacation policy?",
        "assistant:  25 days a year, after the probation period.",
        "remembered: 2 messages",
        "user:       How do I request it?",
        "assistant:  Request your vacation in the HR portal, two weeks ahead.",
    ]


def test_openai_agents_session(sidecar: Sidecar) -> None:
    assert run("openai_agents_session.py", sidecar.address) == [
        "remembered: 0 items",
        "user:       What is our vacation policy?",
        "assistant:  It is vacation: 25 days a year.",
        "remembered: 4 items",
        "user:       How do I request it?",
        "assistant:  It is requested in the HR portal, two weeks ahead.",
    ]


def test_openai_agents_handoff(sidecar: Sidecar) -> None:
    assert run("openai_agents_handoff.py", sidecar.address) == [
        "remembered: 0 items",
        "user:       My name is Ana. How do I request vacation?",
        "vacation:   Request it in the HR portal, two weeks ahead.",
        "remembered: 4 items",
        "user:       Who am I?",
        "vacation:   You are Ana.",
    ]


def test_langgraph_agent(sidecar: Sidecar) -> None:
    assert run("langgraph_agent.py", sidecar.address) == [
        "waits for:  {'days': 3}",
        "assistant:  Your vacation is approved.",
        "instead:    Your vacation is refused.",
        "stored:     Please request three days of vacation. (6 messages)",
    ]


def test_google_adk_runner(sidecar: Sidecar) -> None:
    assert run("google_adk_runner.py", sidecar.address) == [
        "user:       My name is Ana.",
        "assistant:  Nice to meet you.",
        "user:       What is my name?",
        "assistant:  You are Ana.",
        "monday: Nice to meet you.",
        "tuesday: You are Ana.",
    ]


def test_agent_framework_history(sidecar: Sidecar) -> None:
    assert run("agent_framework_history.py", sidecar.address) == [
        "remembered: 0 messages",
        "user:       What is our vacation policy?",
        "assistant:  It is vacation: 25 days a year.",
        "remembered: 4 messages",
        "user:       How do I request it?",
        "assistant:  It is requested in the HR portal, two weeks ahead.",
    ]


def test_compaction(tmp_path: Path) -> None:
    backend = Backend.embedded(tmp_path)
    backend.settings["COMPACTION_TOKENS"] = "40"
    sidecar = Sidecar(backend)
    try:
        printed = run("compaction.py", sidecar.address)
    finally:
        sidecar.stop()
    remembered = [line for line in printed if line.startswith("remembered")]
    assert remembered[0] == "remembered: 0 messages"
    assert any(line.startswith("compacted") for line in printed)
    # The summary and the messages since; not all messages of the four turns.
    assert int(remembered[-1].split()[1]) < 8
    assert printed[-1] == "assistant:  You are Ana." or printed[-2] == "assistant:  You are Ana."


def test_compaction_does_not_separate_calls_from_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    boundary = importlib.import_module("compaction").boundary
    summary = Message("system", "They talked.", is_summary=True)
    pinned = Message("user", "I am Ana.", seq=1, pinned=True)
    roles = ["user", "assistant", "user", "assistant", "tool", "assistant", "user", "assistant"]
    turns = [Message(role, "x", seq=seq) for seq, role in enumerate(roles, 2)]  # type: ignore[arg-type]
    assert boundary([pinned, summary]) == 0
    assert boundary([pinned, summary, *turns[:2]]) == 0
    assert boundary([pinned, summary, *turns[:4]]) == 3
    assert boundary([pinned, summary, *turns[:6]]) == 3
    assert boundary([pinned, summary, *turns]) == 7


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("plain_loop", "scripted([{'role': 'user', 'content': QUESTIONS[1]}])"),
        (
            "openai_agents_session",
            "asyncio.run(Scripted().get_response(None, [{'role': 'user', 'content':"
            " QUESTIONS[1]}])).output[0].content[0].text",
        ),
    ],
)
def test_scripted_answers_depend_on_the_first_turn(name: str, answer: str) -> None:
    code = f"from {name} import *\nprint({answer})"
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.stdout in ("Request what?\n", "It is requested what?.\n"), done.stderr


class FakeModel(BaseHTTPRequestHandler):
    """Implements the part of OpenAI's API that the examples use."""

    requests: list[dict[str, Any]]

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.requests.append(request)
        text = f"answer {len(self.requests)}"
        answer = CHAT if self.path.endswith("/chat/completions") else RESPONSE
        body = json.dumps(answer).replace("TEXT", text).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


CHAT = {
    "id": "chat",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "TEXT", "refusal": None},
        }
    ],
}
RESPONSE = {
    "id": "response",
    "object": "response",
    "created_at": 1,
    "model": "m",
    "status": "completed",
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "output": [
        {
            "id": "msg",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "TEXT", "annotations": []}],
        }
    ],
}


@contextmanager
def serving_model() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    class Handler(FakeModel):
        requests: list[dict[str, Any]] = []  # noqa: RUF012

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1", Handler.requests
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
@pytest.mark.parametrize(
    ("name", "field"), [("plain_loop.py", "messages"), ("openai_agents_session.py", "input")]
)
def test_examples_send_the_history_to_a_model(sidecar: Sidecar, name: str, field: str) -> None:
    with serving_model() as (url, requests):
        printed = run(
            name, sidecar.address, OPENAI_API_KEY="key", OPENAI_BASE_URL=url, OPENAI_MODEL="m"
        )
    assert [line for line in printed if line.startswith("assistant")] == [
        "assistant:  answer 1",
        "assistant:  answer 2",
    ]
    assert [request["model"] for request in requests] == ["m", "m"]
    second = json.dumps(requests[1][field])
    for text in ("What is our vacation policy?", "answer 1", "How do I request it?"):
        assert text in second
