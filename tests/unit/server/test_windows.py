"""The counters of callers' minutes."""

import pytest

from inferno_runtime.server.windows import Windows

pytestmark = pytest.mark.asyncio


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_window_begins_with_the_first_and_ends_for_all() -> None:
    clock = Clock()
    windows = Windows(60, clock)
    assert await windows.read("a") == (0, 0)
    assert await windows.add("a", 3) == (3, 60)
    clock.now += 59
    assert await windows.add("a", 4) == (7, 1)
    assert await windows.add("b", 1) == (1, 60)
    clock.now += 1
    assert await windows.read("a") == (0, 0)
    assert await windows.read("b") == (1, 59)
    assert await windows.add("a", 1) == (1, 60)


async def test_what_has_ended_takes_no_memory() -> None:
    clock = Clock()
    windows = Windows(60, clock)
    for caller in range(1000):
        clock.now += 1
        await windows.add(f"caller-{caller}", 1)
        await windows.add("always", 1)
    assert len(windows) == 61
    clock.now += 60
    await windows.read("nobody")
    assert len(windows) == 0
