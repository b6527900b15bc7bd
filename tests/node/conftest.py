"""A cluster with a node for all tests here, and in it the operator as users install it."""

import itertools
import os
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.cluster.sandbox import Sandbox
from tests.node import evidence
from tests.node.connect import NodeCluster, connect
from tests.node.place import Place
from tests.node.report import Results
from tests.node.settling import settle

RESULTS = Path(os.environ.get("INFERNO_TEST_RESULTS", "build/reliability.json"))
_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a node, which only `make cluster-test` starts."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.node)
            item.add_marker(pytest.mark.timeout(1200))
            if os.environ.get("INFERNO_TEST_NODE") != "1":
                item.add_marker(pytest.mark.skip(reason="a part of `make cluster-test`"))
    # A user finds a cluster without Inferno; the other tests find it installed.
    items.sort(key=lambda item: item.path.name != "test_user_path.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keeps what there is to know of a test that failed, before anything is tidied away."""
    report = yield
    fixtures = getattr(item, "funcargs", {})
    if report.failed and "cluster" in fixtures:
        folder = evidence.FOLDER / item.name
        evidence.keep(folder, fixtures["cluster"], fixtures.get("place") or fixtures.get("user"))
        report.sections.append(("evidence", str(folder)))
    return report


@pytest.fixture(scope="session")
def cluster() -> Iterator[NodeCluster]:
    """The cluster."""
    with connect() as connected:
        yield connected


@pytest.fixture(autouse=True)
def settled(request: pytest.FixtureRequest) -> None:
    """Each test finds a cluster that is well, and leaves no load in the record of the next one."""
    settle(request.getfixturevalue("cluster"))
    for name in {"place", "user"} & set(request.fixturenames):
        request.getfixturevalue(name).traffic.clear()


@pytest.fixture(scope="session")
def release(cluster: NodeCluster) -> None:
    """The operator, installed from the chart; two replicas of it. It stays, for the tests that come after."""
    flags = [
        "--create-namespace",
        "--wait",
        "--timeout=5m",
        "--set=replicaCount=2",
        f"--set=registry={cluster.registry}",
    ]
    helm(cluster, "upgrade", "--install", "inferno", "charts/inferno", *flags)


@pytest.fixture(scope="session")
def results() -> Results:
    """Where the tests leave what goes into the report."""
    return Results(RESULTS)


@pytest.fixture
def sandbox(cluster: NodeCluster) -> Sandbox:
    """Our own node, for tests that harm it."""
    if cluster.sandbox is None:
        pytest.skip("harms the node, and this one is somebody's")
    return cluster.sandbox


@pytest.fixture(scope="module")
def place(cluster: NodeCluster, release: None) -> Iterator[Place]:
    """A namespace for the tests of a module, with a claim that holds the models."""
    made = Place(cluster, f"node-test-{os.getpid()}-{next(_numbers)}")
    made.claim()
    yield made
    cluster.kubectl("delete", "namespace", made.name, "--wait=false")


def helm(cluster: NodeCluster, *arguments: str) -> str:
    """What Helm prints, which has to succeed."""
    command = ["helm", *arguments, "--namespace=inferno-system"]
    done = subprocess.run(command, env=cluster.tools, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
