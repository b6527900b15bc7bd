"""A queue of keys that need attention: a key is in it at most once, and is in at most one pair of hands."""

import asyncio
import random
from collections import deque
from typing import Final, Generic, TypeVar

K = TypeVar("K")

FIRST_RETRY_SECONDS: Final = 0.5
LONGEST_RETRY_SECONDS: Final = 60.0
_DOUBLINGS: Final = 16


class WorkQueue(Generic[K]):
    """Keys in the order of their arrival.

    A key that is added while it is worked on comes again afterwards, so no change is missed.

    For one event loop; only `get` waits.
    """

    def __init__(self) -> None:
        self._ready: deque[K] = deque()
        self._wanted: set[K] = set()
        self._taken: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        """Keys that wait, without those that are worked on and those whose time has not come."""
        return len(self._ready)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is worked on."""
        return not self._ready and not self._taken

    def add(self, key: K) -> None:
        """Asks for attention to ``key`` now, whatever was planned for later."""
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if key in self._wanted:
            return
        self._wanted.add(key)
        if key not in self._taken:
            self._ready.append(key)
            self._arrived.set()

    def add_later(self, key: K, seconds: float) -> None:
        """Asks for attention to ``key`` after ``seconds``, unless it gets some earlier; the sooner of two such times
        holds.
        """
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        if (timer := self._timers.get(key)) is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(when, self.add, key)

    def retry(self, key: K, at_least: float = 0.0) -> float:
        """Asks for attention to ``key`` after a time that doubles with each failure in a row, and is longer than
        ``at_least``; returns that time in seconds.
        """
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        seconds = at_least + backoff(failures)
        self.add_later(key, seconds)
        return seconds

    def succeeded(self, key: K) -> None:
        """Forgets that ``key`` ever failed."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """The next key; the caller must hand it back with `done`."""
        while not self._ready:
            self._arrived.clear()
            await self._arrived.wait()
        key = self._ready.popleft()
        self._wanted.discard(key)
        self._taken.add(key)
        return key

    def done(self, key: K) -> None:
        """Ends the attention to ``key``."""
        self._taken.discard(key)
        if key in self._wanted:
            self._ready.append(key)
            self._arrived.set()


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row: doubling up to a limit, and spread so that those who failed
    together do not return together.
    """
    longest = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, _DOUBLINGS))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
