"""How fast a client takes what it is sent: pure arithmetic on bytes, messages and a clock."""

from collections.abc import Callable
from enum import StrEnum

_MODERATE = 0.7  # share of the buffer
_CRITICAL = 0.9

Clock = Callable[[], float]
"""Seconds, monotonic."""


class Level(StrEnum):
    """How full a connection's buffer is."""

    HEALTHY = "healthy"  # below 70 %
    MODERATE = "moderate"  # up to 90 %: tokens come in larger batches
    CRITICAL = "critical"  # above: the sequence is paused in the engine


def level_of(usage: float) -> Level:
    """The level of a buffer of which this share is full."""
    if usage < _MODERATE:
        return Level.HEALTHY
    return Level.MODERATE if usage <= _CRITICAL else Level.CRITICAL


class Backlog:
    """What a socket was given and has not taken."""

    def __init__(self, limit: int, clock: Clock) -> None:
        """limit: bytes, with which the buffer is full."""
        self._limit = limit
        self._clock = clock
        self._pending = 0  # bytes
        self._moved = 0.0  # when the socket last took something, or was first given something

    @property
    def usage(self) -> float:
        """The share of the buffer that is full; more than 1 where a single message is larger than it."""
        return self._pending / self._limit

    @property
    def level(self) -> Level:
        return level_of(self.usage)

    @property
    def silence(self) -> float:
        """Seconds for which the socket has taken nothing; 0 where there is nothing to take."""
        return self._clock() - self._moved if self._pending else 0.0

    def put(self, size: int) -> None:
        """So many bytes were given to the socket and not taken at once."""
        if not self._pending:
            self._moved = self._clock()
        self._pending += size

    def taken(self, size: int) -> None:
        """So many of them have been taken."""
        self._pending -= size
        self._moved = self._clock()


class Window:
    """How many messages may be sent before the client acknowledges some."""

    def __init__(self, size: int | None, clock: Clock) -> None:
        """size: messages; None if nothing is acknowledged."""
        self._size = size
        self._clock = clock
        self._sent = 0
        self._received = 0
        self._full_since = 0.0

    @property
    def open(self) -> bool:
        """Whether another message may be sent."""
        return self._size is None or self._sent - self._received < self._size

    @property
    def owing(self) -> float:
        """Seconds for which the client has owed an acknowledgement; 0 where another message may be sent."""
        return 0.0 if self.open else self._clock() - self._full_since

    def send(self) -> None:
        """A message was sent."""
        self._sent += 1
        if not self.open:
            self._full_since = self._clock()

    def ack(self, received: int) -> None:
        """The client has received so many messages by now. Raises `ValueError` where fewer were sent."""
        if received > self._sent:
            raise ValueError(f"only {self._sent} messages were sent")
        self._received = max(self._received, received)
