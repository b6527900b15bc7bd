"""Counters that begin with the first that is counted and end a fixed time later, in this process's memory.

They go by a clock that nobody sets: a step of the wall clock makes no caller's minute shorter, and none longer.
"""

import time
from collections.abc import Callable


class Windows:
    """Counters by key. Those that have ended take no memory; ``seconds`` is how long each lasts."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        # Each lasts equally long, so they end in the order in which they began.
        self._open: dict[str, tuple[float, int]] = {}

    async def add(self, key: str, amount: int) -> tuple[int, float]:
        """Adds to a counter, which begins if there is none. Returns its value and the seconds that it has left."""
        now = self._forget_ended()
        ends, value = self._open.get(key, (now + self._seconds, 0))
        self._open[key] = ends, value + amount
        return value + amount, ends - now

    async def read(self, key: str) -> tuple[int, float]:
        """The same of a counter as it stands: 0 and 0 where there is none."""
        now = self._forget_ended()
        ends, value = self._open.get(key, (now, 0))
        return value, ends - now

    def __len__(self) -> int:
        return len(self._open)

    def _forget_ended(self) -> float:
        now = self._clock()
        while self._open:
            key = next(iter(self._open))
            if self._open[key][0] > now:
                break
            del self._open[key]
        return now
