"""How far a fetch is, how fast it goes, and how long it will take."""

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from inferno_runtime.fetch.errors import Stalled
from inferno_runtime.units import shown

_log = logging.getLogger(__name__)

_WINDOW_SECONDS: Final = 15.0
_LOG_SECONDS: Final = 5.0
Clock = Callable[[], float]


@dataclass(slots=True)
class Progress:
    """Counts the bytes of all files of a model. ``total`` is None while it is not known."""

    total: int | None = None
    done: int = 0
    clock: Clock = time.monotonic
    stall_seconds: float = 60.0
    stall_bytes: int = 64 * 1024
    fetched: int = 0
    """Bytes that came over the network."""
    _recent: deque[tuple[float, int]] = field(default_factory=deque)
    _watched: tuple[float, int] = (0.0, 0)
    _logged: float | None = None

    def begin(self) -> None:
        """A transfer begins: what was slow before does not count against it."""
        now = self.clock()
        self._recent.clear()
        self._recent.append((now, self.fetched))
        self._watched = (now, self.fetched)

    def advance(self, size: int, what: str) -> None:
        """So many bytes of ``what`` have come. Raises `Stalled` if far too few do."""
        self.done += size
        self.fetched += size
        now = self.clock()
        self._recent.append((now, self.fetched))
        while len(self._recent) > 2 and now - self._recent[0][0] > _WINDOW_SECONDS:
            self._recent.popleft()
        since, before = self._watched
        if now - since >= self.stall_seconds:
            if self.fetched - before < self.stall_bytes:
                raise Stalled(f"only {self.fetched - before} bytes came within {now - since:.0f} s")
            self._watched = (now, self.fetched)
        if self._logged is None or now - self._logged >= _LOG_SECONDS:
            self._logged = now
            self.log(what)

    @property
    def rate(self) -> float:
        """Bytes a second of late."""
        if len(self._recent) < 2:
            return 0.0
        (since, before), (now, fetched) = self._recent[0], self._recent[-1]
        return (fetched - before) / (now - since) if now > since else 0.0

    @property
    def remaining(self) -> float | None:
        """Seconds until all is there, if it goes on like this."""
        if self.total is None or not self.rate:
            return None
        return max(0, self.total - self.done) / self.rate

    def wire(self) -> dict[str, Any]:
        """For programs, camelCase as in a status."""
        told: dict[str, Any] = {"bytes": self.done, "bytesPerSecond": round(self.rate)}
        if self.total is not None:
            told["totalBytes"] = self.total
        if self.remaining is not None:
            told["remainingSeconds"] = round(self.remaining)
        return told

    def log(self, what: str) -> None:
        """One line, for people and, as ``fetch``, for programs."""
        of = f" of {shown(self.total)}" if self.total is not None else ""
        left = f", {self.remaining:.0f} s left" if self.remaining is not None else ""
        extra = {"fetch": self.wire()}
        _log.info("%s: %s%s, %s/s%s", what, shown(self.done), of, shown(self.rate), left, extra=extra)
