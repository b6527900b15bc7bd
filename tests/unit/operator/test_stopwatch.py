"""The time of a pass, parted from that of the API server."""

import asyncio
import time

import pytest

from inferno_operator.stopwatch import measured, waiting


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as the only item."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_what_is_spent_on_requests_and_what_is_not(clock: list[float]) -> None:
    with measured() as stopwatch:
        clock[0] += 1
        with waiting():
            clock[0] += 2
        clock[0] += 4
        with waiting():
            clock[0] += 8
    assert stopwatch.waited == 10


def test_requests_at_the_same_time_count_once(clock: list[float]) -> None:
    async def request(after: asyncio.Event, ends: asyncio.Event) -> None:
        with waiting():
            await after.wait()
            clock[0] += 1
            ends.set()

    async def observe() -> float:
        first, second, third = asyncio.Event(), asyncio.Event(), asyncio.Event()
        with measured() as stopwatch:
            both = asyncio.gather(request(first, second), request(second, third))
            await asyncio.sleep(0)
            first.set()
            await both
            return stopwatch.waited

    assert asyncio.run(observe()) == 2


def test_outside_of_a_pass_nothing_is_counted() -> None:
    with waiting():
        pass
