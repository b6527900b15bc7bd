"""How likely tokens were: the arithmetic, and which tokens are told of however they came about."""

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inferno_runtime.backends.base import MemoryTraits
from inferno_runtime.engine.request import Scores
from inferno_runtime.engine.scoring import Row, Scored
from inferno_runtime.worker.transcript import LEAST, unpacked
from tests.unit.engine.rig import END, Rig, successor_in_circles

LIKELIEST = -np.log1p(127 * np.exp(-10))  # of the fake model: 128 logits of 0, but one of 10


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return np.asarray(wide - np.log(np.exp(wide).sum(axis=1, keepdims=True)))


@pytest.mark.parametrize("size", [2, 7, 1730, 150_000])
@pytest.mark.parametrize("top", [0, 1, 5, 20])
def test_logarithms_of_the_models_own_probabilities(size: int, top: int) -> None:
    logits = np.random.default_rng(size).normal(scale=8, size=(5, size)).astype(np.float32)
    expected = log_softmax(logits)
    scored = Scored(logits, [Row(index, top) for index in (1, 2, 4)])
    logits[:] = 0  # as if penalties had changed them
    tokens = [1, size - 1]
    told = list(unpacked(scored.scores(7, 1, tokens)))
    for row, token, (logprob, likeliest) in zip((1, 2), tokens, told, strict=True):
        assert logprob == pytest.approx(expected[row, token], abs=1e-4)
        order = np.argsort(-expected[row], kind="stable")[:top].tolist()
        assert [token for token, _ in likeliest] == order
        assert [value for _, value in likeliest] == pytest.approx(expected[row, order].tolist(), abs=1e-4)


def test_each_row_has_as_many_as_it_wants_and_shows_nothing_of_its_neighbours() -> None:
    logits = np.random.default_rng(1).normal(size=(4, 1000)).astype(np.float32)
    together = Scored(logits, [Row(0, 3), Row(1, 20), Row(3, 0)])
    alone = Scored(logits[:1].copy(), [Row(0, 3)])
    assert together.scores(1, 0, [5]) == alone.scores(1, 0, [5])
    assert [len(unpacked_row[1]) for unpacked_row in unpacked(together.scores(1, 1, [5]))] == [20]
    assert [len(unpacked_row[1]) for unpacked_row in unpacked(together.scores(1, 3, [5]))] == [0]


def test_what_is_impossible_has_a_number_too() -> None:
    logits = np.full((1, 300), -np.inf, dtype=np.float32)
    logits[0, [4, 9]] = 1.0
    ((logprob, likeliest),) = unpacked(Scored(logits, [Row(0, 5)]).scores(1, 0, [7]))
    assert logprob == LEAST
    assert [token for token, _ in likeliest] == [4, 9]
    assert [value for _, value in likeliest] == pytest.approx([np.log(0.5)] * 2)


# In the scheduler


class Scoring(Rig):
    """Keeps what was told of each sequence's tokens."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.told: dict[tuple[int, bool], list[tuple[float, Any]]] = defaultdict(list)
        step = self.scheduler.step

        def scored_step() -> Any:
            result = step()
            for scores in result.scores:
                self.told[scores.id, scores.prompt] += unpacked(scores)
            return result

        self.scheduler.step = scored_step  # type: ignore[method-assign]


@pytest.mark.parametrize("speculate", [False, True])
def test_every_token_is_told_of_once(speculate: bool) -> None:
    rig = Scoring(slots=3, context=256, speculate=speculate, choose=successor_in_circles)
    rig.submit(1, [5, 6, 7], 60, top_scores=2)
    rig.submit(2, [5, 6, 8], 60)
    rig.submit(3, [9], 60, top_scores=0)
    rig.run()
    assert [key for key in rig.told if key[0] == 2] == []
    for number, width in ((1, 2), (3, 0)):
        told = rig.told[number, False]
        assert len(told) == len(rig.said[number]) == 60
        for (logprob, likeliest), token in zip(told, rig.said[number], strict=True):
            assert logprob == pytest.approx(LIKELIEST, abs=1e-5)
            assert len(likeliest) == width
            assert not width or likeliest[0] == (token, logprob)
    assert (rig.scheduler.speculation.accepted > 0) is speculate


def test_the_token_that_ends_a_text_is_not_told_of() -> None:
    rig = Scoring(choose=lambda tokens, size: END if len(tokens) == 6 else 1)
    rig.submit(1, [5, 6, 7], 60, top_scores=1)
    rig.run()
    assert len(rig.told[1, False]) == len(rig.said[1]) == 3


def test_a_prompt_is_told_of_whole_though_another_has_it_already() -> None:
    rig = Scoring(slots=2, context=256, max_batch=128)
    rig.backend.max_logits = 16
    prompt = [number % 100 + 1 for number in range(100)]
    rig.submit(1, prompt, 4)
    rig.run()
    before = rig.evaluated
    rig.submit(2, prompt, 4, top_scores=1, score_prompt=True)
    rig.run()
    assert rig.started[2].cached_tokens == 0
    assert rig.evaluated - before >= 100
    assert all(span.logits <= 16 for call in rig.calls for span in call)
    assert len(rig.told[2, True]) == 99
    for at, (logprob, ((likeliest, most),)) in enumerate(rig.told[2, True]):
        assert most == pytest.approx(LIKELIEST, abs=1e-5)
        assert (logprob == most) == (prompt[at + 1] == likeliest)
    assert rig.said[1] == rig.said[2]
    rig.submit(3, prompt, 4)  # and its cells are of use to others
    rig.run()
    assert rig.started[3].cached_tokens > 90


@pytest.mark.parametrize("cut", [True, False])
def test_a_preempted_sequence_tells_of_nothing_twice(cut: bool) -> None:
    memory = MemoryTraits(copy=True, cut=cut, save=True, shift=False, shared=True, cell_bytes=4)
    rig = Scoring(slots=4, context=200, max_batch=200, cells=150, memory=memory)
    for number in (1, 2, 3, 4):
        rig.submit(number, [number + 1] * 10, 80, top_scores=1, score_prompt=True)
    rig.run()
    assert rig.scheduler.preemptions > 0
    for number in (1, 2, 3, 4):
        assert len(rig.told[number, True]) == 9
        assert [likeliest[0][0] for _, likeliest in rig.told[number, False]] == rig.said[number]


def test_who_asks_for_nothing_pays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferno_runtime.engine.step.Scored", None)  # calling it would fail
    rig = Rig()
    rig.submit(1, [5, 6, 7])
    rig.run()
    assert len(rig.said[1]) == 8


def test_scores_are_numbers_of_32_bits() -> None:
    logits = np.zeros((1, 8), dtype=np.float32)
    scores = Scored(logits, [Row(0, 2)]).scores(1, 0, [3])
    assert scores == Scores(1, False, scores.chosen, scores.tokens, scores.likeliest)
    assert (len(scores.chosen), len(scores.tokens), len(scores.likeliest)) == (4, 8, 8)
