"""From the records of a load to its figures, and from the figures of several rounds to ratios. Pure."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.client import Record

Figures = dict[str, float]  # by name; a figure that a load does not have is absent

TITLES = {
    "tokens_per_second": "output tokens/s",
    "vectors_per_second": "vectors/s",
    "answer_p50": "answer, median",
    "first_p50": "first token, median",
    "first_p99": "first token, p99",
    "gap_p99": "gap between events, p99",
    "gap_max": "worst gap in a stream",
    "long_first": "the long prompt's first token",
    "overhead_mb": "memory over model and cache, MB",
}


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: a value that really occurred. `share` is between 0 and 1."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summarize(records: Iterable[Record]) -> Figures:
    """The figures of one run; times are in seconds.

    Tokens per second are those of all answers over the time from the first request to the end of the last answer.
    """
    records = list(records)
    good = [record for record in records if not record.error and (record.times or record.vectors)]
    figures: Figures = {
        "requests": len(records),
        "failed": len(records) - len(good),
        "short": sum(record.tokens != record.asked for record in good),
        "tokens": sum(record.tokens for record in good),
        "prompt_tokens": sum(record.prompt_tokens for record in good),
    }
    if not good:
        return figures
    wall = max(record.ended for record in good) - min(record.sent for record in good)
    figures["seconds"] = wall
    if vectors := sum(record.vectors for record in good):
        figures["vectors_per_second"] = vectors / wall
        figures["answer_p50"] = percentile([record.ended - record.sent for record in good], 0.5)
        return figures
    figures["tokens_per_second"] = figures["tokens"] / wall
    # A long prompt beside streams is looked at by itself: its wait says nothing about theirs.
    usual = [record for record in good if record.kind != "long"] or good
    firsts = [record.times[0] - record.sent for record in usual]
    figures["first_p50"] = percentile(firsts, 0.5)
    figures["first_p99"] = percentile(firsts, 0.99)
    gaps = [later - earlier for record in usual for earlier, later in zip(record.times, record.times[1:], strict=False)]
    if gaps:
        figures["gap_p99"] = percentile(gaps, 0.99)
        figures["gap_max"] = max(gaps)
    longs = [record.times[0] - record.sent for record in good if record.kind == "long"]
    if longs:
        figures["long_first"] = statistics.median(longs)
    return figures


def speed(figures: Figures) -> float:
    """What there should be much of, whatever was asked for; 0 where nothing was answered."""
    return figures.get("tokens_per_second") or figures.get("vectors_per_second", 0.0)


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several rounds, and their extremes."""

    middle: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        if self.rounds == 1:
            return f"{short(self.middle)}"
        return f"{short(self.middle)} ({short(self.low)}–{short(self.high)})"


def spread(values: Sequence[float]) -> Spread | None:
    """None without values."""
    if not values:
        return None
    return Spread(statistics.median(values), min(values), max(values), len(values))


def ratios(ours: Sequence[Figures], theirs: Sequence[Figures], figure: str, *, less_is_better: bool) -> Spread | None:
    """How many times better ours is, round by round: rounds are compared with themselves, since machines drift."""
    values = []
    for mine, other in zip(ours, theirs, strict=False):
        a, b = mine.get(figure), other.get(figure)
        if a and b:
            values.append(b / a if less_is_better else a / b)
    return spread(values)


def short(value: float) -> str:
    """Three digits that mean something."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 3)}f}"
