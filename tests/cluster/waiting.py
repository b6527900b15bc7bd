"""Waiting for what happens elsewhere: by looking often, up to a deadline, and never by guessing how long it takes."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.05


def until(what: str, look: Callable[[], T | None], timeout: float = 60.0) -> T:
    """What ``look`` returns, as soon as that is true. Raises TimeoutError, with ``what``, after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        if seen := look():
            return seen
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}")
        time.sleep(POLL_SECONDS)
