"""What every pod of a model's has, be it one that serves or one that fetches."""

from typing import Any, Final

from pydantic import BaseModel

from inferno_operator.api import names
from inferno_operator.api.resource import Model
from inferno_operator.manifests.source import cache_claim

_USER: Final = 65532


def security_context(model: Model) -> dict[str, Any]:
    """What all containers of a pod run as."""
    context: dict[str, Any] = {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if cache_claim(model):
        # A new volume belongs to root, and the cache is written by others.
        context |= {"fsGroup": _USER, "fsGroupChangePolicy": "OnRootMismatch"}
    return context


def scheduling(model: Model) -> dict[str, Any]:
    """Where the pod may run, as the spec has it."""
    spec = model.spec
    asked_for = {
        "imagePullSecrets": wire(spec.image_pull_secrets),
        "nodeSelector": spec.node_selector,
        "tolerations": wire(spec.tolerations),
        "affinity": wire(spec.affinity),
        "topologySpreadConstraints": _spread(model),
        "resourceClaims": wire(spec.resource_claims),
        "priorityClassName": spec.priority_class_name,
        "runtimeClassName": spec.runtime_class_name,
    }
    return without_nothing(asked_for)


def _spread(model: Model) -> list[dict[str, Any]]:
    """The constraints; where they do not say which pods count, the model's do."""
    own = {"labelSelector": {"matchLabels": names.selector_labels(model.identity.name)}}
    return [own | constraint for constraint in wire(model.spec.topology_spread_constraints) or ()]


def wire(value: BaseModel | tuple[BaseModel, ...] | None) -> Any:
    """A part of the spec as it stands in YAML."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    return [wire(item) for item in value] if value else None


def without_nothing(fields: dict[str, Any]) -> dict[str, Any]:
    """``fields`` without those that were left empty, which the API server would drop too."""
    return {name: value for name, value in fields.items() if value}
