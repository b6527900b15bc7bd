"""What priorities mean to the scheduler: who is admitted, whose prompt is evaluated, and who gives way."""

import pytest

from inferno_runtime.backends.base import MemoryTraits
from inferno_runtime.engine.queue import AGEING_SECONDS
from inferno_runtime.engine.request import FinishReason, Priority
from tests.unit.engine.rig import Rig, expected

SHARED = MemoryTraits(copy=True, cut=True, save=True, shift=False, cell_bytes=4, shared=True)


def test_free_slots_are_given_by_weight() -> None:
    rig = Rig(slots=1)
    for request_id in range(60):
        rig.submit(request_id, [request_id + 1], max_tokens=1, priority=list(Priority)[request_id % 4])
    assert rig.scheduler.queued_by_priority == (15, 15, 15, 15)
    while len(rig.finished) < 15:
        rig.step()
    served = [list(Priority)[request_id % 4] for request_id in rig.finished]
    assert [served.count(priority) for priority in Priority] == pytest.approx([8, 4, 2, 1], abs=1)
    rig.run()
    assert len(rig.finished) == 60


def test_a_higher_priority_is_evaluated_before_a_shorter_prompt() -> None:
    rig = Rig(slots=3, context=2000, max_batch=512)
    rig.submit(1, [1] * 20, max_tokens=1, priority=Priority.LOW)
    rig.submit(2, [2] * 20, max_tokens=1)
    rig.submit(3, [3] * 900, max_tokens=1, priority=Priority.VIP)
    rig.run()
    assert list(rig.started) == [3, 2, 1]


def test_age_raises_a_prompt_above_a_higher_priority() -> None:
    rig = Rig(slots=2, context=2000, max_batch=512)
    rig.submit(1, [1] * 900, max_tokens=1, priority=Priority.LOW)
    rig.step()
    rig.now += 16 * AGEING_SECONDS
    rig.submit(2, [2] * 20, max_tokens=1, priority=Priority.VIP)
    rig.run()
    assert list(rig.started) == [1, 2]


def test_a_full_pool_takes_from_the_youngest_of_the_lowest_priority() -> None:
    rig = Rig(slots=3, context=200, max_batch=200, cells=220, memory=SHARED)
    for request_id, priority in enumerate((Priority.VIP, Priority.LOW, Priority.NORMAL)):
        rig.submit(request_id, [request_id + 1] * 8, max_tokens=100, priority=priority)
        rig.step()
        rig.now += 1.0
    while not rig.scheduler.preemptions:
        rig.step()
    assert rig.scheduler.queued_by_priority == (0, 0, 0, 1)
    rig.run()
    for request_id in range(3):
        assert rig.said[request_id] == expected([request_id + 1] * 8, 100)
        assert rig.finished[request_id].reason is FinishReason.LENGTH
    assert list(rig.finished)[-1] == 1
