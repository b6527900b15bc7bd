"""From a block of logits to a token for each row."""

from collections.abc import Sequence
from operator import attrgetter

import numpy as np

from inferno_runtime.engine.sampling import truncation
from inferno_runtime.engine.sampling.choice import Choice
from inferno_runtime.engine.sampling.parameters import ALL, GREEDY, Columns, plan_of
from inferno_runtime.engine.sampling.penalties import adjust
from inferno_runtime.engine.sampling.randomness import XTC, uniform
from inferno_runtime.engine.sampling.ranking import Doubles, Floats, Ids, largest
from inferno_runtime.engine.sampling.whole import deviation, draw, mass

_HEADS = (256, 4096)  # how much of the head is looked at before all of it is
_NONE = -1  # in place of a token

_sampling = attrgetter("sampling")


class SamplingError(Exception):
    """The logits allow no choice (NaN, or nothing but minus infinity)."""


def sample(logits: Floats, choices: Sequence[Choice]) -> list[int | SamplingError]:
    """Choose a token for each row of `logits`.

    logits: shape (rows, vocabulary), C-contiguous; biases and penalties are applied in place.
    choices: how, row by row.
    Returns a token, or the error of that row alone.
    """
    plan = plan_of(tuple(map(_sampling, choices)), logits.shape[1])
    adjust(logits, choices, plan.adjusted)
    tokens = np.full(len(choices), _NONE)
    for part in plan.parts:
        if part.rows is None:  # nearly always, and then nothing is copied
            tokens = _choose(part.kind, Block(logits, choices, part.columns))
        else:
            rows = list(part.rows)
            tokens[rows] = _choose(part.kind, Block(logits[rows], [choices[row] for row in rows], part.columns))
    return [SamplingError("the model's output is not a number") if t == _NONE else t for t in tokens.tolist()]


class Block:
    """Rows that are looked at together: their logits, shape (rows, vocabulary), and how a token of each is chosen."""

    def __init__(self, logits: Floats, choices: Sequence[Choice], columns: Columns) -> None:
        self.logits, self.columns = logits, columns
        self._choices = choices

    def numbers(self) -> Doubles:
        """The random numbers of the draws, a column."""
        return np.array([[uniform(choice.sampling.seed, choice.position)] for choice in self._choices])

    def xtc_thresholds(self) -> Doubles:
        """The thresholds of the rows whose turn it is, infinity for the others; a column."""
        return np.array([[_xtc_threshold(choice)] for choice in self._choices])

    def take(self, rows: Ids) -> "Block":
        """Some of the rows."""
        choices = [self._choices[row] for row in rows.tolist()]
        return Block(self.logits[rows], choices, Columns([choice.sampling for choice in choices]))


def _choose(kind: int, block: Block) -> Ids:
    """The tokens of rows of one kind."""
    logits = block.logits
    if kind == GREEDY:
        best = logits.argmax(axis=1)
        return np.where(np.isfinite(logits[np.arange(len(logits)), best]), best, _NONE)  # finds a NaN if there is one
    if kind > 0:
        return _choose_from_largest(block, kind)
    peaks = logits.max(axis=1)
    if not np.isfinite(peaks).all():
        tokens = np.full(len(logits), _NONE)
        fine = np.flatnonzero(np.isfinite(peaks))
        if len(fine):
            tokens[fine] = _choose(kind, block.take(fine))
        return tokens
    return (_choose_from_all if kind == ALL else _choose_from_head)(block, peaks[:, None])


def _choose_from_largest(block: Block, width: int) -> Ids:
    """The tokens of rows that look at no more than `width` of their largest logits."""
    columns = block.columns
    ids, values = largest(block.logits, int(min(width, block.logits.shape[1], columns.most_top_k)))
    floors = _sigma_floors(block)
    if floors is not None:
        values[values < floors] = -np.inf
    if columns.least_top_k < values.shape[1]:
        values[np.arange(values.shape[1]) >= columns.top_k] = -np.inf
    failed = ~np.isfinite(values[:, 0])
    if not failed.any():
        return _pick(ids, _truncate(values, block), block)
    values[failed] = 0
    values = _truncate(values, block)
    values[failed] = np.nan
    return _pick(ids, values, block)


