"""The choice of tokens: what holds for every stage. The stages themselves are in test_sampling_stages."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferno_runtime.engine.request import Sampling
from inferno_runtime.engine.sampling import Choice, History, SamplingError, sample, truncation, uniform, whole
from inferno_runtime.engine.sampling.ranking import largest

ALL_OFF = Sampling(temperature=1.0, top_k=0, top_p=1.0)
KINDS = {
    "greedy": Sampling(temperature=0),
    "default": Sampling(),
    "hot": Sampling(temperature=2.0, top_k=0, top_p=1.0),
    "nucleus": Sampling(top_k=0, top_p=0.95),
    "flat nucleus": Sampling(top_k=0, top_p=0.9999),
    "min-p": Sampling(top_k=0, top_p=1.0, min_p=0.02),
    "wide": Sampling(top_k=300, top_p=0.99, min_p=0.001),
    "typical": Sampling(top_k=50, typical_p=0.7),
    "typical of all": Sampling(top_k=0, top_p=1.0, typical_p=0.8),
    "sigma": Sampling(top_k=0, top_p=1.0, top_n_sigma=1.1),
    "sigma of few": Sampling(top_n_sigma=1.1),
    "xtc": Sampling(top_k=0, top_p=1.0, min_p=0.01, xtc_probability=0.5, xtc_threshold=0.02),
    "xtc of all": Sampling(top_k=0, top_p=1.0, xtc_probability=0.5, xtc_threshold=0.02),
    "penalties": Sampling(presence_penalty=0.5, frequency_penalty=0.3, repeat_penalty=1.2, logit_bias=((5, 2.0),)),
    "dry": Sampling(dry_multiplier=0.8),
}


def choice(params: Sampling, position: int = 0) -> Choice:
    return Choice(params, History([1] * position, position))


def first_of(values: list[float], count: int) -> list[int]:
    return sorted(range(len(values)), key=lambda index: (-values[index], index))[:count]


@pytest.mark.parametrize("size", [3, 100, 1000, 5000, 49_152, 50_001, 151_936])
@pytest.mark.parametrize("count", [1, 7, 40, 500, 3000])
def test_the_largest_are_the_head_of_a_stable_sort(size: int, count: int) -> None:
    block = np.random.default_rng(size).normal(size=(3, size)).astype(np.float32).round(2)  # with many equal values
    block[1, : size // 3] *= 1e-3  # and zeros of either sign
    block[2, 5:] = -np.inf  # what is not above minus infinity is not found
    ids, values = largest(block, min(count, size))
    expected = np.argsort(-block, axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(values, np.take_along_axis(block, expected, axis=1))
    np.testing.assert_array_equal(ids[:2], expected[:2])
    np.testing.assert_array_equal(ids[2, :5], expected[2, : min(5, count)])


@settings(max_examples=100, deadline=None)
@given(row=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=600), count=st.integers(1, 8))
def test_the_largest_of_any_numbers(row: list[float], count: int) -> None:
    finite = [index for index in first_of(row, count) if row[index] > -np.inf]
    ids, values = largest(np.array([row], dtype=np.float32), min(count, len(row)))
    assert ids[0, : len(finite)].tolist() == finite
    assert values[0, : len(finite)].tolist() == [row[index] for index in finite]


@pytest.mark.parametrize("vocabulary", [50, 3000, 49_155])
def test_a_row_does_not_depend_on_its_neighbours(vocabulary: int) -> None:
    rng = np.random.default_rng(vocabulary)
    params = [msgspec.structs.replace(each, seed=seed) for seed in range(3) for each in KINDS.values()]
    block = rng.normal(0, 2, (len(params), vocabulary)).astype(np.float32)
    histories = [History(rng.integers(0, 9, 20 + i).tolist(), 5 + i) for i in range(len(params))]
    rows = [Choice(each, history) for each, history in zip(params, histories, strict=True)]
    together = sample(block.copy(), rows)
    order = rng.permutation(len(rows))
    shuffled = sample(block[order], [rows[i] for i in order])
    alone = [sample(block[i : i + 1].copy(), [row])[0] for i, row in enumerate(rows)]
    assert together == alone
    assert [shuffled[i] for i in np.argsort(order)] == alone


def test_sums_over_a_row_do_not_depend_on_its_neighbours_bit_for_bit() -> None:
    block = np.random.default_rng(2).normal(0, 3, (7, 49_155)).astype(np.float32)
    peaks = block.max(axis=1, keepdims=True)
    mass, spread = whole.mass(block, peaks, None), whole.deviation(block)
    values = -np.sort(-block.astype(np.float64), axis=1)[:, :100]
    _, sums = truncation.weights(values)
    padded = np.pad(values, ((0, 0), (0, 33)), constant_values=-np.inf)  # a neighbour with more candidates
    _, padded_sums = truncation.weights(padded)
    for i in range(7):
        row = block[i : i + 1].copy()
        assert whole.mass(row, peaks[i : i + 1], None) == mass[i]
        assert whole.deviation(row) == spread[i]
        np.testing.assert_array_equal(truncation.weights(values[i : i + 1])[1][0], sums[i])
    assert (padded_sums[:, -1] == sums[:, -1]).all()


def test_draws_follow_the_distribution() -> None:
    row = np.array([[2.0, 1.0, 0.5, -1.0]], dtype=np.float32)
    params = Sampling(temperature=0.8, top_k=3, top_p=1.0)
    draws = sample(np.repeat(row, 8000, axis=0), [choice(params, position) for position in range(8000)])
    weights = np.exp(row[0, :3] / 0.8)
    for token, probability in enumerate(weights / weights.sum()):
        assert draws.count(token) / len(draws) == pytest.approx(probability, abs=0.02)


def test_penalties_count_what_was_generated() -> None:
    row = np.array([[3.0, 2.9, 0.0]], dtype=np.float32)
    greedy = Sampling(temperature=0, presence_penalty=0.05, frequency_penalty=0.04)
    history = History([0, 0, 0], prompt_length=3)
    assert sample(row.copy(), [Choice(greedy, history)]) == [0]  # the prompt does not count
    history.tokens.append(0)
    assert sample(row.copy(), [Choice(greedy, history)]) == [0]  # 3.0 - 0.09 is still more than 2.9
    assert sample(row.copy(), [Choice(greedy, history, ahead=(0,))]) == [1]
    assert sample(row.copy(), [Choice(greedy, history)]) == [0]  # what lay ahead is forgotten
    history.tokens.append(0)
    assert sample(row.copy(), [Choice(greedy, history)]) == [1]


@settings(max_examples=50, deadline=None)
@given(
    tokens=st.lists(st.integers(0, 5), min_size=4, max_size=40),
    cuts=st.lists(st.integers(1, 40), max_size=5),
    ahead=st.integers(0, 3),
)
def test_a_history_that_grew_is_one_that_was_there_at_once(tokens: list[int], cuts: list[int], ahead: int) -> None:
    grown = History(tokens[:1], 1)
    for cut in sorted(cuts):
        grown.tokens.extend(tokens[len(grown.tokens) : min(cut, len(tokens) - ahead)])
        grown.generated()
        grown.last(-1)
    known, rest = list(grown.tokens), tokens[len(grown.tokens) :]
    at_once = [*known, *rest]
    ids, counts = grown.generated(rest)
    assert dict(zip(ids.tolist(), counts.tolist(), strict=True)) == {t: at_once[1:].count(t) for t in at_once[1:]}
    assert grown.last(-1, rest).tolist() == at_once
    assert grown.last(7, rest).tolist() == at_once[-7:]
    assert grown.last(0, rest).tolist() == []


def test_a_long_repetition_costs_dry_no_more_than_what_a_float_holds() -> None:
    history = History([7, 8] * 3000, 0)
    logits = np.zeros((1, 50), dtype=np.float32)
    assert sample(logits, [Choice(Sampling(temperature=0, dry_multiplier=1.0), history)]) == [0]
    assert logits[0, 7] < -1e37
    assert np.isfinite(logits[0, 7])


def test_a_bias_for_a_token_that_is_not_in_the_vocabulary_is_ignored() -> None:
    biased = Sampling(temperature=0, logit_bias=((50, 9.0), (-1, 9.0), (4, 5.0)))
    assert sample(np.zeros((1, 50), dtype=np.float32), [choice(biased)]) == [4]


@pytest.mark.parametrize("params", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("bad", [np.nan, -np.inf, np.inf])
@pytest.mark.parametrize("vocabulary", [50, 30_000])
def test_logits_that_allow_no_choice_fail_their_row_alone(params: Sampling, bad: float, vocabulary: int) -> None:
    block = np.zeros((4, vocabulary), dtype=np.float32)
    block[0] = bad
    block[1, 3] = block[3, 3] = 90.0
    block[2, 7] = np.nan
    first, second, third, fourth = sample(block, [choice(params)] * 4)
    assert isinstance(first, SamplingError)
    assert isinstance(third, SamplingError)
    assert second == fourth == 3


@pytest.mark.parametrize("params", KINDS.values(), ids=KINDS)
def test_a_masked_token_is_never_drawn(params: Sampling) -> None:
    block = np.full((50, 2000), -np.inf, dtype=np.float32)
    block[:, [3, 700, 1999]] = np.random.default_rng(0).normal(size=(50, 3))
    assert set(sample(block, [choice(params, position) for position in range(50)])) <= {3, 700, 1999}


def test_choices_are_cheap_to_vary() -> None:
    made = choice(ALL_OFF, 4)
    assert (made.position, replace(made, ahead=(1, 2)).position) == (4, 6)


def test_uniform_is_fixed_and_even() -> None:
    numbers = [uniform(seed, position, stream) for seed in range(50) for position in range(50) for stream in (0, 1)]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= number < 1 for number in numbers)
    assert np.histogram(numbers, bins=10, range=(0, 1))[0].min() > 400
    assert abs(np.corrcoef(numbers[::2], numbers[1::2])[0, 1]) < 0.05
    assert uniform(7, 3) == uniform(7, 3) == uniform(7 + 2**64, 3)
