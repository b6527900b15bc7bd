"""Reads text that arrives in pieces, so that how it was cut makes no difference.

A parser is a generator. It asks a `Reader` for what comes next with `yield from`, and is suspended wherever the text that
has come does not decide the answer: it reads as if the whole text were there.
"""

import re
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

_Result = TypeVar("_Result")
Waiting = Generator[None, None, _Result]
"""A computation that is suspended until there is more text."""
Say = Callable[[str], None]
"""Takes text as it comes."""

_SPACE = re.compile(r"\s*")


class Reader:
    """The text that has come and was not read yet."""

    def __init__(self) -> None:
        self.cut = False  # the text has ended, and not because its writer was done
        self._text = ""
        self._at = 0  # of it was read
        self._ended = False
        self._kept: list[str] = []

    def feed(self, text: str) -> None:
        """More text."""
        self._text = self._text[self._at :] + text
        self._at = 0

    def end(self, *, cut: bool) -> None:
        """There will be no more."""
        self._ended = True
        self.cut = cut

    def keep(self, text: str = "") -> None:
        """Remember what is read from here, as if it had followed `text`."""
        self._kept = [text]

    @property
    def kept(self) -> str:
        """All that was read since `keep`."""
        return "".join(self._kept)

    def next(self) -> Waiting[str]:
        """The next character, which is not read yet; empty at the end."""
        while self._at == len(self._text) and not self._ended:
            yield
        return self._text[self._at : self._at + 1]

    def take(self, count: int) -> str:
        """Read so many characters, which have come."""
        taken = self._text[self._at : self._at + count]
        self._at += count
        self._kept.append(taken)
        return taken

    def untake(self, text: str) -> None:
        """Have `text` come next again, which was just read."""
        self._at -= len(text)

    def accept(self, literal: str) -> Waiting[bool]:
        """Read `literal`, if it is what comes next. The beginning of it where the text was cut off is dropped."""
        while len(self._text) - self._at < len(literal) and literal.startswith(self._text[self._at :]):
            if self._ended:
                if self.cut:
                    self._at = len(self._text)
                return False
            yield
        if not self._text.startswith(literal, self._at):
            return False
        self.take(len(literal))
        return True

    def spaces(self) -> Waiting[None]:
        """Read white space."""
        yield from self.run(_SPACE)

    def run(self, pattern: re.Pattern[str]) -> Waiting[str]:
        """Read what matches `pattern`, which must match whatever its matches begin with; gives it as a whole."""
        while True:
            found = pattern.match(self._text, self._at)
            end = found.end() if found else self._at
            if end < len(self._text) or self._ended:
                return self.take(end - self._at)
            yield

    def pass_on(self, pattern: re.Pattern[str], say: Say) -> Waiting[None]:
        """Read what matches `pattern`, a repetition of single characters, and hand it on as it comes."""
        while True:
            found = pattern.match(self._text, self._at)
            if found and found[0]:
                say(self.take(len(found[0])))
            if self._at < len(self._text) or self._ended:
                return
            yield

    def until(self, markers: Sequence[str], say: Say) -> Waiting[str]:
        """Read up to the first of `markers` and beyond it; gives the marker, or nothing where the text ends without one.

        say: is handed the text before it, as it comes. What may be a marker's beginning is held back, and dropped if
        the text was cut off there.
        """
        pattern = re.compile("|".join(map(re.escape, sorted(markers, key=len, reverse=True))) or "(?!)")
        while True:
            found = pattern.search(self._text, self._at)
            held = 0 if found else _beginning(self._text, self._at, markers)
            if before := self.take((found.start() if found else len(self._text) - held) - self._at):
                say(before)
            if found:
                return self.take(len(found[0]))
            if self._ended:
                if (rest := self.take(held)) and not self.cut:
                    say(rest)
                return ""
            yield


def _beginning(text: str, start: int, markers: Sequence[str]) -> int:
    """How many of the last characters may begin a marker."""
    longest = max(map(len, markers), default=1)
    for length in range(min(longest - 1, len(text) - start), 0, -1):
        tail = text[-length:]
        if any(marker.startswith(tail) for marker in markers):
            return length
    return 0
