"""Propagation of the caller's trace context.

OpenTelemetry and LangSmith are used only if the program has imported them; otherwise there is no
context to propagate. An error in this module does not fail a call.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

MAX_VALUE_BYTES = 8192
"""Limit of the W3C recommendation on baggage. A server may reject a call with a larger header."""


def trace_headers() -> dict[str, str]:
    """Returns the headers of the current OpenTelemetry context and LangSmith run."""
    headers: dict[str, str] = {}
    for found in (_opentelemetry(), _langsmith()):
        for name, value in found.items():
            key = name.lower()
            combined = f"{headers[key]},{value}" if key == "baggage" and key in headers else value
            if _is_valid_header(key, combined):
                headers[key] = combined
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


def _is_valid_header(key: object, value: object) -> bool:
    """Whether gRPC accepts a header; it rejects the call if one is invalid."""
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
