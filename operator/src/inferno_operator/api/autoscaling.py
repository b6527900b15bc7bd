"""``spec.autoscaling``: how many pods serve a model, by how much they have to do."""

from typing import Any, Literal

from pydantic import ConfigDict, Field

from inferno_runtime.config import Config

_INT32: dict[str, Any] = {"format": "int32"}


class ScaleUp(Config):
    """``spec.autoscaling.scaleUp``: how fast pods are added."""

    window_seconds: int = Field(
        default=0,
        ge=0,
        le=3600,
        json_schema_extra=_INT32,
        description="Seconds for which more pods must have been needed; the fewest that were needed in them are added.",
    )
    pods_per_minute: int = Field(
        default=4, ge=1, le=10_000, json_schema_extra=_INT32, description="Most pods that are added in a minute."
    )


class ScaleDown(Config):
    """``spec.autoscaling.scaleDown``: how fast pods are taken away."""

    window_seconds: int = Field(
        default=300,
        ge=0,
        le=3600,
        json_schema_extra=_INT32,
        description="Seconds for which fewer pods must have been enough; the most that were needed in them stay.",
    )
    pods_per_minute: int = Field(
        default=1, ge=1, le=10_000, json_schema_extra=_INT32, description="Most pods that are taken away in a minute."
    )


class Prometheus(Config):
    """``spec.autoscaling.prometheus``: where KEDA asks how much there is to do."""

    address: str = Field(
        min_length=1,
        max_length=1024,
        pattern=r"^https?://[^\s@?#]+$",
        description="Base URL of the Prometheus that scrapes the pods, as with spec.monitoring.serviceMonitor.",
    )
    authentication: str | None = Field(
        default=None,
        min_length=1,
        max_length=253,
        description="The TriggerAuthentication of this namespace by which KEDA is let in. Default: none.",
    )


class Autoscaling(Config):
    """``spec.autoscaling``: how many pods there are, in place of replicas."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "self.minReplicas <= self.maxReplicas",
                    "message": "minReplicas must not be more than maxReplicas",
                },
                {
                    "rule": "self.by != 'ScaledObject' || has(self.prometheus)",
                    "message": "with by: ScaledObject give prometheus, which KEDA asks",
                },
            ]
        }
    )

    min_replicas: int = Field(default=1, ge=1, le=10_000, json_schema_extra=_INT32, description="Fewest pods.")
    max_replicas: int = Field(ge=1, le=10_000, json_schema_extra=_INT32, description="Most pods.")
    by: Literal["Operator", "HorizontalPodAutoscaler", "ScaledObject"] = Field(
        default="Operator",
        description="Who decides: the operator, by what the pods themselves report; a HorizontalPodAutoscaler, which needs the "
        "pods' metrics under the custom metrics API; or KEDA by a ScaledObject, which asks prometheus.",
    )
    prometheus: Prometheus | None = Field(
        default=None, description="Where KEDA asks how much there is to do, with by: ScaledObject. Default: none."
    )
    target_requests: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        json_schema_extra=_INT32,
        description="Sequences, running and waiting, that a pod should have. Default: engine.slots.",
    )
    target_kv_usage_percent: int = Field(
        default=80,
        ge=1,
        le=100,
        json_schema_extra=_INT32,
        description="Percent of its KV cache that a pod should use.",
    )
    scale_up: ScaleUp = Field(default=ScaleUp(), description="How fast pods are added.")
    scale_down: ScaleDown = Field(default=ScaleDown(), description="How fast pods are taken away.")
