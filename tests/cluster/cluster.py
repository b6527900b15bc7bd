"""A cluster as tests see it: a kubeconfig and kubectl, whether the cluster is their own or somebody's."""

import json
import os
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.cluster import build

KUBECTL_SECONDS = 120.0


class KubectlError(Exception):
    """kubectl failed; ``stderr`` is what it said."""

    def __init__(self, args: tuple[str, ...], status: int, stderr: str) -> None:
        super().__init__(f"kubectl {' '.join(args)} ended with {status}: {stderr.strip()}")
        self.stderr = stderr


class Cluster(ABC):
    """A cluster that runs between ``start`` and ``stop``, or for the length of a ``with``.

    ``kubeconfig`` is the path of an administrator's configuration file. ``owned``: nobody else uses the cluster, and it
    goes when the tests end, so they may do to it what they like. ``has_controller_manager``: rollouts and garbage
    collection work, and namespaces get a ServiceAccount ``default``, without which most pods are not admitted.
    """

    owned: bool = False
    has_controller_manager: bool = True

    def __init__(self) -> None:
        self.directory = Path()
        self.kubeconfig = Path()
        self._kubectl = Path()

    @abstractmethod
    def start(self) -> None:
        """Makes the cluster usable. On any error nothing is left behind."""

    @abstractmethod
    def stop(self) -> None:
        """Undoes ``start``; may be called twice."""

    def _remove_directory(self) -> None:
        if self.directory != Path():
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def kubectl_program(self) -> Path:
        """The kubectl that is used."""
        return self._kubectl

    def kubectl(
        self,
        *args: str,
        input: str | None = None,
        kubeconfig: Path | str | None = None,
        timeout: float = KUBECTL_SECONDS,
    ) -> str:
        """Runs kubectl as the administrator, or with another ``kubeconfig``, and returns what it prints.

        ``input`` is its standard input (``apply -f -``). Raises KubectlError with what it wrote to standard error.
        """
        # Nothing of the user's own: no preferences, no cache, no current namespace.
        config = str(self.kubeconfig if kubeconfig is None else kubeconfig)
        own = os.environ | {"KUBECONFIG": config, "KUBECACHEDIR": str(self.directory / "cache"), "KUBERC": "off"}
        done = subprocess.run(
            [self._kubectl, *args], input=input or "", env=own, capture_output=True, text=True, timeout=timeout
        )
        if done.returncode != 0:
            raise KubectlError(args, done.returncode, done.stderr)
        return done.stdout

    def get(self, *args: str, kubeconfig: Path | None = None) -> Any:
        """``kubectl get``, as Python objects; None if there is no such object."""
        answer = self.kubectl("get", *args, "--ignore-not-found", "--output=json", kubeconfig=kubeconfig)
        return json.loads(answer) if answer.strip() else None

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Applies objects, server-side."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--server-side", "--filename=-", input=json.dumps(listed))

    def service_account_kubeconfig(self, namespace: str, name: str, duration: str = "24h") -> Path:
        """A kubeconfig with the rights of a ServiceAccount, which must exist, and its namespace as the current one."""
        token = self.kubectl("create", "token", name, f"--namespace={namespace}", f"--duration={duration}").strip()
        config = json.loads(self.kubectl("config", "view", "--raw", "--minify", "--output=json"))
        return self.write_kubeconfig(f"{namespace}-{name}", config["clusters"][0]["cluster"], token, namespace)

    def write_kubeconfig(self, name: str, server: Mapping[str, Any], token: str, namespace: str = "default") -> Path:
        """Writes a kubeconfig for a bearer token. ``server`` is its cluster: server, certificate-authority-data."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": dict(server)}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": "tests", "user": name, "namespace": namespace}}],
            "current-context": name,
        }
        path = self.directory / f"{name}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config, indent=1))  # JSON is YAML
        return path


class ExistingCluster(Cluster):
    """The cluster of the current context of KUBECONFIG."""

    def start(self) -> None:
        """Copies the current context into a file of its own, so that switching contexts meanwhile changes nothing."""
        self.directory = Path(tempfile.mkdtemp(prefix="inferno-cluster-"))
        try:
            on_path = shutil.which("kubectl")
            self._kubectl = Path(on_path) if on_path else build.control_plane() / "kubectl"
            self.kubeconfig = self.directory / "admin.kubeconfig"
            # kubectl's own idea of what KUBECONFIG means: it may be a list of files, or unset.
            theirs = os.environ.get("KUBECONFIG", "")
            flattened = self.kubectl("config", "view", "--raw", "--flatten", "--minify", kubeconfig=theirs)
            self.kubeconfig.touch(mode=0o600)
            self.kubeconfig.write_text(flattened)
            self.kubectl("get", "--raw", "/readyz")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Removes that file. The cluster is not ours to stop."""
        self._remove_directory()
