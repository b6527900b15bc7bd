"""What is computed over the whole vocabulary, without an order: sums, deviations, and draws where nothing is ranked."""

import numpy as np

from inferno_runtime.engine.sampling.ranking import Doubles, Floats, Ids

_LINES = 64  # a row is written in so many lines; a column is drawn first, and then a place in it


def mass(block: Floats, peaks: Floats, least: Doubles | None) -> Doubles:
    """The sum of each row's weights exp(logit - peak) from `least` on; columns, shape (rows, 1)."""
    weights = np.exp(block - peaks)
    if least is not None:
        weights[block < least] = 0
    total: Doubles = weights.sum(axis=1, keepdims=True).astype(np.float64)
    return total


def deviation(block: Floats) -> Doubles:
    """The standard deviation of each row's values above minus infinity; a column, shape (rows, 1)."""
    seen = block > -np.inf
    count = seen.sum(axis=1, keepdims=True)
    values = np.where(seen, block, np.float32(0))
    mean = values.sum(axis=1, keepdims=True) / count
    values -= mean.astype(np.float32)
    values[~seen] = 0
    values *= values
    spread: Doubles = np.sqrt(values.sum(axis=1, keepdims=True).astype(np.float64) / count)
    return spread


def draw(block: Floats, peaks: Floats, least: Doubles, temperature: Doubles, numbers: Doubles) -> Ids:
    """A token of each row, with the probabilities of all that is not below `least`; shape (rows,).

    peaks, least, temperature, numbers: columns, shape (rows, 1); numbers are in [0, 1). The order along which the
    probabilities are added up is by column of the row written in lines: sums of columns vectorize, a growing sum does not.
    """
    rows, size = block.shape
    width = -(-size // _LINES)
    weights = np.zeros((rows, width * _LINES), dtype=np.float32)
    inside = weights[:, :size]
    np.subtract(block, peaks, out=inside)
    inside /= temperature.astype(np.float32)
    np.exp(inside, out=inside)
    if (least > -np.inf).any():
        inside[block < least] = 0
    lines = weights.reshape(rows, _LINES, width)
    columns, number = _place(lines.sum(axis=1).astype(np.float64), numbers)
    at, _ = _place(lines[np.arange(rows), :, columns].astype(np.float64), number)
    tokens: Ids = at * width + columns
    return tokens


def _place(weights: Doubles, numbers: Doubles) -> tuple[Ids, Doubles]:
    """Where in each row the number falls, and how far into that place it does: shapes (rows,) and (rows, 1)."""
    sums = weights.cumsum(axis=1)
    target = numbers * sums[:, -1:]
    at = (sums <= target).sum(axis=1)
    at = np.minimum(at, (sums < sums[:, -1:]).sum(axis=1))  # rounding must not lead behind the last weight
    own = np.take_along_axis(weights, at[:, None], axis=1)
    into = (target - (np.take_along_axis(sums, at[:, None], axis=1) - own)) / own
    return at, np.clip(into, 0, 1)
