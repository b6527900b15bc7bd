"""How much of a pass was spent on waiting for the Kubernetes API, which is not the operator's to make faster."""

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Stopwatch:
    """Runs while at least one request of a pass is open."""

    waited: float = 0.0
    """Seconds so far; requests that are open at the same time count once."""
    _open: int = 0
    _since: float = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """A request is open inside."""
        if self._open == 0:
            self._since = time.perf_counter()
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            if self._open == 0:
                self.waited += time.perf_counter() - self._since


# The tasks that a pass begins inherit it.
_current: ContextVar[Stopwatch | None] = ContextVar("stopwatch", default=None)


@contextlib.contextmanager
def measured() -> Iterator[Stopwatch]:
    """What is inside is one pass."""
    stopwatch = Stopwatch()
    token = _current.set(stopwatch)
    try:
        yield stopwatch
    finally:
        _current.reset(token)


def waiting() -> contextlib.AbstractContextManager[None]:
    """A request is open inside, on behalf of the pass that this is called from, if it is called from one."""
    stopwatch = _current.get()
    return stopwatch.waiting() if stopwatch else contextlib.nullcontext()
