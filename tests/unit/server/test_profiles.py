"""Profiles, windows and percentiles, on a virtual clock."""

import math
import random
from dataclasses import replace
from itertools import count
from statistics import fmean, pstdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferno_runtime.engine.request import Priority, Usage
from inferno_runtime.openai.monitoring import MOST_RECENT, PhaseStats, ProfileStats, WindowName
from inferno_runtime.server.distribution import Distribution
from inferno_runtime.server.profiles import PHASES, STATS, Load, Profile, Profiles, Slices, phases_of

IDLE = Load(active=0, queued=0, room=10, mean_depth=0.0, most_depth=0)
SECONDS = st.floats(0, 1e5, allow_nan=False)


def profile(number: int = 0, model: str = "m", total: float = 1.0, queue: float = 0.25) -> Profile:
    phases = dict.fromkeys(PHASES, 0.125) | {"queue": queue}
    return Profile(
        request_id=f"req_{number}",
        model=model,
        endpoint="completions",
        priority=Priority.NORMAL,
        input_tokens=10,
        cached_tokens=4,
        output_tokens=20,
        phases={phase: phases[phase] for phase in PHASES},
        first=0.5,
        total=total,
        ended=1000.0 + number,
    )


class Rig:
    def __init__(self) -> None:
        self.now = 50.0
        self.profiles = Profiles(clock=lambda: self.now, wall_clock=lambda: 1_700_000_000.0 + self.now)
        self.numbers = count()

    def add(self, **fields: object) -> None:
        self.profiles.add(profile(next(self.numbers), **fields))  # type: ignore[arg-type]

    def counts(self) -> dict[str, int]:
        """Samples by window."""
        windows: tuple[WindowName, ...] = ("1m", "5m", "1h", "all")
        return {window: self.profiles.stats(window).sample_count for window in windows}


def phase(stats: ProfileStats, name: str) -> PhaseStats:
    (found,) = [each for each in stats.stats if each.phase == name]
    return found


def test_the_phases_are_among_what_has_stats() -> None:
    assert STATS[: len(PHASES)] == PHASES


