"""A cluster with a node on this machine, from the outside: starting it, ending it, and what must not be in its way.

The node is a process in namespaces of its own (tests.cluster.node). Nothing of the machine's changes but a listening
socket on loopback, a folder in the cache, and control groups below a name of ours; ``down`` removes these too.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.cluster import build
from tests.cluster.node import CNI_PLUGINS, OWN
from tests.cluster.waiting import until

START_SECONDS = 600.0
STOP_SECONDS = 60.0
CONTROL_GROUP = "inferno-test-node"
REPOSITORY = Path(__file__).parents[2]
# What is called, and the Debian package that has it.
PROGRAMS = {
    "conntrack": "conntrack",
    "ip": "iproute2",
    "iptables": "iptables",
    "mount": "mount",
    "nsenter": "util-linux",
    "runc": "runc",
    "unshare": "util-linux",
}


class SandboxError(Exception):
    """The cluster cannot be started, or did not start; the message says why and what to do."""


class Sandbox:
    """The one cluster of this machine; ``folder`` holds all of it, also while it is down."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or build.cache_folder() / "cluster"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.folder / "kubeconfig"

    @property
    def pid(self) -> int:
        """The id, on this machine, of the node's first process. Raises SandboxError where there is none."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            if not self._lock_is_held():  # an id that was written down may be another process's by now
                raise SandboxError("no cluster runs here")
            parent = int((self.folder / "pid").read_text())
            return int(Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0])
        raise SandboxError("no cluster runs here")

    @property
    def running(self) -> bool:
        """Whether any of its processes are there."""
        return self._lock_is_held() or bool(_members())

    def up(self, say: build.Say = build.say_on_stderr) -> None:
        """Starts it, building first what was not built yet; returns when pods can run. Raises SandboxError, BuildError."""
        if self.running:
            raise SandboxError(f"a cluster runs here already: KUBECONFIG={self.kubeconfig}")
        if problems := obstacles():
            raise SandboxError("\n".join(problems))
        for program in (build.CONTROL_PLANE, build.CONTAINERD, build.COREDNS):
            build.build(program, say)
        self._clean_up()
        started = time.monotonic()
        self.folder.mkdir(parents=True, mode=0o700)
        try:
            self._start()
        except BaseException:
            self.down()
            raise
        say(f"up in {time.monotonic() - started:.0f} s: export KUBECONFIG={self.kubeconfig}")

    def down(self) -> None:
        """Ends it, and leaves nothing behind. Does nothing where there is nothing."""
        with contextlib.suppress(OSError, ValueError):
            if self._lock_is_held():
                os.kill(int((self.folder / "pid").read_text()), signal.SIGKILL)
        for pid in _members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until("the node's processes to end", lambda: not self.running, STOP_SECONDS)
        self._clean_up()

    def enter(self, *command: str | Path, timeout: float = 120.0) -> str:
        """What a command prints that runs on the node. Raises SandboxError if it fails."""
        kinds = ["--mount", "--pid", "--net", "--uts", "--ipc"]
        line = ["nsenter", f"--target={self.pid}", *kinds, "--", *map(str, command)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode != 0:
            raise SandboxError(f"{' '.join(map(str, command))} on the node: {done.stderr.strip()}")
        return done.stdout

    @contextlib.contextmanager
    def without(self, component: str) -> Iterator[None]:
        """A component is killed, and stays away for the length of a ``with``."""
        (self.folder / "held" / component).touch()
        try:
            self.kill(component)
            yield
        finally:
            self.release()

    def kill(self, component: str) -> None:
        """A component is killed; it is started again at once, unless it is held."""
        self.enter("pkill", "-KILL", "-x", component)

    def release(self) -> None:
        """Lets every component run again that is held: by a test, or by one that did not live to let it go."""
        for held in (self.folder / "held").iterdir():
            held.unlink(missing_ok=True)

    def path(self, on_node: str) -> Path:
        """Where on this machine a file of the node's is, if it is in one of the folders that the node has to itself."""
        for place, name in OWN.items():
            if on_node.startswith(f"{place}/"):
                return self.folder / name / on_node.removeprefix(f"{place}/")
        raise SandboxError(f"{on_node} is no file of the node's own")

    def process(self, component: str) -> str:
        """The id, on the node, of a component's process. Raises SandboxError while there is none."""
        return self.enter("pidof", component).strip()

    def import_image(self, archive: Path) -> None:
        """Gives the node the images of an archive as ``docker save`` writes it."""
        self._ctr("import", archive)

    def tag_image(self, image: str, other: str) -> None:
        """Gives an image of the node's another name too."""
        self._ctr("tag", image, other)

    def log(self, lines: int = 30) -> str:
        """The end of what the first process printed."""
        with contextlib.suppress(OSError):
            return "\n".join((self.folder / "log.txt").read_text(errors="replace").splitlines()[-lines:])
        return ""

    def _ctr(self, *arguments: str | Path) -> None:
        ctr = build.build(build.CONTAINERD) / "ctr"
        self.enter(ctr, "--namespace=k8s.io", "images", *arguments, timeout=600)

    def _start(self) -> None:
        lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        with contextlib.ExitStack() as closing, (self.folder / "log.txt").open("wb") as log:
            closing.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX)
            listener = closing.enter_context(socket.create_server(("127.0.0.1", 0)))
            with _in_control_groups():
                process = subprocess.Popen(
                    [sys.executable, "-m", "tests.cluster.node", "enter", str(self.folder), str(listener.fileno())],
                    cwd=REPOSITORY,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    # The lock is held for as long as these processes live.
                    pass_fds=[listener.fileno(), lock],
                )
            (self.folder / "pid").write_text(str(process.pid))

        def outcome() -> str | None:
            if process.poll() is not None or (self.folder / "failed").exists():
                raise SandboxError(f"the cluster did not start; its folder was {self.folder}\n{self.log()}")
            return "ready" if (self.folder / "ready").exists() else None

        until("the cluster to start", outcome, START_SECONDS)

    def _lock_is_held(self) -> bool:
        with contextlib.suppress(FileNotFoundError), (self.folder / "lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _clean_up(self) -> None:
        for root in _control_groups():
            _remove_control_group(root)
        shutil.rmtree(self.folder, ignore_errors=True)


def obstacles() -> list[str]:
    """Why no cluster can be started on this machine; empty if one can."""
    if sys.platform != "linux":
        return ["a node needs Linux; set KUBECONFIG to use a cluster that you have"]
    found = []
    if os.geteuid() != 0:
        found.append("a node needs root")
    missing = {package for program, package in PROGRAMS.items() if shutil.which(program) is None}
    if not any(Path(folder, "ptp").exists() for folder in CNI_PLUGINS):
        missing.add("containernetworking-plugins")
    if missing:
        found.append(f"missing here: apt-get install --no-install-recommends {' '.join(sorted(missing))}")
    if other := _kubelet():
        found.append(
            f"a kubelet runs on this machine (process {other}), and a machine has one: set KUBECONFIG to use it"
        )
    return found


def _kubelet() -> int | None:
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "comm").read_text().strip() == "kubelet":
                return int(entry.name)
    return None


