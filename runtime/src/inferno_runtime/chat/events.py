"""What an assistant says, piece by piece: the one vocabulary between the parsers of models' dialects and the APIs.

A parser (see `dialects`) turns a model's text into these events, and each API writes them its own way. They know no
transport and no API, and arrive in the order in which the model said things:

    TextDelta*            words for the user
    ReasoningDelta*       words of the model to itself, which may come before the text, and again between calls
    CallBegin             a call of a tool, whose name is complete and known to the request
      CallDelta*          the text of its arguments, which adds up to a JSON object
    CallEnd               and that object is complete
    or CallBroken         or what the model wrote is none

Calls have numbers from 0 and do not overlap: each has its end before the next one begins. No event is empty, nothing of a
dialect's markup is in any, and how the model's text was cut on its way to the parser changes only where the deltas are cut.

A call that has begun ends in one of three ways. `CallEnd`: its deltas are a whole JSON object. `CallBroken`: the model
wrote something else, or stopped half-way by itself; who has not shown the call yet shows `text` in its place, and who has
cannot take it back and leaves its arguments as they are. No end at all: the answer was cut off there by a limit or by the
client, as its `finish_reason` says. A call that is constrained by a grammar is never broken.

A whole answer is what `Said` makes of all events.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

CALLED = "tool_calls"
"""Why an answer ended which ends with calls, and which no limit has cut."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the text."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegin:
    """A call begins. index: its number in the answer; id: unique among all calls of all answers."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallDelta:
    """More of a call's arguments, as JSON text."""

    index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """A call's arguments are complete."""

    index: int


@dataclass(frozen=True, slots=True)
class CallBroken:
    """What began as a call is none. text: all that the model wrote of it, markup included."""

    index: int
    text: str


Event = TextDelta | ReasoningDelta | CallBegin | CallDelta | CallEnd | CallBroken


@dataclass(slots=True)
class Call:
    """A call of a tool. arguments: JSON text, of which the end may be missing where the answer was cut off."""

    id: str
    name: str
    arguments: str = ""


@dataclass(slots=True)
class Said:
    """All that an answer's events add up to."""

    text: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)

    @classmethod
    def of(cls, events: Iterable[Event]) -> "Said":
        """That of a whole answer, whose broken calls are text."""
        texts: list[str] = []
        reasoning: list[str] = []
        calls: dict[int, Call] = {}
        arguments: dict[int, list[str]] = {}
        for event in events:
            match event:
                case TextDelta(text):
                    texts.append(text)
                case ReasoningDelta(text):
                    reasoning.append(text)
                case CallBegin(index, call_id, name):
                    calls[index] = Call(call_id, name)
                    arguments[index] = []
                case CallDelta(index, more):
                    arguments[index].append(more)
                case CallBroken(index, text):
                    texts.append(text)
                    del calls[index]
                case CallEnd():
                    pass
        for index, call in calls.items():
            call.arguments = "".join(arguments[index])
        return cls("".join(texts), "".join(reasoning), list(calls.values()))
