"""Two agents of OpenAI's Agents SDK that hand a conversation over and share its history.

    pip install './clients/python[openai-agents]'
    python examples/openai_agents_handoff.py [ADDRESS]

The models are fake ones: they answer from the items of the session only.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Model, ModelResponse, RunConfig, Runner, Usage
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)

from conversation_memory import DEFAULT_TARGET, AsyncConversationMemory
from conversation_memory.openai_agents import ConversationMemorySession

QUESTIONS = ["My name is Ana. How do I request vacation?", "Who am I?"]


class Fake(Model):
    """A model that gives one item for the items of the session."""

    def output(self, items: list[Any]) -> Any:
        """Returns the next item."""
        raise NotImplementedError

    async def get_response(
        self, system_instructions: str | None, input: Any, *args: Any, **kwargs: Any
    ) -> ModelResponse:
        """Returns the response for the items."""
        return ModelResponse(output=[self.output(input)], usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Is not used by this example."""
        raise NotImplementedError


class Reception(Fake):
    """Hands everything over."""

    def output(self, items: list[Any]) -> Any:
        """Returns the call that hands over."""
        return ResponseFunctionToolCall(
            type="function_call",
            call_id=f"call_{uuid.uuid4().hex}",
            name="transfer_to_vacation",
            arguments="{}",
        )


class Vacation(Fake):
    """Knows vacations, and what was said."""

    def output(self, items: list[Any]) -> Any:
        """Returns an answer."""
        said = [str(item["content"]) for item in items if item.get("role") == "user"]
        text = "Request it in the HR portal, two weeks ahead."
        if said[-1] == "Who am I?":
            text = "You are Ana." if any("Ana" in each for each in said) else "I do not know."
        content = ResponseOutputText(type="output_text", text=text, annotations=[])
        return ResponseOutputMessage(
            id=f"msg_{uuid.uuid4().hex}",
            type="message",
            role="assistant",
            status="completed",
            content=[content],
        )


async def main(address: str) -> None:
    """Runs the dialogue. From one turn to the next it keeps the names of session and agent."""
    vacation = Agent(name="vacation", instructions="You know vacations.", model=Vacation())
    reception = Agent(
        name="reception",
        instructions="You hand questions over.",
        model=Reception(),
        handoffs=[vacation],
    )
    agents = {agent.name: agent for agent in (reception, vacation)}
    thread, active = f"thread-{uuid.uuid4()}", reception.name
    async with AsyncConversationMemory(address) as memory:
        for question in QUESTIONS:
            session = ConversationMemorySession(thread, user_id="ana", memory=memory)
            print(f"remembered: {len(await session.get_items())} items")
            result = await Runner.run(
                agents[active],
                question,
                session=session,
                run_config=RunConfig(tracing_disabled=True),
            )
            active = result.last_agent.name
            print(f"user:       {question}")
            print(f"{active}:   {result.final_output}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_TARGET))
