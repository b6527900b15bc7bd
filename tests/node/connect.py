"""The cluster that these tests run on: our own node, or the one that a person names."""

import os

from tests.cluster import build
from tests.cluster.cluster import ExistingCluster
from tests.cluster.sandbox import Sandbox


class NodeCluster(ExistingCluster):
    """A cluster with nodes. ``sandbox`` is our own, of which a test may kill what it likes; None for somebody's."""

    def __init__(self, sandbox: Sandbox | None) -> None:
        super().__init__()
        self.sandbox = sandbox
        self.registry = os.environ.get("INFERNO_TEST_REGISTRY", "localhost")

    def start(self) -> None:
        """Connects to it. It must be up."""
        if self.sandbox is not None:
            os.environ["KUBECONFIG"] = str(self.sandbox.kubeconfig)
        super().start()

    @property
    def tools(self) -> dict[str, str]:
        """The environment of a person who works with this cluster: kubectl and helm, set up for it."""
        folders = [str(self.kubectl_program.parent), str(build.helm().parent), os.environ["PATH"]]
        return os.environ | {"PATH": ":".join(folders), "KUBECONFIG": str(self.kubeconfig)}


def connect() -> NodeCluster:
    """The cluster, not yet connected to. INFERNO_TEST_USE_KUBECONFIG=1 is to use KUBECONFIG's, as elsewhere."""
    return NodeCluster(None if os.environ.get("INFERNO_TEST_USE_KUBECONFIG") == "1" else Sandbox())
