"""How many pods a model needs, from what its pods say they have to do. Times are seconds of one monotonic clock."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from inferno_operator.api.types import InfernoModelSpec

# Within this much of the target nothing is changed, or every request would be a reason.
_TOLERANCE: Final = 0.1
_MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Load:
    """What one pod has to do: sequences that run and that wait, and the share of its KV cache that is used."""

    running: float
    waiting: float
    kv_usage: float


@dataclass(frozen=True, slots=True)
class Need:
    """How many pods are needed, and why, in words."""

    replicas: int
    why: str


def need(spec: InfernoModelSpec, current: int, loads: Sequence[Load | None]) -> Need | None:
    """What ``current`` pods' loads ask for, before any window or step; a pod that did not answer has None. None where
    nobody answered: then nothing is known.
    """
    scaling = spec.autoscaling
    assert scaling is not None
    known = [load for load in loads if load is not None]
    if not known or current < 1:
        return None
    per_pod = scaling.target_requests or spec.engine.slots
    requests = sum(load.running + load.waiting for load in known)
    usage = sum(load.kv_usage for load in known) * 100
    # A pod that did not answer may be as busy as it should be: it is no reason for fewer.
    silent = len(loads) - len(known)
    by_requests = _pods(requests, per_pod, current, silent)
    by_memory = _pods(usage, scaling.target_kv_usage_percent, current, silent)
    if by_memory > by_requests:
        why = f"{usage / len(known):.0f} % of the KV cache is used, {scaling.target_kv_usage_percent} % is the target"
    else:
        why = f"{requests:g} sequences run or wait, {per_pod} a pod is the target"
    replicas = max(by_requests, by_memory)
    return Need(min(max(replicas, scaling.min_replicas), scaling.max_replicas), why)


def _pods(total: float, target: float, current: int, silent: int) -> int:
    ratio = total / (current * target)
    if abs(ratio - 1) <= _TOLERANCE + 1e-9:
        return current
    wanted = math.ceil(total / target - 1e-9)
    return wanted if wanted >= current else min(current, wanted + silent)


@dataclass(slots=True)
class Scaler:
    """What one model has needed lately. ``replicas`` is what was last decided."""

    replicas: int
    _needs: deque[tuple[float, int]] = field(default_factory=deque)
    _steps: deque[tuple[float, int]] = field(default_factory=deque)  # when, and by how many
    _since: float | None = None

    def decide(self, spec: InfernoModelSpec, needed: Need, now: float) -> int:
        """How many pods there are to be: what is needed, for as long as the windows ask, in steps."""
        scaling = spec.autoscaling
        assert scaling is not None
        if self._since is None:
            self._since = now
        self._needs.append((now, needed.replicas))
        self._forget(now, max(scaling.scale_up.window_seconds, scaling.scale_down.window_seconds))
        up = min(self._within(scaling.scale_up.window_seconds, now))
        down = max(self._within(scaling.scale_down.window_seconds, now))
        wanted = self.replicas
        if up > self.replicas and now - self._since >= scaling.scale_up.window_seconds:
            wanted = min(up, self.replicas + scaling.scale_up.pods_per_minute - self._stepped(now, +1))
        elif down < self.replicas and now - self._since >= scaling.scale_down.window_seconds:
            wanted = max(down, self.replicas - scaling.scale_down.pods_per_minute + self._stepped(now, -1))
        wanted = min(max(wanted, scaling.min_replicas), scaling.max_replicas)
        if wanted != self.replicas:
            self._steps.append((now, wanted - self.replicas))
            self.replicas = wanted
        return wanted

    def _forget(self, now: float, window: float) -> None:
        while self._needs and self._needs[0][0] < now - window:
            self._needs.popleft()
        while self._steps and self._steps[0][0] <= now - _MINUTE:
            self._steps.popleft()

    def _within(self, window: float, now: float) -> list[int]:
        return [replicas for at, replicas in self._needs if at >= now - window]

    def _stepped(self, now: float, sign: int) -> int:
        """Pods that were added (+1) or taken away (-1) within a minute."""
        return sum(abs(by) for at, by in self._steps if by * sign > 0 and at > now - _MINUTE)
