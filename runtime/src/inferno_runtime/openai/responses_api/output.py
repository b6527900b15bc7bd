"""The output of a response: what the model says, as items, and what happens to them on the way.

The same object writes both kinds of answer. What happens is what a stream's events tell; the items are what is left.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

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
from inferno_runtime.openai.responses_api.items import Kept, new_id

Happened = tuple[str, dict[str, Any]]
"""The name of an event without its `response.`, and its fields."""
Logprobs = Sequence[dict[str, Any]]
"""How likely the tokens of a piece of text were, as a chat has them."""


class Output:
    """The items of one response."""

    def __init__(self) -> None:
        self.items: list[Kept] = []
        self._open: _Part | None = None

    def add(self, event: Event, logprobs: Logprobs = ()) -> Iterator[Happened]:
        """Something more was said. logprobs: of its tokens, if it is text."""
        match event:
            case TextDelta(text):
                yield from self._said(_Text, text, logprobs)
            case ReasoningDelta(text):
                yield from self._said(_Reasoning, text)
            case CallBegin(_, call_id, name):
                yield from self._close()
                yield from self._begin(_Call(len(self.items), call_id, name))
            case CallDelta(_, arguments):
                assert self._open is not None
                yield self._open.delta(arguments)
            case CallEnd():
                yield from self._close()
            case CallBroken():
                yield from self._close("incomplete")

    def finish(self, complete: bool) -> Iterator[Happened]:
        """There is no more. complete: whether the model itself has ended, and was not cut off."""
        if not any(item["type"] in ("message", "function_call") for item in self.items):
            yield from self._said(_Text, "")
        yield from self._close("completed" if complete else "incomplete")

    def add_all(self, said: Said, complete: bool, logprobs: Logprobs = ()) -> None:
        """The whole answer at once, whose order is no longer known: thinking, speaking, calling.

        logprobs: of the tokens of its text.
        """
        events: list[Event] = []
        if said.reasoning:
            events.append(ReasoningDelta(said.reasoning))
        if said.text:
            events.append(TextDelta(said.text))
        for index, call in enumerate(said.calls):
            events += [CallBegin(index, call.id, call.name), CallDelta(index, call.arguments)]
            if complete or index < len(said.calls) - 1:
                events.append(CallEnd(index))
        for event in events:
            for _ in self.add(event, logprobs):
                pass
        for _ in self.finish(complete):
            pass

    @property
    def reasoning(self) -> str:
        """All that the model said to itself."""
        parts = (part for item in self.items if item["type"] == "reasoning" for part in item["content"])
        return "".join(part["text"] for part in parts)

    def _said(self, kind: "type[_Text]", text: str, logprobs: Logprobs = ()) -> Iterator[Happened]:
        if type(self._open) is not kind:
            yield from self._close()
            yield from self._begin(kind(len(self.items)))
        assert isinstance(self._open, _Text)
        if text:
            yield self._open.said(text, logprobs)

    def _begin(self, part: "_Part") -> Iterator[Happened]:
        self._open = part
        self.items.append(part.item("in_progress"))
        yield from part.begin()

    def _close(self, status: str = "completed") -> Iterator[Happened]:
        if self._open is not None:
            part, self._open = self._open, None
            self.items[part.index] = item = part.item(status)
            yield from part.end()
            yield "output_item.done", {"output_index": part.index, "item": item}


class _Part(ABC):
    """An item that is being written."""

    prefix = ""
    name = ""  # of what its deltas are of

    def __init__(self, index: int) -> None:
        self.index = index
        self.id = new_id(self.prefix)
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def delta(self, text: str) -> Happened:
        self._texts.append(text)
        return f"{self.name}.delta", {**self.place, "delta": text}

    @property
    def place(self) -> dict[str, Any]:
        return {"item_id": self.id, "output_index": self.index}

    def begin(self) -> Iterator[Happened]:
        yield "output_item.added", {"output_index": self.index, "item": self.item("in_progress", empty=True)}

    @abstractmethod
    def end(self) -> Iterator[Happened]: ...

    @abstractmethod
    def item(self, status: str, *, empty: bool = False) -> Kept: ...


class _Text(_Part):
    """A message, with one part that is a text."""

    prefix = "msg"
    name = "output_text"

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self._logprobs: list[dict[str, Any]] = []

    @property
    def place(self) -> dict[str, Any]:
        return {**super().place, "content_index": 0}

    def said(self, text: str, logprobs: Logprobs) -> Happened:
        """Text has come, with what is told of its tokens."""
        self._logprobs += logprobs
        name, fields = self.delta(text)
        return name, {**fields, **self.besides(logprobs)}

    def besides(self, logprobs: Logprobs) -> dict[str, Any]:
        """What its events carry besides."""
        return {"logprobs": [_in_event(token) for token in logprobs]}

    def begin(self) -> Iterator[Happened]:
        yield from super().begin()
        yield "content_part.added", {**self.place, "part": self.part("", ())}

    def end(self) -> Iterator[Happened]:
        yield f"{self.name}.done", {**self.place, "text": self.text, **self.besides(self._logprobs)}
        yield "content_part.done", {**self.place, "part": self.part(self.text, self._logprobs)}

    def part(self, text: str, logprobs: Logprobs) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(map(_in_part, logprobs))}

    def item(self, status: str, *, empty: bool = False) -> Kept:
        content = [] if empty else [self.part(self.text, self._logprobs)]
        return {"id": self.id, "type": "message", "status": status, "role": "assistant", "content": content}


class _Reasoning(_Text):
    """What the model says to itself."""

    prefix = "rs"
    name = "reasoning_text"

    def besides(self, logprobs: Logprobs) -> dict[str, Any]:
        return {}

    def part(self, text: str, logprobs: Logprobs) -> dict[str, Any]:
        return {"type": "reasoning_text", "text": text}

    def item(self, status: str, *, empty: bool = False) -> Kept:
        content = [] if empty else [self.part(self.text, self._logprobs)]
        return {"id": self.id, "type": "reasoning", "status": status, "summary": [], "content": content}


class _Call(_Part):
    """A call of a function."""

    prefix = "fc"
    name = "function_call_arguments"

    def __init__(self, index: int, call_id: str, name: str) -> None:
        super().__init__(index)
        self._call_id = call_id
        self._name = name

    def end(self) -> Iterator[Happened]:
        yield f"{self.name}.done", {**self.place, "name": self._name, "arguments": self.text}

    def item(self, status: str, *, empty: bool = False) -> Kept:
        return {
            "id": self.id,
            "type": "function_call",
            "status": status,
            "call_id": self._call_id,
            "name": self._name,
            "arguments": self.text,
        }


def _in_part(token: dict[str, Any]) -> dict[str, Any]:
    """What is told of a token in an item, where none is without bytes."""
    return {**_bytes(token), "top_logprobs": list(map(_bytes, token["top_logprobs"]))}


def _bytes(token: dict[str, Any]) -> dict[str, Any]:
    return {"token": token["token"], "bytes": token["bytes"] or [], "logprob": token["logprob"]}


def _in_event(token: dict[str, Any]) -> dict[str, Any]:
    """The same in an event, which has no bytes."""
    return {**_likelihood(token), "top_logprobs": list(map(_likelihood, token["top_logprobs"]))}


def _likelihood(token: dict[str, Any]) -> dict[str, Any]:
    return {"token": token["token"], "logprob": token["logprob"]}
