"""What the monitoring endpoints answer, as it stands on the wire.

Durations are milliseconds, points in time are Unix times: seconds, unless the name says milliseconds.
"""

from typing import Literal

import msgspec

from inferno_runtime.engine.request import Priority

MOST_RECENT = 1000  # profiles that are kept whole, about a kilobyte each
DEFAULT_LIMIT = 100

WindowName = Literal["1m", "5m", "1h", "all"]
DEFAULT_WINDOW: WindowName = "5m"
PhaseName = Literal["queue", "tokenize", "prefill", "first_token", "decode", "detokenize", "write"]
# The phases, and what they add up to.
StatName = Literal[
    "queue", "tokenize", "prefill", "first_token", "decode", "detokenize", "write", "time_to_first_token", "total"
]


class Phase(msgspec.Struct, frozen=True):
    """What one phase of a request took."""

    phase: PhaseName
    duration_ms: float


class ProfileObject(msgspec.Struct, frozen=True):
    """One request that came to an end. `request_id` is its `X-Request-Id`."""

    request_id: str
    model_id: str
    endpoint: str
    priority: Priority
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    time_to_first_token_ms: float | None
    total_time_ms: float
    phases: list[Phase]
    timestamp: float


class RecentProfiles(msgspec.Struct, frozen=True):
    """`/metrics/profiles/recent`: the newest first."""

    profiles: list[ProfileObject]
    count: int
    timestamp: float


class Durations(msgspec.Struct, frozen=True):
    """How durations are spread. The percentiles are true to 5 %, the rest is exact."""

    min: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float
    mean: float
    stddev: float


class PhaseStats(msgspec.Struct, frozen=True):
    """One phase over many requests.

    `throughput_tokens_per_sec` is the tokens that the phase dealt with over the time that it took, null where it deals
    with none.
    """

    phase: StatName
    count: int
    duration_ms: Durations
    throughput_tokens_per_sec: float | None


class ProfileStats(msgspec.Struct, frozen=True):
    """`/metrics/profiles/stats`: the phases that have samples in the window."""

    stats: list[PhaseStats]
    window: WindowName
    sample_count: int
    timestamp: float


class PriorityStatus(msgspec.Struct, frozen=True):
    """The requests of one priority; the waits are those of the window, 0 where there were none."""

    total_queued: int
    total_processed: int
    avg_wait_time_ms: float
    p50_wait_time_ms: float
    p95_wait_time_ms: float
    p99_wait_time_ms: float


class QueueStatus(msgspec.Struct, frozen=True):
    """`/metrics/queue/status`.

    `total_*` and the average and the highest depth are those since the start, in requests and in sequences;
    throughput, latency and waits are those of the window, 0 where there were none.
    """

    status: Literal["idle", "active", "queueing", "full"]
    timestamp_ms: int
    window: WindowName
    total_queued: int
    total_processed: int
    queue_depth: int
    current_queue_depth: int
    avg_queue_depth: float
    max_queue_depth: int
    active_workers: int
    avg_wait_ms: float
    avg_latency_ms: float
    throughput_requests_per_sec: float
    per_priority: dict[Priority, PriorityStatus]
