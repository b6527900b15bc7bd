"""The engine's step on a fake backend and a virtual clock."""

import random
from itertools import pairwise

import pytest

from inferno_runtime.backends.base import MemoryTraits
from inferno_runtime.engine.request import FinishReason
from tests.unit.engine.rig import END, Rig, expected


def test_every_sequence_says_what_it_would_say_alone() -> None:
    rig = Rig(slots=3, context=64)
    prompts = {i: [i + 1] * (1 + i * 4 % 17) for i in range(10)}
    for request_id, prompt in prompts.items():
        rig.submit(request_id, prompt, max_tokens=5 + request_id)
    rig.run()
    for request_id, prompt in prompts.items():
        assert rig.said[request_id] == expected(prompt, 5 + request_id)
        assert rig.finished[request_id].reason is FinishReason.LENGTH


def test_the_end_token_ends_and_is_not_said() -> None:
    rig = Rig(choose=lambda tokens, size: END if len(tokens) == 6 else 9)
    rig.submit(1, [5, 5, 5], max_tokens=20)
    rig.submit(2, [5, 5, 5], max_tokens=6, ignore_eos=True)
    rig.run()
    assert rig.said[1] == [9, 9, 9]
    assert rig.finished[1].reason is FinishReason.STOP
    assert rig.said[2] == [9, 9, 9, END, 9, 9]
    assert rig.finished[2].reason is FinishReason.LENGTH


@pytest.mark.parametrize("speculate", [False, True])
def test_a_text_cannot_end_before_it_has_its_least_tokens(speculate: bool) -> None:
    rig = Rig(speculate=speculate, choose=lambda tokens, size: END if len(tokens) % 3 == 0 else 9)
    rig.submit(1, [5, 5, 5], max_tokens=20, min_tokens=5)
    rig.submit(2, [5, 5, 5], max_tokens=20)
    rig.run()
    assert rig.said[1][0] == 1  # the next likeliest in place of the end
    assert END not in rig.said[1]
    assert len(rig.said[1]) == 6
    assert rig.finished[1].reason is FinishReason.STOP
    assert rig.said[2] == []


def test_a_full_context_ends_with_length() -> None:
    rig = Rig(context=16)
    rig.submit(1, [3] * 10, max_tokens=1000)
    rig.run()
    assert len(rig.said[1]) == 6
    assert rig.finished[1].reason is FinishReason.LENGTH


def test_slots_are_given_lowest_first_so_that_numbers_stay_dense() -> None:
    rig = Rig(slots=4)
    for request_id, max_tokens in ((0, 2), (1, 9), (2, 2), (3, 9)):
        rig.submit(request_id, [request_id + 1], max_tokens=max_tokens)
    while 0 not in rig.finished:
        rig.step()
    rig.submit(4, [50], max_tokens=3)
    while len(rig.calls[-1][0].tokens) != 1 or rig.calls[-1][0].tokens != [50]:
        rig.step()
    assert [span.slot for span in rig.calls[-1]] == [0]
    rig.run()


def test_decode_and_prefill_are_separate_batches_and_decode_runs_by_slot() -> None:
    rig = Rig(slots=4)
    for request_id in range(3):
        rig.submit(request_id, [request_id + 1] * 4)
    while len(rig.said) < 3:
        rig.step()
    rig.submit(3, [9] * 5)
    rig.calls.clear()
    rig.steps(2)
    prefill, decode = rig.calls
    assert [span.slot for span in decode] == [0, 1, 2, 3]
    assert all(len(span.tokens) == 1 for span in decode)
    assert [len(span.tokens) for span in prefill] == [5]


def test_those_that_come_together_do_not_start_in_step() -> None:
    """They would end in step, and with a user behind each come again together, so that all but one would wait."""
    rig = Rig(slots=4)
    for request_id in range(3):
        rig.submit(request_id, [request_id + 1] * 4, max_tokens=8)
    rig.steps(2)
    assert [[len(span.tokens) for span in call] for call in rig.calls] == [[4], [1]]
    rig.run()
    assert next(iter(rig.finished)) == 0


def test_a_long_prompt_holds_up_a_stream_for_no_longer_than_the_budget() -> None:
    rig = Rig(slots=2, context=5000, max_batch=4096, budget=0.05)
    rig.submit(1, [1, 2, 3], max_tokens=200)
    rig.step()
    rig.submit(2, [7] * 2000, max_tokens=1)
    times = []
    while 2 not in rig.finished:
        said = len(rig.said[1])
        rig.step()
        if len(rig.said[1]) > said:
            times.append(rig.now)
    gaps = [after - before for before, after in pairwise(times)]
    assert sorted(gaps)[-3] <= 0.05 + 0.02  # the decode, and one least piece too much
    assert max(gaps) <= 2.5 * 0.05 + 0.02  # when it is tried whether larger pieces have become cheaper
    assert len(gaps) >= 2000 * 0.001 / 0.07 - 1
    rig.run()


