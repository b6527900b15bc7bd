"""What comes over the wire, read as a client reads it, and held to what is always true of it."""

import json
from types import TracebackType
from typing import Any, Self

import httpx
import websocket

from tests.runtime.process import MODEL, ServerProcess

API_VERSION = "2023-06-01"
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
STORY = "Once upon a time"


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error object of a response."""
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    return checked(body["error"])


def checked(error: dict[str, Any]) -> dict[str, Any]:
    """An error object, which always has its four fields, and words for people."""
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert "Traceback" not in error["message"]
    return error


# OpenAI's events


def chunks_of(text: str) -> list[Any]:
    """The data of every event; `[DONE]` stays a string."""
    data = [block.removeprefix("data: ") for block in text.split("\n\n") if block.startswith("data: ")]
    return [item if item == "[DONE]" else json.loads(item) for item in data]


def said(chunks: list[Any], index: int = 0) -> str:
    """The text of one choice."""
    choices = [choice for chunk in chunks if chunk != "[DONE]" for choice in chunk.get("choices", ())]
    mine = [choice for choice in choices if choice["index"] == index]
    return "".join(choice["text"] if "text" in choice else choice["delta"].get("content") or "" for choice in mine)


# The events of /stream/sse


def events_of(text: str) -> list[tuple[str, Any]]:
    """The name and the data of every event; comments and ids are passed over."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            events.append((fields["event"], json.loads(fields["data"])))
    return events


def tokens_of(events: list[tuple[str, Any]]) -> str:
    """The text of the `token` events."""
    return "".join(data["token"] for name, data in events if name == "token")


# WebSocket


class Socket:
    """A WebSocket; its messages are JSON objects."""

    def __init__(self, server: ServerProcess, path: str = "/ws/stream", **options: Any) -> None:
        """options: of `websocket.create_connection`."""
        url = f"ws://127.0.0.1:{server.port}{path}"
        self.connection = websocket.create_connection(url, timeout=60, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()

    def send(self, **message: object) -> None:
        self.connection.send(json.dumps(message))

    def ask(self, **fields: object) -> None:
        """Send an `inference`."""
        self.send(**{"type": "inference", "model": MODEL, "prompt": STORY, **fields})

    def receive(self) -> dict[str, Any]:
        """The next message."""
        message = json.loads(self.connection.recv())
        assert isinstance(message, dict)
        if message["type"] == "error":
            checked(message["error"])
        return message

    def until(self, *kinds: str) -> list[dict[str, Any]]:
        """The messages up to the first of these types."""
        messages = [self.receive()]
        while messages[-1]["type"] not in kinds:
            messages.append(self.receive())
        return messages


def text_of(messages: list[dict[str, Any]], request_id: str | None = None) -> str:
    """The text of the `token` messages, of one request or of all."""
    tokens = [message for message in messages if message["type"] == "token"]
    return "".join(message["token"] for message in tokens if request_id in (None, message["request_id"]))
