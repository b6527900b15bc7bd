"""A cluster that is well: what each test may take for granted, whatever the one before it did."""

import contextlib
import json
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from tests.cluster import nodefiles
from tests.cluster.cluster import KubectlError
from tests.cluster.sandbox import SandboxError
from tests.cluster.waiting import until
from tests.node.connect import NodeCluster
from tests.node.evidence import OPERATOR_NAMESPACE

SETTLE_SECONDS = 180.0
KUBELET_GRACE_SECONDS = 12.0
_SOFT_LIMITS = frozenset({"evictionSoft", "evictionSoftGracePeriod", "evictionMaxPodGracePeriod"})


def settle(cluster: NodeCluster) -> None:
    """Returns once the API answers, the nodes are ready, names are resolved, and the operator, if it is there, acts."""
    if cluster.sandbox is not None:
        cluster.sandbox.release()
    until("the API server", lambda: answers(cluster), SETTLE_SECONDS)
    if cluster.sandbox is not None:
        _configure_kubelet(cluster, {})
    _wait(cluster, "wait", "--for=condition=Ready", "nodes", "--all")
    if cluster.sandbox is not None:
        _wait(cluster, "rollout", "status", "deployment/coredns", "--namespace=kube-system")
    if cluster.get("deployment", "inferno", f"--namespace={OPERATOR_NAMESPACE}"):
        _wait(cluster, "rollout", "status", "deployment/inferno", f"--namespace={OPERATOR_NAMESPACE}")


def answers(cluster: NodeCluster) -> bool:
    """Whether there is an API server."""
    try:
        return cluster.kubectl("get", "--raw", "/readyz") == "ok"
    except KubectlError:
        return False


def seasoned(cluster: NodeCluster) -> None:
    """Waits until a kubelet that starts now knows all that runs for what ran before it.

    One that has run for less than ten seconds it takes for new, and so for not ready until it has been probed.
    """

    def all_are() -> bool:
        pods = cluster.get("pods", "--all-namespaces")["items"]
        statuses = [status for pod in pods for status in pod["status"].get("containerStatuses", ())]
        started = [status["state"]["running"]["startedAt"] for status in statuses if "running" in status["state"]]
        return time.time() - max(datetime.fromisoformat(each).timestamp() for each in started) > KUBELET_GRACE_SECONDS

    until("all pods to have run for some seconds", all_are, SETTLE_SECONDS)


def restart(cluster: NodeCluster, component: str) -> None:
    """Kills a component of our own node; returns once another process has its place and the kubelet finds all well."""
    assert cluster.sandbox is not None
    sandbox = cluster.sandbox
    before = sandbox.process(component)
    sandbox.kill(component)

    def another() -> bool:
        try:
            return sandbox.process(component) != before
        except SandboxError:
            return False

    until(f"another {component}", another, SETTLE_SECONDS)
    reported = _reported(cluster)
    until("the kubelet to report", lambda: _reported(cluster) != reported, SETTLE_SECONDS)
    _wait(cluster, "wait", "--for=condition=Ready", "nodes", "--all")


@contextlib.contextmanager
def evicts_below(cluster: NodeCluster, spare: int) -> Iterator[None]:
    """For the length of a ``with``, the kubelet of our own node evicts pods once ``spare`` bytes more of memory are used.

    Each of them has the time to end that it asks for (a soft eviction).
    """
    seasoned(cluster)
    summary = json.loads(cluster.kubectl("get", "--raw", f"/api/v1/nodes/{nodefiles.NODE}/proxy/stats/summary"))
    threshold = {"memory.available": str(summary["node"]["memory"]["availableBytes"] - spare)}
    soft = {"evictionSoft": threshold, "evictionSoftGracePeriod": dict.fromkeys(threshold, "1s")}
    try:
        _configure_kubelet(cluster, soft | {"evictionMaxPodGracePeriod": 300})
        yield
    finally:
        _configure_kubelet(cluster, {})


def _configure_kubelet(cluster: NodeCluster, soft: dict[str, Any]) -> None:
    """Gives the kubelet of our own node these limits at which it evicts pods softly, and no others of that kind."""
    assert cluster.sandbox is not None
    file = cluster.sandbox.folder / "kubelet.json"
    before = json.loads(file.read_text())
    wanted = {name: value for name, value in before.items() if name not in _SOFT_LIMITS} | soft
    if wanted != before:
        file.write_text(json.dumps(wanted))
        restart(cluster, "kubelet")


def _reported(cluster: NodeCluster) -> str:
    """When the node's kubelet last said that it lives."""
    lease = cluster.get("lease", nodefiles.NODE, "--namespace=kube-node-lease")
    return str(lease["spec"]["renewTime"])


def _wait(cluster: NodeCluster, *command: str) -> None:
    cluster.kubectl(*command, f"--timeout={SETTLE_SECONDS:g}s", timeout=SETTLE_SECONDS + 10)