def test_a_short_prompt_does_not_wait_behind_a_long_one() -> None:
    rig = Rig(slots=2, context=5000, max_batch=4096)
    rig.submit(1, [7] * 3000, max_tokens=1)
    rig.step()
    rig.submit(2, [8] * 20, max_tokens=1)
    rig.step()
    assert list(rig.started) == [2]
    rig.run()


def test_a_long_prompt_is_not_starved_by_short_ones() -> None:
    rig = Rig(slots=2, context=5000, max_batch=4096)
    rig.submit(1000, [7] * 1000, max_tokens=1)
    request_id = 0
    while 1000 not in rig.finished:
        if rig.scheduler.queued == 0:
            rig.submit(request_id, [8] * 40, max_tokens=1)
            request_id += 1
        rig.step()
        assert rig.now < 60, "the long prompt never came"
    rig.run()


@pytest.mark.parametrize("when", ["queued", "prefilling", "running"])
def test_cancel_takes_effect_before_the_next_step(when: str) -> None:
    rig = Rig(slots=1, context=5000, max_batch=4096)
    if when == "queued":
        rig.submit(9, [1], max_tokens=3)
    rig.submit(1, [4] * (3000 if when == "prefilling" else 4), max_tokens=1000)
    rig.step()
    evaluated = len(rig.calls)
    rig.scheduler.cancel(1)
    rig.scheduler.cancel(12345)  # unknown: ignored
    assert rig.scheduler.busy  # there is an end to tell
    rig.step()
    assert rig.finished[1].reason is FinishReason.CANCELLED
    if when != "queued":
        assert len(rig.calls) == evaluated
        assert rig.scheduler.cells_used == 0
    rig.submit(2, [5, 6], max_tokens=4)
    rig.run()
    assert rig.said[2] == expected([5, 6], 4)


@pytest.mark.parametrize("cut", [True, False], ids=["cut", "no-cut"])
def test_one_that_fails_does_not_fail_its_neighbours(cut: bool) -> None:
    rig = Rig(slots=3, memory=MemoryTraits(copy=False, cut=cut, save=False, shift=False))
    for request_id in range(3):
        rig.submit(request_id, [request_id + 1] * 4, max_tokens=6)
    rig.steps(4)  # three prompts, and a token for each
    rig.fail_slots = {1}
    rig.step()
    rig.fail_slots = set()
    rig.run()
    assert rig.finished[1].reason is FinishReason.ERROR
    assert "broken" in (rig.finished[1].error or "")
    for request_id in (0, 2):
        assert rig.said[request_id] == expected([request_id + 1] * 4, 6)
        assert rig.finished[request_id].reason is FinishReason.LENGTH
    assert rig.scheduler.active == rig.scheduler.cells_used == 0


def test_a_prompt_that_fails_ends_with_an_error_and_frees_its_slot() -> None:
    rig = Rig(slots=1)
    rig.fail_slots = {0}
    rig.submit(1, [1, 2])
    rig.step()
    assert rig.finished[1].reason is FinishReason.ERROR
    rig.fail_slots = set()
    rig.submit(2, [3, 4], max_tokens=2)
    rig.run()
    assert rig.said[2] == expected([3, 4], 2)


def test_random_arrivals_and_cancellations_lose_nothing() -> None:
    rng = random.Random(3)
    rig = Rig(slots=4, context=200, max_batch=64, budget=0.02)
    prompts: dict[int, tuple[list[int], int]] = {}
    cancelled: set[int] = set()
    for request_id in range(300):
        prompt = [rng.randrange(1, 128) for _ in range(rng.randrange(1, 120))]
        count = rng.randrange(1, 30)
        prompts[request_id] = (prompt, count)
        rig.submit(request_id, prompt, max_tokens=count)
        if rng.random() < 0.2:
            victim = rng.randrange(request_id + 1)
            if victim not in rig.finished:
                cancelled.add(victim)
            rig.scheduler.cancel(victim)
        for _ in range(rng.randrange(4)):
            if rig.scheduler.busy:
                rig.step()
    rig.run()
    assert set(rig.finished) == set(prompts)
    for request_id, (prompt, count) in prompts.items():
        if rig.finished[request_id].reason is FinishReason.CANCELLED:
            assert request_id in cancelled
            assert rig.said[request_id] == expected(prompt, count)[: len(rig.said[request_id])]
        else:
            assert rig.said[request_id] == expected(prompt, count)
    assert rig.scheduler.active == rig.scheduler.queued == rig.scheduler.cells_used == 0
