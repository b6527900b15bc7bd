"""Streams that run against a model while something happens to it, and what became of them."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from tests.cluster.cluster import KubectlError
from tests.cluster.waiting import until
from tests.node.place import Place

PORT = 8080
STREAMS = 8
# How streams end whose pod is killed: it is told to end a moment before, and may say so to those that come in between.
KILLED_OUTRIGHT = ("cut", "refused", "status 503", "error event: engine_unavailable")
_CLOCK_SAMPLES = 3


@dataclass(frozen=True, slots=True)
class Request:
    """One stream: when it started, had its first token, and ended, by the load generator's clock; and how it ended."""

    start: float
    first: float | None
    end: float
    outcome: str

    @property
    def complete(self) -> bool:
        """Whether it was answered whole."""
        return self.outcome == "complete"


class Traffic:
    """A pod that keeps so many streams of a model going; for the length of a ``with``."""

    def __init__(self, place: Place, model: str = "tiny", streams: int = STREAMS) -> None:
        self._place, self._streams = place, streams
        self.name = f"load-{model}"
        self._arguments = [place.url(model), model, str(streams)]
        self._ahead = 0.0
        self.record: dict[str, Any] = {}
        """What the load generator told last: its clock, how many streams ended how, and each one's times."""
        place.traffic.append(self)

    def __enter__(self) -> Self:
        self._place.start_client(self.name, ["/opt/client/load.py", *self._arguments], port=PORT)
        self._ahead = min(map(self._difference, range(_CLOCK_SAMPLES)))[1]
        self.until_flowing()
        return self

    def __exit__(self, *_: object) -> None:
        self._place.kubectl("delete", "pod", self.name, "--grace-period=0", "--force", "--ignore-not-found")

    def now(self) -> float:
        """The load generator's clock, which may be another machine's."""
        return time.time() + self._ahead

    def until_flowing(self, since: float = 0.0) -> None:
        """Waits until as many streams as run at once, begun after ``since`` and after the last failure, ended well."""

        def flows() -> bool:
            requests = self.so_far()
            begin = max([since, *(each.end for each in requests if not each.complete)])
            return sum(each.complete and each.start > begin for each in requests) >= self._streams

        until("answers to flow", flows, 300)

    def until_felt(self) -> None:
        """Waits until a stream has failed."""
        until("a stream to fail", lambda: failures(self.so_far()), 120)

    def so_far(self) -> list[Request]:
        """The streams that have ended."""
        return _requests(self._ask("now"))

    def stop(self) -> list[Request]:
        """Lets all streams come to their end, starts no more, and returns them all."""
        return _requests(self._ask("stop"))

    def _difference(self, _: int) -> tuple[float, float]:
        """How long asking took, and by how much the load generator's clock is ahead of ours."""
        before = time.time()
        there = float(self._ask("now")["now"])
        after = time.time()
        return after - before, there - (before + after) / 2

    def _ask(self, what: str) -> dict[str, Any]:
        path = f"/api/v1/namespaces/{self._place.name}/pods/{self.name}:{PORT}/proxy/{what}"

        def answer() -> dict[str, Any] | None:
            try:
                answered: dict[str, Any] = json.loads(self._place.cluster.kubectl("get", "--raw", path))
            except (KubectlError, ValueError):
                time.sleep(0.5)
                return None
            self.record = answered
            return answered

        return until(f"the load generator's /{what}", answer, 300)


def failures(requests: Sequence[Request]) -> list[str]:
    """How those ended that were not answered whole."""
    return [each.outcome for each in requests if not each.complete]


def _requests(told: dict[str, Any]) -> list[Request]:
    return [Request(**each) for each in told["requests"]]


def recovery(requests: Sequence[Request], fault: float) -> float:
    """Seconds from ``fault`` to the first token of a stream that began after it, once none fails any more."""
    last_failure = max((each.end for each in requests if each.end > fault and not each.complete), default=fault)
    firsts = [each.first for each in requests if each.complete and each.first and each.start >= fault]
    return min((first for first in firsts if first > last_failure), default=last_failure) - fault
