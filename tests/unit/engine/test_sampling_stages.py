"""The stages of sampling: against a slow and obvious version of each, and against libllama's own."""

import ctypes
import itertools
import math
from collections.abc import Iterator

import llama_cpp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferno_runtime.engine.request import Sampling
from inferno_runtime.engine.sampling import Choice, History, batch, sample

OFF = Sampling(temperature=1.0, top_k=0, top_p=1.0)


def softmax(values: dict[int, float]) -> dict[int, float]:
    peak = max(values.values())
    weights = {token: math.exp(value - peak) for token, value in values.items()}
    total = sum(weights.values())
    return {token: weight / total for token, weight in weights.items()}


def head(values: dict[int, float], count: int) -> dict[int, float]:
    return dict(itertools.islice(values.items(), count))


def reference(row: np.ndarray, choice: Choice, xtc_number: float) -> dict[int, float]:
    """The probabilities a token is drawn with, likeliest first, one stage after the other over a sorted vocabulary."""
    params = choice.sampling
    tokens = [*choice.history.tokens, *choice.ahead]
    generated = tokens[choice.history.prompt_length :]
    values = dict(enumerate(row.astype(float).tolist()))
    for token, bias in params.logit_bias:
        values[token] += bias
    back = len(tokens) if params.repeat_last_n < 0 else params.repeat_last_n
    for token in set(tokens[len(tokens) - min(back, len(tokens)) :]):
        factor = params.repeat_penalty
        values[token] = values[token] * factor if values[token] <= 0 else values[token] / factor
    for token in set(generated):
        values[token] -= params.presence_penalty + params.frequency_penalty * generated.count(token)
    for token, length in repetitions(tokens, params).items():
        values[token] -= params.dry_multiplier * params.dry_base ** (length - params.dry_allowed_length)
    if params.top_n_sigma > 0:
        least = max(values.values()) - params.top_n_sigma * float(np.std(list(values.values())))
        values = {token: value for token, value in values.items() if value >= least}
    values = dict(sorted(values.items(), key=lambda item: (-np.float32(item[1]), item[0])))
    if params.top_k:
        values = head(values, params.top_k)
    if params.typical_p < 1:
        chances = {token: chance for token, chance in softmax(values).items() if chance > 0}
        entropy = -sum(chance * math.log(chance) for chance in chances.values())
        order = sorted(chances, key=lambda token: abs(-math.log(chances[token]) - entropy))
        sums = [0, *itertools.accumulate(chances[token] for token in order)]
        kept = {token for token, before in zip(order, sums, strict=False) if before <= params.typical_p}
        values = {token: value for token, value in values.items() if token in kept}
    if params.top_p < 1:
        sums = [0, *itertools.accumulate(softmax(values).values())]
        values = head(values, max(sum(before < params.top_p for before in sums[:-1]), 1))
    if params.min_p > 0:
        least = max(values.values()) + math.log(params.min_p)
        values = {token: value for token, value in values.items() if value >= least}
    if params.xtc_probability > 0 and xtc_number <= params.xtc_probability and params.xtc_threshold <= 0.5:
        above = sum(chance >= params.xtc_threshold for chance in softmax(values).values())
        values = dict(itertools.islice(values.items(), max(above - 1, 0), None))
    return softmax({token: value / params.temperature for token, value in values.items()})


def repetitions(tokens: list[int], params: Sampling) -> dict[int, int]:
    """By token, how many of the last ones it followed before; long ones are cut at what a float can express."""
    if not params.dry_multiplier:
        return {}
    if params.dry_penalty_last_n >= 0:
        tokens = tokens[max(len(tokens) - params.dry_penalty_last_n, 0) :]
    found: dict[int, int] = {}
    for end in range(1, len(tokens)):
        length = 0
        while length < end and tokens[end - 1 - length] == tokens[-1 - length]:
            length += 1
        if length >= params.dry_allowed_length:
            found[tokens[end]] = max(found.get(tokens[end], 0), length)
    most = int(math.log(np.finfo(np.float32).max) / math.log(params.dry_base))
    return {token: min(length, params.dry_allowed_length + most) for token, length in found.items()}


