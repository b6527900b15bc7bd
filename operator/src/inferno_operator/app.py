"""The operator as a process: what it is made of, in which order it comes up, and how it goes."""

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from inferno_operator import __version__, cluster, metrics
from inferno_operator.api import kinds, names
from inferno_operator.autoscaler import AUTOSCALE_SECONDS, Autoscaler
from inferno_operator.cluster import Cluster, KindNotServed, NoCluster
from inferno_operator.controller import RESYNC_SECONDS, Controller
from inferno_operator.errors import ReconcileError
from inferno_operator.evictions import Evictions
from inferno_operator.health import HealthServer
from inferno_operator.leader import Candidate, Election, Fence
from inferno_operator.profiles import Profiles
from inferno_operator.reconciler import Reconciler
from inferno_operator.watches import Ear, keep_watching

_log = logging.getLogger(__name__)

_CRD_RETRY_SECONDS: Final = 2.0
_STOP_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator is told at its start.

    ``namespaces``: none means all. ``own_namespace``: where it runs, None outside of a cluster. ``lease_namespace``: None
    means no election.
    """

    runtime_image: str
    own_namespace: str | None = None
    namespaces: tuple[str, ...] = ()
    lease_namespace: str | None = None
    health_port: int = 8080
    resync_seconds: float = RESYNC_SECONDS
    autoscale_seconds: float = AUTOSCALE_SECONDS
    profiles: Profiles = field(default_factory=dict)


class Operator:
    """One replica of the operator."""

    def __init__(self, options: Options) -> None:
        self._options = options
        # A pod's name outlives a restarted container; the process must not take its predecessor's Lease for its own.
        self._instance = f"{os.environ.get('POD_NAME') or socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        self._stop = asyncio.Event()
        self._controller: Controller | None = None
        self._connected = False

    async def run(self) -> int:
        """Runs until SIGTERM or SIGINT, or until it cannot go on; returns the process's exit status."""
        loop = asyncio.get_running_loop()
        self._handle_signals(loop)
        health = HealthServer(self._options.health_port, self._alive, self._ready)
        port = await health.start()
        _log.info("inferno-operator %s", __version__, extra={"health_port": port, "instance": self._instance})
        fence = Fence()
        try:
            async with cluster.connect(fence) as connected:
                return await self._until_stopped(self._serve(connected, fence))
        except NoCluster as error:
            _log.error("there is no cluster to work for: %s", error)
            return 1
        finally:
            await health.stop()

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> int:
        """Exit status 0 if it was stopped, 1 if ``work`` ended, for it never should."""
        task, stop = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stopped = stop.done()
        for each in (task, stop):
            each.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return 0 if stopped else 1

    async def _serve(self, connected: Cluster, fence: Fence) -> None:
        """Waits for its turn, then acts until cancelled or until the Lease is lost."""
        await self._wait_for_crd(connected)
        self._connected = True
        if self._options.lease_namespace is None:
            fence.until = float("inf")
            await self._act(connected, None)
            return
        election = Election(connected, Candidate(self._instance, self._options.lease_namespace), fence)
        try:
            await election.acquire()
            await self._act(connected, election)
        finally:
            metrics.LEADER.set(0)
            await election.release()

    async def _act(self, connected: Cluster, election: Election | None) -> None:
        """Watches and reconciles; returns when the Lease is lost, or when a part of it has ended."""
        metrics.LEADER.set(1)
        options = self._options
        autoscaler = Autoscaler(connected.store, options.autoscale_seconds)
        evictions = Evictions()
        reconciler = Reconciler(
            connected,
            options.runtime_image,
            self._instance,
            options.own_namespace,
            options.profiles,
            autoscaler,
            evictions,
        )
        self._controller = controller = Controller(
            connected, reconciler, options.namespaces, options.resync_seconds, autoscaler, evictions
        )
        parts = {
            asyncio.create_task(controller.run(), name="controller"),
            asyncio.create_task(
                keep_watching(Ear(controller.reported, controller.evicting), options.namespaces, controller.stalled),
                name="watch",
            ),
        }
        if election is not None:
            parts.add(asyncio.create_task(election.keep(), name="lease"))
        try:
            ended, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in ended:
                error = None if part.cancelled() else part.exception()
                _log.error("the %s has ended, and the process with it", part.get_name(), exc_info=error)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.wait(parts, timeout=_STOP_SECONDS)

    async def _wait_for_crd(self, connected: Cluster) -> None:
        """Returns once InfernoModels can be listed. A chart may install the operator a moment before the kind."""
        namespace = self._options.namespaces[0] if self._options.namespaces else None
        while True:
            try:
                await connected.check_served(kinds.MODEL, namespace)
                return
            except KindNotServed:
                _log.warning(
                    "the CustomResourceDefinition %s.%s is not installed; waiting for it", names.PLURAL, names.GROUP
                )
            except ReconcileError as error:
                _log.warning("%s cannot be listed: %s", names.PLURAL, error)
            await asyncio.sleep(_CRD_RETRY_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311  # no secret

    def _handle_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)

    def _alive(self) -> str | None:
        return self._controller.trouble() if self._controller else None

    def _ready(self) -> str | None:
        if not self._connected:
            return f"{names.PLURAL} cannot be listed yet"
        # A replica that stands by is ready to take over.
        return "not everything is known yet" if self._controller and not self._controller.synced else None
