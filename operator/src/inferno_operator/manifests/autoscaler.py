"""The HorizontalPodAutoscaler, for those who would rather have it decide."""

from typing import Any

from inferno_operator.api import names
from inferno_operator.api.resource import Model


def render(model: Model) -> list[dict[str, Any]]:
    """The autoscaler of ``model``, if it is to decide. It scales the resource itself, not the Deployment."""
    scaling = model.spec.autoscaling
    if scaling is None or scaling.by != "HorizontalPodAutoscaler":
        return []
    identity = model.identity
    target = scaling.target_requests or model.spec.engine.slots
    spec = {
        "scaleTargetRef": {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": identity.name},
        "minReplicas": scaling.min_replicas,
        "maxReplicas": scaling.max_replicas,
        "metrics": [
            _metric("inferno_num_requests_running", str(target)),
            # What waits would run in a pod more.
            _metric("inferno_num_requests_waiting", str(max(1, target // 2))),
            _metric("inferno_kv_cache_usage_ratio", f"{scaling.target_kv_usage_percent * 10}m"),
        ],
        "behavior": {
            "scaleUp": _behaviour(scaling.scale_up.window_seconds, scaling.scale_up.pods_per_minute),
            "scaleDown": _behaviour(scaling.scale_down.window_seconds, scaling.scale_down.pods_per_minute),
        },
    }
    return [identity.child("autoscaling/v2", "HorizontalPodAutoscaler", identity.name) | {"spec": spec}]


def _metric(name: str, average: str) -> dict[str, Any]:
    target = {"type": "AverageValue", "averageValue": average}
    return {"type": "Pods", "pods": {"metric": {"name": name}, "target": target}}


def _behaviour(window: int, pods: int) -> dict[str, Any]:
    policy = {"type": "Pods", "value": pods, "periodSeconds": 60}
    return {"stabilizationWindowSeconds": window, "policies": [policy]}
