"""Which of several replicas acts: the one that holds a Lease.

The client library's own election (kubernetes.aio.leaderelection) writes local time as if it were UTC, never gives the
Lease back, and ends with the first connection that fails; so this is one of our own.

Clocks of different machines are never compared. A candidate measures with its own clock for how long the Lease has not
changed. A holder stops writing `RENEW_SECONDS` after it *began* its last successful renewal; a write takes at most
`cluster.WRITE_SECONDS`; and together that is no longer than the Lease lasts, so the last write is over before anybody
else may act.
"""

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, Protocol

from inferno_operator.errors import Conflict, NotLeading, ReconcileError

_log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 15
RENEW_SECONDS: Final = 10.0
# While all is well a holder asks the API server for no more than this.
RENEW_EVERY_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 2.0
LEASE_NAME: Final = "inferno-operator"

Lease = dict[str, Any]


class Move(Enum):
    """What a candidate does next."""

    CREATE = "create"
    TAKE = "take"
    RENEW = "renew"
    WAIT = "wait"


@dataclass(slots=True)
class Candidate:
    """The rules of the election, without the cluster and without a clock: times come in as seconds of one monotonic
    clock.

    ``identity`` must be the process's own: a restarted process is another candidate.
    """

    identity: str
    namespace: str
    name: str = LEASE_NAME
    _seen: tuple[Any, ...] | None = None
    _unchanged_since: float = 0.0

    def next_move(self, lease: Mapping[str, Any] | None, now: float) -> Move:
        """What to do about the Lease as it was just read."""
        if lease is None:
            self._seen = None
            return Move.CREATE
        spec = lease.get("spec", {})
        holder = spec.get("holderIdentity")
        if holder == self.identity:
            return Move.RENEW
        seen = (holder, spec.get("renewTime"), lease["metadata"].get("resourceVersion"))
        if seen != self._seen:
            self._seen, self._unchanged_since = seen, now
        expired = now - self._unchanged_since >= spec.get("leaseDurationSeconds", LEASE_SECONDS)
        return Move.TAKE if not holder or expired else Move.WAIT

    def held(self, lease: Mapping[str, Any] | None, wall: datetime) -> Lease:
        """The Lease as it is to be written: held by this candidate."""
        spec = dict(lease.get("spec", {})) if lease else {}
        moment = wall.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if spec.get("holderIdentity") != self.identity:
            transitions = spec.get("leaseTransitions", 0) + 1 if lease else 0
            spec |= {"holderIdentity": self.identity, "acquireTime": moment, "leaseTransitions": transitions}
        spec |= {"leaseDurationSeconds": LEASE_SECONDS, "renewTime": moment}
        return self._lease(lease, spec)

    def released(self, lease: Mapping[str, Any], wall: datetime) -> Lease:
        """The Lease as it is to be written when this candidate leaves: the next one need not wait."""
        moment = wall.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return self._lease(
            lease, dict(lease["spec"]) | {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": moment}
        )

    def _lease(self, lease: Mapping[str, Any] | None, spec: Lease) -> Lease:
        metadata = lease["metadata"] if lease else {"name": self.name, "namespace": self.namespace}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


class Leases(Protocol):
    """What the election needs of a cluster."""

    async def get(self, kind: str, namespace: str, name: str) -> Lease | None:
        """An object, or None."""
        ...

    async def create_lease(self, manifest: Mapping[str, Any]) -> Lease:
        """Creates a Lease."""
        ...

    async def replace_lease(self, manifest: Mapping[str, Any]) -> Lease:
        """Replaces a Lease that has not changed since it was read."""
        ...


@dataclass(slots=True)
class Fence:
    """Lets writes through only while this process is sure to be the leader.

    ``until`` is a time of the monotonic clock.
    """

    until: float = field(default=-1.0)

    def __call__(self) -> None:
        """Raises NotLeading unless writing is allowed now."""
        if time.monotonic() >= self.until:
            raise NotLeading("this replica does not hold the Lease, or could not renew it in time")


class Election:
    """Takes part in the election until told to leave."""

    def __init__(self, leases: Leases, candidate: Candidate, fence: Fence) -> None:
        self._leases = leases
        self._candidate = candidate
        self._fence = fence
        self._held: Lease | None = None  # as it was last written

    async def acquire(self) -> None:
        """Returns once this process leads."""
        _log.info("standing by", extra={"lease": self._candidate.name, "identity": self._candidate.identity})
        while True:
            if await self._attempt():
                break
            await asyncio.sleep(RETRY_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311  # no secret
        _log.info("leading", extra={"lease": self._candidate.name, "identity": self._candidate.identity})

    async def keep(self) -> None:
        """Renews the Lease; returns only when it is lost."""
        renewed = True
        while time.monotonic() < self._fence.until:
            await asyncio.sleep(RENEW_EVERY_SECONDS if renewed else RETRY_SECONDS)
            renewed = await self._attempt()
        _log.error("the Lease is lost", extra={"lease": self._candidate.name, "identity": self._candidate.identity})

    async def release(self) -> None:
        """Gives the Lease back if it is ours. Nothing may be written any more."""
        self._fence.until = -1.0
        try:
            lease = await self._read()
            if lease and lease["spec"].get("holderIdentity") == self._candidate.identity:
                await self._leases.replace_lease(self._candidate.released(lease, datetime.now(UTC)))
        except ReconcileError as error:
            _log.warning("the Lease was not given back, so the next leader waits until it runs out: %s", error)

    async def _attempt(self) -> bool:
        """Takes or renews the Lease if that is possible now; returns whether it is held."""
        began = time.monotonic()
        try:
            self._held = await self._renew() or await self._take()
        except ReconcileError as error:
            _log.warning("the Lease was neither taken nor renewed: %s", error)
            return False
        # Where somebody else holds it, and we thought that we did, that ends here.
        self._fence.until = began + RENEW_SECONDS if self._held else -1.0
        return self._held is not None

    async def _renew(self) -> Lease | None:
        """Writes the Lease that we hold, unread: nobody else writes it, and who did would make this fail."""
        if self._held is None:
            return None
        try:
            return await self._leases.replace_lease(self._candidate.held(self._held, datetime.now(UTC)))
        except Conflict:
            return None

    async def _take(self) -> Lease | None:
        lease = await self._read()
        move = self._candidate.next_move(lease, time.monotonic())
        if move is Move.WAIT:
            return None
        held = self._candidate.held(lease, datetime.now(UTC))
        return await (self._leases.create_lease(held) if move is Move.CREATE else self._leases.replace_lease(held))

    async def _read(self) -> Lease | None:
        return await self._leases.get("Lease", self._candidate.namespace, self._candidate.name)
