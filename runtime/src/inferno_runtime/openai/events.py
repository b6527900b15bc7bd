"""The events of `/v1/stream/sse`, as they stand on the wire.

The first event and the last carry an `id`, which a browser's EventSource sends back as `Last-Event-ID` when it connects
again by itself: it tells a stream that has ended from one that was cut off.
"""

from typing import Any

import msgspec

from inferno_runtime.engine.request import FinishReason

_encode = msgspec.json.Encoder().encode
_ENDED = ":complete"


class StreamEvents:
    """The events of one stream."""

    def __init__(self, request_id: str) -> None:
        self._id = request_id
        self._tokens = 0  # that have come
        self._sent = 0  # of them, those whose text has left
        self._first = True

    def text(self, text: str, tokens: int, logprobs: dict[str, Any] | None = None) -> bytes:
        """The event for what so many more tokens made; nothing while they made no text and nothing is told of them."""
        self._tokens += tokens
        if not text and logprobs is None:
            return b""
        data: dict[str, Any] = {"token": text, "index": self._sent}
        if logprobs is not None:
            data["logprobs"] = logprobs
        self._sent = self._tokens
        head = f"id: {self._id}\n".encode() if self._first else b""
        self._first = False
        return head + b"event: token\ndata: " + _encode(data) + b"\n\n"

    def complete(self, reason: FinishReason, usage: dict[str, Any]) -> bytes:
        """The last event."""
        data = {"total_tokens": usage["completion_tokens"], "finish_reason": reason.value, "usage": usage}
        return f"id: {self._id}{_ENDED}\n".encode() + b"event: complete\ndata: " + _encode(data) + b"\n\n"


def has_ended(last_event_id: str) -> bool:
    """Whether the stream whose last event had this id had ended."""
    return last_event_id.endswith(_ENDED)
