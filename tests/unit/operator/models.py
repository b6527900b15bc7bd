"""InfernoModels as the API server would hand them out, for tables of cases."""

from typing import Any

from inferno_operator.api.resource import Identity, Model, parse_spec

UID = "7f3b1c62-0d0a-4f6e-9a51-5a1f3f6c2f11"
IMAGE = "registry.example/inferno-runtime:1.2.3"


def body(spec: dict[str, Any] | None = None, *, name: str = "tiny", generation: int = 3, **more: Any) -> dict[str, Any]:
    """An InfernoModel with the fewest fields, and those of ``spec``."""
    return {
        "apiVersion": "inferno.ai/v1alpha1",
        "kind": "InfernoModel",
        "metadata": {"namespace": "demo", "name": name, "uid": UID, "generation": generation},
        "spec": {"model": {"source": "pvc://models/tiny.gguf"}} | (spec or {}),
    } | more


def model(spec: dict[str, Any] | None = None, **more: Any) -> Model:
    """The same, understood."""
    raw = body(spec, **more)
    return Model(Identity.of(raw), parse_spec(raw))


def deployment(
    *, wanted: int = 1, updated: int = 0, total: int = 0, available: int = 0, stale: bool = False, **status: Any
) -> dict[str, Any]:
    """A Deployment with these counts; ``stale``: its controller has not looked at the latest change."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "tiny", "namespace": "demo", "generation": 5},
        "spec": {"replicas": wanted},
        "status": {
            "observedGeneration": 4 if stale else 5,
            "replicas": total,
            "updatedReplicas": updated,
            "readyReplicas": available,
            "availableReplicas": available,
        }
        | status,
    }
