"""Which inputs go into the next batch."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferno_runtime.engine.packing import Input, Packer

TOKEN_SECONDS = 0.001


def packer(max_tokens: int = 512, max_inputs: int = 64, budget: float = 0.1, learnt: bool = True) -> Packer:
    made = Packer(max_tokens, max_inputs, budget)
    if learnt:
        made.observe(100, 100 * TOKEN_SECONDS)
    return made


def sizes(batch: list[Input]) -> list[int]:
    return [item.tokens for item in batch]


def test_a_batch_is_filled_up_to_the_time_that_it_may_take() -> None:
    pack = packer(budget=0.1)  # 100 tokens
    pack.add(1, [30] * 10, now=0)
    assert sizes(pack.next(0)) == [30, 30, 30]
    assert sizes(pack.next(0)) == [30, 30, 30]


@pytest.mark.parametrize(
    ("budget", "tokens"),
    [
        (0.01, 64),  # however slow the model is
        (0.2, 200),
        (10.0, 512),
    ],
)
def test_the_size_of_a_batch_follows_the_budget_within_limits(budget: float, tokens: int) -> None:
    pack = packer(budget=budget, max_inputs=1000)
    pack.add(1, [1] * 1000, now=0)
    assert sum(sizes(pack.next(0))) == tokens


def test_the_first_batch_is_small_since_nothing_is_known() -> None:
    pack = packer(learnt=False)
    pack.add(1, [8] * 100, now=0)
    assert sum(sizes(pack.next(0))) == 64


def test_the_cost_of_a_token_is_learnt_but_not_from_batches_that_are_too_small_to_tell() -> None:
    pack = packer(budget=0.1, learnt=False, max_inputs=1000)
    pack.observe(2, 1.0)
    pack.observe(200, 0.2)
    pack.add(1, [1] * 1000, now=0)
    assert len(pack.next(0)) == 100
    for _ in range(50):
        pack.observe(200, 0.1)  # now twice as fast
    assert 195 <= len(pack.next(0)) <= 200


def test_no_batch_has_more_inputs_than_allowed() -> None:
    pack = packer(max_inputs=3)
    pack.add(1, [1] * 4, now=0)
    pack.add(2, [1] * 4, now=0)
    assert [len(pack.next(0)) for _ in range(4)] == [3, 3, 2, 0]


def test_an_input_that_is_larger_than_a_batch_goes_alone() -> None:
    pack = packer(max_tokens=64)
    pack.add(1, [500, 3], now=0)
    pack.add(2, [2], now=0)
    batches = [pack.next(0) for _ in range(3)]
    assert sorted(sizes(batches[0])) == [2, 3]
    assert batches[1] == [Input(1, 0, 500)]
    assert batches[2] == []


def test_what_is_left_of_a_batch_is_filled_with_what_fits() -> None:
    pack = packer(max_tokens=100, budget=10)
    pack.add(1, [60, 50, 30], now=0)
    pack.add(2, [70, 60, 10], now=0)
    assert sizes(pack.next(0)) == [60, 30, 10]


def test_a_short_request_goes_before_what_is_left_of_a_long_one() -> None:
    pack = packer(budget=0.1)
    pack.add(1, [100] * 50, now=0)
    assert pack.next(0)[0].request_id == 1
    pack.add(2, [10], now=0.1)
    assert pack.next(0.1)[0] == Input(2, 0, 10)


def test_a_long_request_that_has_waited_goes_before_short_ones_that_come() -> None:
    pack = packer(budget=0.05)
    pack.add(0, [64] * 20, now=0.0)  # 1.28 seconds of work
    now, served = 0.0, 0
    for request_id in range(1, 200):
        pack.add(request_id, [64], now)
        batch = pack.next(now)
        served += batch[0].request_id == 0
        now += 0.064  # as much comes as can be done, so the long one has nothing but its age
    assert served == 20


def test_what_was_removed_is_not_encoded() -> None:
    pack = packer()
    pack.add(1, [10, 10], now=0)
    pack.add(2, [10], now=0)
    pack.remove(1)
    pack.remove(7)
    assert len(pack) == 1
    assert pack.next(0) == [Input(2, 0, 10)]
    assert len(pack) == 0


@given(
    requests=st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=12), min_size=1, max_size=12),
    gaps=st.lists(st.floats(0, 1), min_size=12, max_size=12),
    max_tokens=st.integers(16, 256),
    max_inputs=st.integers(1, 8),
    budget=st.floats(0.001, 1),
)
def test_every_input_is_encoded_once_and_no_request_starves(
    requests: list[list[int]], gaps: list[float], max_tokens: int, max_inputs: int, budget: float
) -> None:
    pack = packer(max_tokens, max_inputs, budget)
    now, seen = 0.0, Counter[tuple[int, int]]()
    coming = [sum(gaps[: number + 1]) for number in range(len(requests))]
    arrivals: list[float] = []
    while len(arrivals) < len(requests) or len(pack):
        while (number := len(arrivals)) < len(requests) and (coming[number] <= now or not len(pack)):
            now = max(now, coming[number])
            pack.add(number, requests[number], now)
            arrivals.append(now)
        waiting = [
            number for number in range(len(arrivals)) if sum(n == number for n, _ in seen) < len(requests[number])
        ]
        batch = pack.next(now)
        assert batch, "something waits, and nothing is encoded"
        for number in waiting:  # nobody goes before it who comes when it has waited for as long as it takes
            patience = sum(requests[number]) * TOKEN_SECONDS
            assert arrivals[batch[0].request_id] <= arrivals[number] + patience + 1e-6
        assert len(batch) <= max_inputs
        total = sum(item.tokens for item in batch)
        assert total <= max_tokens or len(batch) == 1
        now += total * TOKEN_SECONDS
        for item in batch:
            assert requests[item.request_id][item.index] == item.tokens
            seen[item.request_id, item.index] += 1
    assert seen == Counter((number, index) for number, inputs in enumerate(requests) for index in range(len(inputs)))
