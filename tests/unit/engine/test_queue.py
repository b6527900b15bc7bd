"""The order of those that wait, on a virtual clock."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferno_runtime.engine.queue import AGEING_SECONDS, FairQueue, rank
from inferno_runtime.engine.request import Priority

VIP, HIGH, NORMAL, LOW = Priority
WEIGHTS = sum(priority.weight for priority in Priority)
priorities = st.sampled_from(list(Priority))


@dataclass(frozen=True, slots=True)
class Item:
    priority: Priority
    arrived: float = 0.0
    number: int = 0


def queue_of(*items: Item) -> FairQueue[Item]:
    queue: FairQueue[Item] = FairQueue()
    for item in items:
        queue.push(item)
    return queue


def flood(priority: Priority, count: int) -> list[Item]:
    return [Item(priority, number=number) for number in range(count)]


@pytest.mark.parametrize("present", [tuple(Priority), (VIP, LOW), (HIGH, NORMAL), (NORMAL, LOW), (VIP, HIGH, LOW)])
def test_priorities_that_always_wait_share_by_their_weights(present: tuple[Priority, ...]) -> None:
    queue = queue_of(*(item for priority in present for item in flood(priority, 3000)))
    pops = 1500
    shares = Counter(queue.pop(0.0).priority for _ in range(pops))
    whole = sum(priority.weight for priority in present)
    for priority in present:
        assert abs(shares[priority] - pops * priority.weight / whole) <= len(present)


def test_equals_are_served_in_the_order_of_their_arrival() -> None:
    queue = queue_of(*flood(NORMAL, 50))
    assert [queue.pop(0.0).number for _ in range(50)] == list(range(50))
    assert not queue


@given(st.lists(priorities, max_size=40), priorities, st.lists(priorities, max_size=300))
def test_the_wait_behind_others_is_bounded(before: list[Priority], own: Priority, after: list[Priority]) -> None:
    """However many come later, one that is k-th of its priority waits for some k / share others and no more."""
    queue = queue_of(*(Item(priority) for priority in before))
    for _ in range(len(before) // 2):
        queue.pop(0.0)
    ahead = sum(item.priority is own for item in queue)
    marked = Item(own, number=1)
    queue.push(marked)
    later = iter(after)
    pops = 0
    while queue.pop(0.0) is not marked:
        pops += 1
        for priority in (next(later, None), next(later, None)):
            if priority is not None:
                queue.push(Item(priority))
    assert pops <= (ahead + 2) * WEIGHTS / own.weight + len(Priority)


def test_time_that_a_line_was_empty_is_not_saved_up() -> None:
    queue = queue_of(*flood(LOW, 200))
    for _ in range(100):
        queue.pop(0.0)
    for item in flood(VIP, 100):
        queue.push(item)
    first = [queue.pop(0.0).priority for _ in range(45)]
    assert first.count(LOW) >= 4  # a ninth, though VIP asked for nothing all the while


def test_age_beats_a_flood_of_a_higher_priority() -> None:
    """One is served a second, and as many VIPs come. By weights alone the fifth of the others would be served after 44 s."""
    queue = queue_of(*(Item(LOW, 0.0, number) for number in range(5)))
    now = 0.0
    waited: list[float] = []
    while len(waited) < 5:
        queue.push(Item(VIP, now))
        item = queue.pop(now)
        if item.priority is LOW:
            waited.append(now)
        now += 1.0
        assert now < 1000
    assert waited[-1] < 40


@given(
    st.lists(st.tuples(priorities, st.floats(0, 100)), min_size=1, max_size=40),
    st.lists(st.sampled_from(["pop", "discard", "put back"]), max_size=60),
)
def test_nobody_is_lost_or_served_twice(arrivals: list[tuple[Priority, float]], deeds: list[str]) -> None:
    items = [Item(priority, arrived, number) for number, (priority, arrived) in enumerate(arrivals)]
    queue = queue_of(*items)
    left = set(items)
    for deed in deeds:
        if not left:
            break
        match deed:
            case "pop":
                left.remove(queue.pop(100.0))
            case "discard":
                victim = max(left, key=lambda item: item.number)
                assert queue.discard(victim)
                assert not queue.discard(victim)
                left.remove(victim)
            case "put back":
                taken = [queue.pop(100.0) for _ in range(min(3, len(queue)))]
                for item in reversed(taken):
                    queue.put_back(item, 100.0)
        assert len(queue) == sum(queue.lengths) == len(left)
        assert set(queue) == left


@given(st.lists(priorities, min_size=1, max_size=30), st.integers(1, 30))
def test_what_is_put_back_is_next_again_and_in_the_same_order(waiting: list[Priority], count: int) -> None:
    queue = queue_of(*(Item(priority, number=number) for number, priority in enumerate(waiting)))
    taken = [queue.pop(0.0) for _ in range(min(count, len(waiting)))]
    for item in reversed(taken):
        queue.put_back(item, 0.0)
    assert [queue.pop(0.0) for _ in taken] == taken


def test_lengths_are_in_the_order_of_the_priorities() -> None:
    assert queue_of(Item(LOW), Item(VIP), Item(LOW)).lengths == (1, 0, 0, 2)


@pytest.mark.parametrize(
    ("priority", "waited", "expected"),
    [(LOW, 0, 0), (NORMAL, 0, 1), (HIGH, 0, 2), (VIP, 0, 3), (LOW, 0.99, 0), (LOW, 1, 1), (LOW, 7, 3), (VIP, 1, 4)],
)
def test_a_rank_rises_with_age(priority: Priority, waited: float, expected: int) -> None:
    assert rank(Item(priority, arrived=10.0), 10.0 + waited * AGEING_SECONDS) == expected
