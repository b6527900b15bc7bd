"""Drafts change how fast the text comes, and never what it is."""

from collections.abc import Sequence

import pytest

from inferno_runtime.backends.base import MemoryTraits
from inferno_runtime.backends.fake import successor
from inferno_runtime.engine.request import FinishReason
from tests.unit.engine.rig import END, Rig, expected


def in_circles(tokens: Sequence[int], vocab_size: int) -> int:
    return successor(tokens[-2:], min(vocab_size, 8))


@pytest.mark.parametrize("sequences", [1, 3])
def test_repetitive_text_comes_in_fewer_steps(sequences: int) -> None:
    steps = {}
    for speculate in (True, False):
        rig = Rig(slots=4, context=400, max_batch=64, speculate=speculate, choose=in_circles)
        rig.batch_seconds = 0.02
        for request_id in range(sequences):
            rig.submit(request_id, [request_id + 1, 2, 3], max_tokens=200)
        rig.run()
        steps[speculate] = len(rig.calls)
        for request_id, (prompt, count) in rig.prompts.items():
            assert rig.said[request_id] == expected(prompt, count, choose=in_circles)
        if speculate:
            assert 0 < rig.scheduler.speculation.accepted <= rig.scheduler.speculation.drafted
        else:
            assert rig.scheduler.speculation.drafted == 0
    assert steps[True] < steps[False] / 2


def test_a_draft_never_reaches_past_the_end() -> None:
    for max_tokens in range(1, 30):
        rig = Rig(slots=1, context=48, max_batch=64, speculate=True, choose=lambda tokens, size: 5)
        rig.batch_seconds = 0.02
        rig.submit(1, [5] * 20, max_tokens=max_tokens)
        rig.run()
        assert len(rig.said[1]) == min(max_tokens, 48 - 20)
        assert rig.finished[1].reason is FinishReason.LENGTH


def test_an_end_token_within_a_draft_ends_the_text_there() -> None:
    def choose(tokens: object, size: int) -> int:
        count = len(tokens)  # type: ignore[arg-type]
        return END if count == 31 else 1 + count % 3

    rig = Rig(slots=1, context=100, max_batch=64, speculate=True, choose=choose)
    rig.batch_seconds = 0.02
    rig.submit(1, [1, 2, 3, 1, 2, 3], max_tokens=80)
    rig.run()
    assert rig.finished[1].reason is FinishReason.STOP
    assert len(rig.said[1]) == 31 - 6
    assert END not in rig.said[1]
    rig.submit(2, [9, 9], max_tokens=3)
    rig.run()
    assert rig.finished[2].reason is FinishReason.LENGTH


def test_memory_that_cannot_be_cut_is_not_speculated_on() -> None:
    memory = MemoryTraits(copy=True, cut=False, save=True, shift=False)
    rig = Rig(slots=1, context=100, max_batch=64, speculate=True, memory=memory, choose=lambda tokens, size: 5)
    rig.submit(1, [5] * 20, max_tokens=50)
    rig.run()
    assert rig.scheduler.speculation.drafted == 0
    assert rig.said[1] == [5] * 50
