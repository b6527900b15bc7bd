"""A real Kubernetes control plane for tests: etcd, kube-apiserver and kube-controller-manager on this machine.

``with connect() as cluster: cluster.kubectl("get", "namespaces")``
"""

import atexit
import base64
import contextlib
import functools
import http.client
import os
import secrets
import ssl
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.cluster import build
from tests.cluster.cluster import Cluster, ExistingCluster
from tests.cluster.pki import Authority, write_key
from tests.cluster.process import PortTaken, ServerProcess, free_port, on_free_port
from tests.cluster.waiting import until

# A machine that builds something else meanwhile is slow; what starts at all starts in a tenth of this.
START_SECONDS = 120.0
SERVICES = "10.96.0.0/16"
SERVICE_ADDRESS = "10.96.0.1"
PODS = "10.244.0.0/16"
ADMIN = "admin"
CONTROLLER_MANAGER = "system:kube-controller-manager"
# Who has a token of its own, and in which groups.
USERS = {ADMIN: "system:masters", CONTROLLER_MANAGER: ""}


def connect(say: build.Say = build.say_on_stderr) -> Cluster:
    """The cluster to test against, not yet started: one of our own.

    With INFERNO_TEST_USE_KUBECONFIG=1 it is the one that KUBECONFIG points to. KUBECONFIG alone does not do that: many
    people have it set all day, to a cluster that is not for tests.
    """
    if os.environ.get("INFERNO_TEST_USE_KUBECONFIG") == "1":
        return ExistingCluster()
    return ControlPlane(say=say)


