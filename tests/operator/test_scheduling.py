"""Where the pods go and what they are given, as the API server takes it."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cluster.waiting import until
from tests.operator.conftest import StartOperator
from tests.operator.namespace import Namespace
from tests.operator.process import OperatorProcess

PROFILES = {
    "gpu": {"resources": {"limits": {"nvidia.com/gpu": 1}}, "nodeSelector": {"gpu": "l4"}},
    "cpu": {"resources": {"requests": {"cpu": 2}}},
}


@pytest.fixture(scope="module")
def operator(start_operator: StartOperator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """An operator that knows two hardware profiles."""
    file = tmp_path_factory.mktemp("profiles") / "profiles.yaml"
    file.write_text(yaml.safe_dump(PROFILES))
    with start_operator(f"--profiles={file}") as process:
        yield process.leading()
        assert process.terminate() == 0
    assert "a bug" not in process.log.read_text()


pytestmark = pytest.mark.usefixtures("operator")


def no_node(namespace: Namespace, pod: Any, at: str) -> None:
    """Plays the scheduler that finds no node."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    status = {"conditions": [condition | {"lastTransitionTime": at}]}
    namespace.patch("pod", pod["metadata"]["name"], {"status": status}, "--subresource=status")


def profile(namespace: Namespace) -> dict[str, Any]:
    """The profile in use, as the status has it; empty while it says nothing."""
    found: dict[str, Any] = namespace.get("im", "tiny").get("status", {}).get("profile", {})
    return found


def node_selector(namespace: Namespace) -> Any:
    return namespace.get("deployment", "tiny")["spec"]["template"]["spec"].get("nodeSelector")


def test_the_next_profile_is_tried_where_no_node_takes_a_pod(namespace: Namespace) -> None:
    namespace.model(profiles=["gpu", "cpu"])
    [pod] = namespace.until_pods(1)
    assert pod["spec"]["nodeSelector"] == {"gpu": "l4"}
    no_node(namespace, pod, "2026-01-01T00:00:00Z")
    until("the other profile", lambda: profile(namespace).get("name") == "cpu")
    until("its pod", lambda: node_selector(namespace) is None)
    until(
        "the Event",
        lambda: [each for each in namespace.list_all("events.events.k8s.io") if each["reason"] == "ProfileFallback"],
    )
    namespace.model(profiles=["cpu", "gpu"])
    another = {"name": "cpu", "candidates": ["cpu", "gpu"]}
    until("another order to begin anew", lambda: profile(namespace) == another)


def test_an_unknown_profile(namespace: Namespace) -> None:
    namespace.model(profiles=["tpu"])
    found = namespace.until_condition("Ready", "False", "UnknownProfile")
    assert "the operator knows: cpu, gpu" in found["message"]


def test_a_pod_template_is_merged(namespace: Namespace) -> None:
    sidecar = {"name": "sidecar", "image": "registry.example/sidecar:1"}
    namespace.model(podTemplate={"spec": {"containers": [sidecar], "priorityClassName": "system-node-critical"}})
    deployment = until("the Deployment", lambda: namespace.get("deployment", "tiny"))
    pod = deployment["spec"]["template"]["spec"]
    assert [container["name"] for container in pod["containers"]] == ["runtime", "sidecar"]
    assert pod["priorityClassName"] == "system-node-critical"


def test_null_in_it_takes_away(namespace: Namespace) -> None:
    patch = {
        "metadata": None,
        "spec": {"priorityClassName": None, "containers": [{"name": "runtime", "resources": None}]},
    }
    resources = {"limits": {"memory": "1Gi"}}
    namespace.model(podTemplate=patch, priorityClassName="system-node-critical", resources=resources)
    pod = until("the Deployment", lambda: namespace.get("deployment", "tiny"))["spec"]["template"]["spec"]
    assert "priorityClassName" not in pod
    assert pod["containers"][0].get("resources", {}) == {}


def test_a_misspelt_field_in_it_is_told(namespace: Namespace) -> None:
    namespace.model(podTemplate={"spec": {"hostNetwrok": True}})
    found = namespace.until_condition("Ready", "False", "RequestRejected")
    assert "hostNetwrok" in found["message"]
