"""What is kept of a test that failed: enough to find out why, when the cluster is long gone."""

import contextlib
import json
import shutil
from pathlib import Path

from tests.cluster.cluster import KubectlError
from tests.cluster.sandbox import REPOSITORY
from tests.node.connect import NodeCluster
from tests.node.place import Place

FOLDER = REPOSITORY / "build" / "node"
OPERATOR_NAMESPACE = "inferno-system"
_KINDS = "nodes,infernomodels,deployments,replicasets,pods,jobs,services,endpointslices,pvc,leases"
_LOG_BYTES = 1_000_000


def keep(folder: Path, cluster: NodeCluster, place: Place | None) -> None:
    """Writes into ``folder``, anew, what there is to know: objects, events, logs, and each client's record with its times."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, traffic in enumerate(place.traffic if place else ()):
        (folder / f"traffic-{number}.json").write_text(json.dumps(traffic.record, indent=1))
    if cluster.sandbox is not None:
        for log in cluster.sandbox.folder.glob("inferno-controlplane-*/*.log"):
            (folder / f"node-{log.name}").write_bytes(log.read_bytes()[-_LOG_BYTES:])
    for namespace in [*([place.name] if place else []), OPERATOR_NAMESPACE]:
        _keep_namespace(folder / namespace, cluster, f"--namespace={namespace}")


def _keep_namespace(folder: Path, cluster: NodeCluster, here: str) -> None:
    folder.mkdir()
    _keep_said(folder / "objects.yaml", cluster, "get", _KINDS, here, "--output=yaml")
    _keep_said(
        folder / "events.txt", cluster, "get", "events", here, "--sort-by=.metadata.creationTimestamp", "-o=wide"
    )
    with contextlib.suppress(KubectlError):
        for pod in (cluster.get("pods", here) or {"items": []})["items"]:
            name = pod["metadata"]["name"]
            arguments = ("logs", name, here, "--all-containers", "--timestamps", "--ignore-errors")
            _keep_said(folder / f"{name}.log", cluster, *arguments)
            _keep_said(folder / f"{name}-previous.log", cluster, *arguments, "--previous")


def _keep_said(file: Path, cluster: NodeCluster, *arguments: str) -> None:
    """What kubectl prints; nothing where it fails, as for the log of a container before the first."""
    with contextlib.suppress(KubectlError):
        file.write_text(cluster.kubectl(*arguments))
