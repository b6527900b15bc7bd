"""Figures, spreads and ratios."""

import pytest

from benchmarks.client import Record
from benchmarks.stats import Spread, percentile, ratios, short, spread, summarize
from benchmarks.targets import BEST, INFERNO, LLAMA_SERVER, TARGETS, Target


def record(sent: float, *times: float, kind: str = "user", error: str = "") -> Record:
    return Record(
        kind, sent, len(times), tokens=len(times), times=list(times), ended=max(times, default=sent), error=error
    )


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([5], 0.5, 5),
        ([1, 2], 0.5, 1),
        ([3, 1, 2], 0.5, 2),
        (range(1, 101), 0.99, 99),
        (range(1, 11), 0.99, 10),
        ([1, 2], 0, 1),
    ],
)
def test_percentile(values: list[float], share: float, expected: float) -> None:
    assert percentile(list(values), share) == expected


def test_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_figures_of_a_run() -> None:
    figures = summarize([record(0.0, 1.0, 1.5, 4.0), record(1.0, 1.5, 3.0), record(0.0, error="gone")])
    assert figures["tokens_per_second"] == pytest.approx(5 / 4)
    assert (figures["first_p50"], figures["first_p99"]) == (0.5, 1.0)
    assert figures["gap_max"] == 2.5
    assert (figures["requests"], figures["failed"], figures["short"]) == (3, 1, 0)
    assert "long_first" not in figures


def test_a_long_prompt_is_looked_at_by_itself() -> None:
    figures = summarize([record(0.0, 0.1, 0.2, kind="stream"), record(1.0, 6.0, 16.0, kind="long")])
    assert figures["long_first"] == 5.0
    assert figures["first_p99"] == pytest.approx(0.1)
    assert figures["gap_max"] == pytest.approx(0.1)


def test_a_run_without_answers_has_no_speed() -> None:
    figures = summarize([record(0.0, error="gone")])
    assert figures["failed"] == 1
    assert "tokens_per_second" not in figures


def test_rounds_are_compared_with_themselves() -> None:
    ours = [{"x": 2.0}, {}, {"x": 9.0}]
    theirs = [{"x": 1.0}, {"x": 5.0}, {"x": 3.0}]
    assert ratios(ours, theirs, "x", less_is_better=False) == Spread(2.5, 2.0, 3.0, 2)
    assert ratios(ours, theirs, "x", less_is_better=True) == spread([0.5, 1 / 3])
    assert ratios(ours, theirs, "y", less_is_better=True) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (1.2345, "1.23"), (12.345, "12.3"), (1234.5, "1234"), (0.0123, "0.012"), (-5.5, "-5.50")],
)
def test_short(value: float, expected: str) -> None:
    assert short(value) == expected


def test_a_spread_shows_its_extremes() -> None:
    assert str(Spread(2, 1, 3, 3)) == "2.00 (1.00–3.00)"
    assert str(Spread(2, 2, 2, 1)) == "2.00"


ROUNDS = {
    "chat8": {
        INFERNO: [{"tokens_per_second": 200.0, "first_p50": 0.2, "overhead_mb": 100.0}],
        BEST: [{"tokens_per_second": 100.0, "first_p50": 0.3}],
    }
}


@pytest.mark.parametrize(
    ("target", "middle", "reached"),
    [
        (Target("chat8", "tokens_per_second", BEST, 2), 2.0, True),
        (Target("chat8", "tokens_per_second", BEST, 2.1), 2.0, False),
        (Target("chat8", "tokens_per_second", BEST, None), 2.0, None),
        (Target("chat8", "first_p50", BEST, 3), 1.5, False),
        (Target("chat8", "overhead_mb", "", 150), 100.0, True),
        (Target("chat8", "overhead_mb", "", 99), 100.0, False),
    ],
)
def test_targets(target: Target, middle: float, reached: bool | None) -> None:
    measured = target.measured(ROUNDS)
    assert measured is not None
    assert measured.middle == pytest.approx(middle)
    assert target.reached(measured) is reached


def test_a_target_that_was_not_measured() -> None:
    assert Target("chat8", "tokens_per_second", LLAMA_SERVER, 1).measured(ROUNDS) is None
    assert Target("burst", "tokens_per_second", BEST, 1).measured(ROUNDS) is None


def test_no_target_stands_twice() -> None:
    assert len({(target.load, target.figure, target.peer) for target in TARGETS}) == len(TARGETS)
