"""The Event that tells of a model what happened to it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from inferno_operator.api import names
from inferno_operator.api.resource import Identity
from inferno_operator.manifests.digest import digest

_NOTE_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class News:
    """What there is to tell about a model; ``reason`` is one word for programs."""

    reason: str
    note: str
    healthy: bool = True
    occasion: str = ""
    """Tells the same news at another time apart; without one it is told once a generation."""


def render(identity: Identity, news: News, *, now: datetime, instance: str) -> dict[str, Any]:
    """An Event about a model. The same news about the same generation has the same name, so it is told once.

    ``instance`` is the process that reports it.
    """
    named = digest([identity.uid, identity.generation, news.reason, news.note, news.occasion])
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{identity.name}.{named[:16]}", "namespace": identity.namespace},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": "Normal" if news.healthy else "Warning",
        "reason": news.reason,
        "action": "Reconcile",
        "note": news.note if len(news.note) <= _NOTE_LENGTH else news.note[: _NOTE_LENGTH - 1] + "…",
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
