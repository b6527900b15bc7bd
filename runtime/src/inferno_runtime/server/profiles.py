"""What requests took, phase by phase: the recent ones as they were, and percentiles over windows in bounded memory.

Pure but for the clocks that it is given. One event loop writes and reads.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar, get_args

from inferno_runtime.engine.request import Priority, Usage
from inferno_runtime.openai.monitoring import (
    MOST_RECENT,
    Phase,
    PhaseName,
    PhaseStats,
    PriorityStatus,
    ProfileObject,
    ProfileStats,
    QueueStatus,
    RecentProfiles,
    StatName,
    WindowName,
)
from inferno_runtime.server.distribution import Distribution, milliseconds

PHASES: tuple[PhaseName, ...] = get_args(PhaseName)
STATS: tuple[StatName, ...] = get_args(StatName)
PRIORITIES = tuple(Priority)
WINDOWS: dict[WindowName, float] = {"1m": 60.0, "5m": 300.0, "1h": 3600.0, "all": math.inf}  # seconds

_Key = TypeVar("_Key", bound=str)
Models = Container[str] | None
"""Names of models; None for all."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What one request took: tokens, and seconds by phase.

    Phases up to the first token follow one another; text is made and written while later tokens are decoded.
    """

    request_id: str
    model: str
    endpoint: str
    priority: Priority
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    phases: dict[PhaseName, float]
    first: float | None  # seconds from its arrival to its first token
    total: float  # seconds from its arrival to its end
    ended: float  # Unix time


def phases_of(usages: Iterable[Usage], tokenize: float, write: float) -> dict[PhaseName, float]:
    """A request's seconds by phase from those of its sequences, of which there is at least one.

    Sequences are evaluated side by side, so the longest counts; their texts are made one after another, and add up.
    """
    usages = list(usages)
    return {
        "queue": max(usage.queued for usage in usages),
        "tokenize": tokenize,
        "prefill": max(usage.prefill for usage in usages),
        "first_token": max(usage.first_token for usage in usages),
        "decode": max(usage.decode for usage in usages),
        "detokenize": sum(usage.detokenize for usage in usages),
        "write": write,
    }


class Summary:
    """Many profiles in little memory; two of them can be added up."""

    __slots__ = ("count", "durations", "evaluated", "input", "output", "waits")

    def __init__(self) -> None:
        self.count = 0
        self.input = 0  # tokens
        self.evaluated = 0  # of these, those that were not cached
        self.output = 0
        self.durations: dict[StatName, Distribution] = {}
        self.waits: dict[Priority, Distribution] = {}

    def add(self, profile: Profile) -> None:
        """Take a profile."""
        self.count += 1
        self.input += profile.input_tokens
        self.evaluated += profile.input_tokens - profile.cached_tokens
        self.output += profile.output_tokens
        for phase, seconds in profile.phases.items():
            _of(self.durations, phase).add(seconds)
        if profile.first is not None:
            _of(self.durations, "time_to_first_token").add(profile.first)
        _of(self.durations, "total").add(profile.total)
        _of(self.waits, profile.priority).add(profile.phases["queue"])

    def merge(self, other: "Summary") -> None:
        """Take all profiles of another one."""
        self.count += other.count
        self.input += other.input
        self.evaluated += other.evaluated
        self.output += other.output
        for name, durations in other.durations.items():
            _of(self.durations, name).merge(durations)
        for priority, waits in other.waits.items():
            _of(self.waits, priority).merge(waits)

    def stats(self) -> list[PhaseStats]:
        """Each phase that has samples, on the wire."""
        return [
            PhaseStats(
                phase=name,
                count=self.durations[name].count,
                duration_ms=self.durations[name].durations(),
                throughput_tokens_per_sec=self._throughput(name),
            )
            for name in STATS
            if name in self.durations
        ]

    def _throughput(self, name: StatName) -> float | None:
        tokens = {
            "tokenize": self.input,
            "prefill": self.evaluated,
            "decode": self.output,
            "detokenize": self.output,
            "write": self.output,
            "total": self.output,
        }.get(name)
        seconds = self.durations[name].total
        return None if tokens is None or seconds <= 0 else round(tokens / seconds, 3)


class Slices:
    """Summaries of equal slices of time, the last so many of which are kept."""

    def __init__(self, width: float, count: int) -> None:
        """width: seconds."""
        self._width = width
        self._slices: deque[tuple[int, Summary]] = deque(maxlen=count)

    def add(self, profile: Profile, now: float) -> None:
        """Take a profile into the slice of `now`, which is not before any earlier one."""
        number = int(now // self._width)
        if not self._slices or self._slices[-1][0] < number:
            self._slices.append((number, Summary()))
        self._slices[-1][1].add(profile)

    def since(self, begin: float) -> Iterator[Summary]:
        """The slices that begin after `begin`, or hold it: a window is true to a slice."""
        first = int(begin // self._width)
        return (summary for number, summary in self._slices if number >= first)


@dataclass(slots=True)
class _Model:
    """What is kept of one model's requests."""

    fine: Slices = field(default_factory=lambda: Slices(5.0, 61))  # five minutes
    coarse: Slices = field(default_factory=lambda: Slices(60.0, 61))  # an hour
    ever: Summary = field(default_factory=Summary)
    queued: dict[Priority, int] = field(default_factory=lambda: dict.fromkeys(PRIORITIES, 0))  # requests
    processed: dict[Priority, int] = field(default_factory=lambda: dict.fromkeys(PRIORITIES, 0))

    def window(self, name: WindowName, now: float) -> Iterable[Summary]:
        """The summaries that make up a window up to `now`."""
        if name == "all":
            return [self.ever]
        slices = self.coarse if name == "1h" else self.fine
        return slices.since(now - WINDOWS[name])


