"""Asks the pods what they have to do, and decides how many there are to be.

The decision stands in the model's status, so that another replica of the operator goes on from it; what it was made of,
the loads of the last minutes, is kept in memory only, and without it nothing is taken away before its window is over.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from inferno_operator import metrics
from inferno_operator.api import names
from inferno_operator.api.kinds import POD
from inferno_operator.api.resource import Key
from inferno_operator.api.types import InfernoModelSpec
from inferno_operator.manifests.event import News
from inferno_operator.scaling import Load, Scaler, need
from inferno_operator.store import Store

_log = logging.getLogger(__name__)

AUTOSCALE_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 3.0
_MOST_AT_ONCE: Final = 64
_MOST_BYTES: Final = 1 << 20
_RUNNING: Final = "inferno_num_requests_running"
_WAITING: Final = "inferno_num_requests_waiting"
_KV_USAGE: Final = "inferno_kv_cache_usage_ratio"


@dataclass(slots=True)
class _Followed:
    spec: InfernoModelSpec
    scaler: Scaler
    news: News | None = None


class Autoscaler:
    """Follows the models that ask for it, and looks at their pods every few seconds."""

    def __init__(self, store: Store, seconds: float = AUTOSCALE_SECONDS) -> None:
        self._store = store
        self._seconds = seconds
        self._followed: dict[Key, _Followed] = {}

    def follow(self, key: Key, spec: InfernoModelSpec, status: Mapping[str, Any]) -> tuple[int, News | None]:
        """How many pods the model is to have, and what there is to tell of it; from now on it is followed."""
        scaling = spec.autoscaling
        assert scaling is not None
        followed = self._followed.get(key)
        if followed is None:
            recorded = (status.get("autoscaling") or {}).get("replicas", spec.replicas)
            followed = self._followed[key] = _Followed(spec, Scaler(recorded))
        followed.spec = spec
        scaler = followed.scaler
        scaler.replicas = min(max(scaler.replicas, scaling.min_replicas), scaling.max_replicas)
        news, followed.news = followed.news, None
        return scaler.replicas, news

    def forget(self, key: Key) -> None:
        """The model is not there any more, or does not ask for it."""
        self._followed.pop(key, None)

    async def run(self, changed: Callable[[Key], None]) -> None:
        """Looks until cancelled; ``changed`` is told of each model whose count of pods is to change."""
        async with client() as session:
            while True:
                await asyncio.sleep(self._seconds)
                for key in await asyncio.gather(*(self._look(session, key) for key in tuple(self._followed))):
                    if key is not None:
                        changed(key)

    async def _look(self, session: aiohttp.ClientSession, key: Key) -> Key | None:
        """The model, if it is to have more pods or fewer."""
        addresses = [address for pod in self._store.owned(key, POD.name) if (address := _address(pod))]
        loads = await asyncio.gather(*(ask(session, address) for address in addresses))
        followed = self._followed.get(key)
        if followed is None or not loads:
            return None
        before = followed.scaler.replicas
        needed = need(followed.spec, before, loads)
        if needed is None:
            return None
        after = followed.scaler.decide(followed.spec, needed, time.monotonic())
        if after == before:
            return None
        direction = "up" if after > before else "down"
        metrics.SCALINGS.labels(direction).inc()
        note = f"{before} -> {after} pods: {needed.why}"
        followed.news = News(f"Scaled{direction.capitalize()}", note, occasion=str(time.time_ns()))
        return key


def client() -> aiohttp.ClientSession:
    """Asks pods. What they answer is their owners' word: it is not followed elsewhere, nor unpacked."""
    connector = aiohttp.TCPConnector(limit=_MOST_AT_ONCE)
    timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
    headers = {"Accept-Encoding": "identity"}
    return aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers, auto_decompress=False)


def _address(pod: Mapping[str, Any]) -> str | None:
    """Where a pod that serves can be asked; one that only fetches cannot."""
    metadata, status = pod["metadata"], pod.get("status", {})
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", ()))
    serves = metadata.get("labels", {}).get(names.NAME) == names.SERVES
    if not (ready and serves and status.get("podIP")) or metadata.get("deletionTimestamp"):
        return None
    address: str = status["podIP"]
    return f"[{address}]" if ":" in address else address


async def ask(session: aiohttp.ClientSession, address: str) -> Load | None:
    """What a pod has to do; None where it does not say."""
    try:
        async with session.get(f"http://{address}:{names.PORT}/metrics", allow_redirects=False) as answer:
            answer.raise_for_status()
            return parse((await _page(answer)).splitlines())
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        metrics.SCRAPE_FAILURES.inc()
        _log.debug("the pod at %s does not say what it has to do: %s", address, error or type(error).__name__)
        return None


async def _page(answer: aiohttp.ClientResponse) -> str:
    page = bytearray()
    async for chunk in answer.content.iter_any():
        page += chunk
        if len(page) > _MOST_BYTES:
            raise ValueError(f"the page has more than {_MOST_BYTES} bytes")
    return page.decode(errors="replace")


def parse(lines: Iterable[str]) -> Load | None:
    """The load in a page of metrics. None if it has none. Raises ValueError where a number is none."""
    found: dict[str, float] = {}
    for line in lines:
        name = line.partition("{")[0].partition(" ")[0]
        if name in (_RUNNING, _WAITING, _KV_USAGE):
            value = float(line.rsplit(" ", 1)[-1])
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} cannot be {value}")
            found[name] = found.get(name, 0.0) + value
    if _RUNNING not in found:
        return None
    return Load(found[_RUNNING], found.get(_WAITING, 0.0), found.get(_KV_USAGE, 0.0))
