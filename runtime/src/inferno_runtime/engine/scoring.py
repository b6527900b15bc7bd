"""How likely the model held tokens to be: logarithms of its own probabilities, before anything is done to its logits.

Logit bias, penalties and masks change logits in place, so what is scored is copied first: rows of those sequences alone that
ask for it. What a row gets depends on that row alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.engine.request import Scores
from inferno_runtime.engine.sampling.ranking import largest
from inferno_runtime.engine.sampling.whole import mass

Floats = NDArray[np.float32]

_CELLS = 1 << 18  # numbers in a block: what is computed over a vocabulary stays in the processor's cache


@dataclass(frozen=True, slots=True)
class Row:
    """A row of logits that is to be scored, and how many of the likeliest tokens are wanted beside the one at its place."""

    index: int
    top: int


class Scored:
    """Some rows of a batch, as the model gave them."""

    def __init__(self, logits: Floats, rows: Sequence[Row]) -> None:
        """logits: shape (all rows, vocabulary)."""
        self._rows = {row.index: at for at, row in enumerate(rows)}
        self._tops = [row.top for row in rows]
        self._logits = logits[[row.index for row in rows]]
        size = self._logits.shape[1]
        top = min(max(self._tops, default=0), size)
        self._normalizers = np.empty(len(rows), dtype=np.float64)
        self._ids = np.zeros((len(rows), top), dtype=np.int32)
        self._values = np.full((len(rows), top), -np.inf)
        step = max(_CELLS // size, 1)
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            self._rank(part, self._logits[part], top)

    def _rank(self, part: slice, block: Floats, top: int) -> None:
        with np.errstate(invalid="ignore", divide="ignore"):  # of a row that is not a number, which fails elsewhere
            peaks = block.max(axis=1, keepdims=True)
            self._normalizers[part] = (peaks + np.log(mass(block, peaks, None)))[:, 0]
        if top:
            ids, values = largest(block, top)
            self._ids[part, : ids.shape[1]], self._values[part, : ids.shape[1]] = ids, values

    def scores(self, request_id: int, first: int, tokens: Sequence[int], *, prompt: bool = False) -> Scores:
        """Those of tokens that stand behind consecutive rows, from the row of index `first` on."""
        at = self._rows[first]
        rows = slice(at, at + len(tokens))
        normalizers, top = self._normalizers[rows], min(self._tops[at], self._ids.shape[1])
        chosen = self._logits[np.arange(at, at + len(tokens)), np.asarray(tokens, dtype=np.intp)] - normalizers
        likeliest = self._values[rows, :top] - normalizers[:, None]
        return Scores(
            request_id,
            prompt,
            chosen.astype(np.float32).tobytes(),
            self._ids[rows, :top].tobytes(),
            likeliest.astype(np.float32).tobytes(),
        )
