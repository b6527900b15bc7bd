"""Messages, whole and as a stream of events, as they stand on the wire."""

import secrets
from collections.abc import Iterable
from typing import Any

import msgspec

from inferno_runtime.chat.events import (
    CALLED,
    CallBegin,
    CallBroken,
    CallDelta,
    CallEnd,
    Event,
    ReasoningDelta,
    Said,
    TextDelta,
)
from inferno_runtime.engine.request import FinishReason
from inferno_runtime.openai.errors import ApiError

_encode = msgspec.json.Encoder().encode
_ERRORS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
# Clients send it back with the thinking that it belongs to, and some want it to be there. Nothing is signed here.
_SIGNATURE = "unsigned"


def error_body(error: ApiError, request_id: str) -> bytes:
    """An answer that is an error."""
    kind = _ERRORS.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    fields = {"type": kind, "message": error.message, "param": error.param, "code": error.code}
    return _encode({"type": "error", "error": fields, "request_id": request_id})


PING = b'event: ping\ndata: {"type":"ping"}\n\n'


def usage_of(usage: dict[str, Any]) -> dict[str, Any]:
    """What a message took. usage: a chat's."""
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return {
        "input_tokens": usage["prompt_tokens"] - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage["completion_tokens"],
    }


class Message:
    """One message."""

    def __init__(self, model: str, *, thinks: bool) -> None:
        """thinks: whether it tells what the model says to itself."""
        self.id = f"msg_{secrets.token_hex(12)}"
        self.thinks = thinks
        self._model = model

    def whole(self, said: Said, finish: str, stop: str, usage: dict[str, Any]) -> bytes:
        """The answer that is not streamed. finish: why it ended, as a chat says it; stop: the stop string that ended it."""
        content: list[dict[str, Any]] = []
        if said.reasoning and self.thinks:
            content.append({"type": "thinking", "thinking": said.reasoning, "signature": _SIGNATURE})
        if said.text:
            content.append({"type": "text", "text": said.text})
        content += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call.arguments)}
            for call in said.calls
        ]
        return _encode(self.envelope(content, usage) | ending(finish, stop))

    def envelope(self, content: list[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
        """The message without why it ended."""
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_of(usage),
        }


class MessageEvents:
    """The stream of one message."""

    def __init__(self, message: Message) -> None:
        self._message = message
        self._index = -1  # of the block that was begun last
        self._open = ""  # its type, while it is being written

    def opening(self, usage: dict[str, Any]) -> bytes:
        """What comes first."""
        message = self._message.envelope([], usage)
        return _event("message_start", {"message": message}) + PING

    def said(self, events: Iterable[Event]) -> bytes:
        """What was said next."""
        return b"".join(map(self._said, events))

    def closing(self, finish: str, stop: str, usage: dict[str, Any]) -> bytes:
        """What comes last."""
        delta = _event("message_delta", {"delta": ending(finish, stop), "usage": usage_of(usage)})
        return self._end() + delta + _event("message_stop", {})

    def _said(self, event: Event) -> bytes:
        match event:
            case TextDelta(text):
                return self._block("text", {"text": ""}) + self._delta("text_delta", {"text": text})
            case ReasoningDelta(text):
                if not self._message.thinks:
                    return b""
                begun = self._block("thinking", {"thinking": "", "signature": ""})
                return begun + self._delta("thinking_delta", {"thinking": text})
            case CallBegin(_, call_id, name):
                return self._end() + self._block("tool_use", {"id": call_id, "name": name, "input": {}})
            case CallDelta(_, arguments):
                return self._delta("input_json_delta", {"partial_json": arguments})
            case CallEnd() | CallBroken():
                return self._end()

    def _block(self, kind: str, fields: dict[str, Any]) -> bytes:
        """The events before the first delta of a block, if it is not open already."""
        if self._open == kind:
            return b""
        ended = self._end()
        self._open = kind
        self._index += 1
        block = {"type": kind, **fields}
        return ended + _event("content_block_start", {"index": self._index, "content_block": block})

    def _delta(self, kind: str, fields: dict[str, Any]) -> bytes:
        return _event("content_block_delta", {"index": self._index, "delta": {"type": kind, **fields}})

    def _end(self) -> bytes:
        """The events that end the open block, if there is one."""
        if not self._open:
            return b""
        kind, self._open = self._open, ""
        signed = self._delta("signature_delta", {"signature": _SIGNATURE}) if kind == "thinking" else b""
        return signed + _event("content_block_stop", {"index": self._index})


def ending(finish: str, stop: str) -> dict[str, Any]:
    """Why a message ended."""
    reasons = {FinishReason.LENGTH.value: "max_tokens", CALLED: "tool_use"}
    reason = reasons.get(finish, "stop_sequence" if stop else "end_turn")
    return {"stop_reason": reason, "stop_sequence": stop if reason == "stop_sequence" else None}


def error_event(error: ApiError, request_id: str) -> bytes:
    """An event that is an error."""
    return b"event: error\ndata: " + error_body(error, request_id) + b"\n\n"


def _input(arguments: str) -> dict[str, Any]:
    """The arguments of a call; nothing where they were cut off."""
    try:
        decoded = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _event(name: str, fields: dict[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + _encode({"type": name, **fields}) + b"\n\n"
