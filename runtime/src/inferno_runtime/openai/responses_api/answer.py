"""Responses, whole and as a stream of events, as they stand on the wire."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from inferno_runtime.chat.events import Event, TextDelta
from inferno_runtime.engine.request import FinishReason, Sampling
from inferno_runtime.openai.errors import RATE_LIMIT, ApiError
from inferno_runtime.openai.responses import Result
from inferno_runtime.openai.responses_api.convert import tools_of
from inferno_runtime.openai.responses_api.items import new_id
from inferno_runtime.openai.responses_api.output import Happened, Logprobs, Output
from inferno_runtime.openai.responses_api.requests import ResponsesRequest

_encode = msgspec.json.Encoder().encode
_DEFAULTS = Sampling()


def usage_of(usage: dict[str, Any], reasoning: int) -> dict[str, Any]:
    """What a response took. usage: a chat's; reasoning: tokens of what the model said to itself, among all of them."""
    return {
        "input_tokens": usage["prompt_tokens"],
        # Everything that is evaluated may be found again; nothing is charged for it.
        "input_tokens_details": {
            "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
            "cache_write_tokens": 0,
        },
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": min(reasoning, usage["completion_tokens"])},
        "total_tokens": usage["total_tokens"],
    }


class Response:
    """One response."""

    def __init__(self, request: ResponsesRequest, model: str, *, store: bool) -> None:
        """model: the name of the model that answers; store: whether the response can be asked for later."""
        self.id = new_id("resp")
        self.output = Output()
        self.status = "in_progress"
        self._head = {"id": self.id, "object": "response", "created_at": int(time.time())}
        self._echo = _echo(request, model, store)
        self._error: dict[str, Any] | None = None

    def say(self, result: Result) -> None:
        """All of it was said at once."""
        self.output.add_all(result.said, result.finish != FinishReason.LENGTH, result.spoken)
        self.end(result.finish)

    def end(self, finish: str) -> None:
        """It has ended. finish: why, as a chat says it."""
        self.status = "incomplete" if finish == FinishReason.LENGTH else "completed"

    def fail(self, error: ApiError) -> None:
        """It has failed."""
        self.status = "failed"
        # The only two of OpenAI's codes for this that mean anything here.
        code = "rate_limit_exceeded" if error.type == RATE_LIMIT else "server_error"
        self._error = {"code": code, "message": error.message}

    def object(self, usage: dict[str, Any] | None = None) -> dict[str, Any]:
        """The response as it is now. usage: what it took, as `usage_of` has it."""
        completed = {"completed_at": int(time.time())} if self.status == "completed" else {"completed_at": None}
        return {
            **self._head,
            **completed,
            "status": self.status,
            "error": self._error,
            "incomplete_details": {"reason": "max_output_tokens"} if self.status == "incomplete" else None,
            "output": self.output.items,
            "usage": usage,
            **self._echo,
        }


class ResponseEvents:
    """The stream of one response."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self._number = 0

    def opening(self) -> bytes:
        """What comes first."""
        shown = self._response.object()
        return self._written([("created", {"response": shown}), ("in_progress", {"response": shown})])

    def said(self, events: Sequence[Event], finish: str | None, logprobs: Logprobs = ()) -> bytes:
        """What was said next. finish: if there is no more, why; logprobs: of the tokens of its text."""
        output, written = self._response.output, b""
        for event in events:
            told, logprobs = (logprobs, ()) if isinstance(event, TextDelta) else ((), logprobs)
            written += self._written(output.add(event, told))
        if finish is not None:
            written += self._written(output.finish(finish != FinishReason.LENGTH))
            self._response.end(finish)
        return written

    def closing(self, response: dict[str, Any]) -> bytes:
        """What comes last. response: the whole of it."""
        return self._written([(response["status"], {"response": response})])

    def failure(self, error: ApiError) -> bytes:
        """What comes last where it failed."""
        self._response.fail(error)
        fields = {"code": error.code, "message": error.message, "param": error.param}
        told = self._event("error", fields)
        return told + self._written([("failed", {"response": self._response.object()})])

    def _written(self, happened: Iterable[Happened]) -> bytes:
        return b"".join(self._event(f"response.{name}", fields) for name, fields in happened)

    def _event(self, name: str, fields: dict[str, Any]) -> bytes:
        data = _encode({"type": name, "sequence_number": self._number, **fields})
        self._number += 1
        return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def _echo(request: ResponsesRequest, model: str, store: bool) -> dict[str, Any]:
    """What a response repeats of its request."""
    form = request.text.format if request.text else None
    text: dict[str, Any] = {"format": {"type": "text"} if form is None else _set(form)}
    if request.text is not None and request.text.verbosity is not None:
        text["verbosity"] = request.text.verbosity
    reasoning = request.reasoning
    return {
        "model": model,
        "instructions": request.instructions,
        "previous_response_id": request.previous_response_id,
        "metadata": request.metadata or {},
        "tools": [
            # Which OpenAI's always have.
            {"type": "function", "strict": False, "parameters": {}, **_set(tool)}
            for tool in tools_of(request)
        ],
        "tool_choice": request.tool_choice or "auto",
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "text": text,
        "reasoning": {
            "effort": reasoning.effort if reasoning else None,
            "summary": reasoning.summary if reasoning else None,
        },
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "temperature": _DEFAULTS.temperature if request.temperature is None else request.temperature,
        "top_p": _DEFAULTS.top_p if request.top_p is None else request.top_p,
        "top_logprobs": request.top_logprobs or 0,
        "truncation": request.truncation or "disabled",
        "background": False,
        "store": store,
        "user": request.user,
        "safety_identifier": request.safety_identifier,
        "prompt_cache_key": request.prompt_cache_key,
        "service_tier": "default",
    }


def _set(struct: msgspec.Struct) -> dict[str, Any]:
    """Those fields of it that are set."""
    return {name: value for name, value in msgspec.to_builtins(struct).items() if value is not None}
