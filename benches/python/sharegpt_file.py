"""Writes a data set of the form of ShareGPT, for measurements of imports.

    python benches/python/sharegpt_file.py 17000 >/tmp/sharegpt.json
    time conversation-memory import /tmp/sharegpt.json --user ana

17,000 conversations have about 130,000 messages, as the ShareGPT data set. The content depends
on the number only.
"""

from __future__ import annotations

import json
import random
import sys

WORDS = ["policy", "vacation", "days", "request", "portal", "manager", "report", "budget", "travel"]
"""Words of the texts."""


def conversation(number: int) -> dict[str, object]:
    """Returns a conversation of 2 to 13 messages; answers are longer than questions."""
    source = random.Random(number)  # noqa: S311 - texts, not secrets
    turns = []
    for turn in range(source.randint(2, 13)):
        is_answer = turn % 2 == 1
        words = source.choices(
            WORDS, k=source.randint(20, 200) if is_answer else source.randint(3, 40)
        )
        turns.append({"from": "gpt" if is_answer else "human", "value": " ".join(words)})
    return {"id": f"sg{number}_0", "conversations": turns}


def main() -> None:
    """Writes one JSON list."""
    count = int(sys.argv[1])
    print("[")
    for number in range(count):
        end = "" if number + 1 == count else ","
        print(json.dumps(conversation(number)) + end)
    print("]")


if __name__ == "__main__":
    main()
