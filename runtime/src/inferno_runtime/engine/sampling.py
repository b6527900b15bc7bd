"""The choice of the next token, for a whole batch of sequences at once.

The order is libllama's: penalties, top-k, top-p over what top-k left, min-p, and the temperature last, so that a high
temperature picks among the plausible tokens only. Randomness is a pure function of the seed and the token's position:
a sequence draws the same numbers alone, in company, or evaluated again after an interruption.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.engine.request import Sampling

Floats = NDArray[np.float32]

_FOLDS = 64  # how often a row of logits is folded in the search for the largest ones
_FOLD_STARTS = np.arange(_FOLDS)
_MASK = (1 << 64) - 1


class SamplingError(Exception):
    """The logits allow no choice (NaN, or nothing but minus infinity)."""


def sample(logits: Floats, rows: Sequence[tuple[Sampling, Mapping[int, int], int]]) -> list[int | SamplingError]:
    """Choose a token for each row of `logits`.

    logits: shape (rows, vocab_size); penalties are applied in place.
    rows: for each row how to choose, how often each token was generated so far, and the position of the token to come.
    Returns a token, or the error of that row alone.
    """
    for row, (params, counts, _) in zip(logits, rows, strict=True):
        if params.penalizes and counts:
            _penalize(row, params, counts)
    best = logits.argmax(axis=1)
    peaks = logits[np.arange(len(rows)), best]
    chosen: list[int | SamplingError] = []
    for index, (params, _, position) in enumerate(rows):
        if not np.isfinite(peaks[index]):  # argmax finds a NaN if there is one
            chosen.append(SamplingError("the model's output is not a number"))
        elif params.greedy:
            chosen.append(int(best[index]))
        else:
            chosen.append(_draw(logits[index], params, uniform(params.seed, position)))
    return chosen


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on nothing but its arguments (the finalizer of SplitMix64, twice)."""
    return _mix(_mix(seed & _MASK) ^ (position * 0x9E3779B97F4A7C15 & _MASK)) / (1 << 64)


def _mix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _penalize(row: Floats, params: Sampling, counts: Mapping[int, int]) -> None:
    ids = np.fromiter(counts.keys(), dtype=np.intp, count=len(counts))
    often = np.fromiter(counts.values(), dtype=np.float32, count=len(counts))
    row[ids] -= params.presence_penalty + params.frequency_penalty * often


def _draw(row: Floats, params: Sampling, number: float) -> int:
    """The token at `number` in the cumulative distribution of the candidates, likeliest first."""
    ids = _candidates(row, params)
    values = row[ids].astype(np.float64)
    if params.top_p < 1 and params.top_k:
        weights = np.exp(values - values[0])
        ids, values = _nucleus(ids, values, weights / weights.sum(), params.top_p)
    if params.min_p > 0:
        keep = int(np.count_nonzero(values >= values[0] + np.log(params.min_p)))
        ids, values = ids[: max(keep, 1)], values[: max(keep, 1)]
    weights = np.exp((values - values[0]) / params.temperature)
    cumulative = np.cumsum(weights)
    return int(ids[min(int(np.searchsorted(cumulative, number * cumulative[-1], side="right")), len(ids) - 1)])


def _candidates(row: Floats, params: Sampling) -> NDArray[np.intp]:
    """The tokens that top-k, or without it top-p, leaves; likeliest first, equals by their number."""
    if params.top_k:
        return largest(row, params.top_k)
    if params.top_p >= 1:
        return largest(row, len(row))
    probabilities = np.exp(row.astype(np.float64) - row.max())
    probabilities /= probabilities.sum()
    count = 256
    while True:  # a nucleus is nearly always small, and sorting the whole vocabulary is slow
        ids = largest(row, count)
        inside = probabilities[ids]
        if inside.sum() >= params.top_p or len(ids) == len(row):
            return _nucleus(ids, inside, inside, params.top_p)[0]
        count *= 8


def _nucleus(
    ids: NDArray[np.intp], values: NDArray[np.float64], probabilities: NDArray[np.float64], top_p: float
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The shortest head whose probabilities add up to `top_p`; at least one."""
    keep = int(np.searchsorted(np.cumsum(probabilities), top_p, side="left")) + 1
    return ids[:keep], values[:keep]


def largest(row: Floats, count: int) -> NDArray[np.intp]:
    """The indices of the `count` largest values, largest first, equals by index.

    The row is folded into columns, whose maxima are found at the speed of memory. The count-th largest of them is a lower
    bound for the count-th largest value, so only the columns that reach it are looked at: exact, and several times
    faster than partitioning a vocabulary.
    """
    size = len(row)
    width = size // _FOLDS
    ids: NDArray[np.intp]
    if count * 4 >= width:
        ids = np.arange(size)
    else:
        folded = row[: width * _FOLDS].reshape(_FOLDS, width)
        maxima = folded.max(axis=0)
        reaching = (maxima >= np.partition(maxima, width - count)[width - count]).nonzero()[0]
        ids = (reaching + _FOLD_STARTS[:, None] * width).ravel()
        if width * _FOLDS < size:
            ids = np.concatenate((ids, np.arange(width * _FOLDS, size)))
    values = row[ids]
    if len(ids) > count:
        kept = values >= np.partition(values, len(ids) - count)[len(ids) - count]
        ids, values = ids[kept], values[kept]  # more than count only where values are equal
    return ids[np.lexsort((ids, -values))[:count]]
