"""What keeps a model from serving, told in its conditions and in Events."""

from typing import Any

import pytest

from tests.cluster.waiting import until
from tests.operator.namespace import Namespace

pytestmark = pytest.mark.usefixtures("operator")

CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "models"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}


def events(namespace: Namespace, reason: str) -> list[Any]:
    """Events about the model."""
    found = namespace.list_all("events.events.k8s.io")
    return [each for each in found if each["reason"] == reason and each["regarding"]["kind"] == "InfernoModel"]


def test_a_claim_that_is_not_there_yet(namespace: Namespace) -> None:
    namespace.model(source="pvc://models/tiny.gguf")
    found = namespace.until_condition("SourceResolved", "False", "ClaimNotFound")
    assert "PersistentVolumeClaim models" in found["message"]
    assert namespace.condition("Ready")["reason"] == "ClaimNotFound"
    metadata = CLAIM["metadata"] | {"namespace": namespace.name}  # type: ignore[operator]
    namespace.cluster.apply(CLAIM | {"metadata": metadata})
    namespace.until_condition("SourceResolved", "True", "ClaimFound")
    [pod] = namespace.until_pods(1)
    namespace.run(pod)
    namespace.until_condition("Ready", "True", "Serving")


def test_a_model_that_does_not_load(namespace: Namespace) -> None:
    namespace.model()
    [pod] = namespace.until_pods(1)
    namespace.crash(pod, "/opt/models/tiny.gguf: not a GGUF file\n")
    found = namespace.until_condition("ModelVerified", "False", "LoadFailed")
    assert found["message"] == f"/opt/models/tiny.gguf: not a GGUF file (pod {pod['metadata']['name']})"
    assert namespace.condition("Ready")["reason"] == "ContainerFailed"
    [event] = until("the Event", lambda: events(namespace, "ContainerFailed"))
    assert event["type"] == "Warning"
    assert "not a GGUF file" in event["note"]
    namespace.run(pod)
    namespace.until_condition("Ready", "True", "Serving")
    assert len(events(namespace, "Serving")) == 1


def test_a_new_model_that_does_not_load_leaves_the_old_one_serving(namespace: Namespace) -> None:
    namespace.serve()
    namespace.model(source="file:///opt/models/broken.gguf")
    [pod] = namespace.until_pods(1)
    namespace.crash(pod, "not a GGUF file")
    namespace.until_condition("Ready", "False", "ContainerFailed")
    assert namespace.condition("Available")["status"] == "True"
    namespace.model()
    namespace.until_condition("Ready", "True", "Serving")


def test_pods_that_may_not_be_made(namespace: Namespace) -> None:
    quota = {"metadata": {"name": "none", "namespace": namespace.name}, "spec": {"hard": {"pods": "0"}}}
    namespace.cluster.apply({"apiVersion": "v1", "kind": "ResourceQuota"} | quota)
    until("the quota to be counted", lambda: namespace.get("quota", "none").get("status", {}).get("used"))
    namespace.model()
    found = namespace.until_condition("Ready", "False", "FailedCreate")
    assert "exceeded quota" in found["message"]


def test_a_route_in_a_cluster_without_the_gateway_api(namespace: Namespace) -> None:
    namespace.model(network={"httpRoute": {"gateways": [{"name": "public"}]}})
    found = namespace.until_condition("Ready", "False", "KindMissing")
    assert "install the Gateway API" in found["message"]
    namespace.model(monitoring={"serviceMonitor": True})
    namespace.until_pods(1)


def test_a_scaled_object_in_a_cluster_without_keda(namespace: Namespace) -> None:
    asked = {"maxReplicas": 4, "by": "ScaledObject", "prometheus": {"address": "http://prometheus:9090"}}
    namespace.model(autoscaling=asked)
    found = namespace.until_condition("Ready", "False", "KindMissing")
    assert "install KEDA" in found["message"]


def test_a_deployment_that_the_api_server_refuses(namespace: Namespace) -> None:
    namespace.model(nodeSelector={"not a label": "x"})
    found = namespace.until_condition("Ready", "False", "RequestRejected")
    assert "not a label" in found["message"]
    namespace.model()
    namespace.until_pods(1)
