"""The largest values of each row of a block."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]

_FOLDS = 8  # how often a row is folded in a pass; there are two passes
_SPARSE = 4  # columns for every value sought, at least; with fewer, most columns would be looked at
_FEW_ROWS = 2
_FOLD_NUMBERS = np.arange(_FOLDS)
_LOWEST = np.finfo(np.float32).min  # what is not above minus infinity is no candidate
_SIGN = np.int32(0x7FFFFFFF)


def largest(block: Floats, count: int) -> tuple[Ids, Doubles]:
    """The `count` largest values of each row, largest first, equals by index.

    block: shape (rows, size), C-contiguous.
    Returns their indices and the values, shape (rows, at most count). A row with fewer values above minus infinity ends in
    index 0 and minus infinity; one that holds a NaN begins with it, and the rest of it means nothing.

    A row is folded into columns and these once more, and their maxima are found at the speed of memory. The count-th
    largest of those is a lower bound for the count-th largest value, so only the columns that reach it are looked at:
    exact, and several times faster than partitioning a block of vocabularies. A row or two are looked at whole, which
    takes fewer operations.
    """
    rows, size = block.shape
    width = -(-size // _FOLDS**2)  # of a row folded twice
    few = rows <= _FEW_ROWS
    tops = folded = block
    if count * _SPARSE < size // _FOLDS and not few:
        tops = folded = _fold(block, width * _FOLDS)
    if count * _SPARSE < width:
        tops = _fold(folded, width)
    if count * _SPARSE < size:
        bounds = _bounds(tops, count)
        at, ids = _reaching(block if few else tops, bounds)
        if tops is not folded and not few:
            at, ids = _unfold(folded, at, ids, width, bounds)
        if folded is not block:
            at, ids = _unfold(block, at, ids, width * _FOLDS, bounds)
        keys = _by_row(_keys(block.take(at * size + ids), ids), at, rows)
    else:
        keys = _keys(block, np.arange(size))
    keys.sort(axis=1)
    keys = keys[:, :count]
    values = _values(keys)
    values[:, 0] = tops.max(axis=1)
    return keys & 0xFFFFFFFF, values


def _fold(block: Floats, width: int) -> Floats:
    """The maximum over each column of every row written in lines of `width`; shape (rows, width)."""
    rows, size = block.shape
    whole = size // width
    folded: Floats = block[:, : whole * width].reshape(rows, whole, width).max(axis=1)
    rest = size - whole * width
    if rest:
        np.maximum(folded[:, :rest], block[:, whole * width :], out=folded[:, :rest])
    return folded


def _bounds(tops: Floats, count: int) -> Floats:
    """A lower bound for the count-th largest value of each row, from its columns' maxima; shape (rows,)."""
    width = tops.shape[1]
    bounds: Floats = np.maximum(np.partition(tops, width - count, axis=1)[:, width - count], _LOWEST)
    return bounds


def _reaching(tops: Floats, bounds: Floats) -> tuple[Ids, Ids]:
    """The columns that reach their row's bound: rows, ascending, and columns."""
    reached = np.flatnonzero(tops >= bounds[:, None])
    at = reached // tops.shape[1]
    return at, reached - at * tops.shape[1]


def _unfold(values: Floats, at: Ids, columns: Ids, width: int, bounds: Floats) -> tuple[Ids, Ids]:
    """Where in the columns given (`columns[i]` of row `at[i]`) the row's bound is reached: rows and indices."""
    indices = columns[:, None] + _FOLD_NUMBERS * width
    size = values.shape[1]
    inside = values.take(indices + (at * size)[:, None], mode="clip")  # flat indices: several times faster than pairs
    reached = inside >= bounds[at][:, None]
    if size % width:
        reached &= indices < size
    found = np.flatnonzero(reached)
    return at[found // _FOLDS], indices.ravel()[found]


def _by_row(keys: Ids, at: Ids, rows: int) -> Ids:
    """A matrix with a row's keys in its row, filled up with the key of minus infinity; `at` ascends."""
    if rows == 1 and len(keys):
        return keys[None, :]
    counts = np.bincount(at, minlength=rows)
    starts = np.cumsum(counts) - counts
    matrix = np.full((rows, max(int(counts.max()), 1)), _NOTHING)
    matrix[at, np.arange(len(at)) - starts[at]] = keys
    return matrix


def _keys(values: Floats, ids: NDArray[np.intp]) -> Ids:
    """Numbers whose ascending order is that of falling values and then of rising ids; ids fit into 32 bits.

    The bits of a float, read as an integer, are in the floats' order once those of negative ones are turned round. One
    sort of such numbers takes the place of a sort by two keys, and vectorizes.
    """
    bits = (values + np.float32(0)).view(np.int32)  # the addition makes a zero of a negative zero
    keys: Ids = (~(bits ^ ((bits >> 31) & _SIGN))).astype(np.int64)
    keys <<= 32
    keys |= ids
    return keys


def _values(keys: Ids) -> Doubles:
    bits = ~(keys >> 32).astype(np.int32)
    return (bits ^ ((bits >> 31) & _SIGN)).view(np.float32).astype(np.float64)


_NOTHING: Any = _keys(np.array([-np.inf], dtype=np.float32), np.zeros(1, dtype=np.intp))[0]
