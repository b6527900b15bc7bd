"""The stages that take candidates away, on a block of rows at once.

Every stage gets the candidates' logits, shape (rows, width), likeliest first, where minus infinity marks what is out, and
its parameter as a column, shape (rows, 1). It returns the logits with more of them out, and never takes a row's last.
The neutral value of a parameter leaves its row bit for bit as it was.
"""

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


def weights(values: Doubles) -> tuple[Doubles, Doubles]:
    """Unnormalized probabilities, and their sums along the row as they grow; both of the shape of `values`.

    The sum of a row is the last of the growing sums: they are added one after another, so that zeros at the end, which a
    row has for a neighbour's sake, change nothing.
    """
    each: Doubles = np.exp(values - values.max(axis=1, keepdims=True))
    return each, each.cumsum(axis=1)


def typical(values: Doubles, mass: Doubles) -> Doubles:
    """Keep the candidates whose surprise is nearest to the entropy, up to `mass` (1 is neutral)."""
    each, sums = weights(values)
    surprise = np.log(sums[:, -1:]) - (values - values.max(axis=1, keepdims=True))
    surprise[each == 0] = 0  # 0 * inf is not a number
    entropy = (each * surprise).cumsum(axis=1)[:, -1:] / sums[:, -1:]
    distance = np.where(each == 0, np.inf, abs(surprise - entropy))
    order = distance.argsort(axis=1, kind="stable")
    before = _before(np.take_along_axis(each, order, axis=1).cumsum(axis=1))
    kept = np.empty(values.shape, dtype=bool)
    np.put_along_axis(kept, order, before <= mass * sums[:, -1:], axis=1)
    return np.where(kept | (mass >= 1), values, -np.inf)


def top_p(values: Doubles, mass: Doubles, total: Doubles | None = None) -> Doubles:
    """Keep the shortest head that has `mass` of the probability (1 is neutral).

    total: what the weights add up to, shape (rows, 1), if `values` is not all there is.
    """
    _, sums = weights(values)
    before = _before(sums)
    wanted = mass * (sums[:, -1:] if total is None else total)
    return np.where((before < wanted) | (before == 0) | (mass >= 1), values, -np.inf)


def min_p(values: Doubles, log_ratio: Doubles) -> Doubles:
    """Keep what is at least `ratio` times as likely as the likeliest: min-p, by the ratio's logarithm (minus infinity is neutral)."""
    return np.where(values >= values.max(axis=1, keepdims=True) + log_ratio, values, -np.inf)


def exclude_top(values: Doubles, threshold: Doubles) -> Doubles:
    """Of the candidates with at least this probability, leave the least likely only: XTC (infinity is neutral)."""
    each, sums = weights(values)
    above = each >= threshold * sums[:, -1:]
    last = above.sum(axis=1, keepdims=True)
    return np.where(above & (above.cumsum(axis=1) < last), -np.inf, values)


def _before(sums: Doubles) -> Doubles:
    """The growing sums without the element itself."""
    before = np.zeros_like(sums)
    before[:, 1:] = sums[:, :-1]
    return before
