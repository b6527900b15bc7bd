"""Puts what a parser understands into events."""

import json
import secrets
from collections.abc import Callable

from inferno_runtime.chat.events import CallBegin, CallBroken, CallDelta, CallEnd, Event, ReasoningDelta, TextDelta

_BETWEEN = "\n\n"  # two trains of thought


def new_call_id() -> str:
    """The id of a call."""
    return "call_" + secrets.token_hex(12)


class Speech:
    """The events of one answer.

    White space between the text, the reasoning and the calls belongs to the markup: it is held back until it is known what
    follows, and only what stands between two pieces of text is text.
    """

    def __init__(self, new_id: Callable[[], str] = new_call_id) -> None:
        self.calls = 0
        self.said = False  # there was text
        self._events: list[Event] = []
        self._new_id = new_id
        self._space = ""  # held back
        self._apart = False  # there was a call, or reasoning
        self._thought = ""  # white space at the end of the reasoning so far
        self._thinks = False
        self._reasoned = False
        self._arguments: list[str] = []

    def drain(self) -> list[Event]:
        """The events since the last time."""
        events, self._events = self._events, []
        return events

    def text(self, text: str) -> None:
        """More text."""
        words = text.rstrip()
        if words:
            said = self._space + words
            self._space = ""
            self._say(said.lstrip() if self._apart and not self.said else said)
            self.said = True
        self._space += text[len(words) :]

    def reasoning(self, text: str) -> None:
        """More reasoning."""
        words = text.rstrip()
        if words:
            thought = self._thought + words
            if not self._thinks:
                thought = (_BETWEEN if self._reasoned else "") + thought.lstrip()
            self._thought = ""
            self._thinks = self._reasoned = self._apart = True
            last = self._events[-1] if self._events else None
            if isinstance(last, ReasoningDelta):
                self._events[-1] = ReasoningDelta(last.text + thought)
            else:
                self._events.append(ReasoningDelta(thought))
        self._thought += text[len(words) :]

    def reasoned(self) -> None:
        """The reasoning has ended, for now."""
        self._thought = ""
        self._thinks = False
        self._apart = True

    def begin(self, name: str) -> None:
        """A call begins."""
        self._apart = True
        self._arguments.clear()
        self._events.append(CallBegin(self.calls, self._new_id(), name))
        self.calls += 1

    def arguments(self, text: str) -> None:
        """More of a call's arguments."""
        self._arguments.append(text)
        last = self._events[-1] if self._events else None
        if isinstance(last, CallDelta):
            self._events[-1] = CallDelta(last.index, last.arguments + text)
        else:
            self._events.append(CallDelta(self.calls - 1, text))

    def end(self) -> bool:
        """The call is complete. False, and nothing said, if its arguments are no JSON object after all."""
        if not is_object("".join(self._arguments)):
            return False
        self._events.append(CallEnd(self.calls - 1))
        return True

    def broken(self, text: str) -> None:
        """What began as a call is none; text: what the model wrote instead."""
        space = self._space if self.said else ""
        self._space = ""
        self.said = True
        self._events.append(CallBroken(self.calls - 1, space + text))

    def finish(self) -> None:
        """The answer has ended."""
        if self._space and not self._apart:
            self._say(self._space)
        self._space = ""

    def _say(self, text: str) -> None:
        last = self._events[-1] if self._events else None
        if isinstance(last, TextDelta):
            self._events[-1] = TextDelta(last.text + text)
        else:
            self._events.append(TextDelta(text))


def is_object(text: str) -> bool:
    """Whether a text is a JSON object; its numbers may be larger than any that can be computed with."""
    try:
        return isinstance(json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse), dict)
    except (ValueError, RecursionError):
        return False


def _refuse(constant: str) -> None:
    """NaN and Infinity, which Python reads and JSON does not have."""
    raise ValueError(constant)
