"""A node of our own comes up, is what the tests rely on, and goes without a trace."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import build, node, sandbox
from tests.cluster.cluster import ExistingCluster
from tests.cluster.sandbox import Sandbox, SandboxError
from tests.cluster.waiting import until
from tests.node import __main__ as main

pytestmark = pytest.mark.timeout(3600)

needs_node = pytest.mark.skipif(os.environ.get("INFERNO_TEST_NODE") != "1", reason="a part of `make cluster-test`")


def machine(folder: Path) -> dict[str, object]:
    """What a node could have left on this machine."""

    def printed(*command: str) -> list[str]:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        # Counters and times go on.
        return [line for line in done.stdout.splitlines() if not line.startswith(("#", ":"))]

    mounts = Path("/proc/mounts").read_text().splitlines()
    links = [line.split(":")[1].strip() for line in printed("ip", "-oneline", "link")]
    return {
        "folder": folder.exists(),
        "mounts": [line for line in mounts if str(folder) in line],
        "processes": [path for path in Path("/proc").glob("[0-9]*/root") if _belongs_to(path.parent, folder)],
        "control groups": [group for group in sandbox._control_groups() if group.exists()],
        "links": links,
        "rules": printed("iptables-save"),
        "settings": {name: Path("/proc/sys", name).read_text() for name in node.SETTINGS},
        "forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
    }


def _belongs_to(process: Path, folder: Path) -> bool:
    try:
        return str(folder).encode() in (process / "cmdline").read_bytes()
    except OSError:
        return False


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Sandbox]:
    made = Sandbox(tmp_path / "cluster")
    if Sandbox().running:
        pytest.skip("a cluster runs here already")
    yield made
    made.down()


@needs_node
def test_two_runs_leave_nothing_behind(place: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    before = machine(place.folder)
    for _ in range(2):
        place.up()
        monkeypatch.setenv("KUBECONFIG", str(place.kubeconfig))
        with ExistingCluster() as cluster:
            (ready,) = cluster.get("nodes")["items"]
            assert ready["metadata"]["name"] == "inferno-node"
            assert cluster.kubectl("get", "--raw", "/readyz") == "ok"
        during = machine(place.folder)
        assert during["processes"]
        assert during["control groups"]
        for untouched in ("links", "rules", "settings", "forwarding", "mounts"):
            assert during[untouched] == before[untouched]
        with pytest.raises(SandboxError, match="runs here already"):
            place.up()
        place.down()
        assert machine(place.folder) == before


@needs_node
def test_what_is_killed_on_the_node_starts_again(place: Sandbox) -> None:
    place.up()
    (killed,) = place.enter("pidof", "kubelet").split()
    place.enter("kill", "-KILL", killed)

    def started_again() -> bool:
        try:
            return place.enter("pidof", "kubelet").split() != [killed]
        except SandboxError:
            return False

    until("another kubelet", started_again)


def test_a_machine_that_lacks_something_is_told_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name in ("runc", "conntrack") else f"/bin/{name}")
    monkeypatch.setattr(sandbox, "CNI_PLUGINS", ())
    monkeypatch.setattr(sandbox, "_kubelet", lambda: 4711)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert sandbox.obstacles() == [
        "a node needs root",
        "missing here: apt-get install --no-install-recommends conntrack containernetworking-plugins runc",
        "a kubelet runs on this machine (process 4711), and a machine has one: set KUBECONFIG to use it",
    ]


def test_a_node_that_is_in_the_way_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_kubelet", lambda: 4711)
    monkeypatch.setattr(Sandbox, "running", False)
    monkeypatch.setattr(build, "build", lambda *_: pytest.fail("nothing is built for a machine that is refused"))
    with pytest.raises(SandboxError, match="a kubelet runs on this machine"):
        Sandbox(tmp_path / "cluster").up()
    assert not (tmp_path / "cluster").exists()


def test_what_a_run_that_was_cut_off_left_is_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_control_groups", list)
    left = Sandbox(tmp_path / "cluster")
    (left.folder / "held").mkdir(parents=True)
    (left.folder / "held" / "kube-apiserver").touch()
    (left.folder / "lock").touch()
    with subprocess.Popen(["sleep", "600"]) as other:
        try:
            # The number is another process's by now, one that has a child too.
            (left.folder / "pid").write_text(str(os.getpid()))
            assert not left.running
            with pytest.raises(SandboxError, match="no cluster runs here"):
                left.enter("kill", str(other.pid))
            left.down()
            assert other.poll() is None
        finally:
            other.kill()
    assert not left.folder.exists()


@pytest.mark.parametrize("skips", [False, True])
def test_where_no_node_can_be_it_is_said_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], skips: bool
) -> None:
    monkeypatch.setattr(Sandbox, "running", False)
    monkeypatch.setattr(main, "obstacles", lambda: ["a node needs root"])
    monkeypatch.setattr(main, "run", lambda *_: pytest.fail("nothing is built for a machine that is refused"))
    monkeypatch.setattr(sys, "argv", ["tests.node", *(["--or-skip"] if skips else [])])
    monkeypatch.delenv("INFERNO_TEST_USE_KUBECONFIG", raising=False)
    assert main.main() == (0 if skips else 1)
    assert f"{'skipped' if skips else 'error'}: a node needs root" in capsys.readouterr().err
