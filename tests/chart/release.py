"""The chart as a release on a real API server."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import build, controlplane
from tests.cluster.cluster import Cluster

CHART = Path(__file__).resolve().parents[2] / "charts" / "inferno"
NAME = "inferno"
NAMESPACE = "chart-test"
# Admission refuses pods here that ask for more than the restricted profile allows.
RESTRICTED = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
}
MODEL = {
    "apiVersion": "inferno.ai/v1alpha1",
    "kind": "InfernoModel",
    "metadata": {"name": "tiny", "namespace": NAMESPACE},
    "spec": {"model": {"source": "file:///models/inferno-tiny-Q8_0.gguf"}},
}


def helm(cluster: Cluster, *arguments: str) -> str:
    """What Helm prints, which has to succeed."""
    command = [str(build.helm()), *arguments, f"--namespace={NAMESPACE}", f"--kubeconfig={cluster.kubeconfig}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def installed() -> Iterator[Cluster]:
    """A cluster with the chart in it."""
    with controlplane.connect() as cluster:
        cluster.apply(RESTRICTED)
        try:
            helm(cluster, "install", NAME, str(CHART))
            yield cluster
            helm(cluster, "uninstall", NAME)
        finally:
            cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
