"""Speculation: what is proposed, how much of it a step takes, and that it pays where it is on."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferno_runtime.engine.draft import Acceptance, BatchCost, DraftPolicy, PromptLookup, Rehearsal, accept


def slow_lookup(tokens: list[int], most: int) -> list[int]:
    """The same by looking through everything."""
    for length in (4, 3, 2):
        for end in range(len(tokens) - 1, length - 1, -1):
            if len(tokens) > length and tokens[end - length : end] == tokens[-length:]:
                period = min(len(tokens) - end, most)
                return [tokens[end + i % period] for i in range(most)]
    return []


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([], []),
        ([1], []),
        ([1, 2], []),
        ([1, 1], []),
        ([1, 1, 1], [1, 1, 1, 1, 1]),
        ([1, 2, 3, 4, 5, 6, 1, 2], [3, 4, 5, 6, 1]),
        ([1, 2, 3, 1, 2, 4, 1, 2], [4, 1, 2, 4, 1]),  # the latest occurrence counts, and it goes on in circles
        ([9, 1, 2, 3, 8, 1, 2, 4, 9, 1, 2], [3, 8, 1, 2, 4]),  # but a longer n-gram comes first
        ([1, 2, 3], []),
        ([0, 0, 5, 0, 0], [5, 0, 0, 5, 0]),
    ],
)
def test_what_followed_the_last_tokens_before_is_proposed(tokens: list[int], expected: list[int]) -> None:
    assert PromptLookup(tokens).propose(5) == expected
    assert PromptLookup(tokens).propose(0) == []


@given(st.lists(st.integers(0, 3), max_size=60), st.lists(st.integers(0, 9), max_size=10), st.integers(1, 9))
def test_a_lookup_follows_its_tokens(tokens: list[int], pieces: list[int], most: int) -> None:
    known: list[int] = []
    lookup = PromptLookup(known)
    for piece in [*pieces, len(tokens)]:
        known.extend(tokens[len(known) : len(known) + piece])
        assert lookup.propose(most) == slow_lookup(known, most)


@pytest.mark.parametrize(
    ("draft", "sampled", "accepted"),
    [
        ([], [5], 0),
        ([5], [5, 6], 1),
        ([5], [6, 6], 0),
        ([5, 6, 7], [5, 6, 8, 9], 2),
        ([5, 6, 7], [6, 6, 7, 9], 0),
        ([5, 6], [5, ValueError("no token"), 7], 1),
    ],
)
def test_a_draft_stands_as_far_as_it_equals_what_was_sampled(
    draft: list[int], sampled: list[object], accepted: int
) -> None:
    assert accept(draft, sampled) == accepted


def test_the_cost_of_a_batch_lies_between_those_that_were_measured() -> None:
    cost = BatchCost()
    assert cost.seconds(3) == 0
    cost.observe(4, 1.0)
    assert cost.seconds(4) == cost.seconds(2) == 1.0
    assert 1.0 < cost.seconds(8) < 2.0
    cost.observe(8, 3.0)
    assert cost.seconds(6) == pytest.approx(2.0)
    cost.observe(8, 1000.0)
    assert cost.seconds(8) < 4.0
    for _ in range(50):
        cost.observe(8, 1.2)
    assert cost.seconds(8) == pytest.approx(1.2, rel=0.01)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40), st.integers(1, 400))
def test_the_cost_of_what_costs_more_is_more(sizes: list[int], tokens: int) -> None:
    cost = BatchCost()
    for size in sizes:
        cost.observe(size, 1.0 + size)
    assert cost.seconds(tokens) <= cost.seconds(tokens + 1) * (1 + 1e-9)
    if min(sizes) <= tokens <= max(sizes):
        assert cost.seconds(tokens) == pytest.approx(1.0 + tokens, rel=0.13)  # sizes are rounded


def policy_with(seconds: Callable[[int], float]) -> DraftPolicy:
    policy = DraftPolicy()
    for size in range(1, 80):
        policy.observe_cost(size, seconds(size))
    return policy


def with_rate(rate: float) -> Acceptance:
    return Acceptance(accepted=rate * 10, rejected=(1 - rate) * 10)


@pytest.mark.parametrize(
    ("seconds", "rates", "proposed", "allotted"),
    [
        pytest.param(lambda n: 1.0, [0.9], [8], [8], id="where a batch costs the same, everything"),
        pytest.param(lambda n: float(n), [0.9], [8], [0], id="where every token costs the same, nothing"),
        pytest.param(lambda n: 1.0 + 0.2 * n, [0.5], [8], [2], id="what pays and no more"),
        pytest.param(lambda n: 1.0 + 0.2 * n, [0.9], [3], [3], id="no more than proposed"),
        pytest.param(lambda n: 1.0, [0.9, 0.2], [8, 8], [8, 1], id="the likelier sequence more"),
        pytest.param(lambda n: 1.0 if n <= 4 else 9.0, [0.8, 0.7], [8, 8], [1, 1], id="up to where the cost jumps"),
        pytest.param(lambda n: 1.0, [0.9, 0.8, 0.7], [20, 0, 20], [8, 0, 2], id="no more than the batch takes"),
    ],
)
def test_a_step_takes_the_drafts_that_pay(
    seconds: Callable[[int], float], rates: list[float], proposed: list[int], allotted: list[int]
) -> None:
    sequences = [with_rate(rate) for rate in rates]
    assert policy_with(seconds).allot(sequences, proposed, most=10) == allotted


@pytest.mark.parametrize(("proposing", "allotted"), [(0.0, 8), (0.2, 4), (1.0, 0)])
def test_what_a_draft_costs_to_propose_counts(proposing: float, allotted: int) -> None:
    policy = policy_with(lambda n: 1.0)
    assert policy.allot([with_rate(0.8)], [8], most=10, seconds=[proposing]) == [allotted]


def test_failures_may_be_forgiven() -> None:
    sequence = Acceptance(8, 2, forgiven=2)
    pauses = []
    for _ in range(4):
        sequence.observe(1, 0)
        pauses.append(sequence.pause)
    assert pauses == [0, 0, 1, 3]


def test_a_sequence_that_fails_pauses_longer_each_time_and_returns_with_one_token() -> None:
    policy, sequence = policy_with(lambda n: 1.0), with_rate(0.8)
    pauses = []
    for _ in range(9):
        sequence.observe(1, 0)
        waited = 0
        while policy.allot([sequence], [8], most=10) == [0]:
            waited += 1
        pauses.append(waited)
        assert sequence.failures
    assert pauses == [1, 3, 7, 15, 31, 63, 64, 64, 64]
    sequence.observe(1, 1)
    assert (sequence.failures, sequence.pause) == (0, 0)
    assert policy.allot([sequence], [8], most=0) == [0]


def test_what_does_not_pay_is_tried_now_and_then() -> None:
    policy = policy_with(lambda n: float(n))
    tried = [step for step in range(2000) if policy.allot([with_rate(0.6)], [8], most=10) != [0]]
    assert 4 <= len(tried) <= 9
    assert tried[0] < 20


@pytest.mark.parametrize(
    ("come", "seen"),
    [
        ([1, 2, 3], (3, 0)),
        ([1, 2, 4], (2, 1)),
        ([9, 9, 9], (0, 1)),
    ],
)
def test_a_rehearsed_draft_is_judged_as_soon_as_it_is_clear(come: list[int], seen: tuple[int, int]) -> None:
    rehearsal, acceptance = Rehearsal(), Acceptance(0.0, 0.0)
    tokens = [7, 7]
    rehearsal.begin(len(tokens), [1, 2, 3])
    for token in come:
        rehearsal.judge(tokens, acceptance)
        assert rehearsal.under_way == (tokens[2:] == [1, 2, 3][: len(tokens) - 2])
        tokens.append(token)
    rehearsal.judge(tokens, acceptance)
    assert not rehearsal.under_way
    assert (acceptance.accepted, acceptance.rejected) == seen


def test_text_that_begins_to_repeat_ends_a_pause() -> None:
    sequence = with_rate(0.5)
    for _ in range(6):
        sequence.observe(4, 0)
    assert sequence.pause == 63
    rehearsal = Rehearsal()
    rehearsal.begin(0, [1, 2, 3, 4])
    rehearsal.judge([1, 2, 3, 4], sequence)
    assert sequence.pause == sequence.failures == 0
    assert sequence.rate > 0.5


@dataclass
class Outcome:
    seconds: float = 0.0
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0


def simulate(texts: list[list[int]], cost: Callable[[int], float], prompt: int, drafts: bool) -> Outcome:
    """Decode texts that are known in advance; a batch takes virtual time."""
    policy, outcome = DraftPolicy(), Outcome()
    known = [text[:prompt] for text in texts]
    lookups = [PromptLookup(tokens) for tokens in known]
    states = [Acceptance() for _ in texts]
    while left := [i for i in range(len(texts)) if len(known[i]) < len(texts[i])]:
        proposals = [lookups[i].propose(8) if drafts and not states[i].pause else [] for i in left]
        allotted = policy.allot([states[i] for i in left], [len(p) for p in proposals], most=64)
        seconds = cost(len(left) + sum(allotted))
        policy.observe_cost(len(left) + sum(allotted), seconds)
        outcome.seconds += seconds
        for i, proposal, length in zip(left, proposals, allotted, strict=True):
            draft = proposal[:length]
            sampled = texts[i][len(known[i]) : len(known[i]) + length + 1]
            accepted = accept(draft, sampled)
            if draft:
                states[i].observe(len(draft), accepted)
            outcome.drafted += length
            outcome.accepted += accepted
            outcome.tokens += len(sampled[: accepted + 1])
            known[i].extend(sampled[: accepted + 1])
    assert known == texts
    return outcome


def repetitive(rng: random.Random) -> list[int]:
    """Sentences that return again and again, with a slip every twelve tokens or so."""
    sentences = [[rng.randrange(5000) for _ in range(30)] for _ in range(4)]
    text = [token for _ in range(40) for token in rng.choice(sentences)]
    return [rng.randrange(5000) if rng.random() < 0.08 else token for token in text]


def unpredictable(rng: random.Random) -> list[int]:
    """Tokens as frequent as words are, so that pairs return, with nothing to tell what follows them."""
    return [int(rng.paretovariate(0.6)) % 5000 for _ in range(1200)]


def bound_by_memory(tokens: int) -> float:
    return 10.0 + 0.3 * tokens


def bound_by_arithmetic(tokens: int) -> float:
    return 1.0 + 1.0 * tokens


@pytest.mark.parametrize(
    ("text", "cost", "count", "least_gain", "most_gain", "most_drafted"),
    [
        pytest.param(repetitive, bound_by_memory, 1, 2.0, 9, 3.0, id="repetitive, one"),
        pytest.param(repetitive, bound_by_memory, 8, 1.3, 9, 3.0, id="repetitive, eight"),
        pytest.param(repetitive, bound_by_arithmetic, 8, 0.98, 1.2, 0.3, id="repetitive, arithmetic"),
        pytest.param(unpredictable, bound_by_memory, 1, 0.99, 1.1, 0.1, id="unpredictable, one"),
        pytest.param(unpredictable, bound_by_memory, 8, 0.99, 1.1, 0.1, id="unpredictable, eight"),
        pytest.param(unpredictable, bound_by_arithmetic, 8, 0.97, 1.1, 0.1, id="unpredictable, arithmetic"),
    ],
)
def test_drafts_are_on_where_they_pay_and_off_where_not(
    text: Callable[[random.Random], list[int]],
    cost: Callable[[int], float],
    count: int,
    least_gain: float,
    most_gain: float,
    most_drafted: float,
) -> None:
    texts = [text(random.Random(number)) for number in range(count)]
    without = simulate(texts, cost, prompt=40, drafts=False)
    speculating = simulate(texts, cost, prompt=40, drafts=True)
    assert without.tokens == speculating.tokens
    assert least_gain <= without.seconds / speculating.seconds <= most_gain
    assert speculating.drafted <= most_drafted * speculating.tokens
