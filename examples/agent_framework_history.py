"""An agent of Microsoft's Agent Framework that stores its conversation.

    pip install './clients/python[agent-framework]'
    python examples/agent_framework_history.py [ADDRESS]

The model is a fake one: it answers from its messages only, and calls the tool if they contain no
policy.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from agent_framework import (
    Agent,
    BaseChatClient,
    ChatResponse,
    Content,
    FunctionInvocationLayer,
    Message,
)

from conversation_memory import DEFAULT_TARGET, AsyncConversationMemory
from conversation_memory.agent_framework import ConversationMemoryHistoryProvider

QUESTIONS = ["What is our vacation policy?", "How do I request it?"]


def look_up(topic: str) -> str:
    """Looks up a policy of the company."""
    return f"{topic}: 25 days a year; to be requested in the HR portal, two weeks ahead"


class Fake(FunctionInvocationLayer, BaseChatClient):
    """A model that answers from the messages."""

    def _inner_get_response(
        self, *, messages: Sequence[Message], stream: bool, options: Mapping[str, Any], **_: Any
    ) -> Any:
        async def respond() -> ChatResponse[Any]:
            return ChatResponse(messages=[self._answer(messages)])

        return respond()

    def _answer(self, messages: Sequence[Message]) -> Message:
        question = next(each.text for each in reversed(messages) if each.role == "user")
        contents = [content for each in messages for content in each.contents]
        results = [str(content.result) for content in contents if content.result is not None]
        if not results and "vacation" in question:
            call_id = f"call_{uuid.uuid4().hex}"
            call = Content.from_function_call(call_id, "look_up", arguments={"topic": "vacation"})
            return Message("assistant", [call])
        days, _, way = (results[0] if results else "").partition("; to be ")
        answer = (days if "vacation" in question else way) or "requested what?"
        return Message("assistant", [f"It is {answer}."])


async def main(address: str) -> None:
    """Runs the dialogue. From one turn to the next it keeps only the name of the session."""
    thread = f"thread-{uuid.uuid4()}"
    async with AsyncConversationMemory(address) as memory:
        for question in QUESTIONS:
            history = ConversationMemoryHistoryProvider(user_id="ana", memory=memory)
            print(f"remembered: {len(await history.get_messages(thread))} messages")
            agent = Agent(
                Fake(),
                "You answer questions of employees. Look up policies.",
                name="HR",
                tools=[look_up],
                context_providers=[history],
            )
            session = agent.create_session(session_id=thread)
            response = await agent.run(question, session=session)
            print(f"user:       {question}")
            print(f"assistant:  {response.text}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_TARGET))
