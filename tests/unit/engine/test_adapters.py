"""Several LoRA adapters on one model: whose turn it is, and what they may not share."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferno_runtime.backends.base import BackendError, MemoryTraits, Span
from inferno_runtime.engine.prefix_tree import BLOCK
from inferno_runtime.engine.request import FinishReason
from inferno_runtime.engine.turns import Turns
from tests.unit.engine.rig import Rig, expected, successor_in_circles

LONG = [(i * 7) % 120 + 1 for i in range(10 * BLOCK)]
SHAPE: dict[str, Any] = {"context": 1000, "max_batch": 512, "adapters": 3}


def test_sequences_of_several_adapters_decode_in_batches_of_one() -> None:
    rig = Rig(slots=6, **SHAPE)
    for request_id in range(6):
        rig.submit(request_id, [5, 6, 7], max_tokens=30, adapter=request_id % 3)
    rig.run()
    for request_id in range(6):
        assert rig.said[request_id] == expected([5, 6, 7], 30, adapter=request_id % 3)
    decodes = [{span.adapter for span in call} for call in rig.calls if len(call) > 1]
    assert {len(adapters) for adapters in decodes} == {1}
    assert len([call for call in rig.calls if len(call) == 2]) >= 3 * 28  # the two of an adapter go together


def prefix_in_a_slot(rig: Rig, adapter: int) -> None:
    rig.submit(1, LONG, max_tokens=1, adapter=adapter)
    rig.run()


def prefix_in_a_running_slot(rig: Rig, adapter: int) -> None:
    rig.submit(1, LONG, max_tokens=500, adapter=adapter)
    while 1 not in rig.started:
        rig.step()


def prefix_that_a_leader_evaluates(rig: Rig, adapter: int) -> None:
    rig.submit(1, LONG, max_tokens=1, adapter=adapter)
    rig.step()
    assert 1 not in rig.started


def prefix_in_the_store(rig: Rig, adapter: int) -> None:
    prefix_in_a_slot(rig, adapter)
    for request_id in (100, 101):  # which take the slots
        rig.submit(request_id, [request_id] * 40, max_tokens=100)
    rig.steps(20)
    rig.scheduler.cancel(100)
    rig.scheduler.cancel(101)
    rig.step()
    assert rig.scheduler.store_bytes > 0


@pytest.mark.parametrize(
    "lay", [prefix_in_a_slot, prefix_in_a_running_slot, prefix_that_a_leader_evaluates, prefix_in_the_store]
)
@pytest.mark.parametrize("own", [0, 1])
def test_a_prefix_is_of_use_to_its_adapter_alone(lay: Any, own: int) -> None:
    for asked in (own, 1 - own):
        rig = Rig(slots=2, store_bytes=1 << 20, budget=0.01, **SHAPE)
        lay(rig, own)
        rig.submit(2, [*LONG, 3], max_tokens=4, adapter=asked)
        rig.run()
        assert rig.said[2] == expected([*LONG, 3], 4, adapter=asked)
        cached = rig.started[2].cached_tokens
        assert (cached >= len(LONG) - 1) if asked == own else (cached == 0)


@pytest.mark.parametrize("copy", [True, False])
def test_a_preempted_sequence_goes_on_with_its_adapter(copy: bool) -> None:
    memory = MemoryTraits(copy=copy, cut=True, save=True, shift=False, cell_bytes=4, shared=True)
    rig = Rig(slots=4, context=200, max_batch=64, cells=260, memory=memory, adapters=2)
    for request_id in range(4):
        rig.submit(request_id, [request_id + 1] * 20, max_tokens=120, adapter=request_id % 3)
    rig.run()
    assert rig.scheduler.preemptions > 0
    for request_id in range(4):
        assert rig.finished[request_id].reason is FinishReason.LENGTH
        assert rig.said[request_id] == expected([request_id + 1] * 20, 120, adapter=request_id % 3)


def test_a_failure_of_one_adapter_costs_the_others_nothing() -> None:
    rig = Rig(slots=2, **SHAPE)
    rig.submit(0, [1] * 4, max_tokens=200)
    rig.submit(1, [2] * 4, max_tokens=200, adapter=1)
    rig.steps(2)
    rig.fail_slots = {1}
    while 1 not in rig.finished:
        rig.step()
    rig.fail_slots = set()
    rig.run()
    assert rig.finished[1].reason is FinishReason.ERROR
    assert rig.said[0] == expected([1] * 4, 200)


def test_a_draft_model_that_knows_no_adapters_changes_no_text() -> None:
    rig = Rig(slots=4, speculate=True, draft={}, choose=successor_in_circles, **SHAPE)
    rig.batch_seconds = 0.01
    for request_id in range(6):
        rig.submit(request_id, [request_id + 1] * 20, max_tokens=150, adapter=request_id % 3)
    rig.run()
    for request_id in range(6):
        right = expected([request_id + 1] * 20, 150, choose=successor_in_circles, adapter=request_id % 3)
        assert rig.said[request_id] == right
    assert rig.draft_calls
    assert rig.scheduler.speculation.accepted > 0


class Fragile(Rig):
    """Its backend evaluates one sequence at a time."""

    def _on_evaluate(self, spans: Sequence[Span]) -> None:
        super()._on_evaluate(spans)
        if len(spans) > 1:
            raise BackendError("too many")


def test_one_whose_batches_always_fail_keeps_the_turn_no_longer_than_others() -> None:
    rig = Fragile(slots=4, **SHAPE)
    for request_id in range(2):
        rig.submit(request_id, [request_id + 1] * 4, max_tokens=900)
    rig.submit(2, [3] * 4, max_tokens=50, adapter=1)
    while 2 not in rig.finished:
        rig.step()
    assert len(rig.said[0]) < 200
    rig.submit(3, [4] * 4, max_tokens=5, adapter=2)  # and prompts have their turn, too
    while 3 not in rig.finished:
        rig.step()
    assert len(rig.said[0]) < 400
    rig.run()
    assert rig.said[0] == expected([1] * 4, 900)


def test_one_with_many_sequences_leaves_the_others_half_of_the_time() -> None:
    rig = Rig(slots=9, **SHAPE)
    for request_id in range(8):
        rig.submit(request_id, [request_id + 1] * 4, max_tokens=900)
    rig.submit(8, [99] * 4, max_tokens=900, adapter=1)
    while len(rig.started) < 9:
        rig.step()
    rig.calls.clear()
    while rig.scheduler.busy and 8 not in rig.finished:
        rig.step()
    tokens = Counter(call[0].adapter for call in rig.calls for _ in call)  # each takes the same time here
    assert tokens[1] == 899
    assert tokens[0] == pytest.approx(tokens[1], abs=60)  # a turn


def test_a_long_prompt_holds_up_a_stream_among_adapters_no_longer_than_among_none() -> None:
    rig = Rig(slots=4, budget=0.05, **{**SHAPE, "context": 4000, "max_batch": 4000})
    for request_id in range(3):
        rig.submit(request_id, [request_id + 1] * 4, max_tokens=2000, adapter=request_id)
    while len(rig.started) < 3:
        rig.step()
    rig.submit(3, [7] * 3000, max_tokens=1)
    began, said = rig.now, len(rig.said[0])
    while 3 not in rig.finished:
        rig.step()
    # A round is three batches of a token and a budget, of which a stream has one token.
    assert len(rig.said[0]) - said >= (rig.now - began) / (3 * 0.001 + 2.5 * 0.05) - 60


@given(
    st.lists(
        st.tuples(st.sets(st.integers(0, 4), min_size=1), st.floats(0, 0.3)),
        min_size=1,
        max_size=200,
    )
)
def test_none_waits_longer_than_the_turns_of_the_others(batches: list[tuple[set[int], float]]) -> None:
    turns = Turns()
    waited: Counter[int] = Counter()  # turns of others that began while one has waited, by adapter
    last = -1
    left = 0.0
    for present, seconds in batches:
        chosen = turns.next(present)
        assert chosen in present
        assert turns.next(present) == chosen  # asking again changes nothing
        fresh = chosen != last or left <= 0
        left = (0.05 if fresh else left) - max(seconds, 0.001)
        for adapter in list(waited):
            if adapter not in present:
                del waited[adapter]
        waited.pop(chosen, None)
        for adapter in present - {chosen}:
            waited[adapter] += fresh
            # What one may be ahead is a turn and a batch, 0.35 s, which each of the others makes up in turns of 0.05 s.
            assert waited[adapter] <= 4 * 8
        turns.observe(seconds)
        last = chosen


def test_time_without_anything_to_do_is_no_time_saved() -> None:
    turns = Turns()
    for _ in range(100):
        turns.next({0})
        turns.observe(1.0)
    chosen = []
    for _ in range(20):
        chosen.append(turns.next({0, 1}))
        turns.observe(1.0)
    assert Counter(chosen) == {0: 10, 1: 10}


def test_short_batches_share_a_turn() -> None:
    turns = Turns()
    chosen = []
    for _ in range(100):
        chosen.append(turns.next({0, 1}))
        turns.observe(0.01)
    changes = sum(a != b for a, b in pairwise(chosen))
    assert changes == 100 // 5 - 1
