"""The real sidecar, started and stopped by a test."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

PATIENCE = 30.0
"""Seconds that a condition is waited for."""

ROOT = Path(__file__).resolve().parents[3]
BINARY = os.environ.get(
    "CONVERSATION_MEMORY_BINARY", str(ROOT / "target" / "debug" / "conversation-memory")
)

T = TypeVar("T")


class Form:
    """Where a sidecar keeps things."""

    def __init__(self, name: str, settings: dict[str, str]) -> None:
        self.name = name
        self.settings = settings

    @classmethod
    def embedded(cls, folder: Path) -> Form:
        return cls("embedded", {"DATA_DIR": str(folder)})

    @classmethod
    def servers(cls) -> Form:
        """PostgreSQL and Redis as tests/with-servers started them."""
        return cls(
            "servers",
            {
                "DATABASE_URL": _given("TEST_DATABASE_URL"),
                "REDIS_URL": _given("TEST_REDIS_URL"),
                "REDIS_KEY_PREFIX": "python:",
            },
        )


def _given(name: str) -> str:
    # A server that is missing is a failure, not a reason to skip.
    value = os.environ.get(name)
    assert value, f"{name} is not set: run tests/with-servers pytest"
    return value


class Sidecar:
    """A sidecar that runs until it is stopped."""

    def __init__(self, form: Form, address: str = "127.0.0.1:0") -> None:
        self.form = form
        self.log: list[str] = []
        environment = {
            "LISTEN_ADDR": address,
            "OPS_ADDR": "127.0.0.1:0",
            "LOG_FORMAT": "json",
            **form.settings,
        }
        self.process = subprocess.Popen(
            [BINARY],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        line = wait_for(self._serving, f"a sidecar that serves: {self.log}")
        self.address: str = json.loads(line)["address"]

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            self.log.extend(iter(lines.readline, ""))

    def _serving(self) -> str | None:
        assert self.process.poll() is None, f"the sidecar ended: {self.log}"
        return next((line for line in list(self.log) if '"message":"serving"' in line), None)

    def kill(self) -> None:
        """Ends it as a crash would."""
        self.process.kill()
        self._ended()

    def stop(self) -> None:
        """Asks it to end."""
        self.process.terminate()
        self._ended()

    def _ended(self) -> None:
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)

    def restarted(self) -> Sidecar:
        """Starts another where this one was."""
        return Sidecar(self.form, self.address)


def wait_for(condition: Callable[[], T | None], what: str) -> T:
    """Waits until a condition gives something."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(0.005)
    return found
