"""When to try again, and when to give up. Pure: the clock and the dice are handed in."""

from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from inferno_runtime.fetch.errors import FetchError, Transient

LONGEST_RETRY_AFTER: Final = 900.0
"""Seconds; a server that asks for more is asked again all the same."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Attempts that bring nothing, in a row, before giving up, and the seconds between them."""

    attempts: int = 8
    first: float = 1.0
    longest: float = 60.0

    def wait(self, error: FetchError, failures: int, dice: Callable[[], float]) -> float | None:
        """Seconds until the next attempt after so many ``failures`` in a row, this one among them; None gives up.

        ``dice`` gives numbers from 0 to 1: those who failed together must not return together.
        """
        if not isinstance(error, Transient) or failures >= self.attempts:
            return None
        usual = min(self.longest, self.first * 2.0 ** min(failures - 1, 16)) * (0.5 + 0.5 * dice())
        if error.retry_after is None:
            return usual
        asked = min(max(error.retry_after, 0.0), LONGEST_RETRY_AFTER)
        return asked + usual if asked else usual


def retry_after(value: str | None, now: float) -> float | None:
    """The seconds that a ``Retry-After`` header asks for, be it a number or a date; None if it says nothing."""
    if value is None:
        return None
    text = value.strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError, OSError):
        return None