def _control_groups() -> list[Path]:
    """Our control group in each hierarchy of the machine's, whether it is there or not."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(place, CONTROL_GROUP) for _, place, kind, *_ in mounts if kind in ("cgroup", "cgroup2")]


@contextlib.contextmanager
def _in_control_groups() -> Iterator[None]:
    """What is started meanwhile is in our control groups; this process is back in its own afterwards."""
    own = [Path(group.parent, _own_group(group.parent)) for group in _control_groups()]
    for group in _control_groups():
        group.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):  # version 1 takes no process before these are set
            if (group / name).exists() and not (group / name).read_text().strip():
                (group / name).write_text((group.parent / name).read_text())
    try:
        _join(_control_groups())
        yield
    finally:
        _join(own)


def _own_group(root: Path) -> str:
    """The group of this process in the hierarchy that is mounted at ``root``, without a leading slash."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        name = controllers.removeprefix("name=")
        if name == root.name or (not name and root.name in ("cgroup", "unified")):
            return path.lstrip("/")
    return ""


def _join(groups: Sequence[Path]) -> None:
    for group in groups:
        (group / "cgroup.procs").write_text(str(os.getpid()))


def _members() -> list[int]:
    """The processes in our control groups and below."""
    pids: set[int] = set()
    for root in _control_groups():
        for file in root.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                pids.update(map(int, file.read_text().split()))
    return sorted(pids)


def _remove_control_group(root: Path) -> None:
    if root.exists():
        for folder, _, _ in os.walk(root, topdown=False):
            Path(folder).rmdir()
