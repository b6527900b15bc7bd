"""The first process of a node: it starts a whole cluster in namespaces of its own, and keeps it running.

``python -m tests.cluster.node enter FOLDER`` puts itself into new namespaces, in which ``run FOLDER`` is process 1. So
when that ends, however it ends, the kernel ends all the others and takes their mounts, interfaces and rules away.
See tests.cluster.sandbox for the outside.
"""

import asyncio
import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path

from tests.cluster import archives, build, nodefiles
from tests.cluster.controlplane import PODS, ControlPlane
from tests.cluster.process import ServerProcess
from tests.cluster.waiting import until

START_SECONDS = 300.0
SUPERVISE_SECONDS = 0.2
CNI_PLUGINS = ("/opt/cni/bin", "/usr/lib/cni")
COREDNS_IMAGE = "localhost/coredns:1"
# Folders of the machine's that the node has to itself, and what they are in the node's own folder.
OWN = {"/var/lib": "lib", "/var/log": "log", "/run": "run"}
# The kubelet wants these settings of the kernel, which has them for the whole machine. It gets files to write to.
SETTINGS = {
    "kernel/keys/root_maxbytes": 25_000_000,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
}


class Node:
    """A control plane, and on the same machine a node for it. ``folder`` holds all that it writes."""

    def __init__(self, folder: Path, listener: socket.socket) -> None:
        self.folder = folder
        self._listener = listener
        self._plane = ControlPlane(address=nodefiles.ADDRESS)
        self._containerd = build.build(build.CONTAINERD)

    def run(self) -> None:
        """Starts everything, says so in the file ``ready``, and keeps it running until it is asked to end."""
        with self._plane:
            self._start_containerd()
            self._start_components()
            self._import_images()
            self._plane.apply(*nodefiles.addons(COREDNS_IMAGE))
            self._write_kubeconfig()
            rollout = ("rollout", "status", "deployment/coredns", "--namespace=kube-system")
            self._plane.kubectl(*rollout, f"--timeout={START_SECONDS:g}s", timeout=START_SECONDS + 10)
            (self.folder / "ready").touch()
            asyncio.run(self._serve())

    def _start_containerd(self) -> None:
        networks = self.folder / "networks"
        networks.mkdir()
        (networks / "pods.conflist").write_text(nodefiles.network())
        configuration = self.folder / "containerd.toml"
        configuration.write_text(nodefiles.containerd(_program("runc"), _cni_plugins(), networks))
        self._launch(self._containerd / "containerd", {"config": configuration})

    def _start_components(self) -> None:
        resolv = self.folder / "resolv.conf"
        resolv.touch()
        configuration = self.folder / "kubelet.json"
        configuration.write_text(nodefiles.kubelet(self._plane.authority.certificate, resolv))
        name = nodefiles.NODE
        scheduler = {"kubeconfig": self._credentials("system:kube-scheduler"), "leader-elect": "false"}
        kubelet = {
            "config": configuration,
            "kubeconfig": self._credentials(f"system:node:{name}", "system:nodes"),
            "hostname-override": name,
            "node-ip": nodefiles.ADDRESS,
        }
        proxy = {
            "kubeconfig": self._credentials("system:kube-proxy"),
            "hostname-override": name,
            "proxy-mode": "iptables",
            "cluster-cidr": PODS,
            # The kernel has these for the whole machine.
            "conntrack-max-per-core": 0,
            "conntrack-tcp-timeout-close-wait": "0s",
            "conntrack-tcp-timeout-established": "0s",
        }
        self._plane.run("kube-scheduler", scheduler)
        self._plane.run("kubelet", kubelet)
        self._plane.run("kube-proxy", proxy)
        self._plane.kubectl("wait", "--for=create", f"node/{name}", "--timeout=120s", timeout=130)

    def _launch(self, program: Path, flags: dict[str, object]) -> None:
        arguments = [f"--{flag}={value}" for flag, value in flags.items()]
        log = self._plane.directory / f"{program.name}.log"
        self._plane.processes[program.name] = ServerProcess(program, arguments, log)

    def _credentials(self, user: str, *groups: str) -> Path:
        """A kubeconfig that speaks for a component of the node."""
        name = user.replace(":", "-")
        certificate, key = self._plane.authority.issue(name, user, groups)
        config = json.loads(self._plane.kubeconfig.read_text())
        config["users"] = [{"name": "admin", "user": {"client-certificate": str(certificate), "client-key": str(key)}}]
        path = self.folder / f"{name}.kubeconfig"
        path.write_text(json.dumps(config))
        return path

    def _import_images(self) -> None:
        programs = {nodefiles.PAUSE_IMAGE: self._containerd / "pause", COREDNS_IMAGE: build.coredns()}
        socket_path = Path(nodefiles.CONTAINERD_SOCKET)
        self._plane.processes["containerd"].wait_until("its socket", socket_path.exists, START_SECONDS)
        for image, program in programs.items():
            archive = self.folder / "image.tar"
            archives.write(archive, image, program)
            # The socket is there a moment before anybody answers.
            until(f"{image} to be imported", functools.partial(self._imports, archive), START_SECONDS)
            archive.unlink()

    def _imports(self, archive: Path) -> bool:
        ctr = [str(self._containerd / "ctr"), "--namespace=k8s.io", "images", "import", str(archive)]
        done = subprocess.run(ctr, capture_output=True, text=True, check=False)
        print(done.stderr, file=sys.stderr)
        return done.returncode == 0

    def _write_kubeconfig(self) -> None:
        """The administrator's, for those outside: the address is one of theirs, from which `_forward` leads in."""
        config = json.loads(self._plane.kubeconfig.read_text())
        host, port = self._listener.getsockname()
        config["clusters"][0]["cluster"]["server"] = f"https://{host}:{port}"
        path = self.folder / "kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))

    async def _serve(self) -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        server = await asyncio.start_server(self._forward, sock=self._listener)
        supervisor = asyncio.create_task(self._supervise())
        await ended.wait()
        supervisor.cancel()
        server.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Joins a connection that comes from outside with one to the API server."""
        port = int(self._plane.url.rpartition(":")[2])
        try:
            inward_reader, inward_writer = await asyncio.open_connection(nodefiles.ADDRESS, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, inward_writer), _copy(inward_reader, writer))

    async def _supervise(self) -> None:
        """Starts what has ended again, as a machine's service manager does, but for what the folder ``held`` names."""
        while True:
            await asyncio.sleep(SUPERVISE_SECONDS)
            for name, process in list(self._plane.processes.items()):
                if not process.running and not (self.folder / "held" / name).exists():
                    self._plane.processes[name] = process.again()
            _reap({process.pid for process in self._plane.processes.values()})


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def _reap(own: set[int]) -> None:
    """Lets go of processes that were left to process 1 and have ended; ``own`` are asked for by those they are of."""
    with contextlib.suppress(ChildProcessError):
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid in own:
                return
            os.waitpid(ended.si_pid, 0)