@settings(deadline=None)
@given(values=st.lists(SECONDS, min_size=1, max_size=200), share=st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_percentiles_are_true_to_five_percent(values: list[float], share: float) -> None:
    distribution = Distribution()
    for value in values:
        distribution.add(value)
    exact = sorted(values)[math.ceil(share * len(values)) - 1]
    assert distribution.quantile(share) == pytest.approx(exact, rel=0.05, abs=2e-6)


@settings(deadline=None)
@given(ours=st.lists(SECONDS, max_size=50), theirs=st.lists(SECONDS, max_size=50))
def test_merging_is_adding_all(ours: list[float], theirs: list[float]) -> None:
    merged, other, whole = Distribution(), Distribution(), Distribution()
    for value in ours:
        merged.add(value)
        whole.add(value)
    for value in theirs:
        other.add(value)
        whole.add(value)
    merged.merge(other)
    assert merged.buckets == whole.buckets
    assert (merged.count, merged.least, merged.most) == (whole.count, whole.least, whole.most)
    assert merged.total == pytest.approx(whole.total)


def test_the_exact_figures() -> None:
    source = random.Random(7)
    values = [source.expovariate(1) for _ in range(500)]
    distribution = Distribution()
    for value in values:
        distribution.add(value)
    durations = distribution.durations()
    assert durations.min == pytest.approx(min(values) * 1000, abs=1e-3)
    assert durations.max == pytest.approx(max(values) * 1000, abs=1e-3)
    assert durations.mean == pytest.approx(fmean(values) * 1000, abs=1e-3)
    assert durations.stddev == pytest.approx(pstdev(values) * 1000, abs=1e-3)
    assert durations.min <= durations.p50 <= durations.p90 <= durations.p95 <= durations.p99 <= durations.max


def test_buckets_are_bounded() -> None:
    distribution = Distribution()
    for exponent in range(-400, 400):
        distribution.add(1.07**exponent)
    distribution.add(1e300)
    distribution.add(0.0)
    assert len(distribution.buckets) <= 321


def test_windows_end_by_themselves() -> None:
    rig = Rig()
    rig.add()
    assert rig.counts() == {"1m": 1, "5m": 1, "1h": 1, "all": 1}
    rig.now += 59
    assert rig.counts() == {"1m": 1, "5m": 1, "1h": 1, "all": 1}
    rig.now += 10
    assert rig.counts() == {"1m": 0, "5m": 1, "1h": 1, "all": 1}
    rig.now += 300
    assert rig.counts() == {"1m": 0, "5m": 0, "1h": 1, "all": 1}
    rig.now += 3700
    assert rig.counts() == {"1m": 0, "5m": 0, "1h": 0, "all": 1}


@settings(deadline=None)
@given(gaps=st.lists(st.floats(0, 400), max_size=60))
def test_a_window_holds_what_fell_into_it_and_a_slice_more_at_most(gaps: list[float]) -> None:
    rig = Rig()
    times = []
    for gap in gaps:
        rig.now += gap
        rig.add()
        times.append(rig.now)
    counted = rig.counts()
    for window, seconds, width in (("1m", 60, 5), ("5m", 300, 5), ("1h", 3600, 60)):
        within = sum(at > rig.now - seconds for at in times)
        at_most = sum(at >= rig.now - seconds - width for at in times)
        assert within <= counted[window] <= at_most
    assert counted["all"] == len(times)


def test_slices_are_bounded() -> None:
    slices = Slices(1.0, 10)
    for number in range(1000):
        slices.add(profile(number), float(number))
    assert len(list(slices.since(0.0))) == 10


def test_the_recent_ones_come_newest_first() -> None:
    rig = Rig()
    for _ in range(5):
        rig.add()
    recent = rig.profiles.recent(3)
    assert [each.request_id for each in recent.profiles] == ["req_4", "req_3", "req_2"]
    assert recent.count == 3
    newest = recent.profiles[0]
    assert (newest.model_id, newest.input_tokens, newest.cached_tokens, newest.output_tokens) == ("m", 10, 4, 20)
    assert (newest.total_time_ms, newest.time_to_first_token_ms, newest.timestamp) == (1000.0, 500.0, 1004.0)
    assert [each.phase for each in newest.phases] == list(PHASES)
    assert newest.phases[0].duration_ms == 250.0


def test_only_so_many_are_kept() -> None:
    rig = Rig()
    for _ in range(MOST_RECENT + 50):
        rig.add()
    assert rig.profiles.recent(10 * MOST_RECENT).count == MOST_RECENT
    assert rig.profiles.stats("all").sample_count == MOST_RECENT + 50


def test_models_are_told_apart() -> None:
    rig = Rig()
    rig.add(model="a")
    rig.add(model="b")
    rig.add(model="b")
    assert [each.model_id for each in rig.profiles.recent(9, {"b"}).profiles] == ["b", "b"]
    assert rig.profiles.stats("1m", {"a"}).sample_count == 1
    assert rig.profiles.stats("1m").sample_count == 3
    assert rig.profiles.stats("1m", {"never asked"}).sample_count == 0


def test_stats_by_phase() -> None:
    rig = Rig()
    rig.add(queue=0.1)
    rig.add(queue=0.3)
    stats = rig.profiles.stats("5m")
    assert [each.phase for each in stats.stats] == list(STATS)
    queue = phase(stats, "queue")
    assert queue.count == 2
    assert (queue.duration_ms.min, queue.duration_ms.max, queue.duration_ms.mean) == (100.0, 300.0, 200.0)
    assert queue.duration_ms.stddev == 100.0
    assert queue.throughput_tokens_per_sec is None
    # 2 requests, 12 tokens evaluated and 40 generated, in a quarter of a second each
    assert phase(stats, "prefill").throughput_tokens_per_sec == 48.0
    assert phase(stats, "decode").throughput_tokens_per_sec == 160.0
    assert phase(stats, "total").duration_ms.mean == 1000.0


def test_a_request_without_a_token_has_no_first_one() -> None:
    rig = Rig()
    rig.profiles.add(replace(profile(), first=None))
    assert "time_to_first_token" not in {each.phase for each in rig.profiles.stats("all").stats}
    assert rig.profiles.recent(1).profiles[0].time_to_first_token_ms is None


def test_no_samples_no_stats() -> None:
    assert Rig().profiles.stats("all").stats == []


def test_phases_of_several_sequences() -> None:
    usages = [
        Usage(1, 0, 1, queued=1.0, prefill=2.0, decode=3.0, first_token=0.1, detokenize=0.01),
        Usage(1, 0, 1, queued=3.0, prefill=1.0, decode=4.0, first_token=0.2, detokenize=0.02),
    ]
    assert phases_of(usages, tokenize=0.5, write=0.7) == {
        "queue": 3.0,
        "tokenize": 0.5,
        "prefill": 2.0,
        "first_token": 0.2,
        "decode": 4.0,
        "detokenize": pytest.approx(0.03),
        "write": 0.7,
    }


@pytest.mark.parametrize(
    ("load", "status"),
    [
        (IDLE, "idle"),
        (replace(IDLE, active=1), "active"),
        (replace(IDLE, active=1, queued=1), "queueing"),
        (replace(IDLE, active=1, queued=5, room=0), "full"),
        (replace(IDLE, room=0), "idle"),
    ],
)
def test_the_state_of_the_queue(load: Load, status: str) -> None:
    assert Rig().profiles.queue("5m", load).status == status


def test_the_queue() -> None:
    rig = Rig()
    for _ in range(3):
        rig.profiles.queued("m", Priority.NORMAL)
    rig.profiles.queued("m", Priority.VIP)
    rig.profiles.processed("m", Priority.NORMAL)
    rig.now += 20  # since the start
    rig.add(queue=0.2, total=2.0)
    rig.add(queue=0.4, total=4.0)
    status = rig.profiles.queue("5m", Load(active=2, queued=1, room=5, mean_depth=0.5, most_depth=3))
    assert (status.total_queued, status.total_processed) == (4, 1)
    assert (status.queue_depth, status.current_queue_depth, status.active_workers) == (1, 1, 2)
    assert (status.avg_queue_depth, status.max_queue_depth) == (0.5, 3)
    assert (status.avg_wait_ms, status.avg_latency_ms) == (300.0, 3000.0)
    assert status.throughput_requests_per_sec == 0.1
    assert status.timestamp_ms == 1_700_000_070_000
    assert list(status.per_priority) == ["vip", "high", "normal", "low"]
    normal, low = status.per_priority[Priority.NORMAL], status.per_priority[Priority.LOW]
    assert (normal.total_queued, normal.total_processed, normal.avg_wait_time_ms) == (3, 1, 300.0)
    assert normal.p99_wait_time_ms == pytest.approx(400.0, rel=0.05)
    assert (low.total_queued, low.avg_wait_time_ms, low.p50_wait_time_ms) == (0, 0.0, 0.0)


def test_an_idle_queue_knows_no_waits() -> None:
    status = Rig().profiles.queue("1m", IDLE)
    assert (status.avg_wait_ms, status.avg_latency_ms, status.throughput_requests_per_sec) == (0.0, 0.0, 0.0)
