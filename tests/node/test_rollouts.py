"""What is changed while a model is in use costs nobody an answer."""

import contextlib
import json
from collections.abc import Iterator

import pytest

from scripts import build_images
from tests.cluster.sandbox import Sandbox
from tests.cluster.waiting import until
from tests.node import harmed, images
from tests.node.conftest import helm
from tests.node.place import UNLIMITED, Place
from tests.node.report import Results
from tests.node.settling import evicts_below
from tests.node.traffic import KILLED_OUTRIGHT, STREAMS, Traffic, failures, recovery

SOURCE = f"pvc://models/{images.GGUF}"
OTHER = f"pvc://models/{images.OTHER_GGUF}"
# Uses 2 GiB.
HOG = "import time; used = b'x' * (2 << 30); time.sleep(3600)"
NOTHING_LOST = "no failed request, no truncated stream"


@contextlib.contextmanager
def undisturbed(place: Place, results: Results, title: str) -> Iterator[None]:
    """What is done in the block costs none of 8 streams anything; it goes into the report."""
    with results.row("rollout", title, NOTHING_LOST) as row, Traffic(place) as traffic:
        began = traffic.now()
        yield
        over = traffic.now()
        traffic.until_flowing(since=over)
        requests = traffic.stop()
        assert failures(requests) == []
        row.recovered(over - began)
        row.figures["streams"] = str(len(requests))
        row.figures["the longest wait for a first token"] = (
            f"{max(each.first - each.start for each in requests if each.first):.1f} s"
        )


@pytest.fixture
def one(place: Place) -> None:
    """One pod of the model."""
    place.serve_model("tiny", SOURCE, replicas=1, **UNLIMITED)


@pytest.fixture
def two(place: Place) -> None:
    """Two pods of the model."""
    place.serve_model("tiny", SOURCE, replicas=2, **UNLIMITED)


@pytest.mark.usefixtures("one")
def test_another_model(place: Place, results: Results) -> None:
    with undisturbed(place, results, "Another model (`spec.model.source`), one pod"):
        place.serve_model("tiny", OTHER, replicas=1, **UNLIMITED)
        place.until_gone(place.leaving())


@pytest.mark.usefixtures("one")
def test_from_one_pod_to_four_and_back(place: Place, results: Results) -> None:
    with undisturbed(place, results, "From 1 pod to 4, and back to 1"):
        for replicas in (4, 1):
            place.serve_model("tiny", SOURCE, replicas=replicas, **UNLIMITED)
        place.until_gone(place.leaving())


@pytest.mark.usefixtures("one")
def test_an_upgrade_of_the_chart(place: Place, results: Results) -> None:
    (pod,) = place.pods()
    with undisturbed(place, results, "`helm upgrade` of the operator"):
        helm(
            place.cluster,
            "upgrade",
            "inferno",
            "charts/inferno",
            "--reuse-values",
            "--set=podLabels.upgraded=yes",
            "--wait",
        )
    assert [each["metadata"]["uid"] for each in place.pods()] == [pod["metadata"]["uid"]]


@pytest.mark.usefixtures("one")
def test_another_runtime(place: Place, results: Results, sandbox: Sandbox) -> None:
    version = build_images.version("runtime")
    sandbox.tag_image(images.reference("localhost", "runtime"), f"localhost/inferno-runtime:{version}-next")

    def upgrade(tag: str) -> None:
        helm(
            place.cluster,
            "upgrade",
            "inferno",
            "charts/inferno",
            "--reuse-values",
            f"--set=runtime.image.tag={tag}",
            "--wait",
        )
        until(
            f"pods of the runtime {tag}", lambda: place.images() == {f"localhost/inferno-runtime:{tag or version}"}, 300
        )
        place.until_gone(place.leaving())

    with undisturbed(place, results, "`helm upgrade` to another runtime's image"):
        upgrade(f"{version}-next")
    upgrade("")


@pytest.mark.usefixtures("two")
def test_a_pod_is_deleted(place: Place, results: Results) -> None:
    with undisturbed(place, results, "A pod of two is deleted"):
        victim = place.pods()[0]["metadata"]["name"]
        place.kubectl("delete", "pod", victim)
        place.until_ready()


@pytest.mark.usefixtures("two")
def test_a_pod_is_evicted(place: Place, results: Results) -> None:
    with undisturbed(place, results, "A pod of two is evicted, as by `kubectl drain`"):
        victim = place.pods()[0]["metadata"]["name"]
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": victim, "namespace": place.name},
        }
        path = f"/api/v1/namespaces/{place.name}/pods/{victim}/eviction"
        place.cluster.kubectl("create", "--raw", path, "--filename=-", input=json.dumps(eviction))
        place.until_gone([victim])
        place.until_ready()


@pytest.mark.usefixtures("sandbox")
def test_the_node_evicts_a_pod_for_its_memory(place: Place, results: Results) -> None:
    # Of all pods these use the most beyond what they ask for.
    modest = UNLIMITED | {"resources": {"requests": {"memory": "64Mi"}}}
    place.serve_model("tiny", SOURCE, replicas=2, **modest)
    with (
        evicts_below(place.cluster, spare=1 << 30),
        undisturbed(place, results, "The node is short of memory, and its kubelet evicts a pod of two"),
    ):
        place.start_client("hog", ["-c", HOG], memory="4Gi")
        until("the node to begin to evict a pod", lambda: evicted(place), 120)
        place.kubectl("delete", "pod", "hog", "--now")
        place.until_gone(evicted(place))
        place.until_ready()


def evicted(place: Place) -> list[str]:
    """The pods that the node has said it evicts, which it does first."""
    return [event["involvedObject"]["name"] for event in place.list_all("events", "--field-selector=reason=Evicted")]


@pytest.mark.usefixtures("two")
def test_a_pod_is_killed_outright(place: Place, sandbox: Sandbox, results: Results) -> None:
    title, outcome = (
        "A pod of two is killed (no grace)",
        "its own streams end with an error that clients see; no others",
    )
    with results.row("rollout", title, outcome) as row, Traffic(place) as traffic:
        victim = place.pods()[0]
        began = traffic.now()
        place.kubectl("delete", "pod", victim["metadata"]["name"], "--grace-period=0", "--force")
        place.until_ready()
        until("the node to have ended it", lambda: not harmed.runs(victim))
        traffic.until_flowing(since=traffic.now())
        requests = traffic.stop()
        failed = failures(requests)
        assert all(each.startswith(KILLED_OUTRIGHT) for each in failed), failed
        assert len(failed) <= STREAMS
        row.recovered(recovery(requests, began))
        row.figures["streams"] = f"{len(requests)}, of which {len(failed)} failed"
