"""The PodDisruptionBudget: of several pods a drain of nodes takes only so many at once."""

from typing import Any

from inferno_operator.api import names
from inferno_operator.api.resource import Model


def render(model: Model) -> list[dict[str, Any]]:
    """The budget of ``model``, if it has several pods: of a single one a budget would only hold the drain up."""
    identity = model.identity
    if model.spec.replicas < 2:
        return []
    spec = {
        "maxUnavailable": model.spec.max_unavailable,
        # A pod that does not serve protects nobody.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": names.selector_labels(identity.name)},
    }
    return [identity.child("policy/v1", "PodDisruptionBudget", identity.name) | {"spec": spec}]