def enter(folder: Path, listener: int) -> None:
    """Becomes the parent of a node in new namespaces. Whoever kills it kills the node."""
    # --kill-child: no node without the process that one knows it by.
    namespaces = ["--net", "--mount", "--pid", "--uts", "--ipc", "--cgroup"]
    command = ["unshare", *namespaces, "--fork", "--kill-child=SIGKILL"]
    os.execvp(command[0], [*command, sys.executable, "-m", "tests.cluster.node", "run", str(folder), str(listener)])


def run(folder: Path, listener: int) -> None:
    """Is process 1 of a node."""
    os.set_inheritable(listener, False)
    try:
        _furnish(folder)
        os.environ |= {"TMPDIR": str(folder), "PATH": f"{build.build(build.CONTAINERD)}:{os.environ['PATH']}"}
        Node(folder, socket.socket(fileno=listener)).run()
    except BaseException as error:
        traceback.print_exc()
        (folder / "failed").write_text(f"{error}\n")
        sys.exit(1)


def _furnish(folder: Path) -> None:
    """Makes the namespaces look like a machine of its own."""
    cgroups = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    _mount("--make-rshared", "/")  # among its own mount namespaces; unshare has cut the ties to the machine's
    for place, name in OWN.items():
        (folder / name).mkdir()
        _mount("--bind", folder / name, place)
    _mount("-t", "proc", "proc", "/proc")
    settings = folder / "settings"
    settings.mkdir()
    for name, value in SETTINGS.items():
        if (setting := Path("/proc/sys", name)).exists():
            file = settings / setting.name
            file.write_text(f"{value}\n")
            _mount("--bind", file, setting)
    _mount("-t", "sysfs", "sysfs", "/sys")
    _mount_cgroups([(place, kind, options.split(",")) for _, place, kind, options, *_ in cgroups])
    for number in range(nodefiles.VOLUME_COUNT):
        volume = Path(nodefiles.VOLUMES, str(number))
        volume.mkdir(parents=True)
        volume.chmod(0o777)
    (folder / "held").mkdir()
    for line in (
        "link set lo up",
        # Any pair would do that has an address which is not of loopback: what is sent to "outside" gets lost there.
        "link add eth0 type veth peer name outside",
        "link set outside up",
        f"address add {nodefiles.ADDRESS}/24 dev eth0",
        "link set eth0 up",
        "route add default dev eth0",
    ):
        subprocess.run(["ip", *line.split()], check=True)
    socket.sethostname(nodefiles.NODE)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _mount_cgroups(mounts: list[tuple[str, str, list[str]]]) -> None:
    """The machine's control groups where they were, seen from this node's own on."""
    root = "/sys/fs/cgroup"
    versions = [mount for mount in mounts if mount[1] in ("cgroup", "cgroup2")]
    if not any(place == root for place, *_ in versions):
        _mount("-t", "tmpfs", "tmpfs", root)
    for place, kind, options in versions:
        Path(place).mkdir(exist_ok=True)
        controllers = [option for option in options if option not in ("rw", "nosuid", "nodev", "noexec", "relatime")]
        _mount("-t", kind, *(["-o", ",".join(_named(controllers))] if kind == "cgroup" else []), "cgroup", place)
    if any(place == root for place, *_ in versions):
        # Version 2: a group with processes of its own cannot hand controllers on to groups below it.
        leaf = Path(root, "init")
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text("1")


def _named(controllers: list[str]) -> list[str]:
    return ["none", *controllers] if any(each.startswith("name=") for each in controllers) else controllers


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise build.BuildError(f"{name} is not installed")
    return path


def _cni_plugins() -> str:
    return next(folder for folder in CNI_PLUGINS if Path(folder, "ptp").exists())


if __name__ == "__main__":
    {"enter": enter, "run": run}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
