"""The control plane that the other tests stand on does what they rely on."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import build, process
from tests.cluster.cluster import KubectlError
from tests.cluster.controlplane import ControlPlane, connect
from tests.cluster.waiting import until

# The first test builds the control plane where nobody has done that before.
pytestmark = [pytest.mark.kube, pytest.mark.timeout(3600)]

REPOSITORY = Path(__file__).parents[2]
# A control plane in a process of its own: it tells the ids of its processes, and then waits to be killed.
DOOMED = """
import json, sys
from tests.cluster.controlplane import ControlPlane
with ControlPlane() as doomed:
    pids = [process.pid for process in doomed.processes.values()]
    print(json.dumps({"directory": str(doomed.directory), "pids": pids}), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[ControlPlane]:
    with ControlPlane() as cluster:
        yield cluster


@pytest.fixture
def namespace(cluster: ControlPlane, request: pytest.FixtureRequest) -> Iterator[str]:
    name = request.node.name.replace("_", "-")
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def controllers(cluster: ControlPlane) -> None:
    if not cluster.has_controller_manager:
        pytest.skip("KUBEBUILDER_ASSETS has no kube-controller-manager")


def config_map(name: str, namespace: str, **metadata: object) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace, **metadata}}


def runs(pid: int, directory: str) -> bool:
    """Whether the process of that id is still the one that was started for the directory."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return directory.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


@pytest.mark.skipif("KUBEBUILDER_ASSETS" in os.environ, reason="binaries of somebody else's choice")
def test_server_and_client_are_of_the_pinned_version(cluster: ControlPlane) -> None:
    versions = json.loads(cluster.kubectl("version", "--output=json"))
    assert versions["serverVersion"]["gitVersion"] == build.CONTROL_PLANE.version == "v1.37.2"
    assert versions["clientVersion"]["gitVersion"] == "v1.37.2"


@pytest.mark.usefixtures("controllers")
def test_a_deployment_gets_its_pods(cluster: ControlPlane, namespace: str) -> None:
    cluster.kubectl("create", "deployment", "web", "--image=example.com/web", "--replicas=2", "-n", namespace)
    cluster.kubectl("wait", "--for=create", "replicaset", "--selector=app=web", "-n", namespace)
    listed = ("pods", "--selector=app=web", "-n", namespace)
    pods = until("both pods", lambda: items if len(items := cluster.get(*listed)["items"]) == 2 else None)
    assert {pod["status"]["phase"] for pod in pods} == {"Pending"}


@pytest.mark.usefixtures("controllers")
def test_what_an_object_owns_goes_with_it(cluster: ControlPlane, namespace: str) -> None:
    cluster.apply(config_map("owner", namespace))
    owner = cluster.get("configmap", "owner", "-n", namespace)
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    cluster.apply(config_map("owned", namespace, ownerReferences=[reference]))
    cluster.kubectl("delete", "configmap", "owner", "-n", namespace)
    cluster.kubectl("wait", "--for=delete", "configmap/owned", "-n", namespace)


@pytest.mark.usefixtures("controllers")
def test_restricted_pod_security_is_enforced(cluster: ControlPlane, namespace: str) -> None:
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    account = ("serviceaccount/default", "-n", namespace)
    cluster.kubectl("wait", "--for=create", *account)
    with pytest.raises(KubectlError, match="violates PodSecurity"):
        cluster.kubectl("run", "careless", "--image=example.com/web", "-n", namespace)


def test_a_service_account_may_do_what_its_roles_say(cluster: ControlPlane, namespace: str) -> None:
    cluster.kubectl("create", "serviceaccount", "reader", "-n", namespace)
    reader = cluster.service_account_kubeconfig(namespace, "reader")
    with pytest.raises(KubectlError, match="Forbidden"):
        cluster.get("configmaps", kubeconfig=reader)
    cluster.kubectl("create", "role", "reader", "--verb=get,list", "--resource=configmaps", "-n", namespace)
    binding = ("--role=reader", f"--serviceaccount={namespace}:reader", "-n", namespace)
    cluster.kubectl("create", "rolebinding", "reader", *binding)

    def allowed() -> bool:
        with contextlib.suppress(KubectlError):
            return cluster.get("configmaps", kubeconfig=reader) is not None
        return False

    until("the role to take effect", allowed)
    with pytest.raises(KubectlError, match="Forbidden"):
        cluster.get("secrets", kubeconfig=reader)


def test_a_restart_of_the_api_server_keeps_objects_and_the_address(cluster: ControlPlane, namespace: str) -> None:
    cluster.apply(config_map("kept", namespace))
    before = cluster.get("configmap", "kept", "-n", namespace)
    url, pid = cluster.url, cluster.processes["kube-apiserver"].pid
    cluster.restart_apiserver()
    assert cluster.url == url
    assert cluster.processes["kube-apiserver"].pid != pid
    assert cluster.get("configmap", "kept", "-n", namespace) == before


def test_without_its_api_server_a_cluster_does_not_answer(cluster: ControlPlane) -> None:
    with cluster.apiserver_down(), pytest.raises(KubectlError, match="refused"):
        cluster.kubectl("get", "--raw", "/readyz")
    assert cluster.kubectl("get", "--raw", "/readyz") == "ok"


def test_a_second_control_plane_gets_ports_and_objects_of_its_own(
    cluster: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = urllib.parse.urlsplit(cluster.url).port
    free_port = process.free_port
    choices = iter([taken, free_port(), taken])
    monkeypatch.setattr(process, "free_port", lambda: next(choices, None) or free_port())
    with ControlPlane() as second:
        assert second.url != cluster.url
        second.kubectl("create", "namespace", "only-here")
        assert cluster.get("namespace", "only-here") is None
    assert cluster.kubectl("get", "--raw", "/readyz") == "ok"


def test_stop_leaves_nothing_behind() -> None:
    stopped = ControlPlane()
    with stopped:
        directory = stopped.directory
        pids = [server.pid for server in stopped.processes.values()]
        assert all(runs(pid, str(directory)) for pid in pids)
    assert not any(runs(pid, str(directory)) for pid in pids)
    assert not directory.exists()
    stopped.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel does not end them")
def test_its_processes_end_with_a_test_run_that_is_killed(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", DOOMED]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdin=pipe, stdout=pipe, text=True) as run:
        assert run.stdout is not None
        told = json.loads(run.stdout.readline())
        assert all(runs(pid, told["directory"]) for pid in told["pids"])
        run.send_signal(signal.SIGKILL)
    until("all of them to end", lambda: not any(runs(pid, told["directory"]) for pid in told["pids"]))


def test_without_a_controller_manager_it_starts_and_says_so(cluster: ControlPlane, tmp_path: Path) -> None:
    for name in build.REQUIRED_ASSETS:
        (tmp_path / name).symlink_to((cluster.binaries / name).resolve())
    with ControlPlane(binaries=tmp_path) as bare:
        assert not bare.has_controller_manager
        bare.apply(config_map("settings", "default"))
        assert bare.get("configmap", "settings", "-n", "default")


def test_a_cluster_that_exists_is_used_only_when_asked_for(
    cluster: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    assert connect().owned
    monkeypatch.setenv("INFERNO_TEST_USE_KUBECONFIG", "1")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(cluster.binaries))
    with connect() as existing:
        assert not existing.owned
        monkeypatch.delenv("KUBECONFIG")
        existing.kubectl("create", "namespace", "made-through-it")
        assert cluster.get("namespace", "made-through-it")
    assert cluster.kubectl("get", "--raw", "/readyz") == "ok"


def test_a_component_that_does_not_start_shows_its_log() -> None:
    refused = ControlPlane(apiserver_flags={"authorization-mode": "Oracle"})
    with pytest.raises(process.ProcessError, match="Oracle"):
        refused.start()
    assert refused.processes == {}
    assert not refused.directory.exists()
