"""The operator as processes that come and go: restarted, one of two, and without an API server."""

import json

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.controlplane import ControlPlane
from tests.cluster.waiting import until
from tests.operator.conftest import OWN_NAMESPACE, StartOperator
from tests.operator.namespace import CHILDREN, SOURCE, Namespace
from tests.operator.process import OperatorProcess
from tests.unit.operator.test_manifests import CASES


def versions(namespace: Namespace) -> dict[str, str]:
    """Changes with any write to the model or to what belongs to it."""
    kinds = {"infernomodel": "tiny", **CHILDREN}
    return {kind: namespace.get(kind, name)["metadata"]["resourceVersion"] for kind, name in kinds.items()}


def slots(namespace: Namespace) -> str:
    """The document that the pods are started with, or nothing."""
    config = namespace.get("configmap", "tiny-config")
    return str(config["data"]["model.yaml"]) if config else ""


def alone(namespace: Namespace) -> tuple[str, ...]:
    """Flags of an operator whose writes are all about this namespace, since it knows no other."""
    return "--no-leader-election", f"--namespace={namespace.name}"


@pytest.mark.parametrize("case", CASES)
def test_settled_means_quiet(start_operator: StartOperator, namespace: Namespace, case: str) -> None:
    """However the API server spells what it was given, a pass after the last change writes nothing."""
    spec = {"model": {"source": SOURCE}} | CASES[case] | {"replicas": 0}
    with start_operator(*alone(namespace)) as operator:
        operator.leading()
        namespace.model(**spec)
        namespace.until_condition("Ready", "True", "ScaledToZero")
        until("the queue to be empty", lambda: operator.metric("inferno_operator_queue_depth") == 0)
        writes = operator.writes
        for number in range(5):
            passes = operator.passes
            namespace.kubectl("annotate", "--overwrite", "im", "tiny", f"touched={number}")
            until("another pass", lambda passes=passes: operator.passes > passes)  # type: ignore[misc]
        assert operator.writes == writes


def test_a_restart_writes_nothing(start_operator: StartOperator, namespace: Namespace) -> None:
    with start_operator(*alone(namespace)) as operator:
        operator.leading()
        namespace.serve()
        assert operator.terminate() == 0
    before = versions(namespace)
    with start_operator(*alone(namespace)) as operator:
        operator.leading()
        until("a pass", lambda: operator.passes >= 1)
        until("the queue to be empty", lambda: operator.metric("inferno_operator_queue_depth") == 0)
        assert operator.writes == 0
    assert versions(namespace) == before


def test_what_changed_meanwhile_is_caught_up_with(start_operator: StartOperator, namespace: Namespace) -> None:
    with start_operator() as operator:
        operator.leading()
        namespace.serve()
        assert operator.terminate() == 0
    namespace.model(engine={"slots": 7})
    namespace.kubectl("delete", "service", "tiny")
    with start_operator() as operator:
        operator.leading()
        until("the change", lambda: "slots: 7" in slots(namespace))
        until("the Service", lambda: namespace.get("service", "tiny"))


def test_of_two_replicas_one_acts(start_operator: StartOperator, namespace: Namespace) -> None:
    with start_operator() as one, start_operator() as two:
        leader, follower = leader_and_follower(one, two)
        namespace.serve()
        assert leader.writes > 0
        assert follower.writes == follower.passes == 0
        assert follower.get("/readyz")[0] == 200, "it is ready to take over"
        assert leader.get("/healthz")[0] == follower.get("/healthz")[0] == 200


@pytest.mark.parametrize("how", ["killed", "asked to go"])
def test_the_other_takes_over(start_operator: StartOperator, namespace: Namespace, how: str) -> None:
    with start_operator() as one, start_operator() as two:
        leader, follower = leader_and_follower(one, two)
        before = holder(namespace.cluster)
        if how == "killed":
            leader.kill()
        else:
            assert leader.terminate() == 0
            assert holder(namespace.cluster) != before, "it has given the Lease back"
        namespace.model(engine={"slots": 9})
        follower.leading()
        until("the model", lambda: "slots: 9" in slots(namespace))


def test_who_loses_the_lease_ends(start_operator: StartOperator, cluster: Cluster) -> None:
    with start_operator() as operator:
        operator.leading()
        stolen = {"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 1}}
        args = ("lease", "inferno-operator", f"--namespace={OWN_NAMESPACE}", "--type=merge")
        cluster.kubectl("patch", *args, f"--patch={json.dumps(stolen)}")
        assert operator.wait() == 1


def test_only_its_namespaces(start_operator: StartOperator, namespace: Namespace) -> None:
    other = Namespace(namespace.cluster, f"{namespace.name}-other")
    other.model()
    with start_operator(*alone(namespace)) as operator:
        operator.leading()
        namespace.serve()
        assert other.get("deployment", "tiny") is None
        assert operator.terminate() == 0
    other.kubectl("delete", "namespace", other.name, "--wait=false")


def test_survives_the_api_server(start_operator: StartOperator, cluster: Cluster, namespace: Namespace) -> None:
    if not isinstance(cluster, ControlPlane):
        pytest.skip("the API server is somebody else's")
    with start_operator("--no-leader-election") as operator:
        operator.leading()
        namespace.serve()
        with cluster.apiserver_down():
            assert operator.get("/healthz")[0] == 200, "a restart would not bring the API server back"
        namespace.model(engine={"slots": 6})
        until("the change", lambda: "slots: 6" in slots(namespace))
        assert operator.running


def test_waits_for_its_crd(start_operator: StartOperator, cluster: Cluster) -> None:
    if not cluster.owned:
        pytest.skip("the CRD is somebody else's")
    name = "crd/infernomodels.inferno.ai"
    manifest = json.loads(cluster.kubectl("get", name, "--output=json"))
    kept = {key: manifest["metadata"][key] for key in ("name",)}
    cluster.kubectl("delete", name, "--timeout=60s")
    with start_operator("--no-leader-election") as operator:
        until("it to say so", lambda: "is not installed; waiting for it" in operator.log.read_text())
        assert operator.get("/readyz")[0] == 503
        cluster.apply(
            {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "metadata": kept, "spec": manifest["spec"]}
        )
        operator.leading()


def holder(cluster: Cluster) -> str:
    """Who holds the Lease."""
    lease = cluster.get("lease", "inferno-operator", f"--namespace={OWN_NAMESPACE}")
    return str(lease["spec"]["holderIdentity"])


def leader_and_follower(one: OperatorProcess, two: OperatorProcess) -> tuple[OperatorProcess, OperatorProcess]:
    """Both, once they have found out who leads."""
    one.ready()
    two.ready()
    leader = until("one to lead", lambda: next((each for each in (one, two) if each.leads), None))
    return leader.leading(), two if leader is one else one
