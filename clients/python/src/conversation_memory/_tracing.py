"""What a call carries so that traces join up.

Neither OpenTelemetry nor LangSmith is imported unless the program did: without
that there is nothing to continue. Nothing that goes wrong here fails a call.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

MAX_VALUE_BYTES = 8192
"""What W3C allows a baggage; more might be refused together with the call."""


def trace_headers() -> dict[str, str]:
    """The headers of the current OpenTelemetry context and LangSmith run."""
    headers: dict[str, str] = {}
    for found in (_opentelemetry(), _langsmith()):
        for name, value in found.items():
            key = name.lower()
            both = f"{headers[key]},{value}" if key == "baggage" and key in headers else value
            if _can_be_sent(key, both):
                headers[key] = both
    return headers


def _opentelemetry() -> Mapping[str, str]:
    if "opentelemetry" not in sys.modules:
        return {}
    try:
        from opentelemetry import propagate

        carrier: dict[str, str] = {}
        propagate.inject(carrier)
    except Exception:
        return {}
    return carrier


def _langsmith() -> Mapping[str, str]:
    run_helpers: Any = sys.modules.get("langsmith.run_helpers")
    if run_helpers is None:
        return {}
    try:
        run = run_helpers.get_current_run_tree()
        headers: dict[str, str] = run.to_headers() if run is not None else {}
    except Exception:
        return {}
    return headers


def _can_be_sent(key: object, value: object) -> bool:
    """Whether gRPC takes a header; it would refuse the call with a bad one."""
    return (
        isinstance(key, str)
        and isinstance(value, str)
        and key.replace("-", "").replace("_", "").replace(".", "").isalnum()
        and key.isascii()
        and not key.startswith("grpc-")
        and not key.endswith("-bin")
        and value.isascii()
        and value.isprintable()
        and len(value) <= MAX_VALUE_BYTES
    )
