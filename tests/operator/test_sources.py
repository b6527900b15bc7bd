"""Models that are fetched: what becomes of what the containers say that run before the runtime."""

import json
from typing import Any

import pytest

from inferno_runtime.models.facts import ModelFacts
from tests.cluster.waiting import until
from tests.operator.namespace import Namespace
from tests.operator.process import OperatorProcess
from tests.operator.test_trouble import events

pytestmark = pytest.mark.usefixtures("operator")

HUB = "hf://org/repo/tiny.gguf"
DIGEST = "ab" * 32
# 1 GiB of weights, and 8 slots of 8192 tokens with 16 Ki numbers each: 3328 MiB with what is besides.
FACTS = ModelFacts(
    format="gguf",
    architecture="llama",
    quantization="Q8_0",
    size_bytes=2**30,
    context_length=32_768,
    cache_values_per_token=2**14,
    capabilities=("generate", "chat", "tools"),
)
RUNNING: dict[str, Any] = {"running": {}}
WAITING = {"waiting": {"reason": "PodInitializing"}}
INSPECTED = {"terminated": {"exitCode": 0, "reason": "Completed", "message": json.dumps({"model": FACTS.wire()})}}
FETCHED = {
    "terminated": {
        "exitCode": 0,
        "reason": "Completed",
        "message": json.dumps({"sha256": DIGEST, "bytes": 2**30, "fetchedBytes": 2**30, "model": FACTS.wire()}),
    }
}


def failed(reason: str, message: str) -> dict[str, Any]:
    said = json.dumps({"reason": reason, "message": message})
    return {"terminated": {"exitCode": 1, "reason": "Error", "message": said}}


def prepare(namespace: Namespace, pod: Any, inspect: dict[str, Any], fetch: dict[str, Any]) -> None:
    """Plays the kubelet: the pod's init containers are in these states."""
    statuses = [
        {"name": name, "image": "i", "imageID": "i", "restartCount": 0, "ready": False, "state": state}
        for name, state in (("inspect", inspect), ("fetch", fetch))
    ]
    status = {"phase": "Pending", "initContainerStatuses": statuses}
    namespace.patch("pod", pod["metadata"]["name"], {"status": status}, "--subresource=status")


def test_a_model_is_inspected_given_its_memory_and_fetched(namespace: Namespace, operator: OperatorProcess) -> None:
    fetched = operator.metric("inferno_operator_download_bytes_total")
    ready = operator.metric("inferno_operator_time_to_ready_seconds_count")
    namespace.model(source=HUB)
    namespace.until_condition("SourceResolved", "Unknown", "NotFetched")
    [pod] = namespace.until_pods(1)
    prepare(namespace, pod, INSPECTED, RUNNING)
    found = until(
        "the model's facts",
        lambda: namespace.get("im", "tiny")["status"]["model"].get("architecture") and namespace.get("im", "tiny"),
    )
    assert found["status"]["model"]["quantization"] == "Q8_0"
    assert found["status"]["model"]["capabilities"] == ["generate", "chat", "tools"]
    assert found["status"]["model"]["memoryBytes"] == 3328 * 2**20
    namespace.until_condition("ResourcesFit", "True", "SetFromModel")

    def larger() -> Any:
        pods = [each for each in namespace.pods() if each["metadata"]["name"] != pod["metadata"]["name"]]
        return pods[0] if pods else None

    pod = until("a pod with the memory", larger)
    assert pod["spec"]["containers"][0]["resources"]["requests"] == {"memory": "3328Mi"}
    prepare(namespace, pod, INSPECTED, RUNNING)
    namespace.until_condition("Ready", "False", "Fetching")
    prepare(namespace, pod, INSPECTED, FETCHED)
    namespace.until_condition("SourceResolved", "True", "Fetched")
    namespace.run(pod)
    namespace.until_condition("Ready", "True", "Serving")
    assert namespace.get("im", "tiny")["status"]["model"]["sha256"] == DIGEST
    assert events(namespace, "Fetching")
    assert operator.metric("inferno_operator_download_bytes_total") == fetched + 2**30
    assert operator.metric("inferno_operator_time_to_ready_seconds_count") == ready + 1


def test_a_token_that_was_revoked(namespace: Namespace) -> None:
    namespace.model(source=HUB)
    [pod] = namespace.until_pods(1)
    prepare(namespace, pod, failed("Unauthorized", "401, the token does not do"), WAITING)
    found = namespace.until_condition("Ready", "False", "Unauthorized")
    assert "401, the token does not do" in found["message"]
    namespace.until_condition("SourceResolved", "False", "Unauthorized")
    until("an Event", lambda: events(namespace, "Unauthorized"))


