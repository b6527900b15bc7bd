"""What goes wrong while a model is fetched, and with what was fetched."""

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from inferno_runtime.models.source import DEFAULT_MODEL
from tests.cluster.sandbox import Sandbox
from tests.cluster.waiting import until
from tests.node import images
from tests.node.connect import NodeCluster
from tests.node.place import READY_SECONDS, Place
from tests.node.report import Results

# A fetch that failed is looked at again every few minutes.
AGAIN_SECONDS = 900.0
DIGEST = hashlib.sha256(DEFAULT_MODEL.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def endpoint(place: Place) -> Iterator[str]:
    """Where the bucket of the tests' models is."""
    with place.bucket() as address:
        yield address


def fetched(endpoint: str, **more: str) -> dict[str, Any]:
    """The model of a bucket."""
    return {"source": f"s3://models/{images.GGUF}", "endpoint": endpoint, **more}


def said(place: Place, model: str) -> str:
    """What the containers of a model's pods have printed."""
    selector = f"--selector=app.kubernetes.io/instance={model}"
    return place.kubectl("logs", selector, "--all-containers", "--ignore-errors")


@contextlib.contextmanager
def without_names(cluster: NodeCluster) -> Iterator[None]:
    """A cluster whose DNS does not answer."""
    scale = ("scale", "deployment/coredns", "--namespace=kube-system")
    cluster.kubectl(*scale, "--replicas=0")
    cluster.kubectl("wait", "--for=delete", "pods", "--selector=k8s-app=kube-dns", "--namespace=kube-system")
    try:
        yield
    finally:
        cluster.kubectl(*scale, "--replicas=1")
        cluster.kubectl("rollout", "status", "deployment/coredns", "--namespace=kube-system")


@pytest.mark.usefixtures("sandbox")
def test_no_names_are_resolved(place: Place, cluster: NodeCluster, endpoint: str, results: Results) -> None:
    title, outcome = (
        "DNS is down when a model is to be fetched",
        "`Ready` says `SourceUnreachable`; it serves once DNS is back",
    )
    with results.row("fault", title, outcome):
        with without_names(cluster):
            place.model("nameless", model=fetched(endpoint))
            until("the fetch to say so", lambda: "name is not known" in said(place, "nameless"), READY_SECONDS)
        place.until_condition("Ready", "True", "Serving", "nameless", AGAIN_SECONDS)
        place.kubectl("delete", "im/nameless")


def test_the_volume_is_full(place: Place, sandbox: Sandbox, endpoint: str, results: Results) -> None:
    title, outcome = (
        "The cache's volume is full",
        "`Ready` says `DiskFull`, with the numbers; it serves once there is room",
    )
    with results.row("fault", title, outcome):
        place.claim("small", filled=False)
        folder = place.folder_of("small")
        sandbox.enter("mount", "-t", "tmpfs", "-o", "size=3m,mode=0777", "tmpfs", folder)
        place.model("crowded", model=fetched(endpoint), storage={"claimName": "small"})
        condition = place.until_condition("Ready", "False", "DiskFull", "crowded", READY_SECONDS)
        assert "MiB" in condition["message"]
        sandbox.enter("mount", "-o", "remount,size=64m", folder)
        place.until_condition("Ready", "True", "Serving", "crowded", AGAIN_SECONDS)
        place.kubectl("delete", "im/crowded")


def test_a_cached_file_is_corrupted(place: Place, sandbox: Sandbox, endpoint: str, results: Results) -> None:
    title, outcome = "A cached file of a pinned model is corrupted", "it is never served: it is fetched anew"
    with results.row("fault", title, outcome):
        place.claim("cache", filled=False)
        spec: dict[str, Any] = {"model": fetched(endpoint, sha256=DIGEST), "storage": {"claimName": "cache"}}
        place.model("pinned", **spec)
        place.until_ready("pinned")
        folder = f"{place.folder_of('cache')}/blobs"
        (blob,) = sandbox.enter("find", folder, "-type", "f", "-size", "+4M").split()
        sandbox.enter("dd", "if=/dev/zero", f"of={blob}", "bs=4096", "seek=500", "count=1", "conv=notrunc")
        assert sandbox.enter("sha256sum", blob).split()[0] != DIGEST
        (pod,) = place.pods("pinned")
        place.kubectl("delete", "pod", pod["metadata"]["name"])
        place.until_condition("Ready", "True", "Serving", "pinned", AGAIN_SECONDS)
        assert sandbox.enter("sha256sum", f"{folder}/{DIGEST}").split()[0] == DIGEST
        assert "Paris" in place.run_client(["/opt/client/examples/chat.py", place.url("pinned")])
        place.kubectl("delete", "im/pinned")
