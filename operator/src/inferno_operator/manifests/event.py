"""The Event that tells of a change of a model's readiness."""

from datetime import datetime
from typing import Any

from inferno_operator.api import names
from inferno_operator.api.resource import Identity
from inferno_operator.manifests.digest import digest

_NOTE_LENGTH = 1024


def render(
    identity: Identity, *, healthy: bool, reason: str, note: str, now: datetime, instance: str
) -> dict[str, Any]:
    """An Event about a model. The same news about the same generation has the same name, so it is told once.

    ``instance`` is the process that reports it.
    """
    news = digest([identity.uid, identity.generation, reason, note])
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{identity.name}.{news[:16]}", "namespace": identity.namespace},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": "Normal" if healthy else "Warning",
        "reason": reason,
        "action": "Reconcile",
        "note": note if len(note) <= _NOTE_LENGTH else note[: _NOTE_LENGTH - 1] + "…",
        "reportingController": f"{names.GROUP}/{names.FIELD_MANAGER}",
        "reportingInstance": instance[:128],
        "regarding": {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "namespace": identity.namespace,
            "name": identity.name,
            "uid": identity.uid,
        },
    }
