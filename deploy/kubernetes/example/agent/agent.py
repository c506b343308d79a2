"""A minimal agent that stores its conversations.

    curl --data '{"user": "ana", "text": "Hello"}' localhost:8080

The answer contains the number of earlier messages of the user in the conversation, and the id of
the conversation, which the next request can name. A real agent would call its model instead.
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
    # Required if the sidecar is configured with AUTH_TOKENS_FILE.
    token=os.environ.get("CONVERSATION_MEMORY_TOKEN"),
)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    with memory.turn(request["user"], conversation_id=request.get("conversation"), limit=1000) as turn:
        turn.user(request["text"])
        # turn.to_openai() is the input of a model.
        earlier = sum(message.role == "user" for message in turn.history)
        text = f"You have sent {earlier} messages before."
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
    # The kernel does not end the first process of a container by a signal without a handler.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    ThreadingHTTPServer(("", 8080), Agent).serve_forever()