@dataclass(frozen=True, slots=True)
class Load:
    """What the engines have to do at a point in time; all in sequences."""

    active: int
    queued: int
    room: int  # that may still be queued
    mean_depth: float  # of the queue, since the start
    most_depth: int


class Profiles:
    """The profiles of one server. Names of models are those that it serves, so there are only so many."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, wall_clock: Callable[[], float] = time.time
    ) -> None:
        """clock: seconds, monotonic; wall_clock: Unix time."""
        self._clock = clock
        self._wall_clock = wall_clock
        self._began = clock()
        self._recent: deque[Profile] = deque(maxlen=MOST_RECENT)
        self._models: dict[str, _Model] = {}

    def queued(self, model: str, priority: Priority) -> None:
        """A request was taken; `processed` follows, however it ends."""
        self._model(model).queued[priority] += 1

    def processed(self, model: str, priority: Priority) -> None:
        """A request that was taken has ended."""
        self._model(model).processed[priority] += 1

    def add(self, profile: Profile) -> None:
        """Take the profile of a request that ended well."""
        now, model = self._clock(), self._model(profile.model)
        self._recent.append(profile)
        for part in (model.fine, model.coarse):
            part.add(profile, now)
        model.ever.add(profile)

    def recent(self, limit: int, models: Models = None) -> RecentProfiles:
        """The last `limit` profiles of these models, the newest first."""
        chosen = [profile for profile in reversed(self._recent) if models is None or profile.model in models][:limit]
        return RecentProfiles([_wire(profile) for profile in chosen], len(chosen), round(self._wall_clock(), 3))

    def stats(self, window: WindowName, models: Models = None) -> ProfileStats:
        """The phases of these models over a window."""
        summary = self._summary(window, models)
        return ProfileStats(summary.stats(), window, summary.count, round(self._wall_clock(), 3))

    def queue(self, window: WindowName, load: Load, models: Models = None) -> QueueStatus:
        """The state of these models' queues together. load: of the same."""
        summary = self._summary(window, models)
        queued, processed = self._counts(models)
        waits, total = _merged(summary.waits.values()), summary.durations.get("total", Distribution())
        seconds = max(min(WINDOWS[window], self._clock() - self._began), 1.0)
        return QueueStatus(
            status=_status(load),
            timestamp_ms=int(self._wall_clock() * 1000),
            window=window,
            total_queued=sum(queued.values()),
            total_processed=sum(processed.values()),
            queue_depth=load.queued,
            current_queue_depth=load.queued,
            avg_queue_depth=round(load.mean_depth, 3),
            max_queue_depth=load.most_depth,
            active_workers=load.active,
            avg_wait_ms=milliseconds(waits.mean),
            avg_latency_ms=milliseconds(total.mean),
            throughput_requests_per_sec=round(summary.count / seconds, 3),
            per_priority={
                priority: _priority_status(
                    queued[priority], processed[priority], summary.waits.get(priority, Distribution())
                )
                for priority in PRIORITIES
            },
        )

    def _model(self, name: str) -> _Model:
        if name not in self._models:
            self._models[name] = _Model()
        return self._models[name]

    def _chosen(self, models: Models) -> Sequence[_Model]:
        return [kept for name, kept in self._models.items() if models is None or name in models]

    def _summary(self, window: WindowName, models: Models) -> Summary:
        summary, now = Summary(), self._clock()
        for kept in self._chosen(models):
            for part in kept.window(window, now):
                summary.merge(part)
        return summary

    def _counts(self, models: Models) -> tuple[Mapping[Priority, int], Mapping[Priority, int]]:
        chosen = self._chosen(models)
        return (
            {priority: sum(kept.queued[priority] for kept in chosen) for priority in PRIORITIES},
            {priority: sum(kept.processed[priority] for kept in chosen) for priority in PRIORITIES},
        )


def _of(distributions: dict[_Key, Distribution], key: _Key) -> Distribution:
    if key not in distributions:
        distributions[key] = Distribution()
    return distributions[key]


def _merged(distributions: Iterable[Distribution]) -> Distribution:
    merged = Distribution()
    for distribution in distributions:
        merged.merge(distribution)
    return merged


def _status(load: Load) -> Literal["idle", "active", "queueing", "full"]:
    if load.queued:
        return "full" if load.room <= 0 else "queueing"
    return "active" if load.active else "idle"


def _priority_status(queued: int, processed: int, waits: Distribution) -> PriorityStatus:
    return PriorityStatus(
        total_queued=queued,
        total_processed=processed,
        avg_wait_time_ms=milliseconds(waits.mean),
        p50_wait_time_ms=milliseconds(waits.quantile(0.5)),
        p95_wait_time_ms=milliseconds(waits.quantile(0.95)),
        p99_wait_time_ms=milliseconds(waits.quantile(0.99)),
    )


def _wire(profile: Profile) -> ProfileObject:
    return ProfileObject(
        request_id=profile.request_id,
        model_id=profile.model,
        endpoint=profile.endpoint,
        priority=profile.priority,
        input_tokens=profile.input_tokens,
        cached_tokens=profile.cached_tokens,
        output_tokens=profile.output_tokens,
        time_to_first_token_ms=None if profile.first is None else milliseconds(profile.first),
        total_time_ms=milliseconds(profile.total),
        phases=[Phase(phase, milliseconds(profile.phases[phase])) for phase in PHASES],
        timestamp=round(profile.ended, 3),
    )
