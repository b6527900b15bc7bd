"""A control plane for all tests of the operator, with its CRD and its ServiceAccount, and a namespace for each test."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import yaml

from tests.cluster.cluster import Cluster, KubectlError
from tests.cluster.controlplane import connect
from tests.cluster.waiting import until
from tests.operator.namespace import Namespace
from tests.operator.process import OperatorProcess

ROOT = Path(__file__).parents[2]
CRD = ROOT / "crds" / "inferno.ai_infernomodels.yaml"
RULES = ROOT / "tests" / "data" / "operator-rbac.yaml"
ACCOUNT = "inferno-operator"
OWN_NAMESPACE = "inferno-operator-test"

StartOperator = Callable[..., AbstractContextManager[OperatorProcess]]
_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a Kubernetes API server."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.kube)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A control plane that knows InfernoModels."""
    with connect() as connected:
        connected.apply(yaml.safe_load(CRD.read_text()))
        # Also after it calls the CRD established the API server may say that the storage is being initialized.
        until("InfernoModels to be served", lambda: _serves_models(connected))
        yield connected


def _serves_models(cluster: Cluster) -> bool:
    try:
        cluster.kubectl("get", "infernomodels", "--all-namespaces")
    except KubectlError:
        return False
    return True


@pytest.fixture(scope="session")
def kubeconfig(cluster: Cluster) -> Path:
    """The operator's own, which may do what the rules say and no more."""
    rules = yaml.safe_load(RULES.read_text())
    api = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": OWN_NAMESPACE}
    here = {"name": ACCOUNT, "namespace": OWN_NAMESPACE}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OWN_NAMESPACE}})
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": here},
        {"apiVersion": f"{api}/v1", "kind": "ClusterRole", "metadata": {"name": ACCOUNT}, "rules": rules["cluster"]},
        {
            "apiVersion": f"{api}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": ACCOUNT},
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": ACCOUNT},
            "subjects": [subject],
        },
        {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": here, "rules": rules["lease"]},
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": here,
            "roleRef": {"apiGroup": api, "kind": "Role", "name": ACCOUNT},
            "subjects": [subject],
        },
    )
    return cluster.service_account_kubeconfig(OWN_NAMESPACE, ACCOUNT)


@pytest.fixture(scope="session")
def start_operator(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> StartOperator:
    """Starts a replica of the operator, which ends with the ``with``."""
    logs = tmp_path_factory.mktemp("operators")

    def start(*arguments: str, kubeconfig: Path = kubeconfig) -> OperatorProcess:
        log = logs / f"{next(_numbers)}.log"
        return OperatorProcess(kubeconfig, log, f"--lease-namespace={OWN_NAMESPACE}", *arguments)

    return start


@pytest.fixture(scope="module")
def operator(start_operator: StartOperator) -> Iterator[OperatorProcess]:
    """One replica, for the tests of a module."""
    with start_operator() as process:
        yield process.leading()
        assert process.terminate() == 0
    assert "a bug" not in process.log.read_text()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[Namespace]:
    """A namespace of the test's own."""
    made = Namespace(cluster, f"test-{next(_numbers)}")
    yield made
    cluster.kubectl("delete", "namespace", made.name, "--wait=false")
