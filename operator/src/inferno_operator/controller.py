"""The loop around the reconciler: a queue, workers that empty it, and a list of everything now and then.

kopf's watches feed the queue. Its own handling of changes is left aside on purpose: it keeps state in annotations and
finalizers of the resources, retries at fixed intervals, and acts on what has changed rather than on what is.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from inferno_operator import metrics
from inferno_operator.api import names
from inferno_operator.cluster import Cluster
from inferno_operator.errors import NotLeading, TerminalError, TransientError
from inferno_operator.logs import reconciled
from inferno_operator.reconciler import Key, Reconciler
from inferno_operator.workqueue import WorkQueue

_log = logging.getLogger(__name__)

WORKERS: Final = 8
RESYNC_SECONDS: Final = 300.0
# Far beyond the time limits of the calls that a pass makes.
_PASS_SECONDS: Final = 180.0
_LIST_RETRY_SECONDS: Final = 5.0


@dataclass(slots=True)
class WatchProgress:
    """Whether the watch of InfernoModels keeps up.

    A watch can die in silence. What one list shows, and the watch has not reported by the next, gives it away.
    """

    _seen: dict[Key, int] = field(default_factory=dict)
    _unseen: dict[Key, int] = field(default_factory=dict)
    stalled: bool = False

    def saw(self, key: Key, generation: int) -> None:
        """The watch has reported this generation of a model."""
        self._seen[key] = max(generation, self._seen.get(key, 0))

    def forget(self, key: Key) -> None:
        """The watch has reported the end of a model."""
        self._seen.pop(key, None)

    def compare(self, listed: Mapping[Key, int]) -> None:
        """Holds a list, the generations of all models, against what the watch has reported."""
        unseen = {key: generation for key, generation in listed.items() if generation > self._seen.get(key, 0)}
        overdue = {key: generation for key, generation in self._unseen.items() if key in listed}
        self.stalled = any(generation > self._seen.get(key, 0) for key, generation in overdue.items())
        self._unseen = unseen


class Controller:
    """Keeps models reconciled for as long as `run` runs. ``namespaces`` are those to look after; none means all."""

    def __init__(self, cluster: Cluster, reconciler: Reconciler, namespaces: tuple[str, ...]) -> None:
        self._cluster = cluster
        self._reconciler = reconciler
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._queue: WorkQueue[Key] = WorkQueue()
        self._watch = WatchProgress()
        self.synced = False
        """Whether the models have been listed once."""
        metrics.QUEUE_DEPTH.set_function(lambda: len(self._queue))

    def model_changed(self, namespace: str, name: str, generation: int) -> None:
        """The watch has reported an InfernoModel."""
        key = Key(namespace, name)
        self._watch.saw(key, generation)
        self._queue.add(key)

    def model_deleted(self, namespace: str, name: str) -> None:
        """The watch has reported the end of an InfernoModel; a namesake may be there already."""
        key = Key(namespace, name)
        self._watch.forget(key)
        self._queue.add(key)

    def child_changed(self, namespace: str, name: str) -> None:
        """The watch has reported something that belongs to an InfernoModel."""
        self._queue.add(Key(namespace, name))

    def trouble(self) -> str | None:
        """Why this process had better be restarted, or None."""
        if self._watch.stalled:
            return f"the watch of {names.PLURAL} has stopped reporting changes"
        return None

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._resync(), name="resync")
            for number in range(WORKERS):
                tasks.create_task(self._work(), name=f"worker {number}")

    async def _resync(self) -> None:
        while True:
            seconds = await self._list()
            await asyncio.sleep(seconds)

    async def _list(self) -> float:
        """Puts every model into the queue; returns the seconds until that is due again."""
        listed = {}
        try:
            for namespace in self._namespaces:
                async for body in self._cluster.models(namespace):
                    metadata = body["metadata"]
                    listed[Key(metadata["namespace"], metadata["name"])] = metadata.get("generation", 0)
        except TransientError as error:
            _log.warning("the models could not be listed: %s", error)
            return _LIST_RETRY_SECONDS
        self._watch.compare(listed)
        for key in listed:
            self._queue.add(key)
        self.synced = True
        return RESYNC_SECONDS

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            try:
                await self._attend(key)
            finally:
                self._queue.done(key)

    async def _attend(self, key: Key) -> None:
        """One pass, and when to look again."""
        with reconciled(key.namespace, key.name), metrics.RECONCILE_SECONDS.time():
            try:
                async with asyncio.timeout(_PASS_SECONDS):
                    result = await self._reconciler.reconcile(key)
            except (TransientError, TimeoutError) as error:
                reason = error.reason if isinstance(error, TransientError) else "Timeout"
                self._again(key, "retry", reason, str(error))
            except TerminalError as error:
                self._again(key, "failed", error.reason, str(error))
            except NotLeading:
                raise
            except Exception as error:
                _log.exception("a bug: the reconciliation ended in a way that nobody foresaw")
                self._again(key, "failed", "Bug", str(error))
            else:
                if result.error is not None:
                    self._again(key, "failed", result.error.reason, str(result.error))
                    return
                self._queue.succeeded(key)
                metrics.RECONCILES.labels("success", "").inc()
                if result.recheck is not None:
                    self._queue.add_later(key, result.recheck)

    def _again(self, key: Key, result: str, reason: str, message: str) -> None:
        metrics.RECONCILES.labels(result, reason).inc()
        seconds = self._queue.retry(key)
        _log.warning("%s: %s; again in %.1f s", reason, message, seconds)
