"""Events and sessions that the tests of the ADK adapter share."""

from __future__ import annotations

from typing import Any

from google.adk.events import Event, EventActions
from google.adk.sessions import Session
from google.genai import types

from conversation_memory.google_adk import ConversationMemorySessionService

MIB = 1 << 20


def changing(delta: dict[str, Any], content: str = "") -> Event:
    parts = types.Content(role="model", parts=[types.Part(text=content)]) if content else None
    actions = EventActions(state_delta=delta)
    return Event(author="agent", invocation_id="i", actions=actions, content=parts)


async def loaded(
    service: ConversationMemorySessionService, app: str, user: str, session: str
) -> Session:
    found = await service.get_session(app_name=app, user_id=user, session_id=session)
    assert found is not None
    return found
