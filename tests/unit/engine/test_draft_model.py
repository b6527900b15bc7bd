"""A draft model changes how fast the text comes, and never what it is; and it never costs a request."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from inferno_runtime.backends.base import BackendError, MemoryTraits, OutOfMemory, Span
from inferno_runtime.backends.fake import FakeBackend, successor
from inferno_runtime.engine.draft_model import ModelDrafter, _Slot
from inferno_runtime.engine.request import FinishReason, Request, Sampling
from inferno_runtime.engine.sequence import Sequence as EngineSequence
from tests.unit.engine.rig import GREEDY, Rig, expected, successor_in_circles

SHARED = MemoryTraits(copy=True, cut=True, save=True, shift=False, shared=True, cell_bytes=4)
NO_COPY = MemoryTraits(copy=False, cut=True, save=False, shift=False, cell_bytes=4)


def contrary(tokens: Sequence[int], vocab_size: int) -> int:
    """A draft model that is always sure, and always wrong."""
    return 1 + successor(tokens, vocab_size) % (vocab_size - 1)


def mostly(tokens: Sequence[int], vocab_size: int) -> int:
    """A draft model that is right two times of three."""
    return (successor if len(tokens) % 3 else contrary)(tokens, vocab_size)


def rig(draft: dict[str, Any] | None = None, **options: Any) -> Rig:
    """A model whose text never repeats, on hardware where a larger batch is cheap, with a draft model that agrees."""
    made = Rig(**{"slots": 4, "context": 400, "vocab_size": 4096, "speculate": True, "draft": draft or {}, **options})
    made.batch_seconds = 0.02
    return made


def drafter(rig: Rig) -> ModelDrafter:
    found = rig.scheduler.speculation._drafters[-1][0]
    assert isinstance(found, ModelDrafter)
    return found


def slots(rig: Rig) -> list[_Slot]:
    return drafter(rig)._slots


def check_cells(rig: Rig) -> None:
    """What the draft model's cells hold is known, and is a beginning of what a sequence said.

    Where a batch of the model failed nobody knows what would have become of its drafts, and they stay behind that.
    """
    assert rig.draft is not None
    for slot in slots(rig):
        assert slot.held == rig.draft.held[slot.number]
        if slot.owner is not None:
            count = slot.known if rig.failed else len(slot.held)
            assert slot.held[:count] == slot.owner.tokens[:count]


def run(rig: Rig) -> None:
    while rig.scheduler.busy:
        rig.step()
        check_cells(rig)


def check_text(rig: Rig) -> None:
    for request_id, (prompt, count) in rig.prompts.items():
        assert rig.said[request_id] == expected(prompt, count, vocab_size=4096)
        assert rig.finished[request_id].reason is FinishReason.LENGTH


def decodes(rig: Rig) -> int:
    return sum(all(span.logits for span in call) for call in rig.calls)


@pytest.mark.parametrize("sequences", [1, 3])
def test_a_model_that_agrees_saves_steps(sequences: int) -> None:
    steps = {}
    for speculate in (True, False):
        drafting = rig(speculate=speculate)
        for request_id in range(sequences):
            drafting.submit(request_id, [request_id + 1, 2, 3], max_tokens=150)
        run(drafting) if speculate else drafting.run()
        check_text(drafting)
        steps[speculate] = decodes(drafting)
    assert steps[True] < steps[False] / 2


def test_what_is_sampled_is_what_would_have_been_sampled() -> None:
    said = []
    for speculate in (True, False):
        drafting = rig(speculate=speculate)
        sampling = Sampling(temperature=1.0, top_k=0, top_p=1.0, seed=7)
        drafting.scheduler.submit(Request(1, [1, 2, 3], 150, sampling))
        drafting.run()
        said.append(drafting.said[1])
        assert (drafting.scheduler.speculation.accepted > 20) == speculate
    assert said[0] == said[1] != expected([1, 2, 3], 150, vocab_size=4096)


def test_a_model_that_never_agrees_costs_no_step_and_is_seldom_asked() -> None:
    drafting, without = rig({"choose": contrary}), rig(speculate=False)
    for each in (drafting, without):
        each.submit(1, [1, 2, 3], max_tokens=300)
    run(drafting)
    without.run()
    check_text(drafting)
    assert decodes(drafting) == decodes(without)
    assert drafting.scheduler.speculation.accepted == 0
    assert drafting.scheduler.speculation.drafted < 40
    assert drafting.now < without.now * 1.1


def test_a_model_that_is_slow_is_seldom_asked_and_evaluates_nothing_meanwhile() -> None:
    drafting, without = rig(), rig(speculate=False)
    drafting.draft_token_seconds = 0.1
    for each in (drafting, without):
        each.submit(1, [1, 2, 3], max_tokens=300)
    run(drafting)
    without.run()
    check_text(drafting)
    tried = [len(call[0].tokens) for call in drafting.draft_calls if len(call[0].tokens) > 2]
    assert 1 <= len(tried) < 10  # times in 300 tokens, to read what it had missed
    assert decodes(drafting) <= decodes(without)


def test_a_draft_ends_where_the_model_is_not_sure() -> None:
    class Unsure(FakeBackend):
        def evaluate(self, spans: Sequence[Span]) -> NDArray[np.float32]:
            logits = super().evaluate(spans)
            logits[:] *= 1.0 if len(self.held[0]) % 4 else 0.1
            return logits

    own = Unsure(slots=1, context=64)
    proposing = ModelDrafter(own, FakeBackend(slots=1), clock=lambda: 0.0)
    seq = EngineSequence(Request(1, [5, 6], 30, GREEDY), arrived=0.0, slot=0)
    assert proposing.offers([seq], [8]) == [8]
    (draft,) = proposing.drafts([seq], [8])
    assert draft == expected([5, 6], 2)
    seq.tokens.extend([*draft, 9])
    rate = proposing.acceptance(seq).rate
    proposing.observe(seq, len(draft), len(draft))
    assert proposing.acceptance(seq).rejected > 0.8  # that it was not sure counts as well
    assert proposing.acceptance(seq).rate != rate
    assert own.held[0] == [5, 6, *draft]


def test_reading_up_is_cut_into_batches() -> None:
    drafting = rig({"max_batch": 16}, max_batch=64)
    for request_id in range(3):
        drafting.submit(request_id, [request_id + 1] * (50 + request_id), max_tokens=60)
    run(drafting)
    check_text(drafting)
    assert max(sum(len(span.tokens) for span in call) for call in drafting.draft_calls) == 16


def test_a_smaller_context_of_the_draft_model_only_ends_its_drafts() -> None:
    drafting = rig({"context": 50})
    drafting.submit(1, [1, 2, 3], max_tokens=200)
    run(drafting)
    check_text(drafting)


def test_text_that_repeats_is_looked_up_and_the_rest_is_drafted() -> None:
    drafting = rig(choose=successor_in_circles)
    drafting.submit(1, [1, 2, 3], max_tokens=200)
    run(drafting)
    assert drafting.said[1] == expected([1, 2, 3], 200, choose=successor_in_circles)
    assert 0 < len(drafting.draft_calls) < 150


@pytest.mark.parametrize("memory", [SHARED, NO_COPY, None], ids=["shared", "no copy", "streams"])
def test_a_sequence_that_moves_takes_its_cells_along(memory: MemoryTraits | None) -> None:
    drafting = rig({"memory": memory} if memory else {})
    for request_id, count in ((1, 200), (2, 20), (3, 200)):
        drafting.submit(request_id, [request_id] * 40, max_tokens=count)
    run(drafting)
    check_text(drafting)
    assert {span.slot for span in drafting.calls[-1]} <= {0, 1}, "the third was to be moved"
    read = sum(len(span.tokens) for call in drafting.draft_calls for span in call if span.start == 0 and span.slot == 1)
    assert (read > 80) == (memory is NO_COPY)


def test_sequences_that_are_preempted_go_on() -> None:
    drafting = rig(slots=3, cells=150, memory=SHARED, context=100, max_batch=150)
    for request_id in range(3):
        drafting.submit(request_id, [request_id + 1] * 10, max_tokens=80)
    run(drafting)
    check_text(drafting)
    assert drafting.scheduler.preemptions > 0


def test_a_pool_of_the_draft_model_that_is_full_is_emptied_and_drafting_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    drafting = rig({"cells": 120, "memory": SHARED})
    for request_id in range(8):
        drafting.submit(request_id, [request_id + 1] * 20, max_tokens=30)
    run(drafting)
    check_text(drafting)
    assert not caplog.records
    assert not drafter(drafting)._broken


@pytest.mark.parametrize("after", [0, 1, 7])
def test_a_draft_model_that_fails_costs_no_request_and_is_used_no_more(
    after: int, caplog: pytest.LogCaptureFixture
) -> None:
    drafting = rig()
    for request_id in range(3):
        drafting.submit(request_id, [request_id + 1, 2, 3], max_tokens=100)
    drafting.steps(3 + after)
    calls = len(drafting.draft_calls)
    drafting.draft_error = BackendError("broken")
    drafting.run()
    check_text(drafting)
    assert len(drafting.draft_calls) == calls + 1
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message == "the draft model failed and is used no more: broken"


def test_what_the_draft_model_cannot_cut_ends_drafting_once(caplog: pytest.LogCaptureFixture) -> None:
    drafting = rig({"choose": mostly})
    assert drafting.draft is not None

    def cut(slot: int, length: int) -> None:
        raise BackendError("it cannot be cut")

    drafting.draft.cut = cut  # type: ignore[method-assign]
    for request_id in range(3):
        drafting.submit(request_id, [request_id + 1, 2, 3], max_tokens=100)
    drafting.run()
    check_text(drafting)
    assert len(caplog.records) == 1


def test_a_batch_of_the_model_that_fails_leaves_the_draft_model_sound() -> None:
    drafting = rig()
    drafting.submit(1, [1, 2, 3], max_tokens=60)
    drafting.submit(2, [4, 5, 6], max_tokens=60)
    drafting.steps(6)
    drafting.fail_slots = {1}
    drafting.step()
    drafting.fail_slots = set()
    drafting.submit(3, [7, 8, 9], max_tokens=60)
    run(drafting)
    assert [drafting.finished[request_id].reason for request_id in (1, 2, 3)] == [
        FinishReason.LENGTH,
        FinishReason.ERROR,
        FinishReason.LENGTH,
    ]
    for request_id in (1, 3):
        assert drafting.said[request_id] == expected(drafting.prompts[request_id][0], 60, vocab_size=4096)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(1, 4), st.integers(1, 60)),
        st.tuples(st.just("cancel"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("step"), st.integers(1, 9), st.just(0)),
        st.tuples(st.just("full"), st.just(0), st.just(0)),
        st.tuples(st.just("fail"), st.just(0), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(
    actions=ACTIONS,
    memory=st.sampled_from([SHARED, NO_COPY, None]),
    choose=st.sampled_from([successor, contrary, mostly]),
    count=st.integers(1, 4),
)
def test_whatever_happens_the_text_is_right_and_the_cells_are_what_was_said(
    actions: list[tuple[str, int, int]], memory: MemoryTraits | None, choose: Any, count: int
) -> None:
    shape: dict[str, Any] = {"slots": count, "context": 160, "max_batch": 40, "cells": 200}
    if memory is not None:
        shape["memory"] = memory
    drafting = rig({"choose": choose}, **(shape if memory is SHARED else {**shape, "cells": 0}))
    for kind, value, size in actions:
        if kind == "submit":
            drafting.submit(len(drafting.prompts), [value] * size, max_tokens=1 + value * 15)
        elif kind == "cancel":
            drafting.scheduler.cancel(value)
        elif kind in ("full", "fail"):
            drafting.draft_error = OutOfMemory("full") if kind == "full" else BackendError("broken")
        for _ in range(value if kind == "step" else 1):
            if drafting.scheduler.busy:
                drafting.step()
                if not drafter(drafting)._broken:
                    check_cells(drafting)
        drafting.draft_error = None
    drafting.run()
    assert set(drafting.finished) == set(drafting.prompts)
    for request_id, (prompt, most) in drafting.prompts.items():
        right = expected(prompt, most, vocab_size=4096)
        if drafting.finished[request_id].reason is FinishReason.LENGTH:
            assert drafting.said[request_id] == right
        else:
            assert drafting.finished[request_id].reason is FinishReason.CANCELLED
            assert drafting.said[request_id] == right[: len(drafting.said[request_id])]
