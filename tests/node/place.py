"""A namespace with models in it, in which the *restricted* Pod Security Standard is enforced, and clients of theirs."""

import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster import nodefiles
from tests.cluster.waiting import until
from tests.node import images
from tests.node.connect import NodeCluster
from tests.operator.namespace import Namespace

if TYPE_CHECKING:
    from tests.node.traffic import Traffic

READY_SECONDS = 300.0
CLAIM = "models"
# More than a client uses: it is not the one that a node with too little memory ends first.
CLIENT_MEMORY = "512Mi"
# A probe that is answered late shows that the machine is busy, which is no fault; one that is answered wrong does not.
_PROBE = {"timeoutSeconds": 60}
_RUNTIME = {"name": "runtime", "readinessProbe": _PROBE, "livenessProbe": _PROBE}
# For models under load, where a client has its limits by default.
UNLIMITED: dict[str, Any] = {
    "server": {"requestsPerMinute": 0, "tokensPerMinute": 0, "maxConnections": 0},
    "podTemplate": {"spec": {"containers": [_RUNTIME]}},
}
_numbers = itertools.count(1)


class Place(Namespace):
    """A namespace of a test's own."""

    cluster: NodeCluster

    def __init__(self, cluster: NodeCluster, name: str) -> None:
        super().__init__(cluster, name)
        self.traffic: list[Traffic] = []
        """The loads of the test that runs."""

    def url(self, model: str = "tiny") -> str:
        """Where clients in the cluster find a model."""
        return f"http://{model}.{self.name}.svc:8000/v1"

    def claim(self, name: str = CLAIM, *, filled: bool = True) -> None:
        """Makes a claim, with all the tests' models in it, or empty."""
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        self.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec})
        if not filled:
            self.kubectl("wait", "--for=jsonpath={.status.phase}=Bound", f"pvc/{name}", "--timeout=60s")
            return
        copy = f"import subprocess; subprocess.run(['cp', '-r', '{images.MODELS}/.', '/claim'], check=True)"
        self.run_client(["-c", copy], claim=name)

    def folder_of(self, claim: str) -> str:
        """Where on our own node the volume of a claim is."""
        volume: str = self.get("pvc", claim)["spec"]["volumeName"]
        return f"{nodefiles.VOLUMES}/{volume.removeprefix('node-')}"

    def apply(self, *objects: dict[str, Any]) -> None:
        """Applies objects of this namespace, server-side."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--server-side", "--filename=-", input=json.dumps(listed))

    def serve_model(self, name: str = "tiny", source: str = f"pvc://{CLAIM}/{images.GGUF}", **spec: Any) -> None:
        """Applies a model and waits until it is ready."""
        self.model(name, source, **spec)
        self.until_ready(name)

    def until_ready(self, name: str = "tiny", reason: str = "Serving") -> dict[str, Any]:
        """Waits until the model, as it is now wanted, is ready."""
        return self.until_condition("Ready", "True", reason, name, READY_SECONDS)

    def leaving(self, name: str = "tiny") -> list[str]:
        """The names of a model's pods that are on their way out."""
        pods = self.list_all("pods", f"--selector=app.kubernetes.io/instance={name}")
        return [pod["metadata"]["name"] for pod in pods if pod["metadata"].get("deletionTimestamp")]

    def until_gone(self, pods: Sequence[str]) -> None:
        """Waits until none of these pods is there."""
        until(f"{', '.join(pods)} to go", lambda: all(self.get("pod", name) is None for name in pods), READY_SECONDS)

    def restarts(self, name: str = "tiny") -> int:
        """How often containers of a model's pods have been started again."""
        return sum(each["restartCount"] for pod in self.pods(name) for each in pod["status"]["containerStatuses"])

    def images(self, name: str = "tiny") -> set[str]:
        """What a model's pods run."""
        return {container["image"] for pod in self.pods(name) for container in pod["spec"]["containers"]}

    def run_client(self, command: Sequence[str], claim: str | None = None) -> str:
        """What a Job prints that runs Python in the cluster. Raises AssertionError with what it said if it fails."""
        name = f"client-{next(_numbers)}"
        template = {"spec": self._client(command, claim) | {"restartPolicy": "Never"}}
        spec = {"backoffLimit": 0, "template": template}
        self.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec})

        def ended() -> Any:
            conditions = self.get("job", name).get("status", {}).get("conditions", [])
            return {each["type"]: each for each in conditions if each["status"] == "True"}

        outcome = until(f"the job {name}", lambda: ended().keys() & {"Complete", "Failed"} or None, READY_SECONDS)
        printed = self.kubectl("logs", f"job/{name}")
        assert "Complete" in outcome, printed
        self.kubectl("delete", "job", name, "--wait=false")
        return printed

    def start_client(
        self, name: str, command: Sequence[str], port: int | None = None, memory: str = CLIENT_MEMORY
    ) -> None:
        """Starts a pod that runs Python, and waits until it does, and until it answers on ``port``."""
        spec = self._client(command, None)
        spec["containers"][0]["resources"] = {"requests": {"memory": memory}}
        if port is not None:
            spec["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": port}, "periodSeconds": 1}
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
        self.kubectl("wait", "--for=condition=Ready", f"pod/{name}", f"--timeout={READY_SECONDS:g}s")

    @contextlib.contextmanager
    def bucket(self) -> Iterator[str]:
        """The endpoint of a server of the tests' models, in the bucket `models`."""
        self.start_client(
            "bucket", ["-m", "http.server", "8000", f"--directory={Path(images.MODELS).parent}"], port=8000
        )
        self.kubectl("label", "pod", "bucket", "app=bucket", "--overwrite")
        spec = {"selector": {"app": "bucket"}, "ports": [{"port": 8000}]}
        self.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "bucket"}, "spec": spec})
        yield f"http://bucket.{self.name}.svc:8000"
        self.kubectl("delete", "pod/bucket", "service/bucket", "--now")

    def _client(self, command: Sequence[str], claim: str | None) -> dict[str, Any]:
        container: dict[str, Any] = {
            "name": "client",
            "image": images.reference(self.cluster.registry, "client"),
            "args": list(command),
            "resources": {"requests": {"memory": CLIENT_MEMORY}},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        spec: dict[str, Any] = {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        }
        if claim is not None:
            container["volumeMounts"] = [{"name": "claim", "mountPath": "/claim"}]
            spec["volumes"] = [{"name": "claim", "persistentVolumeClaim": {"claimName": claim}}]
        return spec
