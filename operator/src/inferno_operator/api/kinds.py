"""The kinds of objects that the operator reads or writes, and where the API serves each of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from inferno_operator.api import names


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of namespaced object. ``watched``: the changes of those that are the operator's are reported as they happen, so
    these need not be asked for.
    """

    name: str
    group: str
    version: str
    plural: str
    watched: bool = True

    @property
    def api_version(self) -> str:
        """As a manifest has it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def selector(self) -> str | None:
        """The labels of the objects that concern the operator; None is all of them."""
        return None if self.name == names.KIND else names.MANAGED_SELECTOR


MODEL: Final = Kind(names.KIND, names.GROUP, names.VERSION, names.PLURAL)
POD: Final = Kind("Pod", "", "v1", "pods")
EVENT: Final = Kind("Event", "events.k8s.io", "v1", "events", watched=False)
CHILDREN: Final = (
    Kind("ConfigMap", "", "v1", "configmaps"),
    Kind("Service", "", "v1", "services"),
    Kind("PersistentVolumeClaim", "", "v1", "persistentvolumeclaims"),
    Kind("Job", "batch", "v1", "jobs"),
    Kind("Deployment", "apps", "v1", "deployments"),
    Kind("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets"),
    Kind("HorizontalPodAutoscaler", "autoscaling", "v2", "horizontalpodautoscalers"),
    Kind("Ingress", "networking.k8s.io", "v1", "ingresses"),
    Kind("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies"),
)
"""What a model becomes; all but the ConfigMap, the Service and the Deployment only where it is asked for."""

# These need not be served at all, so a watch of them could not be counted on; they are asked for in each pass.
OPTIONAL: Final = (
    Kind("HTTPRoute", "gateway.networking.k8s.io", "v1", "httproutes", watched=False),
    Kind("ScaledObject", "keda.sh", "v1alpha1", "scaledobjects", watched=False),
    Kind("PrometheusRule", "monitoring.coreos.com", "v1", "prometheusrules", watched=False),
    Kind("ServiceMonitor", "monitoring.coreos.com", "v1", "servicemonitors", watched=False),
)
"""What a model may become where the cluster knows of it."""

WATCHED: Final = (MODEL, *CHILDREN, POD)
_UNWATCHED: Final = (
    Kind("ReplicaSet", "apps", "v1", "replicasets", watched=False),
    EVENT,
    Kind("Lease", "coordination.k8s.io", "v1", "leases", watched=False),
)
KINDS: Final[Mapping[str, Kind]] = {kind.name: kind for kind in (*WATCHED, *OPTIONAL, *_UNWATCHED)}
