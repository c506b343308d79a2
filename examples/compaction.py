"""An agent that summarizes a long conversation, so that its history stays short.

    python examples/compaction.py [ADDRESS]

The model is a fake one: it answers and summarizes with text that it takes from its input. A
service with COMPACTION_TOKENS=40 reports after a few turns that a compaction is due.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from conversation_memory import DEFAULT_TARGET, ConversationMemory, Message, SeqMismatch

QUESTIONS = [
    "My name is Ana, and I work in Lisbon. What is our vacation policy?",
    "How do I request vacation, and who approves it?",
    "Can I carry days over to the next year, and how many?",
    "Where do I see how many days I have left?",
    "Who am I?",
]

KEPT_MESSAGES = 2
"""Minimum number of newest messages that the summary does not replace."""


def answer(messages: list[dict[str, Any]]) -> str:
    """Answers from the messages only."""
    texts = [str(message["content"]) for message in messages]
    if texts[-1] == "Who am I?":
        return "You are Ana." if any("Ana" in text for text in texts) else "I do not know."
    return "The HR portal has the answer to this question, under the heading Vacation."


def summarize(texts: list[str]) -> str:
    """Summarizes texts, the first of which may be the previous summary."""
    facts = [text for text in texts if "My name is" in text]
    return " ".join(["So far, the user asked about vacation.", *facts])


def boundary(messages: Sequence[Message]) -> int:
    """Returns the number of the last message to summarize; 0 if there is none.

    The next message is the user's, so that a call and its results are not separated.
    """
    # The previous summary, which has no number, and pinned messages come first.
    recent = [message for message in messages if message.seq and not message.pinned]
    starts = [at for at, message in enumerate(recent) if message.role == "user" and at > 0]
    kept = [at for at in starts if at <= len(recent) - KEPT_MESSAGES]
    return recent[kept[-1] - 1].seq if kept else 0


def compact(memory: ConversationMemory, user: str, conversation: str) -> None:
    """Replaces all but the newest messages by a summary of them and of the previous summary."""
    history = memory.get_history(conversation, user_id=user, limit=1000)
    upto_seq = boundary(history.messages)
    if upto_seq == 0:
        # An undo of the previous compaction, which 0 means, is not intended.
        return
    older = [each for each in history.messages if each.seq <= upto_seq]
    summary = summarize([each.content for each in older if not each.pinned])
    try:
        # Without `expected_last_seq`, messages that others save meanwhile follow the summary. With
        # it, two agents that compact at the same time do not overwrite each other's summary.
        memory.compact(
            conversation,
            upto_seq,
            summary,
            user_id=user,
            expected_last_seq=history.last_seq,
        )
    except SeqMismatch:
        # A later turn compacts the conversation.
        return
    print(f"compacted: {len(older)} messages\n")


def main(address: str) -> None:
    """Runs the dialogue, and compacts the conversation when it is due."""
    conversation: str | None = None
    user = "ana"
    with ConversationMemory(address) as memory:
        for question in QUESTIONS:
            with memory.turn(
                user, conversation_id=conversation, limit=100, save_question_first=True
            ) as turn:
                turn.user(question)
                text = answer(turn.to_openai())
                turn.assistant(text)
            conversation = turn.conversation_id
            print(f"remembered: {len(turn.history)} messages")
            print(f"user:       {question}")
            print(f"assistant:  {text}\n")
            if turn.compaction_due:
                compact(memory, user, conversation)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_TARGET)
