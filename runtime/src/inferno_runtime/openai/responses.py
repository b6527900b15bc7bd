"""Answers, as they stand on the wire.

A stream has thousands of events a second, which differ in a few bytes: what they share is encoded once per sequence.
"""

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from inferno_runtime.chat.events import (
    CallBegin,
    CallBroken,
    CallDelta,
    CallEnd,
    Event,
    ReasoningDelta,
    Said,
    TextDelta,
)
from inferno_runtime.engine.request import Usage

DONE = b"data: [DONE]\n\n"
# What stands in a template of an event where the text will be; nothing that JSON escapes, nothing a client can send.
_HOLE = "inferno-event-hole-" + secrets.token_hex(8)


def usage_object(usages: Iterable[Usage]) -> dict[str, Any]:
    """The sum over a request's sequences."""
    prompt = cached = completion = 0
    for usage in usages:
        prompt += usage.prompt_tokens
        cached += usage.cached_tokens
        completion += usage.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


class Result(NamedTuple):
    """What became of a sequence.

    said: what was said; finish: why it ended; logprobs, spoken: how likely its tokens were, and those of its text
    alone, if that is asked for.
    """

    said: Said
    finish: str
    logprobs: dict[str, Any] | None = None
    spoken: Sequence[dict[str, Any]] = ()


class Answer(ABC):
    """How one endpoint writes its answers; one object per request."""

    object = ""
    stream_object = ""
    id_prefix = ""

    def __init__(
        self, model: str, include_usage: bool = False, echoes: Sequence[str] = (), fingerprint: str = ""
    ) -> None:
        """echoes: what each answer's text begins with, if anything is repeated; fingerprint: of what makes the texts."""
        self.id = self.id_prefix + secrets.token_hex(12)
        self.echoes = echoes
        self.model = model
        self.fingerprint = fingerprint
        self.created = int(time.time())
        self._include_usage = include_usage

    def whole(self, results: Sequence[Result], usage: dict[str, Any]) -> bytes:
        """The answer that is not streamed."""
        choices = [
            {
                "index": index,
                **self._said(index, result.said),
                "logprobs": result.logprobs,
                "finish_reason": result.finish,
            }
            for index, result in enumerate(results)
        ]
        return msgspec.json.encode(self._envelope(self.object, choices) | {"usage": usage})

    def events(self, index: int) -> "ChoiceEvents":
        """The writer of one sequence's events."""
        return ChoiceEvents(self, index)

    def usage_event(self, usage: dict[str, Any]) -> bytes:
        """The last event of a stream whose client asked for the usage."""
        return _event(self._envelope(self.stream_object, []) | {"usage": usage})

    def chunk(
        self, index: int, said: dict[str, Any], finish: str | None, logprobs: dict[str, Any] | None = None
    ) -> bytes:
        """One event with one choice."""
        choice = {"index": index, **said, "logprobs": logprobs, "finish_reason": finish}
        envelope = self._envelope(self.stream_object, [choice])
        if self._include_usage:
            envelope["usage"] = None
        return _event(envelope)

    def echo(self, index: int) -> str:
        """What a sequence's text begins with."""
        return self.echoes[index] if self.echoes else ""

    def opening(self, index: int, first: Event | None, logprobs: dict[str, Any] | None = None) -> bytes:
        """What comes before the first event, if there is one. logprobs: of a prompt that is repeated."""
        return b""

    @abstractmethod
    def piece(self, text: str) -> dict[str, Any]:
        """The part of a choice that carries text in a stream."""

    @abstractmethod
    def nothing(self) -> dict[str, Any]:
        """The part of a choice in a stream's closing event."""

    def other(self, event: Event) -> dict[str, Any] | None:
        """The part of a choice that carries what is no text in a stream; None where nothing needs to be told."""
        return None

    @abstractmethod
    def _said(self, index: int, said: Said) -> dict[str, Any]: ...

    def _envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }


class ChatAnswer(Answer):
    """`/v1/chat/completions`."""

    object = "chat.completion"
    stream_object = "chat.completion.chunk"
    id_prefix = "chatcmpl-"

    def opening(self, index: int, first: Event | None, logprobs: dict[str, Any] | None = None) -> bytes:
        content = "" if first is None or isinstance(first, TextDelta) else None
        return self.chunk(index, {"delta": {"role": "assistant", "content": content, "refusal": None}}, None)

    def piece(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text}}

    def nothing(self) -> dict[str, Any]:
        return {"delta": {}}

    def other(self, event: Event) -> dict[str, Any] | None:
        match event:
            case ReasoningDelta(text):
                return {"delta": {"reasoning_content": text}}
            case CallBegin(index, call_id, name):
                call: dict[str, Any] = {"id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
            case CallDelta(index, arguments):
                call = {"function": {"arguments": arguments}}
            case CallEnd() | CallBroken() | TextDelta():
                return None
        return {"delta": {"tool_calls": [{"index": index, **call}]}}

    def _said(self, index: int, said: Said) -> dict[str, Any]:
        content = said.text or (None if said.calls else "")
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if said.reasoning:
            message["reasoning_content"] = said.reasoning
        if said.calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in said.calls
            ]
        return {"message": message}


class CompletionAnswer(Answer):
    """`/v1/completions`."""

    object = "text_completion"
    stream_object = "text_completion"
    id_prefix = "cmpl-"

    def opening(self, index: int, first: Event | None, logprobs: dict[str, Any] | None = None) -> bytes:
        echo = self.echo(index)
        return self.chunk(index, self.piece(echo), None, logprobs) if echo or logprobs else b""

    def piece(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def nothing(self) -> dict[str, Any]:
        return {"text": ""}

    def _said(self, index: int, said: Said) -> dict[str, Any]:
        return {"text": self.echo(index) + said.text}


class ChoiceEvents:
    """Writes the events of one sequence."""

    __slots__ = ("_answer", "_before", "_behind", "_index")

    def __init__(self, answer: Answer, index: int) -> None:
        self._answer = answer
        self._index = index
        hollow = answer.chunk(index, answer.piece(_HOLE), None)
        self._before, self._behind = hollow.split(msgspec.json.encode(_HOLE))

    def opening(self, first: Event | None, logprobs: dict[str, Any] | None = None) -> bytes:
        """The event before the first one; may be nothing. logprobs: of a prompt that is repeated."""
        return self._answer.opening(self._index, first, logprobs)

    def event(self, event: Event, logprobs: dict[str, Any] | None = None) -> bytes:
        """What was said next; may be nothing. logprobs: of its tokens."""
        if isinstance(event, TextDelta) and logprobs is None:
            return self._before + _encode(event.text) + self._behind
        said = self._answer.piece(event.text) if isinstance(event, TextDelta) else self._answer.other(event)
        return b"" if said is None else self._answer.chunk(self._index, said, None, logprobs)

    def closing(self, finish: str) -> bytes:
        """The event that says why the sequence ended."""
        return self._answer.chunk(self._index, self._answer.nothing(), finish)


_encode = msgspec.json.Encoder().encode


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"
