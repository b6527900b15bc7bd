"""Resizes pods that run, where the cluster lets it: see `inferno_operator.resizing` for how."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from inferno_operator.api import names
from inferno_operator.api.kinds import POD
from inferno_operator.api.resource import Identity
from inferno_operator.cluster import Cluster
from inferno_operator.errors import TerminalError
from inferno_operator.manifests.event import News
from inferno_operator.resizing import (
    Adopt,
    Hold,
    Pause,
    Proceed,
    Resize,
    current_replica_set,
    effective,
    has_template,
    is_seen,
    next_step,
    paused,
    shown,
    with_template,
)
from inferno_operator.store import Object

_log = logging.getLogger(__name__)

# No watch tells of ReplicaSets, and nothing tells of a pod whose node does nothing.
_LOOK_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Resizing:
    """What is made of a Deployment for now. ``message``: how far the pods are, while they are being resized."""

    manifest: Object
    message: str | None = None
    recheck: float | None = None
    news: tuple[News, ...] = ()


class Resizer:
    """Takes one step at a time; what is to be done next follows from what there is."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def step(self, identity: Identity, desired: Object, observed: Object | None, seconds: float) -> Resizing:
        """What is to be made of the Deployment for now; ``seconds`` is how long its pods are being resized by now."""
        pods = [pod for pod in self._cluster.store.owned(identity.key, POD.name) if _serves(pod)]
        match next_step(desired, observed, pods, seconds):
            case Resize(unlike, resources) if observed is not None:
                return await self._resize(desired, observed, unlike, resources)
            case Hold(message) if observed is not None:
                return Resizing(observed, message, _PATIENCE_SECONDS)
            case Pause():
                _log.info("the pods have taken on their resources; their template gets them too")
                return Resizing(paused(desired), "the pods' template gets their resources", 0.0)
            case Adopt() if observed is not None:
                return await self._adopt(desired, observed)
            case Proceed(str(refused)):
                return Resizing(desired, news=(_refused(refused),))
        return Resizing(desired)

    async def _resize(
        self, desired: Object, observed: Object, pods: tuple[Mapping[str, Any], ...], resources: Mapping[str, Any]
    ) -> Resizing:
        if not await self._cluster.serves(POD, "resize"):
            return Resizing(desired)
        for pod in pods:
            name = pod["metadata"]["name"]
            try:
                await self._cluster.resize(pod, names.CONTAINER, resources)
            except TerminalError as error:
                _log.warning("Pod %s was not resized: %s", name, error)
                return Resizing(desired, news=(_refused(f"{name}: {error}"),))
            _log.info("resized Pod %s: %s", name, shown(dict(resources)))
        return Resizing(observed, f"pods take on {shown(dict(resources))} while they run", _PATIENCE_SECONDS)

    async def _adopt(self, desired: Object, observed: Object) -> Resizing:
        message = "the pods' template gets their resources"
        replica_set = current_replica_set(observed, await self._cluster.replica_sets(observed))
        if replica_set is not None and not has_template(replica_set, observed):
            wanted = with_template(replica_set, observed)
            if has_template(wanted, observed):
                await self._cluster.replace_replica_set(wanted)
                return Resizing(observed, message, _LOOK_SECONDS)
        elif replica_set is not None and not is_seen(replica_set):
            return Resizing(observed, message, _LOOK_SECONDS)
        note = f"the pods were given {shown(effective(desired['spec']['template']))} while they ran"
        return Resizing(desired, news=(News("Resized", note),))


def _serves(pod: Mapping[str, Any]) -> bool:
    metadata = pod["metadata"]
    return metadata.get("labels", {}).get(names.NAME) == names.SERVES and not metadata.get("deletionTimestamp")


def _refused(why: str) -> News:
    return News("ResizeRefused", f"the pods are replaced, since they cannot be resized: {why}", healthy=False)