def drawn_at(row: np.ndarray, choice: Choice, numbers: list[float], xtc_number: float) -> list[int]:
    """The tokens that `sample` takes where the random numbers are these."""
    served = iter(numbers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "uniform", lambda *of: xtc_number if len(of) == 3 else next(served))
        chosen = sample(np.repeat(row[None], len(numbers), axis=0), [choice] * len(numbers))
    assert all(isinstance(token, int) for token in chosen)
    return [token for token in chosen if isinstance(token, int)]


def draws_as(row: np.ndarray, choice: Choice, expected: dict[int, float], xtc_number: float) -> None:
    """Check that the tokens fill the numbers from 0 to 1 with their probabilities, likeliest first."""
    params = choice.sampling
    if params.top_k == 0 and params.typical_p == params.top_p == 1 and params.xtc_probability == 0:
        width = -(-len(row) // 64)  # the order of a draw without ranks: by column of the row in 64 lines
        expected = dict(sorted(expected.items(), key=lambda item: (item[0] % width, item[0])))
    sums = [0.0, *itertools.accumulate(expected.values())]
    inner = [
        (token, low + part * (high - low))
        for token, (low, high) in zip(expected, itertools.pairwise(sums), strict=True)
        for part in (0.05, 0.95)
        if high - low > 1e-4
    ]
    assert drawn_at(row, choice, [number for _, number in inner], xtc_number) == [token for token, _ in inner]


parameters = st.builds(
    Sampling,
    temperature=st.floats(0.1, 2),
    top_k=st.sampled_from([0, 1, 2, 5, 20, 100, 1000]),
    typical_p=st.just(1.0) | st.floats(0.0113, 0.999),
    top_p=st.just(1.0) | st.floats(0.0113, 0.999),
    min_p=st.just(0.0) | st.floats(0.00113, 0.999),
    top_n_sigma=st.just(0.0) | st.floats(0.113, 4),
    xtc_probability=st.sampled_from([0.0, 0.5, 1.0]),
    xtc_threshold=st.floats(0.0113, 0.6),
    presence_penalty=st.sampled_from([0.0, 0.3, -0.7]),
    frequency_penalty=st.sampled_from([0.0, 0.17, -0.4]),
    repeat_penalty=st.sampled_from([1.0, 1.3, 0.8]),
    repeat_last_n=st.sampled_from([-1, 0, 3, 64]),
    dry_multiplier=st.sampled_from([0.0, 0.8]),
    dry_base=st.sampled_from([1.1, 1.75, 40.0]),
    dry_allowed_length=st.integers(0, 3),
    dry_penalty_last_n=st.sampled_from([-1, 0, 2, 10]),
    logit_bias=st.lists(st.tuples(st.integers(0, 4), st.floats(-3, 3)), max_size=3, unique_by=lambda pair: pair[0]).map(
        tuple
    ),
)


@settings(max_examples=400, deadline=None)
@given(
    params=parameters,
    size=st.sampled_from([5, 40, 500, 3000]),
    tokens=st.lists(st.integers(0, 4), min_size=1, max_size=30),
    prompt=st.integers(0, 10),
    ahead=st.integers(0, 5),
    number=st.integers(0, 2**32),
)
def test_tokens_are_drawn_as_the_stages_say(
    params: Sampling, size: int, tokens: list[int], prompt: int, ahead: int, number: int
) -> None:
    rng = np.random.default_rng(number)
    row = rng.normal(0, 2, size).astype(np.float32)
    known = tokens[: max(len(tokens) - ahead, 1)]
    choice = Choice(params, History(known, min(prompt, len(known))), tuple(tokens[len(known) :]))
    chance = float(rng.uniform())
    if params.greedy:
        return
    draws_as(row, choice, reference(row, choice, chance), chance)


class Chain:
    """libllama's samplers, applied to a row."""

    def __init__(self, params: Sampling, tokens: list[int], size: int) -> None:
        self._chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        for sampler in self._stages(params, size):
            llama_cpp.llama_sampler_chain_add(self._chain, sampler)
        for token in tokens:
            llama_cpp.llama_sampler_accept(self._chain, token)

    def _stages(self, params: Sampling, size: int) -> Iterator[object]:
        if params.logit_bias:
            pairs = [llama_cpp.llama_logit_bias(token, bias) for token, bias in params.logit_bias]
            yield llama_cpp.llama_sampler_init_logit_bias(
                size, len(pairs), (llama_cpp.llama_logit_bias * len(pairs))(*pairs)
            )
        yield llama_cpp.llama_sampler_init_penalties(
            size, params.repeat_last_n, params.repeat_penalty, params.frequency_penalty, params.presence_penalty
        )
        yield llama_cpp.llama_sampler_init_dry(
            None, params.dry_multiplier, params.dry_base, params.dry_allowed_length, params.dry_penalty_last_n, None, 0
        )
        yield llama_cpp.llama_sampler_init_top_n_sigma(params.top_n_sigma)
        yield llama_cpp.llama_sampler_init_top_k(params.top_k)
        yield llama_cpp.llama_sampler_init_typical(params.typical_p, 1)
        yield llama_cpp.llama_sampler_init_top_p(params.top_p, 1)
        yield llama_cpp.llama_sampler_init_min_p(params.min_p, 1)
        yield llama_cpp.llama_sampler_init_xtc(params.xtc_probability, params.xtc_threshold, 1, 0)
        yield llama_cpp.llama_sampler_init_temp(params.temperature)
        yield llama_cpp.llama_sampler_init_dist(0)

    def probabilities(self, row: np.ndarray) -> dict[int, float]:
        data = (llama_cpp.llama_token_data * len(row))(*((i, value, 0.0) for i, value in enumerate(row.tolist())))
        array = llama_cpp.llama_token_data_array(data, len(row), -1, False)
        llama_cpp.llama_sampler_apply(self._chain, ctypes.byref(array))
        left = {array.data[i].id: array.data[i].p for i in range(array.size) if array.data[i].p > 0}
        llama_cpp.llama_sampler_free(self._chain)
        return dict(sorted(left.items(), key=lambda item: -item[1]))


@pytest.mark.parametrize("size", [100, 5000])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"top_k": 40},
        {"top_k": 40, "top_p": 0.9, "temperature": 0.7},
        {"top_p": 0.8},
        {"min_p": 0.05, "temperature": 1.3},
        {"top_k": 80, "typical_p": 0.6},
        {"typical_p": 0.7},
        {"top_k": 80, "typical_p": 0.8, "top_p": 0.7, "min_p": 0.02},
        {"top_n_sigma": 1.2},
        {"top_n_sigma": 1.0, "top_k": 30, "top_p": 0.8},
        {"top_k": 50, "xtc_probability": 1.0, "xtc_threshold": 0.02},
        {"min_p": 0.03, "xtc_probability": 1.0, "xtc_threshold": 0.05},
        {"logit_bias": ((3, 4.0), (7, -100.0)), "top_k": 20},
        {"repeat_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.2, "repeat_last_n": 64, "top_k": 50},
        {"dry_multiplier": 1.2, "dry_penalty_last_n": 60, "top_k": 50},
        {"dry_multiplier": 0.5, "dry_base": 1.2, "dry_allowed_length": 1, "dry_penalty_last_n": 20, "top_k": 50},
    ],
    ids=lambda changes: "+".join(changes) or "off",
)
def test_the_stages_leave_what_those_of_libllama_leave(changes: dict[str, object], size: int) -> None:
    fields = {name: getattr(OFF, name) for name in OFF.__struct_fields__}
    params = Sampling(**{**fields, **changes})
    for number in range(5):
        rng = np.random.default_rng(number)
        row = rng.normal(0, 2.5, size).astype(np.float32)
        tokens = rng.integers(0, 6, 60).tolist()
        theirs = Chain(params, tokens, size).probabilities(row)
        choice = Choice(params, History(tokens, 0))
        ours = reference(row, choice, 0.0)
        draws_as(row, choice, ours, 0.0)
        assert set(list(theirs)[:-1]) <= set(ours)  # the last one may fall either way by rounding
        assert set(list(ours)[:-1]) <= set(theirs)
        for token, chance in theirs.items():
            assert ours.get(token, 0.0) == pytest.approx(chance, rel=1e-3, abs=1e-6)
