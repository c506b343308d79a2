"""The sidecar as a process that a test starts and stops."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

TIMEOUT = 120.0
"""Upper bound in seconds on waiting for a condition or a call. It detects hangs; a slow machine
must not reach it."""

ROOT = Path(__file__).resolve().parents[3]
BINARY = os.environ.get(
    "CONVERSATION_MEMORY_BINARY", str(ROOT / "target" / "debug" / "conversation-memory")
)

T = TypeVar("T")


class Backend:
    """Stores of a sidecar: embedded, or PostgreSQL and Redis."""

    def __init__(self, name: str, settings: dict[str, str]) -> None:
        self.name = name
        self.settings = settings

    @classmethod
    def embedded(cls, folder: Path) -> Backend:
        return cls("embedded", {"DATA_DIR": str(folder)})

    @classmethod
    def servers(cls) -> Backend:
        """PostgreSQL and Redis, which tests/with-servers has started."""
        return cls(
            "servers",
            {
                "DATABASE_URL": _required("TEST_DATABASE_URL"),
                "REDIS_URL": _required("TEST_REDIS_URL"),
                "REDIS_KEY_PREFIX": "python:",
            },
        )


def _required(name: str) -> str:
    # A missing server fails the tests; they are not skipped.
    value = os.environ.get(name)
    assert value, f"{name} is not set: run tests/with-servers pytest"
    return value


class Sidecar:
    """A sidecar that runs until it is stopped or killed."""

    def __init__(self, backend: Backend, address: str = "127.0.0.1:0") -> None:
        self.backend = backend
        self.log: list[str] = []
        environment = {
            "LISTEN_ADDR": address,
            "OPS_ADDR": "127.0.0.1:0",
            "LOG_FORMAT": "json",
            **backend.settings,
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
        line = wait_for(self._serving, f"no sidecar serves: {self.log}")
        self.address: str = json.loads(line)["address"]

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            self.log.extend(iter(lines.readline, ""))

    def _serving(self) -> str | None:
        assert self.process.poll() is None, f"the sidecar ended: {self.log}"
        return next((line for line in list(self.log) if '"message":"serving"' in line), None)

    def kill(self) -> None:
        """Kills the process, like a crash."""
        self.process.kill()
        self._wait_for_exit()

    def stop(self) -> None:
        """Stops the process."""
        self.process.terminate()
        self._wait_for_exit()

    def _wait_for_exit(self) -> None:
        self.process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)

    def restarted(self) -> Sidecar:
        """Starts another sidecar with the same backend and address."""
        return Sidecar(self.backend, self.address)


def wait_for(condition: Callable[[], T | None], failure: str) -> T:
    """Waits until a condition returns a true value, and returns it."""
    deadline = time.monotonic() + TIMEOUT
    while not (found := condition()):
        assert time.monotonic() < deadline, failure
        time.sleep(0.005)
    return found
