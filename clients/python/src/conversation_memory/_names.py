"""Ids of conversations that agent frameworks know by names.

A framework identifies a session by an arbitrary text, mostly together with a user and an
application. The id of its conversation is the UUID (version 5, in `NAMESPACE`) of these names.
Every process therefore derives the same id without a lookup, and two users or applications never
share one.
"""

from __future__ import annotations

import json
import uuid

from ._arguments import validated

NAMESPACE = uuid.UUID("a8f12931-1738-5414-9644-362c0d1bafd1")
"""Namespace of the derived ids. It must never change: all conversations would appear empty."""

LANGGRAPH = "langgraph"
GOOGLE_ADK = "google-adk"


@validated
def conversation_id_for(
    name: str, *, framework: str = LANGGRAPH, app: str = "", user_id: str = ""
) -> str:
    """Returns the id of the conversation that an adapter uses for a name.

    Equal arguments have the same id in every process. The conversation need not exist.

    `conversation_id_for("thread-1")` is the conversation of a LangGraph thread. A thread has
    neither an app nor a user, and a thread id that is a UUID in its canonical form, such as
    `"0f1d4c8e-8a63-4a1e-9d3b-6a1b8f6f2c11"`, is the id itself.

    Args:
        name: Name of the session or thread in the framework, an arbitrary text.
        framework: Name of the framework, which is that of the adapter's extra, such as
            `"openai-agents"`, or any text for a framework that has no adapter.
        app: Name of the application, as the adapter was given it.
        user_id: User that the session belongs to, as the adapter was given it.

    Raises:
        TypeError: An argument is not a string.
        ValueError: A thread of LangGraph is given an app or a user.
    """
    if framework == LANGGRAPH:
        if app or user_id:
            raise ValueError("a thread of LangGraph has neither an app nor a user_id")
        return name if _is_canonical_uuid(name) else derived_id(framework, name)
    if framework == GOOGLE_ADK:
        # ADK ignores white space around the id of a session.
        return derived_id(framework, "session", app, user_id, name.strip())
    return derived_id(framework, app, user_id, name)


def derived_id(*names: str) -> str:
    """Returns the UUID of a list of names, the first of which is the framework's."""
    return str(uuid.uuid5(NAMESPACE, json.dumps(names)))


def _is_canonical_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
