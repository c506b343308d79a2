"""An agent of OpenAI's Agents SDK that stores its conversation.

    pip install './clients/python[openai-agents]'
    python examples/openai_agents_session.py [ADDRESS]

It answers with scripted text, or with a model if OPENAI_API_KEY is set; OPENAI_BASE_URL and
OPENAI_MODEL are optional.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Model, ModelResponse, RunConfig, Runner, Usage, function_tool
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)

from conversation_memory import DEFAULT_TARGET, AsyncConversationMemory
from conversation_memory.openai_agents import ConversationMemorySession

QUESTIONS = ["What is our vacation policy?", "How do I request it?"]


@function_tool
def look_up(topic: str) -> str:
    """Looks up a policy of the company."""
    return f"{topic}: 25 days a year; to be requested in the HR portal, two weeks ahead"


class Scripted(Model):
    """A model that answers from the items only, and calls the tool if they contain no policy."""

    async def get_response(
        self, system_instructions: str | None, input: Any, *args: Any, **kwargs: Any
    ) -> ModelResponse:
        """Returns the next item."""
        question = next(item for item in reversed(input) if item.get("role") == "user")["content"]
        policy = next((item["output"] for item in input if item.get("output")), None)
        if policy is None and "vacation" in question:
            call = ResponseFunctionToolCall(
                type="function_call",
                call_id=f"call_{uuid.uuid4().hex}",
                name="look_up",
                arguments='{"topic": "vacation"}',
            )
            return ModelResponse(output=[call], usage=Usage(), response_id=None)
        days, _, way = (policy or "").partition("; to be ")
        answer = (days if "vacation" in question else way) or "requested what?"
        text = ResponseOutputText(type="output_text", text=f"It is {answer}.", annotations=[])
        message = ResponseOutputMessage(
            id=f"msg_{uuid.uuid4().hex}",
            type="message",
            role="assistant",
            status="completed",
            content=[text],
        )
        return ModelResponse(output=[message], usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Is not used by this example."""
        raise NotImplementedError


async def main(address: str, model: str | Model) -> None:
    """Runs the dialogue. From one turn to the next it keeps only the name of the session."""
    agent = Agent(
        name="HR",
        instructions="You answer questions of employees. Look up policies.",
        model=model,
        tools=[look_up],
    )
    thread = f"thread-{uuid.uuid4()}"
    for question in QUESTIONS:
        async with AsyncConversationMemory(address) as memory:
            session = ConversationMemorySession(thread, user_id="ana", memory=memory)
            remembered = await session.get_items()
            result = await Runner.run(
                agent, question, session=session, run_config=RunConfig(tracing_disabled=True)
            )
        print(f"remembered: {len(remembered)} items")
        print(f"user:       {question}")
        print(f"assistant:  {result.final_output}\n")


if __name__ == "__main__":
    has_key = bool(os.environ.get("OPENAI_API_KEY"))
    asyncio.run(
        main(
            sys.argv[1] if len(sys.argv) > 1 else DEFAULT_TARGET,
            os.environ.get("OPENAI_MODEL", "gpt-5-mini") if has_key else Scripted(),
        )
    )
