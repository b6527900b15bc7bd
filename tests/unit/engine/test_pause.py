"""Sequences whose clients cannot take more: they cost their neighbours nothing, and lose nothing."""

import pytest

from inferno_runtime.backends.base import MemoryTraits
from inferno_runtime.engine.request import FinishReason
from tests.unit.engine.rig import Rig, expected

SHARED = MemoryTraits(copy=True, cut=True, save=True, shift=False, shared=True, cell_bytes=4)
BARE = MemoryTraits(copy=False, cut=False, save=False, shift=False, cell_bytes=4)


def until_all_speak(rig: Rig, count: int) -> None:
    """Steps until so many sequences have said something."""
    while len(rig.said) < count:
        rig.step()


def test_a_paused_sequence_is_in_no_batch_and_keeps_its_slot() -> None:
    rig = Rig(slots=2)
    for request_id in (1, 2):
        rig.submit(request_id, [request_id] * 4, max_tokens=20)
    until_all_speak(rig, 2)
    rig.scheduler.pause(1)
    said = len(rig.said[1])
    rig.calls.clear()
    rig.steps(5)
    assert len(rig.said[1]) == said
    assert {span.slot for call in rig.calls for span in call} == {1}
    assert rig.scheduler.active == 2
    rig.scheduler.resume(1)
    rig.run()
    for request_id in (1, 2):
        assert rig.said[request_id] == expected([request_id] * 4, 20)


def test_what_it_holds_is_not_evaluated_again() -> None:
    paused, straight = Rig(slots=1), Rig(slots=1)
    for rig in (paused, straight):
        rig.submit(1, [7] * 30, max_tokens=10)
    until_all_speak(paused, 1)
    paused.scheduler.pause(1)
    paused.run()
    paused.scheduler.resume(1)
    paused.run()
    straight.run()
    assert paused.said == straight.said
    assert paused.evaluated == straight.evaluated


def test_an_engine_with_nothing_but_paused_sequences_rests() -> None:
    rig = Rig(slots=2)
    for request_id in (1, 2):
        rig.submit(request_id, [request_id], max_tokens=9)
    until_all_speak(rig, 2)
    rig.scheduler.pause(1)
    assert rig.scheduler.busy
    rig.scheduler.pause(2)
    assert not rig.scheduler.busy
    rig.scheduler.resume(2)
    assert rig.scheduler.busy


@pytest.mark.parametrize("memory", [MemoryTraits(copy=True, cut=True, save=True, shift=False, cell_bytes=4), BARE])
def test_its_slot_goes_to_one_that_waits(memory: MemoryTraits) -> None:
    rig = Rig(slots=1, memory=memory)
    rig.submit(1, [5, 6, 7], max_tokens=12)
    until_all_speak(rig, 1)
    rig.scheduler.pause(1)
    rig.submit(2, [8, 9], max_tokens=12)
    rig.run()
    assert set(rig.finished) == {2}
    assert (rig.scheduler.active, rig.scheduler.queued) == (0, 0)
    rig.scheduler.resume(1)
    rig.run()
    assert rig.said[1] == expected([5, 6, 7], 12)
    assert rig.said[2] == expected([8, 9], 12)
    assert list(rig.started) == [1, 2]


def test_the_longest_paused_gives_way_first() -> None:
    rig = Rig(slots=3)
    for request_id in (1, 2, 3):
        rig.submit(request_id, [request_id], max_tokens=30)
    until_all_speak(rig, 3)
    for request_id in (2, 1):
        rig.scheduler.pause(request_id)
    rig.submit(4, [4], max_tokens=3)
    rig.calls.clear()
    until_all_speak(rig, 4)
    used = {span.slot for call in rig.calls for span in call}
    assert used - {2} == {1}  # the second's slot; the third may have gone on in its own


def test_a_prompt_that_is_paused_gets_as_far_as_its_first_token() -> None:
    rig = Rig(slots=1, context=400, max_batch=16)
    rig.submit(1, [3] * 200, max_tokens=9)
    rig.step()
    rig.scheduler.pause(1)
    rig.run()
    assert rig.said[1] == expected([3] * 200, 1)
    assert rig.scheduler.active == 1
    rig.scheduler.resume(1)
    rig.run()
    assert rig.said[1] == expected([3] * 200, 9)


def test_one_that_waits_for_a_slot_is_passed_over_while_it_is_paused() -> None:
    rig = Rig(slots=1)
    rig.submit(1, [1], max_tokens=30)
    until_all_speak(rig, 1)
    for request_id in (2, 3, 4):
        rig.submit(request_id, [request_id], max_tokens=3)
        rig.now += 1.0
    rig.scheduler.pause(2)
    assert rig.scheduler.queued == 2
    rig.scheduler.resume(2)
    assert rig.scheduler.queued == 3
    rig.scheduler.pause(3)
    rig.run()
    assert list(rig.finished) == [1, 2, 4]  # in the order of arrival
    rig.scheduler.resume(3)
    rig.run()
    assert rig.said[3] == expected([3], 3)


@pytest.mark.parametrize("parked", [False, True])
def test_a_paused_sequence_can_be_cancelled(parked: bool) -> None:
    rig = Rig(slots=1)
    rig.submit(1, [1, 2], max_tokens=30)
    until_all_speak(rig, 1)
    rig.scheduler.pause(1)
    if parked:
        rig.submit(2, [3], max_tokens=2)
        rig.run()
    rig.scheduler.cancel(1)
    rig.run()
    assert rig.finished[1].reason is FinishReason.CANCELLED
    assert (rig.scheduler.active, rig.scheduler.cells_used) == (0, 0)
    rig.scheduler.resume(1)  # which nobody knows any more
    assert not rig.scheduler.busy


def test_a_full_pool_takes_the_cells_of_paused_sequences_first() -> None:
    rig = Rig(slots=2, context=120, max_batch=100, cells=120, memory=SHARED)
    rig.submit(1, [1] * 20, max_tokens=30)
    until_all_speak(rig, 1)
    rig.scheduler.pause(1)
    rig.submit(2, [2] * 20, max_tokens=90)
    until_all_speak(rig, 2)
    assert rig.scheduler.active == 2
    rig.run()
    assert rig.said[2] == expected([2] * 20, 90)
    assert rig.scheduler.preemptions == 0
    rig.scheduler.resume(1)
    rig.run()
    assert rig.said[1] == expected([1] * 20, 30)


def test_a_pool_that_is_promised_is_given_up_by_paused_sequences() -> None:
    rig = Rig(slots=2, context=100, max_batch=100, cells=100, memory=SHARED)
    rig.submit(1, [1] * 60, max_tokens=30)
    until_all_speak(rig, 1)
    rig.scheduler.pause(1)
    rig.submit(2, [2] * 60, max_tokens=30)
    rig.run()
    assert rig.finished[2].reason is FinishReason.LENGTH
    rig.scheduler.resume(1)
    rig.run()
    assert rig.said[1] == expected([1] * 60, 30)


def test_pausing_twice_and_resuming_what_runs_change_nothing() -> None:
    rig = Rig(slots=2)
    rig.submit(1, [1], max_tokens=9)
    until_all_speak(rig, 1)
    rig.scheduler.resume(1)
    rig.scheduler.pause(1)
    rig.scheduler.pause(1)
    rig.scheduler.pause(99)
    rig.scheduler.resume(99)
    rig.scheduler.resume(1)
    rig.run()
    assert rig.said[1] == expected([1], 9)
