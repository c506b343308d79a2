"""An agent of Google's ADK with sessions, state and a memory of earlier sessions.

    pip install './clients/python[google-adk]'
    python examples/google_adk_runner.py [ADDRESS]

The model is a fake one: it calls the tool that searches the memory, and answers from its result.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncGenerator

from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.adk.tools.load_memory_tool import load_memory_tool
from google.genai import types

from conversation_memory import DEFAULT_TARGET, AsyncConversationMemory
from conversation_memory.google_adk import (
    ConversationMemoryMemoryService,
    ConversationMemorySessionService,
)

APP = "hr"


class Fake(BaseLlm):
    """Searches the memory for a question, and answers with what it has found."""

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        """Yields the next response."""
        (part, *_) = llm_request.contents[-1].parts or [types.Part()]
        if part.function_response is not None:
            found = str(part.function_response.response)
            known = "You are Ana." if "Ana" in found else "I do not know."
            answer = types.Part(text=known)
        elif "?" in (part.text or ""):
            call = types.FunctionCall(name="load_memory", args={"query": "name"})
            answer = types.Part(function_call=call)
        else:
            answer = types.Part(text="Nice to meet you.")
        yield LlmResponse(content=types.Content(role="model", parts=[answer]))


async def ask(runner: Runner, user: str, session: str, text: str) -> None:
    """Runs a turn of a session, and prints it."""
    print(f"user:       {text}")
    question = types.Content(role="user", parts=[types.Part(text=text)])
    async for event in runner.run_async(user_id=user, session_id=session, new_message=question):
        for part in (event.content.parts if event.content else None) or []:
            if part.text:
                print(f"assistant:  {part.text}")


async def main(address: str) -> None:
    """Runs two sessions. The second one knows the first one from the memory only."""
    user = f"ana-{uuid.uuid4()}"
    async with AsyncConversationMemory(address) as memory:
        sessions = ConversationMemorySessionService(memory)
        memories = ConversationMemoryMemoryService(memory)
        runner = Runner(
            agent=LlmAgent(
                name=APP,
                model=Fake(model="fake"),
                tools=[load_memory_tool],
                output_key="last_answer",
            ),
            app_name=APP,
            session_service=sessions,
            memory_service=memories,
            auto_create_session=True,
        )
        await ask(runner, user, "monday", "My name is Ana.")
        monday = await sessions.get_session(app_name=APP, user_id=user, session_id="monday")
        if monday is not None:
            await memories.add_session_to_memory(monday)
        await ask(runner, user, "tuesday", "What is my name?")
        listed = await sessions.list_sessions(app_name=APP, user_id=user)
        for session in listed.sessions:
            print(f"{session.id}: {session.state['last_answer']}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_TARGET))
