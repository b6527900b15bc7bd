"""Pods that their nodes are evicting, and that had better be deleted.

A node that is short of memory, disk or process ids ends pods by itself. It tells of that in an Event, and in the pod's
status only when the pod has ended: until then Services go on sending requests to it, and its probes are no longer asked.
A pod that is deleted gets no more of them at once, and has the same time to finish what it has begun.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from inferno_operator.api import names

FIELDS: Final = "reason=Evicted,regarding.kind=Pod"
"""Selects the Events."""

# Nodes tell of each once; a pod's Event may come before the pod itself is known.
_MOST: Final = 10_000


class Evictions:
    """The pods of which nodes have told lately."""

    def __init__(self) -> None:
        self._uids: OrderedDict[str, None] = OrderedDict()

    def note(self, uid: str) -> None:
        """A node evicts the pod."""
        self._uids[uid] = None
        if len(self._uids) > _MOST:
            self._uids.popitem(last=False)

    def under_way(self, pods: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Those of the pods that are being evicted, serve still, and are not deleted yet."""
        return [pod for pod in pods if pod["metadata"]["uid"] in self._uids and _serves(pod)]


def _serves(pod: Mapping[str, Any]) -> bool:
    metadata = pod["metadata"]
    return (
        metadata.get("labels", {}).get(names.NAME) == names.SERVES
        and not metadata.get("deletionTimestamp")
        and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
    )
