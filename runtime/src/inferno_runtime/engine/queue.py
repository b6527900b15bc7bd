"""Who is next of those that wait: fair by the priorities' weights, and the older the sooner.

Start-time fair queueing: each priority is a line of its own, in order of arrival, with a virtual time at which its first
begins to be served. Serving one takes its line 1 / weight of virtual time, and the line that would end first is next, so
lines that never run empty share what there is as 8 : 4 : 2 : 1. A weight grows with the age of its line's first: a line
that has waited long has a larger share, whatever comes into the others.

Pure: whoever calls says what time it is.
"""

import math
from collections import deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from inferno_runtime.engine.request import Priority

AGEING_SECONDS = 30.0  # of waiting, after which a weight has doubled


class Waiting(Protocol):
    """What waits; `arrived` is in seconds on the caller's clock."""

    @property
    def priority(self) -> Priority: ...
    @property
    def arrived(self) -> float: ...


Item = TypeVar("Item", bound=Waiting)


def standing(item: Waiting, now: float) -> float:
    """The weight of an item's priority, grown with its age."""
    return item.priority.weight * (1 + max(now - item.arrived, 0.0) / AGEING_SECONDS)


def rank(item: Waiting, now: float) -> int:
    """The standing in whole steps, each of which is twice the one before it."""
    return int(math.log2(standing(item, now)))


class FairQueue(Generic[Item]):
    """The items that wait, each line in order of arrival."""

    def __init__(self) -> None:
        self._lines: dict[Priority, deque[Item]] = {priority: deque() for priority in Priority}
        self._starts = dict.fromkeys(Priority, 0.0)  # in virtual time
        self._virtual = 0.0  # the latest start of all that were served

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[Item]:
        for line in self._lines.values():
            yield from line

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many wait, in the order of `Priority`."""
        return tuple(map(len, self._lines.values()))

    def push(self, item: Item) -> None:
        """Let an item wait behind those of its priority that arrived before it."""
        line = self._lines[item.priority]
        if not line:  # time without anybody in it is no time saved
            self._starts[item.priority] = max(self._starts[item.priority], self._virtual)
        later = 0
        for other in reversed(line):
            if other.arrived <= item.arrived:
                break
            later += 1
        line.insert(len(line) - later, item)

    def pop(self, now: float) -> Item:
        """Take the next. There must be one."""
        end, priority = min(
            ((self._end(priority, line[0], now), priority) for priority, line in self._lines.items() if line),
            key=lambda pair: pair[0],
        )
        self._virtual = max(self._virtual, self._starts[priority])
        self._starts[priority] = end
        return self._lines[priority].popleft()

    def put_back(self, item: Item, now: float) -> None:
        """Let an item that was taken wait again, as the first of its priority; its line is given back what it paid.

        Several that were taken together are put back in the opposite order.
        """
        self._starts[item.priority] -= 1 / standing(item, now)
        self._lines[item.priority].appendleft(item)

    def discard(self, item: Item) -> bool:
        """Take an item out wherever it stands. Returns whether it was there."""
        try:
            self._lines[item.priority].remove(item)
        except ValueError:
            return False
        return True

    def _end(self, priority: Priority, first: Item, now: float) -> float:
        return self._starts[priority] + 1 / standing(first, now)
