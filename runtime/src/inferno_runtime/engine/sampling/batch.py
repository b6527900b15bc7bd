"""From a block of logits to a token for each row."""

from collections.abc import Callable, Sequence

import numpy as np

from inferno_runtime.engine.request import Sampling
from inferno_runtime.engine.sampling import truncation
from inferno_runtime.engine.sampling.choice import Choice
from inferno_runtime.engine.sampling.penalties import adjust
from inferno_runtime.engine.sampling.randomness import XTC, uniform
from inferno_runtime.engine.sampling.ranking import Doubles, Floats, Ids, largest
from inferno_runtime.engine.sampling.whole import deviation, draw, mass

_GREEDY, _ALL, _HEAD = -1, -2, -3  # kinds of rows; a positive kind is how many of the largest logits are looked at
_WIDTHS = (64, 512, 4096)  # kinds by top_k, so that one large top_k does not make its neighbours wide
_HEADS = (256, 4096)  # how much of the head is looked at before all of it is
_CELLS = 1 << 18  # numbers in a block: what is computed over a vocabulary stays in the processor's cache
_NARROW = (_GREEDY, *_WIDTHS[:-1])
_NONE = -1  # in place of a token


class SamplingError(Exception):
    """The logits allow no choice (NaN, or nothing but minus infinity)."""


