"""An agent in a plain loop that stores its conversation.

    python examples/plain_loop.py [ADDRESS]

It answers with scripted text, or with a model if OPENAI_API_KEY is set. The model requires
`pip install openai`; OPENAI_BASE_URL and OPENAI_MODEL are optional.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from conversation_memory import DEFAULT_TARGET, ConversationMemory

QUESTIONS = ["What is our vacation policy?", "How do I request it?"]
INSTRUCTIONS = "You answer questions of employees. Everybody has 25 days of vacation a year."

Model = Callable[[list[dict[str, Any]]], str]


def scripted(messages: list[dict[str, Any]]) -> str:
    """Answers from the messages only: the answer to the second question depends on the first."""
    *earlier, question = [str(message["content"]) for message in messages]
    if "vacation" in question:
        return "25 days a year, after the probation period."
    if any("vacation" in text for text in earlier):
        return "Request your vacation in the HR portal, two weeks ahead."
    return "Request what?"


def openai(messages: list[dict[str, Any]]) -> str:
    """Answers with a model."""
    from openai import OpenAI

    answer = OpenAI().chat.completions.create(
        model=os.environ.get("OPENAI_MODEL", "gpt-5-mini"),
        messages=[{"role": "system", "content": INSTRUCTIONS}, *messages],  # type: ignore[list-item]
    )
    return answer.choices[0].message.content or ""


def main(address: str, model: Model) -> None:
    """Runs the dialogue. From one turn to the next it keeps only two ids."""
    session: str | None = None
    conversation: str | None = None
    for question in QUESTIONS:
        with (
            ConversationMemory(address) as memory,
            memory.turn("ana", session_id=session, conversation_id=conversation) as turn,
        ):
            turn.user(question)
            answer = model(turn.to_openai())
            turn.assistant(answer)
        session, conversation = turn.session_id, turn.conversation_id
        print(f"remembered: {len(turn.history)} messages")
        print(f"user:       {question}")
        print(f"assistant:  {answer}\n")


if __name__ == "__main__":
    main(
        sys.argv[1] if len(sys.argv) > 1 else DEFAULT_TARGET,
        openai if os.environ.get("OPENAI_API_KEY") else scripted,
    )
