"""A namespace with models in it, and the hands that a cluster without nodes lacks."""

import json
from typing import Any

from tests.cluster.cluster import Cluster
from tests.cluster.waiting import until

SOURCE = "file:///opt/models/tiny.gguf"
CHILDREN = {"configmap": "tiny-config", "service": "tiny", "deployment": "tiny"}


class Namespace:
    """A namespace in which the *restricted* Pod Security Standard is enforced."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        until("its ServiceAccount", lambda: self.get("serviceaccount", "default"))

    def kubectl(self, *args: str, input: str | None = None) -> str:
        """kubectl in this namespace."""
        return self.cluster.kubectl(*args, f"--namespace={self.name}", input=input)

    def get(self, kind: str, name: str) -> Any:
        """An object, or None."""
        return self.cluster.get(kind, name, f"--namespace={self.name}")

    def list_all(self, kind: str, *args: str) -> list[Any]:
        """Objects of a kind."""
        found = self.cluster.get(kind, f"--namespace={self.name}", *args)
        return list(found["items"]) if found else []

    def model(self, name: str = "tiny", source: str = SOURCE, **spec: Any) -> None:
        """Applies an InfernoModel as a person would. What is left out is taken away."""
        body = {
            "apiVersion": "inferno.ai/v1alpha1",
            "kind": "InfernoModel",
            "metadata": {"name": name},
            "spec": {"model": {"source": source}} | spec,
        }
        self.kubectl("apply", "--server-side", "--filename=-", input=json.dumps(body))

    def models(self, count: int, source: str = SOURCE, **spec: Any) -> None:
        """Applies so many InfernoModels at once: m0, m1, …"""
        head = {"apiVersion": "inferno.ai/v1alpha1", "kind": "InfernoModel"}
        spec = {"model": {"source": source}} | spec
        items = [head | {"metadata": {"name": f"m{number}"}, "spec": spec} for number in range(count)]
        self.kubectl("create", "--filename=-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))

    def patch(self, kind: str, name: str, patch: Any, *args: str, type: str = "merge") -> None:
        """Changes an object as a person would with ``kubectl edit``."""
        self.kubectl("patch", kind, name, f"--type={type}", f"--patch={json.dumps(patch)}", *args)

    def condition(self, kind: str, name: str = "tiny") -> dict[str, Any]:
        """A condition of a model; empty where it has none of this generation yet."""
        model = self.get("infernomodel", name) or {}
        for condition in model.get("status", {}).get("conditions", ()):
            current: bool = condition["observedGeneration"] == model["metadata"]["generation"]
            if condition["type"] == kind and current:
                return dict(condition)
        return {}

    def until_condition(
        self, kind: str, status: str, reason: str, name: str = "tiny", timeout: float = 60.0
    ) -> dict[str, Any]:
        """The condition, once it has this status for this reason."""

        def look() -> dict[str, Any] | None:
            found = self.condition(kind, name)
            return found if (found.get("status"), found.get("reason")) == (status, reason) else None

        return until(f"{kind} of {name} to be {status} for {reason}", look, timeout)

    def pods(self, name: str = "tiny") -> list[Any]:
        """The pods of a model that are not on their way out."""
        pods = self.list_all("pods", f"--selector=app.kubernetes.io/instance={name}")
        return [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]

    def until_pods(self, count: int, name: str = "tiny") -> list[Any]:
        """A model's pods, once there are so many that are not ready."""

        def look() -> list[Any] | None:
            waiting = [pod for pod in self.pods(name) if not pod["status"].get("containerStatuses")]
            return waiting if len(waiting) == count else None

        return until(f"{count} new pods of {name}", look)

    def run(self, pod: Any) -> None:
        """Plays the kubelet, of which there is none: the pod's container runs and is ready, with the resources that it asks
        for.
        """
        now = pod["metadata"]["creationTimestamp"]
        given = pod["spec"]["containers"][0].get("resources", {})
        status = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
            "containerStatuses": [_container(ready=True, state={"running": {"startedAt": now}}, resources=given)],
        }
        self.patch("pod", pod["metadata"]["name"], {"status": status}, "--subresource=status")

    def crash(self, pod: Any, message: str) -> None:
        """Plays the kubelet: the pod's container has ended, left a message, and will be started again."""
        ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": message}}
        container = _container(ready=False, state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState=ended)
        status = {"phase": "Running", "containerStatuses": [container]}
        self.patch("pod", pod["metadata"]["name"], {"status": status}, "--subresource=status")

    def serve(self, name: str = "tiny", **spec: Any) -> None:
        """Applies a model and runs its pods until it is ready."""
        self.model(name, **spec)
        for pod in self.until_pods(spec.get("replicas", 1), name):
            self.run(pod)
        self.until_condition("Ready", "True", "Serving", name)


def _container(**status: Any) -> dict[str, Any]:
    return {"name": "runtime", "image": "i", "imageID": "i", "restartCount": 0} | status
