"""Builds what the tests' clusters are made of from source: once, into the user's cache folder.

``python -m tests.cluster.build`` prints the folder of the control plane's binaries, and with ``--helm`` that of Helm's;
``--all`` builds what a node needs too. The Go modules beside this file pin what they are built from, hashes included.
``KUBEBUILDER_ASSETS`` names a folder of control-plane binaries to use instead.
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.gotoolchain import ToolchainError, find_go

Say = Callable[[str], None]

HEARTBEAT_SECONDS = 30.0
# A build that nobody has used for so long goes when another is made. Two checkouts side by side keep theirs.
UNUSED_SECONDS = 24 * 3600.0
# What KUBEBUILDER_ASSETS must hold. envtest's own assets are these three: no controller manager, no node.
REQUIRED_ASSETS = ("etcd", "kube-apiserver", "kubectl")


class BuildError(Exception):
    """The binaries could not be built or found; the message says why."""


@dataclass(frozen=True, slots=True)
class Program:
    """What a Go module beside this file builds.

    ``binaries`` are the files that come of it and the package of each. The first of them, if ``names`` are given, is
    called by these.
    """

    title: str
    folder: str
    binaries: Mapping[str, str]
    names: tuple[str, ...]
    version_of: str
    version_flags: Callable[[str], str]
    minutes: int
    tags: str = ""

    @property
    def module(self) -> Path:
        """The folder of the Go module."""
        return Path(__file__).parent / self.folder

    @property
    def version(self) -> str:
        """The version, with its ``v``, that go.mod pins."""
        requirements = self.module / "go.mod"
        pinned = re.search(rf"^\s*{re.escape(self.version_of)} (v\S+)", requirements.read_text(), re.MULTILINE)
        if pinned is None:
            raise BuildError(f"{requirements} does not require {self.version_of}")
        return pinned[1]

    @property
    def flags(self) -> list[str]:
        """The flags of ``go build``."""
        tags = ["-tags", self.tags] if self.tags else []
        return ["-trimpath", "-buildvcs=false", *tags, "-ldflags", f"-s -w {self.version_flags(self.version)}"]

    @property
    def key(self) -> str:
        """Names the build: the same for the same sources, pins, flags and machine."""
        digest = hashlib.sha256()
        for file in sorted(path for path in self.module.iterdir() if path.is_file()):
            digest.update(f"{file.name}\0".encode() + file.read_bytes() + b"\0")
        digest.update("\0".join([*self.flags, *self.names, platform.system(), platform.machine()]).encode())
        return digest.hexdigest()[:16]


def _kubernetes_flags(version: str) -> str:
    # Without these a server calls itself v0.0.0-master, and no chart's kubeVersion takes that.
    major, minor = version.removeprefix("v").split(".")[:2]
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in values.items())


CONTROL_PLANE = Program(
    title="the Kubernetes control plane",
    folder="controlplane",
    binaries={"hyperkube": "."},
    names=("etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"),
    version_of="k8s.io/kubernetes",
    version_flags=_kubernetes_flags,
    minutes=8,
)
HELM = Program(
    title="Helm",
    folder="helm",
    binaries={"helm": "helm.sh/helm/v4/cmd/helm"},
    names=(),
    version_of="helm.sh/helm/v4",
    version_flags=lambda version: f"-X helm.sh/helm/v4/internal/version.version={version}",
    minutes=4,
)
CONTAINERD = Program(
    title="containerd",
    folder="containerd",
    binaries={
        "containerd": "github.com/containerd/containerd/v2/cmd/containerd",
        "containerd-shim-runc-v2": "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        "ctr": "github.com/containerd/containerd/v2/cmd/ctr",
        "pause": ".",
    },
    names=(),
    version_of="github.com/containerd/containerd/v2",
    version_flags=lambda version: f"-X github.com/containerd/containerd/v2/version.Version={version}",
    minutes=2,
    tags="no_btrfs,no_devmapper,no_zfs",
)
COREDNS = Program(
    title="CoreDNS",
    folder="coredns",
    binaries={"coredns": "github.com/coredns/coredns"},
    names=(),
    version_of="github.com/coredns/coredns",
    version_flags=lambda version: f"-X github.com/coredns/coredns/coremain.GitCommit={version}",
    minutes=4,
)
PROGRAMS = (CONTROL_PLANE, HELM, CONTAINERD, COREDNS)


def say_on_stderr(line: str) -> None:
    """Tells a person what happens. Standard output is for the answer alone."""
    print(line, file=sys.stderr, flush=True)


def control_plane(say: Say = say_on_stderr) -> Path:
    """The folder with etcd, kube-apiserver, kubectl and, unless KUBEBUILDER_ASSETS lacks them, the other components.

    Raises BuildError.
    """
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        return build(CONTROL_PLANE, say)
    missing = [name for name in REQUIRED_ASSETS if not os.access(Path(assets, name), os.X_OK)]
    if missing:
        raise BuildError(f"KUBEBUILDER_ASSETS is {assets}, which has no {', no '.join(missing)}")
    return Path(assets)


def helm(say: Say = say_on_stderr) -> Path:
    """The ``helm`` command. Raises BuildError."""
    return build(HELM, say) / "helm"


def coredns(say: Say = say_on_stderr) -> Path:
    """CoreDNS's program. Raises BuildError."""
    return build(COREDNS, say) / "coredns"


