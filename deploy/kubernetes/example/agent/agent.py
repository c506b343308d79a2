"""An agent that remembers, for a look around:

    curl --data '{"user": "ana", "text": "Hello"}' localhost:8080

answers with how often the user has written before, in the conversation that the last
answer named. Where it says "your model", yours would be asked.
"""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from conversation_memory import ConversationMemory, ConversationMemoryError

memory = ConversationMemory(
    os.environ["CONVERSATION_MEMORY_TARGET"],
    # Where the sidecar has AUTH_TOKENS_FILE.
    token=os.environ.get("CONVERSATION_MEMORY_TOKEN"),
)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    with memory.turn(request["user"], conversation_id=request.get("conversation"), limit=1000) as turn:
        turn.user(request["text"])
        # turn.to_openai() is what your model is asked with.
        before = sum(message.role == "user" for message in turn.history)
        text = f"You have told me {before} things before."
        turn.assistant(text)
    return {"conversation": turn.conversation_id, "text": text}


class Agent(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.reply(200, {"status": "ready"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            self.reply(200, answer(json.loads(body)))
        except (KeyError, TypeError, ValueError):
            self.reply(400, {"error": 'send {"user": …, "text": …}'})
        except ConversationMemoryError as error:
            self.reply(503 if error.retryable else 400, {"error": error.code.name})

    def reply(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    # The first process of a container is not ended by a signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    ThreadingHTTPServer(("", 8080), Agent).serve_forever()
