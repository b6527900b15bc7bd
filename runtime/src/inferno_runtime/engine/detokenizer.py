"""Tokens to text, piece by piece: whole code points only, and never any part of a stop string."""

import codecs
from collections.abc import Iterable, Sequence


class Detokenizer:
    """The text of one sequence.

    Bytes that do not yet make a code point are held back, and so is text that may turn out to begin a stop string.
    """

    __slots__ = ("_decoder", "_held", "_longest", "_pieces", "_stops", "stop", "stopped")

    def __init__(self, pieces: Sequence[bytes], stops: Sequence[str] = ()) -> None:
        self._pieces = pieces
        self._stops = tuple(stop for stop in stops if stop)
        self._longest = max(map(len, self._stops), default=0)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False  # a stop string was found, and nothing follows
        self.stop = ""  # which one it was

    def feed(self, tokens: Iterable[int]) -> str:
        """The text that is certain after `tokens`; empty once a stop string was found."""
        if self.stopped:
            return ""
        pieces = self._pieces
        text = self._decoder.decode(b"".join([pieces[token] for token in tokens]))
        if not self._stops:
            return text
        text = self._held + text
        found, stop = min(((at, stop) for stop in self._stops if (at := text.find(stop)) >= 0), default=(-1, ""))
        if found >= 0:
            self.stopped = True
            self.stop = stop
            self._held = ""
            return text[:found]
        held = self._possible_start(text)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """The text that was held back for a stop string that did not come. Bytes of half a code point are dropped."""
        text, self._held = self._held, ""
        return text

    def _possible_start(self, text: str) -> int:
        """How many of the last characters may begin a stop string."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            tail = text[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0