def build(program: Program, say: Say = say_on_stderr) -> Path:
    """The folder with a program's binary, built first if this machine has not yet done so. Raises BuildError."""
    cache = cache_folder()
    builds = cache / program.folder
    done = builds / program.key
    if not done.exists():
        builds.mkdir(parents=True, exist_ok=True)
        with _locked(builds / "lock", say):
            if not done.exists():
                _remove_unused(builds)
                _build(program, done, cache, say)
    with contextlib.suppress(OSError):
        os.utime(done)
    return done


def cache_folder() -> Path:
    """Where builds are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "inferno")


def _build(program: Program, done: Path, cache: Path, say: Say) -> None:
    """Builds into a folder with a temporary name, which gets its real one when it is complete."""
    duration = f"about {program.minutes} minutes on 2 cores (this machine has {os.cpu_count()})"
    say(f"building {program.title} {program.version}, once: {duration}")
    started = time.monotonic()
    try:
        with _locked(cache / "go.lock", say):
            go = find_go(program.module, cache, say)
    except ToolchainError as error:
        raise BuildError(str(error)) from error
    with tempfile.TemporaryDirectory(prefix="building-", dir=done.parent) as temporary:
        result = Path(temporary, "result")
        result.mkdir()
        for binary, package in program.binaries.items():
            command = [str(go), "build", *program.flags, "-o", str(result / binary), package]
            _run_go(command, program, Path(temporary, "log"), say)
        for name in program.names:
            (result / name).symlink_to(next(iter(program.binaries)))
        result.rename(done)
    say(f"built {program.title} in {_elapsed(started)}: {done}")


def _run_go(command: list[str], program: Program, log: Path, say: Say) -> None:
    """Runs the compiler, with a sign of life now and then. Raises BuildError with what it printed last."""
    # What a person has set up for their own Go work must not change what is built here.
    own = {"CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    environment = {name: value for name, value in os.environ.items() if name not in ("GOOS", "GOARCH")} | own
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=program.module, env=environment, stdout=output, stderr=output)
    try:
        while True:
            try:
                status = process.wait(HEARTBEAT_SECONDS)
                break
            except subprocess.TimeoutExpired:
                say(f"  still building {program.title}: {_elapsed(started)}")
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if status != 0:
        raise BuildError(f"go build of {program.title} ended with {status}:\n{log.read_text(errors='replace')[-4000:]}")


def _remove_unused(builds: Path) -> None:
    """Removes the builds of other keys, and what an interrupted build left behind. The caller holds the lock."""
    for folder in builds.iterdir():
        with contextlib.suppress(OSError):
            unused = folder.name.startswith("building-") or time.time() - folder.stat().st_mtime > UNUSED_SECONDS
            if folder.is_dir() and unused:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path, say: Say) -> Iterator[None]:
    """Holds a lock between processes; it goes with the process, however that ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that is building ({path})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _elapsed(started: float) -> str:
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.build", description=(__doc__ or "").split("\n")[0])
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--helm", action="store_true", help="build Helm instead of the control plane")
    choice.add_argument("--all", action="store_true", help="build everything that a cluster with a node needs")
    arguments = parser.parse_args()
    programs = PROGRAMS if arguments.all else (HELM,) if arguments.helm else ()
    try:
        print(*([build(program) for program in programs] or [control_plane()]), sep="\n")
    except BuildError as error:
        say_on_stderr(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
