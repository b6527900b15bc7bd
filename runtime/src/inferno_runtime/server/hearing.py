"""What a sequence says, as its text comes, and which of its tokens are the text that is shown."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from inferno_runtime.chat.events import CALLED, CallBroken, CallEnd, Event, ReasoningDelta, TextDelta
from inferno_runtime.chat.parser import Parser
from inferno_runtime.engine.request import FinishReason
from inferno_runtime.worker.generation import Delta
from inferno_runtime.worker.transcript import Score


@dataclass(slots=True)
class Piece:
    """The next of what a sequence says.

    delta: what it was made of, its text also where it is markup and no event; finish: if it is the last, why; spoken:
    where scores are asked for, those of the tokens that are text, and neither markup nor reasoning nor a call.
    """

    events: Sequence[Event]
    delta: Delta
    finish: str | None
    spoken: Sequence[Score] = ()


class Hearing:
    """Hears one sequence."""

    def __init__(self, parser: Parser | None, *, scored: bool) -> None:
        """parser: reads its text; None where that is text and nothing else. scored: whether scores are asked for."""
        self._parser = parser
        self._scored = scored
        self._text = ""  # that waits for its tokens' scores
        self._at = 0  # characters before it
        self._unread: deque[tuple[Score, str]] = deque()  # tokens of which no event has told, and their texts

    def hear(self, delta: Delta) -> Piece:
        """What it says in the next piece of its text."""
        parser, reason = self._parser, delta.finish_reason
        if parser is None:
            return Piece((TextDelta(delta.text),) if delta.text else (), delta, reason, delta.scores)
        events: list[Event] = []
        spoken: list[Score] = []
        for text in self._by_token(delta) if self._scored else (delta.text,):
            heard = parser.feed(text)
            spoken += self._spoken(heard)
            events += heard
        if reason is None:
            return Piece(events, delta, None, spoken)
        heard = parser.finish(cut=reason is not FinishReason.STOP)
        spoken += self._spoken(heard)
        called = parser.called and reason is FinishReason.STOP
        return Piece(events + heard, delta, CALLED if called else reason, spoken)

    def _by_token(self, delta: Delta) -> Iterator[str]:
        """The text whose tokens' scores are there, token by token."""
        self._text += delta.text
        for score, following in zip_longest(delta.scores, delta.scores[1:]):
            part = self._taken((score.end if following is None else following.offset) - self._at)
            self._unread.append((score, part))
            yield part
        if delta.finish_reason is not None:
            yield self._taken(len(self._text))  # of a token that was cut in two, which is not told of

    def _taken(self, length: int) -> str:
        part, self._text = self._text[:length], self._text[length:]
        self._at += len(part)
        return part

    def _spoken(self, events: Sequence[Event]) -> list[Score]:
        """The scores of the tokens that events show as text."""
        spoken: list[Score] = []
        for event in events if self._unread else ():
            match event:
                case TextDelta(text) | CallBroken(_, text):
                    spoken += self._told(text)
                case ReasoningDelta(text):
                    self._told(text)
                case CallEnd():
                    self._unread.clear()
        return spoken

    def _told(self, text: str) -> list[Score]:
        """The scores of a text's tokens, which are forgotten with the markup before them."""
        unread = "".join(part for _, part in self._unread)
        if text not in unread:
            text = text.lstrip()  # white space before it may be from both sides of a mark
        start = max(unread.rfind(text), 0)
        told, at = [], 0
        while self._unread and at < start + len(text):
            score, part = self._unread.popleft()
            # A token may be half a character, and so of no length.
            if at >= start or at + len(part) > start:
                told.append(score)
            at += len(part)
        return told
