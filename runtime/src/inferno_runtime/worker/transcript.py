"""The scores of a sequence's tokens, beside the text that the tokens make."""

import codecs
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from inferno_runtime.engine.request import Scores

LEAST = -9999.0  # what stands for less, as in OpenAI's answers: JSON has no infinity


class Score(NamedTuple):
    """How likely the model held a token to be, as a natural logarithm.

    offset, end: characters of the text before it, and with it and what it is a part of; logprob: None of a prompt's first
    token, before which there is nothing; top: the likeliest tokens at its place and their logarithms, likeliest first.
    """

    token: int
    offset: int
    end: int
    logprob: float | None
    top: Sequence[tuple[int, float]]


class Transcript:
    """Follows the tokens of an answer, and tells of each when all its text has been shown.

    So nothing is told of text that a stop string has cut off, or may still cut off.
    """

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._characters = 0
        self._known: deque[tuple[float, Sequence[tuple[int, float]]]] = deque()  # of tokens that have not come yet
        self._waiting: deque[Score] = deque()  # of tokens whose text has not been shown
        self._sum = 0.0
        self._count = 0

    @property
    def mean(self) -> float:
        """The mean logarithm of the tokens that have come; minus infinity before the first."""
        return self._sum / self._count if self._count else float("-inf")

    def add(self, scores: Scores) -> None:
        """Take the scores of tokens that come next."""
        self._known.extend(unpacked(scores))

    def follow(self, tokens: Iterable[int]) -> None:
        """Take the tokens themselves."""
        for token in tokens:
            logprob, top = self._known.popleft()
            piece, pending = self._pieces[token], self._decoder.getstate()[0]
            given_up = bool(pending and piece[:1] and not 0x80 <= piece[0] < 0xC0)  # half a character, now replaced
            offset = self._characters + given_up
            self._characters += len(self._decoder.decode(piece))
            unfinished = bool(self._decoder.getstate()[0])  # its text is there with the bytes that complete it
            self._waiting.append(Score(token, offset, self._characters + unfinished, logprob, top))
            self._sum += logprob
            self._count += 1

    def shown(self, characters: int) -> list[Score]:
        """The scores that were not told yet, of tokens within the text's first `characters`."""
        scores = []
        while self._waiting and self._waiting[0].end <= characters:
            scores.append(self._waiting.popleft())
        return scores

    def rest(self) -> list[Score]:
        """All that were not told yet, where nothing was cut off."""
        scores = list(self._waiting)
        self._waiting.clear()
        return scores


def unpacked(scores: Scores) -> Iterator[tuple[float, Sequence[tuple[int, float]]]]:
    """Of each token its logarithm, and the likeliest tokens with theirs, but for those that are impossible."""
    chosen, tokens, likeliest = array("f", scores.chosen), array("i", scores.tokens), array("f", scores.likeliest)
    width = len(tokens) // len(chosen) if chosen else 0
    for number, logprob in enumerate(chosen):
        places = range(number * width, (number + 1) * width)
        yield max(logprob, LEAST), [(tokens[at], likeliest[at]) for at in places if likeliest[at] > LEAST]
