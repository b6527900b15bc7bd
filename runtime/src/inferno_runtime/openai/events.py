"""The events of `/v1/stream/sse`, as they stand on the wire.

The first event and the last carry an `id`, which a browser's EventSource sends back as `Last-Event-ID` when it connects
again by itself: it tells a stream that has ended from one that was cut off.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from inferno_runtime.chat.events import CallBegin, CallBroken, CallDelta, CallEnd, Event, ReasoningDelta, TextDelta

_encode = msgspec.json.Encoder().encode
_ENDED = ":complete"


class StreamEvents:
    """The events of one stream."""

    def __init__(self, request_id: str) -> None:
        self._id = request_id
        self._tokens = 0  # that have come
        self._sent = 0  # of them, those whose text has left
        self._first = True

    def said(self, events: Sequence[Event], tokens: int, logprobs: dict[str, Any] | None = None) -> bytes:
        """The events for what so many more tokens made; nothing while they made nothing and nothing is told of them."""
        self._tokens += tokens
        written = b""
        for event in events:
            if one := self._event(event, logprobs):
                written, logprobs = written + one, None
        if logprobs is not None:  # of tokens that show nothing, or not yet
            written += self._event(TextDelta(""), logprobs)
        if written:
            self._sent = self._tokens
        return written

    def complete(self, finish: str, usage: dict[str, Any]) -> bytes:
        """The last event."""
        data = {"total_tokens": usage["completion_tokens"], "finish_reason": finish, "usage": usage}
        return f"id: {self._id}{_ENDED}\n".encode() + _written(b"complete", data)

    def _event(self, event: Event, logprobs: dict[str, Any] | None) -> bytes:
        told = {} if logprobs is None else {"logprobs": logprobs}
        match event:
            case TextDelta(text):
                written = _written(b"token", {"token": text, "index": self._sent, **told})
            case ReasoningDelta(text):
                written = _written(b"reasoning", {"token": text, "index": self._sent, **told})
            case CallBegin(call, call_id, name):
                written = _written(b"tool_call", {"call": call, "id": call_id, "name": name, "arguments": "", **told})
            case CallDelta(call, arguments):
                written = _written(b"tool_call", {"call": call, "arguments": arguments, **told})
            case CallEnd() | CallBroken():
                return b""
        head = f"id: {self._id}\n".encode() if self._first else b""
        self._first = False
        return head + written


def _written(name: bytes, data: dict[str, Any]) -> bytes:
    return b"event: " + name + b"\ndata: " + _encode(data) + b"\n\n"


def has_ended(last_event_id: str) -> bool:
    """Whether the stream whose last event had this id had ended."""
    return last_event_id.endswith(_ENDED)
