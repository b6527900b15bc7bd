"""Streams that run against a model while something happens to it, and what became of them."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.cluster.waiting import until
from tests.node.place import Place

PORT = 8080
_CLOCK_SAMPLES = 5


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

    def __init__(self, place: Place, model: str = "tiny", streams: int = 8) -> None:
        self._place = place
        self.name = f"load-{model}"
        self._arguments = [place.url(model), model, str(streams)]
        self.requests: Sequence[Request] = ()

    def __enter__(self) -> "Traffic":
        self._place.start_client(self.name, ["/opt/client/load.py", *self._arguments], port=PORT)
        self.until_flowing()
        return self

    def __exit__(self, *_: object) -> None:
        self._place.kubectl("delete", "pod", self.name, "--grace-period=0", "--force", "--ignore-not-found")

    def now(self) -> float:
        """The load generator's clock; it may run on another machine."""
        return float(self._ask("now")["now"])

    def until_flowing(self, since: float = 0.0, streams: int = 8) -> None:
        """Waits until so many streams that started after ``since`` have ended well."""

        def flows() -> bool:
            return sum(each.complete and each.start > since for each in self.so_far()) >= streams

        until("answers to flow", flows, 300)

    def so_far(self) -> list[Request]:
        """The streams that have ended."""
        return _requests(self._ask("now"))

    def stop(self) -> list[Request]:
        """Lets all streams come to their end, starts no more, and returns them all."""
        return _requests(self._ask("stop"))

    def failures(self, requests: Sequence[Request]) -> list[str]:
        """How those ended that were not answered whole."""
        return [each.outcome for each in requests if not each.complete]

    def _ask(self, what: str) -> dict[str, Any]:
        path = f"/api/v1/namespaces/{self._place.name}/pods/{self.name}:{PORT}/proxy/{what}"

        def answer() -> dict[str, Any] | None:
            try:
                answered: dict[str, Any] = json.loads(self._place.cluster.kubectl("get", "--raw", path))
            except Exception:
                time.sleep(0.5)
                return None
            return answered

        return until(f"the load generator's /{what}", answer, 300)


def _requests(told: dict[str, Any]) -> list[Request]:
    return [Request(**each) for each in told["requests"]]


def recovery(requests: Sequence[Request], fault: float) -> float:
    """Seconds from ``fault`` to the first token of a stream that began after it, once none fails any more."""
    last_failure = max((each.end for each in requests if each.end > fault and not each.complete), default=fault)
    firsts = [each.first for each in requests if each.complete and each.first and each.start >= fault]
    return min((first for first in firsts if first > last_failure), default=last_failure) - fault