def _choose_from_all(block: Block, peaks: Floats) -> Ids:
    return draw(block.logits, peaks, _floors(block, peaks), block.columns.temperature, block.numbers())


def _choose_from_head(block: Block, peaks: Floats) -> Ids:
    """A nucleus is nearly always small: look at more and more of the largest logits until it is among them."""
    logits, size = block.logits, block.logits.shape[1]
    sigma = _sigma_floors(block)
    least = _floors(block, peaks)
    total = mass(logits, peaks, sigma)
    wanted = block.columns.nucleus * total
    tokens = np.full(len(logits), _NONE)
    left = np.arange(len(logits))
    for count in (*_HEADS, size):
        ids, values = largest(logits if len(left) == len(logits) else logits[left], min(count, size))
        if sigma is not None:
            values[values < sigma[left]] = -np.inf
        _, sums = truncation.weights(values)
        found = (sums[:, -1:] >= wanted[left]) | (values[:, -1:] < least[left])
        done = np.flatnonzero(found[:, 0] | (count >= size))
        needed = np.minimum((sums < wanted[left]).sum(axis=1) + 1, (values >= least[left]).sum(axis=1))
        ids, values = ids[done, : needed[done].max(initial=0)], values[done, : needed[done].max(initial=0)]
        rows = left[done]
        if len(done):
            own = block if len(rows) == len(logits) else block.take(rows)
            tokens[rows] = _pick(ids, _truncate(values, own, total[rows]), own)
        left = np.delete(left, done)
        if not len(left):
            break
    return tokens


def _truncate(values: Doubles, block: Block, total: Doubles | None = None) -> Doubles:
    """Put candidates out by every stage from typical-p to XTC.

    values: logits, shape (rows, width), likeliest first; total: what their weights are a part of, if not all of it.
    """
    columns = block.columns
    if columns.has_typical:
        values = truncation.typical(values, columns.typical_p)
    if columns.has_top_p:
        values = truncation.top_p(values, columns.top_p, total)
    if columns.has_min_p:
        values = truncation.min_p(values, columns.log_min_p)
    if columns.has_xtc:
        values = truncation.exclude_top(values, block.xtc_thresholds())
    return values


def _pick(ids: Ids, values: Doubles, block: Block) -> Ids:
    """The token at each row's random number in the cumulative distribution."""
    _, sums = truncation.weights(values / block.columns.temperature)
    total = sums[:, -1:]
    at = (sums <= block.numbers() * total).sum(axis=1)
    at = np.minimum(at, (sums < total).sum(axis=1))  # rounding must not lead behind the last candidate
    return np.where(np.isfinite(total[:, 0]), ids[np.arange(len(ids)), at], _NONE)


def _sigma_floors(block: Block) -> Doubles | None:
    """The logits below which top-n-sigma takes nothing, a column; None if no row has it."""
    rows, sigmas = block.columns.sigma_rows, block.columns.top_n_sigma
    if not len(rows):
        return None
    least = np.full(sigmas.shape, -np.inf)
    part = block.logits if len(rows) == len(block.logits) else block.logits[rows]
    with np.errstate(invalid="ignore", divide="ignore"):  # in rows that fail for it
        least[rows] = part.max(axis=1, keepdims=True) - sigmas[rows] * deviation(part)
    return least


def _floors(block: Block, peaks: Floats) -> Doubles:
    """The logits below which top-n-sigma or min-p take nothing, a column; minus infinity where both are off."""
    least: Doubles = peaks.astype(np.float64) + block.columns.log_min_p
    sigma = _sigma_floors(block)
    if sigma is not None:
        np.maximum(least, sigma, out=least)
    return least


def _xtc_threshold(choice: Choice) -> float:
    params = choice.sampling
    if params.xtc_probability <= 0 or params.xtc_threshold > 0.5:
        return np.inf
    return params.xtc_threshold if uniform(params.seed, choice.position, XTC) <= params.xtc_probability else np.inf
