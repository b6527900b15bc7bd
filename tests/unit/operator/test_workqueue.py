import asyncio

import pytest

from inferno_operator.workqueue import FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS, WorkQueue, backoff


async def test_a_key_is_in_it_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "b", "a"):
        queue.add(key)
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    assert len(queue) == 0


async def test_a_key_is_in_one_pair_of_hands_and_comes_again() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    key = await queue.get()
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0, "somebody has it"
    queue.done(key)
    assert len(queue) == 1
    assert await queue.get() == "a"
    queue.done(key)
    assert queue.idle


async def test_many_wait() -> None:
    queue: WorkQueue[int] = WorkQueue()
    waiting = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    for key in range(3):
        queue.add(key)
    assert sorted(await asyncio.gather(*waiting)) == [0, 1, 2]


async def test_the_sooner_of_two_times_holds() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_later("a", 0.01)
    queue.add_later("a", 1000)
    assert await asyncio.wait_for(queue.get(), 10) == "a"
    queue.done("a")
    queue.add_later("a", 1000)
    queue.add_later("a", 0.01)
    assert await asyncio.wait_for(queue.get(), 10) == "a"


async def test_what_comes_now_need_not_come_later() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_later("a", 0.01)
    queue.add("a")
    queue.done(await queue.get())
    await asyncio.sleep(0.05)
    assert queue.idle


async def test_failures_in_a_row_wait_longer() -> None:
    queue: WorkQueue[str] = WorkQueue()
    waits = [queue.retry("a") for _ in range(12)]
    assert waits[0] <= FIRST_RETRY_SECONDS
    assert waits[-1] > LONGEST_RETRY_SECONDS / 4
    queue.succeeded("a")
    assert queue.retry("a") <= FIRST_RETRY_SECONDS


@pytest.mark.parametrize("failures", [1, 2, 10, 100, 10_000])
def test_backoff_has_limits(failures: int) -> None:
    assert FIRST_RETRY_SECONDS / 2 <= backoff(failures) <= LONGEST_RETRY_SECONDS
