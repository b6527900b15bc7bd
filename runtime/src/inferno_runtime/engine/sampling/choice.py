"""What the choice of one token is made from, beside the logits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.engine.request import Sampling


class History:
    """A sequence's tokens, as penalties look at them.

    It follows a list that its owner appends to and never shortens; arrays are built when a penalty first asks for them
    and are brought up to date from there, so that a sequence without penalties pays nothing.
    """

    __slots__ = ("_array", "_copied", "_counted", "_counts", "_ids", "_index", "_read", "prompt_length", "tokens")

    def __init__(self, tokens: list[int], prompt_length: int) -> None:
        """tokens: prompt and generated text, shared with the owner; prompt_length: how many of them are the prompt."""
        self.tokens = tokens
        self.prompt_length = prompt_length
        self._array = np.empty(0, dtype=np.int32)
        self._copied = 0  # tokens that _array holds
        self._read = 0  # of `tokens`, those that were looked at for it
        self._index: dict[int, int] = {}  # where _ids and _counts keep a token
        self._ids = np.empty(0, dtype=np.intp)
        self._counts = np.empty(0, dtype=np.float32)
        self._counted = prompt_length  # tokens that _counts has seen

    def generated(self, ahead: Sequence[int] = ()) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """The distinct generated tokens and how often each occurs, with those of `ahead`; not to be written to."""
        tokens = self.tokens
        for position in range(self._counted, len(tokens)):
            self._count(tokens[position])
        self._counted = len(tokens)
        used = len(self._index)
        ids, counts = self._ids[:used], self._counts[:used]
        if not ahead:
            return ids, counts
        counts = counts.copy()
        new: dict[int, int] = {}
        for token in ahead:
            at = self._index.get(token)
            if at is None:
                new[token] = new.get(token, 0) + 1
            else:
                counts[at] += 1
        return (
            np.concatenate((ids, np.fromiter(new.keys(), np.intp, len(new)))),
            np.concatenate((counts, np.fromiter(new.values(), np.float32, len(new)))),
        )

    def last(self, count: int, ahead: Sequence[int] = ()) -> NDArray[np.int32]:
        """The last `count` tokens of prompt, text and `ahead`; all of them if it is negative. Not to be written to.

        What stands for an image is none.
        """
        new = [token for token in self.tokens[self._read :] if token >= 0]
        if new:
            end = self._copied + len(new)
            if end > len(self._array):
                self._array = _grown(self._array, end)
            self._array[self._copied : end] = new
            self._copied = end
        self._read = len(self.tokens)
        array = self._array[: self._copied]
        if ahead:
            array = np.concatenate((array, np.array(ahead, dtype=np.int32)))
        return array if count < 0 else array[max(len(array) - count, 0) :]

    def _count(self, token: int) -> None:
        at = self._index.get(token)
        if at is None:
            at = self._index[token] = len(self._index)
            if at >= len(self._ids):
                self._ids, self._counts = _grown(self._ids, at + 1), _grown(self._counts, at + 1)
            self._ids[at] = token
            self._counts[at] = 0
        self._counts[at] += 1


@dataclass(slots=True)
class Choice:
    """How one row of logits becomes a token. Cheap to build for every row and step; copies nothing."""

    sampling: Sampling
    history: History
    ahead: Sequence[int] = ()  # draft tokens evaluated between the history and this row, taken for accepted
    banned: tuple[int, ...] = ()  # tokens that may not be chosen, unless nothing else is allowed
    allowed: NDArray[np.uint8] | None = (
        None  # a bit for each token that may be, the least significant first; None is all
    )

    @property
    def position(self) -> int:
        """Where in the sequence the chosen token goes."""
        return len(self.history.tokens) + len(self.ahead)


def _grown(array: NDArray[Any], least: int) -> NDArray[Any]:
    """A copy with room for `least` elements and as many again."""
    grown = np.empty(max(2 * least, 64), dtype=array.dtype)
    grown[: len(array)] = array
    return grown
