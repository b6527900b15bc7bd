"""Where the cells of a slot stand: in a model with positions of two dimensions an image takes fewer than it has cells."""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

_PAIR = 8  # bytes


class Positions:
    """From cells, which the engine counts, to positions, which libllama wants. They are the same where there is no image."""

    def __init__(self, slots: int) -> None:
        self._lags: list[list[tuple[int, int]]] = [[] for _ in range(slots)]

    def of(self, slot: int, cell: int) -> int:
        """The position of a cell that is not inside an image."""
        lags = self._lags[slot]
        if not lags:
            return cell
        index = bisect_right(lags, cell, key=_start)
        return cell - (lags[index - 1][1] if index else 0)

    def cells(self, slot: int, position: int) -> int:
        """How many cells lie before a position behind all images of a slot."""
        lags = self._lags[slot]
        return position + (lags[-1][1] if lags else 0)

    def add(self, slot: int, end: int, lag: int) -> None:
        """Note an image that ends before the cell `end`, and has `lag` more cells than positions."""
        lags = self._lags[slot]
        if lag:
            lags.append((end, lag + (lags[-1][1] if lags else 0)))

    def cut(self, slot: int, length: int) -> None:
        """Forget what lies beyond so many cells."""
        lags = self._lags[slot]
        while lags and lags[-1][0] > length:
            lags.pop()

    def copy(self, source: int, target: int) -> None:
        """Give a slot what another one has."""
        self._lags[target] = list(self._lags[source])

    def saved(self, slot: int) -> bytes:
        """What a slot has, for `restore`."""
        lags = self._lags[slot]
        return np.array([*(number for pair in lags for number in pair), len(lags)], dtype=np.int32).tobytes()

    def restore(self, slot: int, data: memoryview) -> int:
        """Give a slot what stands at the end of this. Returns how many bytes come before that."""
        count = int(np.frombuffer(data[-4:], dtype=np.int32)[0])
        size = len(data) - 4 - count * _PAIR
        numbers: Sequence[int] = np.frombuffer(data[size:-4], dtype=np.int32).tolist()
        self._lags[slot] = list(zip(numbers[::2], numbers[1::2], strict=True))
        return size


def _start(lag: tuple[int, int]) -> int:
    return lag[0]