def test_a_cache_of_its_own_and_a_prefetch(namespace: Namespace) -> None:
    storage = {"claim": {"size": "5Gi"}, "prefetch": True}
    model = {"source": HUB}
    namespace.model(source=HUB, storage=storage, replicas=0)
    claim = until("the claim", lambda: namespace.get("pvc", "tiny-cache"))
    assert claim["metadata"]["ownerReferences"][0]["name"] == model.get("name", "tiny")
    until("the Job", lambda: namespace.list_all("jobs"))
    selector = "app.kubernetes.io/name=inferno-prefetch"
    [pod] = until("the Job's pod", lambda: namespace.list_all("pods", f"--selector={selector}"))
    done = {"name": "fetch", "image": "i", "imageID": "i", "restartCount": 0, "ready": False, "state": FETCHED}
    status = {"phase": "Running", "containerStatuses": [done]}
    namespace.patch("pod", pod["metadata"]["name"], {"status": status}, "--subresource=status")
    namespace.until_condition("SourceResolved", "True", "Fetched")
    assert namespace.get("im", "tiny")["status"]["model"]["sha256"] == DIGEST
    until("the Job's end", lambda: not namespace.list_all("jobs"))
    namespace.model(source=HUB, storage=storage, replicas=1)
    namespace.until_pods(1)
    assert not namespace.list_all("jobs"), "what has been fetched is not fetched before it is needed"


def test_a_cache_that_was_deleted_comes_back_and_one_that_is_no_longer_asked_for_stays(namespace: Namespace) -> None:
    namespace.model(source=HUB, storage={"claim": {"size": "5Gi"}})
    before = until("the claim", lambda: namespace.get("pvc", "tiny-cache"))
    namespace.patch("pvc", "tiny-cache", {"metadata": {"finalizers": None}})  # by which it would wait for its pods
    namespace.kubectl("delete", "pvc", "tiny-cache", "--wait=false")

    def another() -> Any:
        found = namespace.get("pvc", "tiny-cache")
        return found and found["metadata"]["uid"] != before["metadata"]["uid"]

    until("another claim", another)
    namespace.model(source=HUB)
    namespace.until_condition("SourceResolved", "Unknown", "NotFetched")
    assert namespace.get("pvc", "tiny-cache"), "it holds data"


def test_another_source_ends_the_fetch_of_the_one_before(namespace: Namespace) -> None:
    storage = {"claim": {"size": "5Gi"}, "prefetch": True}
    namespace.model(source=HUB, storage=storage, replicas=0)
    [before] = until("the Job", lambda: namespace.list_all("jobs"))
    namespace.model(source=f"{HUB}.gguf", storage=storage, replicas=0)

    def replaced() -> bool:
        jobs = namespace.list_all("jobs")
        return len(jobs) == 1 and jobs[0]["metadata"]["name"] != before["metadata"]["name"]

    until("the other Job alone", replaced)


ADAPTERS = {
    "file": "file:///opt/sql.gguf",
    "hub": "hf://org/loras/sql.gguf",
    "claim": "pvc://loras/sql.gguf",
    "web": "https://loras.example/sql.gguf",
    "bucket": "s3://loras/sql.gguf",
    "image": "oci://registry.example/loras:1/sql.gguf",
}


def test_adapters_from_everywhere(namespace: Namespace) -> None:
    adapters = [{"name": name, "source": source} for name, source in ADAPTERS.items()]
    model = {"source": "file:///opt/models/tiny.gguf", "adapters": adapters}
    namespace.model(model=model)
    [pod] = namespace.until_pods(1)
    assert [each["name"] for each in pod["spec"]["initContainers"]] == ["inspect", "fetch-adapters"]
    statuses = [
        {"name": name, "image": "i", "imageID": "i", "restartCount": 0, "ready": False, "state": state}
        for name, state in (("inspect", INSPECTED), ("fetch-adapters", failed("NotFound", "no such adapter")))
    ]
    status = {"status": {"phase": "Pending", "initContainerStatuses": statuses}}
    namespace.patch("pod", pod["metadata"]["name"], status, "--subresource=status")
    found = namespace.until_condition("SourceResolved", "False", "NotFound")
    assert "no such adapter" in found["message"]


def test_too_little_memory(namespace: Namespace) -> None:
    namespace.model(resources={"limits": {"memory": "1Gi"}})
    [pod] = namespace.until_pods(1)
    prepare(namespace, pod, INSPECTED, WAITING)
    found = namespace.until_condition("ResourcesFit", "False", "MemoryTooSmall")
    assert "1.0 GiB of memory" in found["message"]
    assert "about 3.2 GiB" in found["message"]