def sample(logits: Floats, choices: Sequence[Choice]) -> list[int | SamplingError]:
    """Choose a token for each row of `logits`.

    logits: shape (rows, vocabulary), C-contiguous; biases and penalties are applied in place.
    choices: how, row by row.
    Returns a token, or the error of that row alone.
    """
    adjust(logits, choices)
    kinds: dict[int, list[int]] = {}
    for index, choice in enumerate(choices):
        kinds.setdefault(_kind(choice.sampling, logits.shape[1]), []).append(index)
    tokens = np.full(len(choices), _NONE)
    for kind, members in kinds.items():
        most = len(members) if kind in _NARROW else max(_CELLS // logits.shape[1], 1)
        for start in range(0, len(members), most):
            part = members[start : start + most]
            if len(part) == len(choices):  # nearly always, and then nothing is copied
                tokens = _choose(kind, logits, Columns(choices))
            else:
                tokens[part] = _choose(kind, logits[part], Columns([choices[index] for index in part]))
    return [SamplingError("the model's output is not a number") if t == _NONE else t for t in tokens.tolist()]


class Columns:
    """The parameters of a block's rows."""

    def __init__(self, choices: Sequence[Choice]) -> None:
        self._choices = choices
        self._params = [choice.sampling for choice in choices]

    def of(self, parameter: Callable[[Sampling], float]) -> Doubles:
        """A parameter as a column, shape (rows, 1)."""
        return np.array([parameter(params) for params in self._params], dtype=np.float64)[:, None]

    def numbers(self) -> Doubles:
        """The random numbers of the draws, a column."""
        drawn = [uniform(choice.sampling.seed, choice.position) for choice in self._choices]
        return np.array(drawn)[:, None]

    def xtc_thresholds(self) -> Doubles:
        """The thresholds of the rows whose turn it is, infinity for the others; a column."""
        return np.array([[_xtc_threshold(choice)] for choice in self._choices])

    def take(self, rows: Ids) -> "Columns":
        """The parameters of some of the rows."""
        return Columns([self._choices[row] for row in rows.tolist()])


def truncate(values: Doubles, columns: Columns, total: Doubles | None = None) -> Doubles:
    """Put candidates out by every stage from typical-p to XTC.

    values: logits, shape (rows, width), likeliest first; total: what their weights are a part of, if not all of it.
    """
    mass_typical, mass_top = columns.of(lambda params: params.typical_p), columns.of(lambda params: params.top_p)
    ratio, thresholds = columns.of(lambda params: params.min_p), columns.xtc_thresholds()
    if (mass_typical < 1).any():
        values = truncation.typical(values, mass_typical)
    if (mass_top < 1).any():
        values = truncation.top_p(values, mass_top, total)
    if (ratio > 0).any():
        values = truncation.min_p(values, ratio)
    if (thresholds < np.inf).any():
        values = truncation.exclude_top(values, thresholds)
    return values


def candidates(block: Floats, columns: Columns, width: int) -> tuple[Ids, Doubles]:
    """The candidates of rows that look at no more than `width` of their largest logits.

    Returns tokens and logits, shape (rows, at most width), likeliest first; minus infinity is out. The first logit of a
    row is not finite if the row allows no choice.
    """
    top_k = columns.of(lambda params: params.top_k or np.inf)
    ids, values = largest(block, int(min(width, block.shape[1], top_k.max())))
    least = _sigma_floors(block, columns)
    if least is not None:
        values[values < least] = -np.inf
    values[np.arange(values.shape[1]) >= top_k] = -np.inf
    failed = ~np.isfinite(values[:, 0])
    if failed.any():
        values[failed] = 0
        values = truncate(values, columns)
        values[failed] = np.nan
        return ids, values
    return ids, truncate(values, columns)


def _kind(params: Sampling, vocabulary: int) -> int:
    if params.greedy:
        return _GREEDY
    if params.top_k:
        return next((width for width in _WIDTHS if params.top_k <= width < vocabulary), vocabulary)
    if params.typical_p < 1:
        return vocabulary
    if params.top_p < 1:
        return _HEAD
    if params.xtc_probability <= 0:
        return _ALL
    return _HEAD if params.min_p > 0 or params.top_n_sigma > 0 else vocabulary


def _choose(kind: int, block: Floats, columns: Columns) -> Ids:
    """The tokens of rows of one kind."""
    if kind == _GREEDY:
        best = block.argmax(axis=1)
        return np.where(np.isfinite(block[np.arange(len(block)), best]), best, _NONE)  # finds a NaN if there is one
    if kind > 0:
        return _pick(*candidates(block, columns, kind), columns)
    peaks = block.max(axis=1)
    if not np.isfinite(peaks).all():
        tokens = np.full(len(block), _NONE)
        fine = np.flatnonzero(np.isfinite(peaks))
        if len(fine):
            tokens[fine] = _choose(kind, block[fine], columns.take(fine))
        return tokens
    return (_choose_from_all if kind == _ALL else _choose_from_head)(block, columns, peaks[:, None])


def _choose_from_all(block: Floats, columns: Columns, peaks: Floats) -> Ids:
    least = _floors(block, columns, peaks)
    temperature = columns.of(lambda params: params.temperature)
    return draw(block, peaks, least, temperature, columns.numbers())


def _choose_from_head(block: Floats, columns: Columns, peaks: Floats) -> Ids:
    """A nucleus is nearly always small: look at more and more of the largest logits until it is among them."""
    sigma = _sigma_floors(block, columns)
    least = _floors(block, columns, peaks)
    total = mass(block, peaks, sigma)
    wanted = columns.of(lambda params: params.top_p if params.top_p < 1 else np.inf) * total
    tokens = np.full(len(block), _NONE)
    left = np.arange(len(block))
    for count in (*_HEADS, block.shape[1]):
        part = block if len(left) == len(block) else block[left]
        ids, values = largest(part, min(count, block.shape[1]))
        if sigma is not None:
            values[values < sigma[left]] = -np.inf
        _, sums = truncation.weights(values)
        found = (sums[:, -1:] >= wanted[left]) | (values[:, -1:] < least[left])
        done = np.flatnonzero(found[:, 0] | (count >= block.shape[1]))
        needed = np.minimum((sums < wanted[left]).sum(axis=1) + 1, (values >= least[left]).sum(axis=1))
        ids, values = ids[done, : needed[done].max(initial=0)], values[done, : needed[done].max(initial=0)]
        rows = left[done]
        if len(done):
            own = columns.take(rows)
            tokens[rows] = _pick(ids, truncate(values, own, total[rows]), own)
        left = np.delete(left, done)
        if not len(left):
            break
    return tokens


def _pick(ids: Ids, values: Doubles, columns: Columns) -> Ids:
    """The token at each row's random number in the cumulative distribution."""
    _, sums = truncation.weights(values / columns.of(lambda params: params.temperature))
    total = sums[:, -1:]
    at = (sums <= columns.numbers() * total).sum(axis=1)
    at = np.minimum(at, (sums < total).sum(axis=1))  # rounding must not lead behind the last candidate
    rows = np.arange(len(ids))
    return np.where(np.isfinite(total[:, 0]), ids[rows, at], _NONE)


def _sigma_floors(block: Floats, columns: Columns) -> Doubles | None:
    """The logits below which top-n-sigma takes nothing, a column; None if no row has it."""
    sigmas = columns.of(lambda params: params.top_n_sigma)
    rows = np.flatnonzero(sigmas > 0)
    if not len(rows):
        return None
    least = np.full(sigmas.shape, -np.inf)
    part = block if len(rows) == len(block) else block[rows]
    with np.errstate(invalid="ignore", divide="ignore"):  # in rows that fail for it
        least[rows] = part.max(axis=1, keepdims=True) - sigmas[rows] * deviation(part)
    return least


def _floors(block: Floats, columns: Columns, peaks: Floats) -> Doubles:
    """The logits below which top-n-sigma or min-p take nothing, a column; minus infinity where both are off."""
    with np.errstate(divide="ignore"):
        least: Doubles = peaks.astype(np.float64) + np.log(np.minimum(columns.of(lambda params: params.min_p), 1))
    sigma = _sigma_floors(block, columns)
    if sigma is not None:
        np.maximum(least, sigma, out=least)
    return least


def _xtc_threshold(choice: Choice) -> float:
    params = choice.sampling
    if params.xtc_probability <= 0 or params.xtc_threshold > 0.5:
        return np.inf
    return params.xtc_threshold if uniform(params.seed, choice.position, XTC) <= params.xtc_probability else np.inf
