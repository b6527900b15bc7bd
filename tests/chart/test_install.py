"""The chart on a real API server: what Helm renders is accepted, admitted, and gives the operator its rights."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chart.release import CHART, MODEL, NAME, NAMESPACE, helm, installed
from tests.cluster.cluster import Cluster, KubectlError
from tests.cluster.waiting import until

pytestmark = pytest.mark.kube


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster with the chart in it."""
    with installed() as cluster:
        yield cluster


def can(cluster: Cluster, verb: str, resource: str, *more: str) -> bool:
    """Whether the operator's ServiceAccount may do it."""
    account = f"--as=system:serviceaccount:{NAMESPACE}:{NAME}"
    try:
        return cluster.kubectl("auth", "can-i", verb, resource, account, *more).strip() == "yes"
    except KubectlError as error:
        if error.stderr:
            raise
        return False  # "no" is an exit status too


def takes_a_model(cluster: Cluster) -> bool:
    try:
        cluster.apply(MODEL)
    except KubectlError:
        return False
    return True


def test_brings_the_kind(cluster: Cluster) -> None:
    until("the kind to be served", lambda: takes_a_model(cluster))
    assert cluster.get("im", "tiny", f"--namespace={NAMESPACE}")["spec"]["replicas"] == 1
    cluster.kubectl("delete", "im", "tiny", f"--namespace={NAMESPACE}")


def test_its_pods_are_admitted_under_the_restricted_profile(cluster: Cluster) -> None:
    if not cluster.has_controller_manager:
        pytest.skip("no controller manager: nobody makes pods")
    pods = ("pods", f"--namespace={NAMESPACE}", "--selector=app.kubernetes.io/name=inferno-operator")
    until("the operator's pod to be admitted", lambda: bool(cluster.get(*pods)["items"]), 30)


@pytest.mark.parametrize(
    ("verb", "resource", "allowed"),
    [
        ("watch", "infernomodels.inferno.ai", True),
        ("patch", "infernomodels.inferno.ai", False),
        ("patch", "deployments.apps", True),
        ("delete", "deployments.apps", False),
        ("get", "secrets", False),
        ("create", "pods", False),
    ],
)
def test_the_operator_may_do_what_it_does_and_no_more(
    cluster: Cluster, verb: str, resource: str, allowed: bool
) -> None:
    assert can(cluster, verb, resource, "--all-namespaces") is allowed


def test_the_operator_may_hold_its_own_lease_only(cluster: Cluster) -> None:
    assert can(cluster, "update", "leases/inferno-operator", f"--namespace={NAMESPACE}")
    assert not can(cluster, "update", "leases/another", f"--namespace={NAMESPACE}")
    assert not can(cluster, "update", "leases/inferno-operator", "--namespace=kube-system")


def test_can_be_upgraded(cluster: Cluster) -> None:
    helm(cluster, "upgrade", NAME, str(CHART), "--set", "replicaCount=2,log.format=text")
    budget: dict[str, Any] = json.loads(
        cluster.kubectl("get", "poddisruptionbudget", "inferno", f"--namespace={NAMESPACE}", "--output=json")
    )
    assert budget["spec"]["maxUnavailable"] == 1


def test_an_upgrade_brings_the_kind_of_its_version_and_keeps_the_models(cluster: Cluster) -> None:
    until("the kind to be served", lambda: takes_a_model(cluster))
    older = [{"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/suspend"}]
    cluster.kubectl("patch", "crd", "infernomodels.inferno.ai", "--type=json", f"--patch={json.dumps(older)}")
    uid = cluster.get("im", "tiny", f"--namespace={NAMESPACE}")["metadata"]["uid"]
    helm(cluster, "upgrade", NAME, str(CHART), "--force-conflicts")
    until(
        "the field to be back",
        lambda: "suspend" in cluster.kubectl("explain", "im.spec", "--output=plaintext-openapiv2"),
    )
    assert cluster.get("im", "tiny", f"--namespace={NAMESPACE}")["metadata"]["uid"] == uid
    cluster.kubectl("delete", "im", "tiny", f"--namespace={NAMESPACE}")


def test_a_kind_that_came_without_the_chart_is_taken_over(cluster: Cluster) -> None:
    """As it did with a chart that kept it in its crds folder."""
    until("the kind to be served", lambda: takes_a_model(cluster))
    uid = cluster.get("im", "tiny", f"--namespace={NAMESPACE}")["metadata"]["uid"]
    helm(cluster, "upgrade", NAME, str(CHART), "--set", "crds.install=false")
    notes = ("meta.helm.sh/release-name-", "meta.helm.sh/release-namespace-")
    cluster.kubectl("annotate", "crd", "infernomodels.inferno.ai", *notes)
    helm(cluster, "upgrade", NAME, str(CHART), "--set", "crds.install=true", "--take-ownership", "--force-conflicts")
    kind = cluster.get("crd", "infernomodels.inferno.ai")
    assert kind["metadata"]["annotations"]["meta.helm.sh/release-name"] == NAME
    assert cluster.get("im", "tiny", f"--namespace={NAMESPACE}")["metadata"]["uid"] == uid
    cluster.kubectl("delete", "im", "tiny", f"--namespace={NAMESPACE}")


def test_what_stays_when_it_goes(cluster: Cluster) -> None:
    until("the kind to be served", lambda: takes_a_model(cluster))
    helm(cluster, "uninstall", NAME)
    assert cluster.get("im", "tiny", f"--namespace={NAMESPACE}"), "the models stay"
    assert cluster.get("deployment", NAME, f"--namespace={NAMESPACE}") is None
    # It finds what it left.
    helm(cluster, "install", NAME, str(CHART), "--take-ownership")
    assert cluster.get("im", "tiny", f"--namespace={NAMESPACE}")
