"""The rows' parameters, laid out for a whole block at once.

A batch has the same rows for as long as its sequences run, so what follows from their parameters alone is made once and
kept: made for each step it took as long as the choice itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.engine.request import Sampling

Doubles = NDArray[np.float64]

GREEDY, ALL, HEAD = -1, -2, -3  # kinds of rows; a positive kind is how many of the largest logits are looked at
_WIDTHS = (64, 512, 4096)  # kinds by top_k, so that one large top_k does not make its neighbours wide
_NARROW = (GREEDY, *_WIDTHS[:-1])
_CELLS = 1 << 18  # numbers in a block: what is computed over a vocabulary stays in the processor's cache


class Columns:
    """The parameters of a block's rows as columns, shape (rows, 1), and which of the stages these ask for."""

    def __init__(self, rows: Sequence[Sampling]) -> None:
        def column(parameter: Callable[[Sampling], float]) -> Doubles:
            return np.array([parameter(row) for row in rows], dtype=np.float64)[:, None]

        self.temperature = column(lambda row: row.temperature)
        self.top_k = column(lambda row: row.top_k or np.inf)
        self.top_p = column(lambda row: row.top_p)
        self.nucleus = column(lambda row: row.top_p if row.top_p < 1 else np.inf)
        with np.errstate(divide="ignore"):
            self.log_min_p = np.log(np.minimum(column(lambda row: row.min_p), 1))
        self.typical_p = column(lambda row: row.typical_p)
        self.top_n_sigma = column(lambda row: row.top_n_sigma)
        self.least_top_k, self.most_top_k = self.top_k.min(), self.top_k.max()
        self.has_typical = bool((self.typical_p < 1).any())
        self.has_top_p = bool((self.top_p < 1).any())
        self.has_min_p = bool((self.log_min_p > -np.inf).any())
        self.has_xtc = any(row.xtc_probability > 0 for row in rows)
        self.sigma_rows = np.flatnonzero(self.top_n_sigma > 0)


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a batch whose candidates are found in the same way, and together."""

    kind: int
    rows: tuple[int, ...] | None  # None is all of the batch
    columns: Columns


@dataclass(frozen=True, slots=True)
class Plan:
    """How the tokens of a batch are chosen."""

    parts: tuple[Part, ...]
    adjusted: tuple[int, ...]  # rows whose logits change before any candidate is taken away


@lru_cache(maxsize=64)
def plan_of(rows: tuple[Sampling, ...], vocabulary: int) -> Plan:
    """The plan for a batch of rows with these parameters."""
    kinds: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        kinds.setdefault(_kind(row, vocabulary), []).append(index)
    parts = []
    for kind, members in kinds.items():
        most = len(members) if kind in _NARROW else max(_CELLS // vocabulary, 1)
        for start in range(0, len(members), most):
            part = tuple(members[start : start + most])
            columns = Columns([rows[index] for index in part])
            parts.append(Part(kind, None if len(part) == len(rows) else part, columns))
    return Plan(tuple(parts), tuple(index for index, row in enumerate(rows) if _adjusts(row)))


def _kind(row: Sampling, vocabulary: int) -> int:
    if row.greedy:
        return GREEDY
    if row.top_k:
        return next((width for width in _WIDTHS if row.top_k <= width < vocabulary), vocabulary)
    if row.typical_p < 1:
        return vocabulary
    if row.top_p < 1:
        return HEAD
    if row.xtc_probability <= 0:
        return ALL
    return HEAD if row.min_p > 0 or row.top_n_sigma > 0 else vocabulary


def _adjusts(row: Sampling) -> bool:
    return bool(row.penalizes or row.logit_bias or row.repeat_penalty != 1 or row.dry_multiplier)
