"""How durations are spread, in bounded memory."""

import math

from inferno_runtime.openai.monitoring import Durations

_FINEST = 1e-6  # seconds; durations below fall into the first bucket
_PER_OCTAVE = 8  # buckets to a doubling, so that a bucket's middle is at most 4.5 % from anything in it
_MOST_BUCKET = 40 * _PER_OCTAVE  # which is 12 days; longer durations fall into it, too


class Distribution:
    """Durations in buckets of equal ratio; two of them can be added up. At most a few hundred numbers."""

    __slots__ = ("buckets", "count", "least", "most", "squares", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.squares = 0.0
        self.least = math.inf
        self.most = 0.0
        self.buckets: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """Take a duration."""
        self.count += 1
        self.total += seconds
        self.squares += seconds * seconds
        self.least = min(self.least, seconds)
        self.most = max(self.most, seconds)
        bucket = min(int(math.log2(seconds / _FINEST) * _PER_OCTAVE), _MOST_BUCKET) if seconds > _FINEST else 0
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1

    def merge(self, other: "Distribution") -> None:
        """Take all durations of another one."""
        self.count += other.count
        self.total += other.total
        self.squares += other.squares
        self.least = min(self.least, other.least)
        self.most = max(self.most, other.most)
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count

    def quantile(self, share: float) -> float:
        """The duration in seconds that `share` of them do not exceed; 0 where there are none."""
        rank = math.ceil(share * self.count)
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= rank:
                middle = _FINEST * 2 ** ((bucket + 0.5) / _PER_OCTAVE)
                return min(max(middle, self.least), self.most)
        return 0.0

    @property
    def mean(self) -> float:
        """In seconds; 0 where there are none."""
        return self.total / self.count if self.count else 0.0

    def durations(self) -> Durations:
        """On the wire; there must be some."""
        deviation = math.sqrt(max(self.squares / self.count - self.mean**2, 0.0))
        return Durations(
            min=milliseconds(self.least),
            p50=milliseconds(self.quantile(0.5)),
            p90=milliseconds(self.quantile(0.9)),
            p95=milliseconds(self.quantile(0.95)),
            p99=milliseconds(self.quantile(0.99)),
            max=milliseconds(self.most),
            mean=milliseconds(self.mean),
            stddev=milliseconds(deviation),
        )


def milliseconds(seconds: float) -> float:
    """As durations stand on the wire."""
    return round(seconds * 1000, 3)
