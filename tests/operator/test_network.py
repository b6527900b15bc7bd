"""How a model is reached, by whom, and who watches it."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from inferno_operator.api.kinds import CHILDREN, OPTIONAL, Kind
from tests.cluster.cluster import Cluster
from tests.cluster.waiting import until
from tests.operator.conftest import StartOperator
from tests.operator.namespace import Namespace
from tests.operator.process import OperatorProcess

INGRESS = {"host": "tiny.example.com", "tlsSecretName": "tiny-tls"}
SCALED_BY_KEDA = {
    "maxReplicas": 4,
    "by": "ScaledObject",
    "prometheus": {"address": "http://prometheus.monitoring:9090"},
}
POLICY = {"allow": [{"namespaceSelector": {"matchLabels": {"team": "ml"}}}]}
ROUTE = {"gateways": [{"name": "public", "namespace": "infra"}], "hostnames": ["tiny.example.com"]}


def definition(kind: Kind) -> dict[str, Any]:
    """A stand-in for the CustomResourceDefinition of somebody else's kind: it takes everything."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": kind.version, "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}
    named = {"kind": kind.name, "plural": kind.plural, "singular": kind.name.lower()}
    metadata: dict[str, Any] = {"name": f"{kind.plural}.{kind.group}"}
    if kind.group.endswith("k8s.io"):
        metadata["annotations"] = {"api-approved.kubernetes.io": "unapproved, a stand-in for tests"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": {"group": kind.group, "scope": "Namespaced", "names": named, "versions": [version]},
    }


@pytest.fixture(scope="module")
def operator(cluster: Cluster, start_operator: StartOperator) -> Iterator[OperatorProcess]:
    """An operator in a cluster that knows the Gateway API, KEDA and the Prometheus operator."""
    if not cluster.owned:
        pytest.skip("the kinds of others are somebody else's")
    for kind in OPTIONAL:
        cluster.apply(definition(kind))
    for kind in OPTIONAL:
        until(f"{kind.plural} to be served", lambda kind=kind: serves(cluster, kind))  # type: ignore[misc]
    with start_operator() as process:
        yield process.leading()
        assert process.terminate() == 0
    assert "a bug" not in process.log.read_text()
    for kind in OPTIONAL:
        cluster.kubectl("delete", "crd", f"{kind.plural}.{kind.group}")


def serves(cluster: Cluster, kind: Kind) -> bool:
    return kind.plural in cluster.kubectl(
        "api-resources", f"--api-group={kind.group}", "--output=name", "--cached=false"
    )


pytestmark = pytest.mark.usefixtures("operator")


@pytest.mark.parametrize(
    ("spec", "kind", "name"),
    [
        ({"network": {"headless": True}}, "service", "tiny-pods"),
        ({"network": {"ingress": INGRESS}}, "ingress", "tiny"),
        ({"network": {"policy": POLICY}}, "networkpolicy", "tiny"),
        ({"network": {"httpRoute": ROUTE}}, "httproute", "tiny"),
        ({"autoscaling": SCALED_BY_KEDA}, "scaledobject", "tiny"),
        ({"monitoring": {"serviceMonitor": True}}, "servicemonitor", "tiny"),
        ({"monitoring": {"prometheusRule": True}}, "prometheusrule", "tiny"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_comes_and_goes_as_asked_for(namespace: Namespace, spec: dict[str, Any], kind: str, name: str) -> None:
    namespace.model(**spec)
    made = until("it to come", lambda: namespace.get(kind, name))
    assert made["metadata"]["ownerReferences"][0]["name"] == "tiny"
    namespace.model()
    until("it to go", lambda: namespace.get(kind, name) is None)
    assert namespace.get("service", "tiny"), "the model's address stays"


def test_an_object_of_somebody_elses_is_not_deleted(namespace: Namespace) -> None:
    port = {"port": 80, "name": "http"}
    metadata = {"name": "tiny-pods", "namespace": namespace.name, "labels": {"app.kubernetes.io/instance": "tiny"}}
    namespace.cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [port]}})
    namespace.serve()
    assert namespace.get("service", "tiny-pods")
    namespace.model(network={"headless": True})
    found = namespace.until_condition("Ready", "False", "ObjectConflict")
    assert "Service tiny-pods exists already" in found["message"]


def test_another_type_of_service(namespace: Namespace) -> None:
    namespace.model(network={"serviceType": "NodePort"})
    until(
        "its port",
        lambda: (namespace.get("service", "tiny") or {}).get("spec", {}).get("ports", [{}])[0].get("nodePort"),
    )
    namespace.model()
    until("the usual type", lambda: namespace.get("service", "tiny")["spec"]["type"] == "ClusterIP")


def test_keys_come_from_a_secret_that_the_operator_does_not_read(namespace: Namespace) -> None:
    namespace.model(keysSecret={"name": "api-keys"})
    [pod] = namespace.until_pods(1)
    assert {"name": "keys", "secret": {"secretName": "api-keys", "defaultMode": 420}} in pod["spec"]["volumes"]
    document = yaml.safe_load(namespace.get("configmap", "tiny-config")["data"]["model.yaml"])
    assert document["spec"]["server"]["keysFile"] == "/etc/inferno-keys/keys.yaml"


def test_rest_is_quiet_with_all_of_them(namespace: Namespace, operator: OperatorProcess) -> None:
    namespace.model(
        replicas=0,
        network={"headless": True, "ingress": INGRESS, "policy": POLICY, "httpRoute": ROUTE},
        monitoring={"serviceMonitor": True, "prometheusRule": True},
        autoscaling=SCALED_BY_KEDA,
    )
    namespace.until_condition("Ready", "True", "ScaledToZero")
    until("the queue to be empty", lambda: operator.metric("inferno_operator_queue_depth") == 0)
    before, passes = versions(namespace), operator.passes
    namespace.kubectl("annotate", "im", "tiny", "touched=1")
    until("another pass", lambda: operator.passes > passes)
    assert versions(namespace) == before


def versions(namespace: Namespace) -> dict[str, str]:
    """Changes with any write to one of the model's objects."""
    kinds = ",".join(kind.plural for kind in (*CHILDREN, *OPTIONAL))
    found = namespace.list_all(kinds, "--selector=app.kubernetes.io/instance=tiny")
    assert len(found) >= 10
    return {f"{each['kind']} {each['metadata']['name']}": each["metadata"]["resourceVersion"] for each in found}