class ControlPlane(Cluster):
    """A control plane of our own, in a temporary directory; several may run side by side.

    RBAC decides who may do what, and admission is as Kubernetes has it by default. There is no node: pods are made, and
    stay Pending. For one, give ``address``, an address of this machine that its pods can reach, and use ``authority``
    and ``run``. ``binaries`` is a folder as build.control_plane returns it; left out, that is asked, and builds it if
    need be. ``apiserver_flags``, without their ``--``, win over our own.
    """

    owned = True

    def __init__(
        self,
        binaries: Path | None = None,
        address: str = "127.0.0.1",
        apiserver_flags: Mapping[str, object] | None = None,
        say: build.Say = build.say_on_stderr,
    ) -> None:
        super().__init__()
        self.address = address
        self.binaries = binaries or Path()
        self.processes: dict[str, ServerProcess] = {}
        """What runs, in the order of its start, by the component's name."""
        self._find_binaries = binaries is None
        self._apiserver_flags = dict(apiserver_flags or {})
        self._say = say
        self._port = 0

    @property
    def url(self) -> str:
        """The API server's."""
        return f"https://{self.address}:{self._port}"

    @property
    def pki(self) -> Path:
        """The folder of the keys and certificates."""
        return self.directory / "pki"

    def start(self) -> None:
        """Starts everything; returns when the API serves. Raises BuildError, or ProcessError with the end of a log."""
        if self._find_binaries:
            self.binaries = build.control_plane(self._say)
        self._kubectl = self.binaries / "kubectl"
        self.has_controller_manager = (self.binaries / "kube-controller-manager").exists()
        self.directory = Path(tempfile.mkdtemp(prefix="inferno-controlplane-"))
        atexit.register(self.stop)
        try:
            self._write_credentials()
            on_free_port(self._start_etcd)
            on_free_port(self._start_apiserver)
            self._write_kubeconfigs()
            if self.has_controller_manager:
                self._start_controller_manager()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the processes, the last started first, and removes the directory."""
        atexit.unregister(self.stop)
        while self.processes:
            self.processes.popitem()[1].stop()
        self._remove_directory()

    def restart_apiserver(self) -> None:
        """Ends the API server and starts it again, at the same address; returns when it serves."""
        with self.apiserver_down():
            pass

    @contextlib.contextmanager
    def apiserver_down(self) -> Iterator[None]:
        """No API server for the length of a ``with``; at its end there is one again, at the same address."""
        self.processes["kube-apiserver"].stop()
        try:
            yield
        finally:
            # Its clients know this port and no other: if somebody has taken it meanwhile, try until they let it go.
            until(f"port {self._port} to be free again", self._start_apiserver_again, START_SECONDS)

    def run(self, name: str, flags: Mapping[str, object]) -> ServerProcess:
        """Starts a component with flags, without their ``--``. ``stop`` ends it before those that started earlier."""
        arguments = [f"--{flag}={value}" for flag, value in flags.items()]
        process = self.processes[name] = ServerProcess(self.binaries / name, arguments, self.directory / f"{name}.log")
        return process

    def _write_credentials(self) -> None:
        self.pki.mkdir()
        self.authority = Authority(self.pki)
        hosts = ["localhost", "127.0.0.1", self.address, SERVICE_ADDRESS]
        hosts += ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        self.authority.issue("apiserver", "kube-apiserver", hosts=list(dict.fromkeys(hosts)))
        self.authority.issue("apiserver-kubelet-client", "kube-apiserver-kubelet-client", ["system:masters"])
        self.authority.issue("etcd", "etcd", hosts=["127.0.0.1"])
        self.authority.issue("etcd-client", "kube-apiserver")
        # An authority of its own: whoever it certifies may speak for anybody.
        Authority(self.pki, "front-proxy-ca").issue("front-proxy-client", "front-proxy-client")
        write_key(self.pki / "service-account.key")
        self._tokens = {user: secrets.token_urlsafe(32) for user in USERS}
        lines = [f'{token},{user},{user},"{USERS[user]}"\n' for user, token in self._tokens.items()]
        file = self.pki / "tokens.csv"
        file.touch(mode=0o600)
        file.write_text("".join(lines))

    def _write_kubeconfigs(self) -> None:
        certificate = base64.b64encode(self.authority.certificate.read_bytes()).decode()
        server = {"server": self.url, "certificate-authority-data": certificate}
        self.kubeconfig = self.write_kubeconfig("admin", server, self._tokens[ADMIN])
        self._for_controllers = self.write_kubeconfig("controllers", server, self._tokens[CONTROLLER_MANAGER])

    def _start_etcd(self, port: int) -> None:
        # TLS on loopback not for secrecy: so we speak to this etcd, and not to one that got the port before it.
        peers = f"http://127.0.0.1:{free_port()}"
        self._etcd = f"https://127.0.0.1:{port}"
        flags = {
            "data-dir": self.directory / "etcd",
            "unsafe-no-fsync": "true",
            "listen-client-urls": self._etcd,
            "advertise-client-urls": self._etcd,
            "listen-peer-urls": peers,
            "initial-advertise-peer-urls": peers,
            "initial-cluster": f"default={peers}",
            "client-cert-auth": "true",
            "trusted-ca-file": self.authority.certificate,
            "cert-file": self.pki / "etcd.crt",
            "key-file": self.pki / "etcd.key",
            "log-level": "warn",
        }
        context = ssl.create_default_context(cafile=self.authority.certificate)
        context.load_cert_chain(self.pki / "etcd-client.crt", self.pki / "etcd-client.key")
        process = self.run("etcd", flags)
        process.wait_until("etcd to be healthy", lambda: _answers(f"{self._etcd}/health", context), START_SECONDS)

    def _start_apiserver(self, port: int) -> None:
        self._port = port
        process = self.run("kube-apiserver", self._apiserver_defaults() | self._apiserver_flags)
        # The namespace comes a moment after the server calls itself ready.
        for path in ("/readyz", "/api/v1/namespaces/default"):
            process.wait_until(f"{path} to answer", functools.partial(self._serves, path), START_SECONDS)

    def _start_apiserver_again(self) -> bool:
        try:
            self._start_apiserver(self._port)
        except PortTaken:
            return False
        return True

    def _apiserver_defaults(self) -> dict[str, object]:
        flags: dict[str, object] = {
            "bind-address": self.address,
            "secure-port": self._port,
            "advertise-address": self.address,
            "etcd-servers": self._etcd,
            "etcd-cafile": self.authority.certificate,
            "etcd-certfile": self.pki / "etcd-client.crt",
            "etcd-keyfile": self.pki / "etcd-client.key",
            "authorization-mode": "Node,RBAC",
            "allow-privileged": "true",
            "client-ca-file": self.authority.certificate,
            "tls-cert-file": self.pki / "apiserver.crt",
            "tls-private-key-file": self.pki / "apiserver.key",
            "token-auth-file": self.pki / "tokens.csv",
            "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
            "service-account-key-file": self.pki / "service-account.key",
            "service-account-signing-key-file": self.pki / "service-account.key",
            "service-cluster-ip-range": SERVICES,
            "kubelet-client-certificate": self.pki / "apiserver-kubelet-client.crt",
            "kubelet-client-key": self.pki / "apiserver-kubelet-client.key",
            "kubelet-preferred-address-types": "InternalIP",
            # It ends within seconds then, though clients watch; otherwise it gives them a minute to go.
            "shutdown-send-retry-after": "true",
            "requestheader-client-ca-file": self.pki / "front-proxy-ca.crt",
            "requestheader-allowed-names": "front-proxy-client",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-username-headers": "X-Remote-User",
            "proxy-client-cert-file": self.pki / "front-proxy-client.crt",
            "proxy-client-key-file": self.pki / "front-proxy-client.key",
        }
        if self.address.startswith("127."):
            # Kubernetes takes no loopback address as an endpoint of its own Service; without nodes nobody misses it.
            flags["endpoint-reconciler-type"] = "none"
        return flags

    def _start_controller_manager(self) -> None:
        flags = {
            "kubeconfig": self._for_controllers,
            "secure-port": 0,
            "leader-elect": "false",
            "use-service-account-credentials": "true",
            "service-account-private-key-file": self.pki / "service-account.key",
            "root-ca-file": self.authority.certificate,
            "cluster-signing-cert-file": self.authority.certificate,
            "cluster-signing-key-file": self.authority.key,
            "allocate-node-cidrs": "true",
            "cluster-cidr": PODS,
            "service-cluster-ip-range": SERVICES,
            # On a machine that is busy with something else a kubelet may fall silent, and its pods are well all the same.
            "node-monitor-grace-period": "10m",
            # Tests make more haste than the usual 20 requests a second.
            "kube-api-qps": 200,
            "kube-api-burst": 400,
        }
        process = self.run("kube-controller-manager", flags)
        # Pods are not admitted before it has made this, which also shows that it works.
        account = functools.partial(self._serves, "/api/v1/namespaces/default/serviceaccounts/default")
        process.wait_until("the default ServiceAccount", account, START_SECONDS)

    def _serves(self, path: str) -> bool:
        context = ssl.create_default_context(cafile=self.authority.certificate)
        return _answers(self.url + path, context, {"Authorization": f"Bearer {self._tokens[ADMIN]}"})


def _answers(url: str, context: ssl.SSLContext, headers: Mapping[str, str] | None = None) -> bool:
    """Whether a server gives a 200. Nobody's proxy is asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(urllib.request.Request(url, headers=dict(headers or {})), timeout=10):
            return True
    except (OSError, http.client.HTTPException):
        return False
