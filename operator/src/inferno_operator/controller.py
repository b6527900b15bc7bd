"""The loop around the reconciler: a queue, workers that empty it, and a look at everything now and then.

kopf's watches feed the queue. Its own handling of changes is left aside on purpose: it keeps state in annotations and
finalizers of the resources, retries at fixed intervals, and acts on what has changed rather than on what is.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Iterator
from typing import Final

from inferno_operator import metrics
from inferno_operator.api.kinds import POD, WATCHED, Kind
from inferno_operator.api.resource import Key
from inferno_operator.autoscaler import Autoscaler
from inferno_operator.cluster import Cluster
from inferno_operator.errors import NotLeading, TerminalError, TransientError
from inferno_operator.evictions import Evictions
from inferno_operator.logs import reconciled
from inferno_operator.reconciler import Reconciler
from inferno_operator.stopwatch import measured
from inferno_operator.store import Packed, owner_of
from inferno_operator.workqueue import WorkQueue, backoff

_log = logging.getLogger(__name__)

WORKERS: Final = 8
RESYNC_SECONDS: Final = 600.0
# Far beyond the time limits of the calls that a pass makes.
_PASS_SECONDS: Final = 180.0
# What a list shows and the watch has not told of so much later, it will not tell of any more.
LAG_SECONDS: Final = 15.0
# The first lists of the watches may be long.
_FIRST_LISTS_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.1
# Of what has ended between our list and the watch's own no watch will tell; another list does.
_LIST_AGAIN_SECONDS: Final = 5.0
# Beginning the watches anew has not helped so many times: only another process can.
_HOPELESS_STALLS: Final = 3

Behind = dict[Kind, dict[Key, int]]


class Controller:
    """Keeps models reconciled for as long as `run` runs. ``namespaces`` are those to look after; none means all.

    ``resync_seconds``: between two looks at everything.
    """

    def __init__(
        self,
        cluster: Cluster,
        reconciler: Reconciler,
        namespaces: tuple[str, ...],
        resync_seconds: float = RESYNC_SECONDS,
        autoscaler: Autoscaler | None = None,
        evictions: Evictions | None = None,
    ) -> None:
        self._cluster = cluster
        self._store = cluster.store
        self._reconciler = reconciler
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._resync_seconds = resync_seconds
        self._autoscaler = autoscaler
        self._evictions = evictions or Evictions()
        self._queue: WorkQueue[Key] = WorkQueue()
        self._look = asyncio.Event()
        self._stalls = 0
        self.stalled = asyncio.Event()
        """Set while the watches had better begin anew."""
        self.synced = False
        """Whether everything there is is known."""
        metrics.QUEUE_DEPTH.set_function(lambda: len(self._queue))
        metrics.OBJECTS.set_function(lambda: len(self._store))

    def reported(self, kind: Kind, change: str | None, seen: Packed) -> None:
        """A watch has reported an object: ``change`` is ADDED, MODIFIED, DELETED, or None where it was listed."""
        model = self._store.remove(kind.name, seen) if change == "DELETED" else self._store.put(kind.name, seen)
        if model is not None:
            self._queue.add(model)
        if change is None and self.synced:
            self._look.set()  # the watch began anew: it tells of what there is, not of what has ended meanwhile

    def evicting(self, pod: Key, uid: str) -> None:
        """A node has told that it evicts a pod."""
        self._evictions.note(uid)
        if known := self._store.get(POD.name, pod):
            self._queue.add(owner_of(POD.name, known))

    def trouble(self) -> str | None:
        """Why this process had better be restarted, or None."""
        if self._stalls >= _HOPELESS_STALLS:
            return f"the watches have stopped reporting changes, and did so again after {self._stalls} new beginnings"
        return None

    async def run(self) -> None:
        """Works until cancelled."""
        await self._catch_up()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._resync(), name="resync")
            if self._autoscaler is not None:
                tasks.create_task(self._autoscaler.run(self._queue.add), name="autoscaler")
            for number in range(WORKERS):
                tasks.create_task(self._work(), name=f"worker {number}")

    async def _catch_up(self) -> None:
        """Returns once the watches have told of everything: a pass that knows the half of it would ask for the rest."""
        while not await self._watches_keep_up(_FIRST_LISTS_SECONDS):
            self.stalled.set()
        self.synced = True

    async def _resync(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), self._resync_seconds * random.uniform(0.9, 1.1))  # noqa: S311
            self._look.clear()
            if await self._watches_keep_up(LAG_SECONDS):
                self._stalls = 0
                continue
            _log.error("the watches have missed changes and begin anew")
            self._stalls += 1
            metrics.WATCH_STALLS.inc()
            self.stalled.set()

    async def _watches_keep_up(self, patience: float) -> bool:
        """Lists everything, and says whether the watches have told of it, if need be after ``patience`` seconds."""
        loop = asyncio.get_running_loop()
        behind = await self._list()
        deadline, again = loop.time() + patience, loop.time() + _LIST_AGAIN_SECONDS
        while behind := self._still(behind):
            if loop.time() >= deadline:
                return False
            if loop.time() >= again:
                behind = still_listed(behind, await self._list())
                again = loop.time() + _LIST_AGAIN_SECONDS
            await asyncio.sleep(_LOOK_SECONDS)
        return True

    def _still(self, behind: Behind) -> Behind:
        late = ((kind, self._store.behind(kind.name, versions)) for kind, versions in behind.items())
        return {kind: versions for kind, versions in late if versions}

    async def _list(self) -> Behind:
        """What there is and is not known. What is known and not there any more is forgotten."""
        behind: Behind = {}
        for kind in WATCHED:
            for namespace in self._namespaces:
                listed, at = await self._versions(kind, namespace)
                for key in self._store.ghosts(kind.name, listed, at, [namespace]):
                    if model := self._store.forget(kind.name, key):
                        self._queue.add(model)
                behind.setdefault(kind, {}).update(self._store.behind(kind.name, listed))
        return behind

    async def _versions(self, kind: Kind, namespace: str | None) -> tuple[dict[Key, int], int]:
        failures = 0
        while True:
            try:
                return await self._cluster.versions(kind, namespace)
            except (TransientError, TerminalError) as error:
                failures += 1
                seconds = backoff(failures)
                _log.warning("the %s could not be listed: %s; again in %.1f s", kind.plural, error, seconds)
                await asyncio.sleep(seconds)

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            try:
                await self._attend(key)
            finally:
                self._queue.done(key)

    async def _attend(self, key: Key) -> None:
        """One pass, and when to look again."""
        with reconciled(key.namespace, key.name), _timed():
            try:
                async with asyncio.timeout(_PASS_SECONDS):
                    result = await self._reconciler.reconcile(key)
            except TransientError as error:
                self._again(key, "retry", error.reason, str(error), error.retry_after)
            except TimeoutError as error:
                self._again(key, "retry", "Timeout", str(error))
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

    def _again(self, key: Key, result: str, reason: str, message: str, at_least: float = 0.0) -> None:
        metrics.RECONCILES.labels(result, reason).inc()
        seconds = self._queue.retry(key, at_least)
        _log.warning("%s: %s; again in %.1f s", reason, message, seconds)


@contextlib.contextmanager
def _timed() -> Iterator[None]:
    """What is inside is one pass."""
    began = time.perf_counter()
    with measured() as stopwatch:
        try:
            yield
        finally:
            seconds = time.perf_counter() - began
            metrics.RECONCILE_SECONDS.observe(seconds)
            metrics.RECONCILE_OWN_SECONDS.observe(max(seconds - stopwatch.waited, 0.0))


def still_listed(behind: Behind, listed: Behind) -> Behind:
    """What of ``behind`` is in another list too, taken later."""
    return {
        kind: {key: version for key, version in versions.items() if key in listed.get(kind, {})}
        for kind, versions in behind.items()
    }
