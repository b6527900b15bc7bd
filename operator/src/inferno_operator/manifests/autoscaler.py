"""Who decides how many pods there are, for those who would rather not have the operator do it: a HorizontalPodAutoscaler, or
KEDA. Both scale the resource itself, not the Deployment.
"""

from typing import Any

from inferno_operator.api import names
from inferno_operator.api.autoscaling import Autoscaling, Prometheus
from inferno_operator.api.resource import Model

_RUNNING = "inferno_num_requests_running"
_WAITING = "inferno_num_requests_waiting"
_KV_USAGE = "inferno_kv_cache_usage_ratio"


def render(model: Model) -> list[dict[str, Any]]:
    """The autoscaler of ``model``, if one of these is to decide."""
    scaling = model.spec.autoscaling
    if scaling is None or scaling.by == "Operator":
        return []
    if scaling.by == "HorizontalPodAutoscaler":
        return [_horizontal_pod_autoscaler(model, scaling)]
    # The API server lets no resource through that asks for KEDA and does not say whom it is to ask.
    return [_scaled_object(model, scaling, scaling.prometheus)] if scaling.prometheus else []


def _horizontal_pod_autoscaler(model: Model, scaling: Autoscaling) -> dict[str, Any]:
    target = _target(model, scaling)
    spec = {
        "scaleTargetRef": _target_ref(model),
        "minReplicas": scaling.min_replicas,
        "maxReplicas": scaling.max_replicas,
        "metrics": [
            _metric(_RUNNING, str(target)),
            # What waits would run in a pod more.
            _metric(_WAITING, str(max(1, target // 2))),
            _metric(_KV_USAGE, f"{scaling.target_kv_usage_percent * 10}m"),
        ],
        "behavior": _behavior(scaling),
    }
    return model.identity.child("autoscaling/v2", "HorizontalPodAutoscaler", model.identity.name) | {"spec": spec}


def _scaled_object(model: Model, scaling: Autoscaling, prometheus: Prometheus) -> dict[str, Any]:
    identity = model.identity
    of = f'{{namespace="{identity.namespace}",service="{identity.name}"}}'
    asked = {
        f"sum({_RUNNING}{of}) + sum({_WAITING}{of})": str(_target(model, scaling)),
        f"sum({_KV_USAGE}{of})": f"{scaling.target_kv_usage_percent / 100:g}",
    }
    spec = {
        "scaleTargetRef": _target_ref(model),
        "minReplicaCount": scaling.min_replicas,
        "maxReplicaCount": scaling.max_replicas,
        "triggers": [_trigger(prometheus, query, threshold) for query, threshold in asked.items()],
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior(scaling)}},
    }
    return identity.child("keda.sh/v1alpha1", "ScaledObject", identity.name) | {"spec": spec}


def _target(model: Model, scaling: Autoscaling) -> int:
    """Sequences that a pod should have."""
    return scaling.target_requests or model.spec.engine.slots


def _target_ref(model: Model) -> dict[str, Any]:
    return {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": model.identity.name}


def _metric(name: str, average: str) -> dict[str, Any]:
    target = {"type": "AverageValue", "averageValue": average}
    return {"type": "Pods", "pods": {"metric": {"name": name}, "target": target}}


def _trigger(prometheus: Prometheus, query: str, threshold: str) -> dict[str, Any]:
    """One that divides what Prometheus answers by the number of pods."""
    trigger: dict[str, Any] = {
        "type": "prometheus",
        "metricType": "AverageValue",
        "metadata": {"serverAddress": prometheus.address, "query": query, "threshold": threshold},
    }
    if prometheus.authentication:
        trigger["authenticationRef"] = {"name": prometheus.authentication}
    return trigger


def _behavior(scaling: Autoscaling) -> dict[str, Any]:
    return {
        direction: {
            "stabilizationWindowSeconds": pace.window_seconds,
            "policies": [{"type": "Pods", "value": pace.pods_per_minute, "periodSeconds": 60}],
        }
        for direction, pace in (("scaleUp", scaling.scale_up), ("scaleDown", scaling.scale_down))
    }
