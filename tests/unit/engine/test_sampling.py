"""The choice of tokens: against a slow and obvious version of the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferno_runtime.engine.request import Sampling
from inferno_runtime.engine.sampling import SamplingError, largest, sample, uniform


def distribution(row: np.ndarray, params: Sampling) -> dict[int, float]:
    """The probabilities that the parameters leave, computed over the sorted vocabulary."""
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))
    if params.top_k:
        order = order[: params.top_k]
    weights = np.exp(row[order].astype(np.float64) - row[order[0]])
    if params.top_p < 1:
        cumulative = np.cumsum(weights / weights.sum())
        order = order[: int(np.searchsorted(cumulative, params.top_p)) + 1]
    order = [i for i in order if row[i] >= row[order[0]] + (np.log(params.min_p) if params.min_p else -np.inf)]
    weights = np.exp((row[order].astype(np.float64) - row[order[0]]) / params.temperature)
    return dict(zip(order, weights / weights.sum(), strict=True))


@pytest.mark.parametrize("size", [100, 1000, 5000, 50_001])
@pytest.mark.parametrize("count", [1, 7, 40, 100])
def test_largest_is_the_head_of_a_stable_sort(size: int, count: int) -> None:
    row = np.random.default_rng(size).normal(size=size).astype(np.float32).round(1)  # with many equal values
    assert largest(row, count).tolist() == np.argsort(-row, kind="stable")[:count].tolist()


@settings(max_examples=150, deadline=None)
@given(
    logits=st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=300),
    params=st.builds(
        Sampling,
        temperature=st.floats(0.05, 2),
        top_k=st.integers(0, 100),
        top_p=st.floats(0.01, 1),
        min_p=st.floats(0, 1),
        seed=st.integers(0, 2**63),
    ),
)
def test_a_draw_is_one_that_the_parameters_allow(logits: list[float], params: Sampling) -> None:
    row = np.array([logits], dtype=np.float32)
    allowed = distribution(row[0], params)
    for position in range(5):
        (token,) = sample(row.copy(), [(params, {}, position)])
        # a token at the very edge of the nucleus may fall either way by rounding
        assert isinstance(token, int)
        assert token in allowed or row[0, token] >= min(row[0, i] for i in allowed) - 1e-3


def test_draws_follow_the_distribution() -> None:
    row = np.array([2.0, 1.0, 0.5, -1.0], dtype=np.float32)
    params = Sampling(temperature=0.8, top_k=3, top_p=1.0)
    draws = [sample(row[None].copy(), [(params, {}, position)])[0] for position in range(8000)]
    for token, probability in distribution(row, params).items():
        assert draws.count(token) / len(draws) == pytest.approx(probability, abs=0.02)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    rng = np.random.default_rng(1)
    nothing: dict[int, int] = {}
    block = rng.normal(size=(6, 2000)).astype(np.float32)
    rows = [(Sampling(temperature=t, seed=i), nothing, i) for i, t in enumerate((0.0, 0.7, 1.5, 0.0, 2.0, 0.3))]
    together = sample(block.copy(), rows)
    alone = [sample(block[i : i + 1].copy(), [rows[i]])[0] for i in range(6)]
    assert together == alone


def test_penalties_count_what_was_generated() -> None:
    row = np.array([[3.0, 2.9, 0.0]], dtype=np.float32)
    greedy = Sampling(temperature=0, presence_penalty=0.05, frequency_penalty=0.04)
    assert sample(row.copy(), [(greedy, {}, 0)]) == [0]
    assert sample(row.copy(), [(greedy, {0: 1}, 1)]) == [0]  # 3.0 - 0.09 is still more than 2.9
    assert sample(row.copy(), [(greedy, {0: 2}, 2)]) == [1]


@pytest.mark.parametrize("bad", [np.nan, -np.inf, np.inf])
def test_logits_that_allow_no_choice_fail_their_row_alone(bad: float) -> None:
    block = np.zeros((2, 50), dtype=np.float32)
    block[0] = bad
    block[1, 3] = 1.0
    first, second = sample(block, [(Sampling(), {}, 0), (Sampling(temperature=0), {}, 0)])
    assert isinstance(first, SamplingError)
    assert second == 3


def test_uniform_is_fixed_and_even() -> None:
    numbers = [uniform(seed, position) for seed in range(50) for position in range(50)]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= number < 1 for number in numbers)
    assert np.histogram(numbers, bins=10, range=(0, 1))[0].min() > 200
    assert uniform(7, 3) == uniform(7, 3)
