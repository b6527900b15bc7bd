"""Faults, each with what must become of it: of the streams that run, of the pod, and of those that ask later."""

import random
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from inferno_operator.api import names
from tests.cluster.sandbox import Sandbox
from tests.cluster.waiting import until
from tests.node import harmed, images
from tests.node.connect import NodeCluster
from tests.node.place import CLAIM, UNLIMITED, Place
from tests.node.report import Results
from tests.node.settling import answers, restart, seasoned
from tests.node.traffic import KILLED_OUTRIGHT, STREAMS, Request, Traffic, failures, recovery
from tests.stepped.clock import SteppedClock

SOURCE = f"pvc://models/{images.GGUF}"
AWAY_SECONDS = 60.0
# Prints when, by its own clock, a model makes an answer.
MADE = """
import httpx, sys
body = {"model": sys.argv[2], "prompt": "Once", "max_tokens": 1}
print(httpx.post(sys.argv[1] + "/completions", json=body, timeout=60).raise_for_status().json()["created"])
"""


@pytest.fixture
def model(place: Place) -> None:
    """One pod of a model, to which nothing has happened yet, and whose engine may stand still for 5 seconds."""
    place.serve_model("tiny", SOURCE, replicas=1, **(UNLIMITED | {"engine": {"stallSeconds": 5}}))
    if place.restarts():  # the kubelet makes the containers of such a pod wait longer and longer
        (pod,) = place.pods()
        place.kubectl("delete", "pod", pod["metadata"]["name"], "--now")
        place.until_ready()


def harm(place: Place, fault: Callable[[], object]) -> tuple[list[Request], float]:
    """The streams of a load that a fault breaks, once all is well again; and when it happened."""
    with Traffic(place) as traffic:
        moment = traffic.now()
        fault()
        traffic.until_felt()
        traffic.until_flowing(since=traffic.now())
        requests = traffic.stop()
    place.until_ready()
    return requests, moment


def only(requests: list[Request], *beginnings: str) -> bool:
    """Whether what failed did so in one of these ways. Raises AssertionError with those that did not."""
    others = Counter(each for each in failures(requests) if not each.startswith(beginnings))
    assert not others
    return True


def ended_with_the_engine(requests: list[Request]) -> None:
    """Each stream was told once that its engine is gone: by an event, or where it had not begun, by the answer itself.

    Until the engine is there again whoever asks is told to come back, and where that takes long the pod is not ready, and
    nobody takes new connections.
    """
    assert only(requests, "error event: engine_restarted", "status 500", "status 503", "refused")
    told = [each for each in failures(requests) if "engine_restarted" in each]
    assert 0 < len(told) <= STREAMS
    assert all("engine_restarted" in each for each in failures(requests) if each.startswith("status 500"))


@pytest.mark.usefixtures("model")
def test_the_engine_is_killed(place: Place, sandbox: Sandbox, results: Results) -> None:
    title = "The engine's process is killed"
    outcome = "running streams end with an error; the container stays, and serves again"
    with results.row("fault", title, outcome) as row:
        (pod,) = place.pods()
        requests, moment = harm(place, lambda: harmed.signal(sandbox, "KILL", pod, "engine"))
        ended_with_the_engine(requests)
        assert place.restarts() == 0
        row.recovered(recovery(requests, moment))
        row.figures["requests that failed"] = str(len(failures(requests)))


@pytest.mark.usefixtures("model")
def test_the_engine_stands_still(place: Place, sandbox: Sandbox, results: Results) -> None:
    title = "The engine's process stands still (SIGSTOP), `stallSeconds: 5`"
    outcome = "running streams end with an error; the engine is replaced, the container stays"
    with results.row("fault", title, outcome) as row:
        (pod,) = place.pods()
        requests, moment = harm(place, lambda: harmed.signal(sandbox, "STOP", pod, "engine"))
        ended_with_the_engine(requests)
        assert place.restarts() == 0
        row.recovered(recovery(requests, moment))


@pytest.mark.usefixtures("model")
def test_the_server_is_killed(place: Place, sandbox: Sandbox, results: Results) -> None:
    title, outcome = "The server's process is killed", "connections break; the kubelet starts the container again"
    with results.row("fault", title, outcome) as row:
        (pod,) = place.pods()
        requests, moment = harm(place, lambda: harmed.signal(sandbox, "KILL", pod, "main"))
        assert only(requests, "cut", "refused")
        assert place.restarts() == 1
        row.recovered(recovery(requests, moment))


@pytest.mark.usefixtures("model")
def test_the_only_pod_is_killed(place: Place, results: Results) -> None:
    with results.row("fault", "The only pod is killed (no grace)", "connections break; another pod serves") as row:
        (pod,) = place.pods()
        kill = ("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
        requests, moment = harm(place, lambda: place.kubectl(*kill))
        assert only(requests, *KILLED_OUTRIGHT)
        row.recovered(recovery(requests, moment))


@pytest.mark.usefixtures("model")
def test_the_shim_of_a_pod_is_killed(place: Place, sandbox: Sandbox, results: Results) -> None:
    title = "The containerd-shim of the pod is killed"
    outcome = "connections break or fall silent, as when a machine dies; the kubelet makes the pod's containers anew"
    with results.row("fault", title, outcome) as row:
        (pod,) = place.pods()
        requests, moment = harm(place, lambda: harmed.signal(sandbox, "KILL", pod, "shim"))
        assert only(requests, *KILLED_OUTRIGHT)
        row.recovered(recovery(requests, moment))


@pytest.mark.parametrize("component", ["kubelet", "kube-proxy"])
@pytest.mark.usefixtures("model", "sandbox")
def test_a_component_of_the_node_is_killed(
    component: str, place: Place, cluster: NodeCluster, results: Results
) -> None:
    title = f"The {component} is killed"
    with results.row("fault", title, "no failed request, no truncated stream") as row, Traffic(place) as traffic:
        seasoned(cluster)
        restart(cluster, component)
        traffic.until_flowing(since=traffic.now())
        requests = traffic.stop()
        assert failures(requests) == []
        assert place.restarts() == 0
        row.figures["streams"] = str(len(requests))


@pytest.mark.parametrize("seconds", [-86_400.0, 86_400.0], ids=["back", "ahead"])
def test_the_clock_of_a_pod_is_set(place: Place, sandbox: Sandbox, results: Results, seconds: float) -> None:
    title = f"The clock of the only pod is set {'ahead' if seconds > 0 else 'back'} by a day"
    with results.row("fault", title, "no failed request, no truncated stream") as row:
        clock = SteppedClock(sandbox.path(place.folder_of(CLAIM)), seen_as=Path(names.MODELS_DIRECTORY))
        env = [{"name": name, "value": value} for name, value in clock.environment.items()]
        place.serve_model("tiny", SOURCE, replicas=1, **(UNLIMITED | {"env": env}))
        before = place.restarts()
        with Traffic(place) as traffic:
            clock.step(seconds)
            traffic.until_flowing(since=traffic.now())
            said = place.run_client(["-c", MADE, place.url(), "tiny"])
            assert float(said) == pytest.approx(time.time() + seconds, abs=600), "the clock was set"
            requests = traffic.stop()
        assert failures(requests) == []
        assert place.restarts() == before
        row.figures["streams"] = str(len(requests))


@pytest.mark.usefixtures("model", "sandbox")
def test_containerd_is_killed(place: Place, cluster: NodeCluster, results: Results) -> None:
    # While a node's runtime is down Kubernetes calls the node, and so its pods, not ready: on the only node nobody is left
    # to take new connections.
    title = "The containerd of the only node is killed"
    outcome = "no truncated stream; new connections may be refused for a moment"
    with results.row("fault", title, outcome) as row, Traffic(place) as traffic:
        moment = traffic.now()
        restart(cluster, "containerd")
        traffic.until_flowing(since=traffic.now())
        requests = traffic.stop()
        assert only(requests, "refused")
        assert place.restarts() == 0
        row.recovered(recovery(requests, moment))


@pytest.mark.usefixtures("model")
def test_the_operators_leader_is_killed(place: Place, sandbox: Sandbox, cluster: NodeCluster, results: Results) -> None:
    title, outcome = "The operator's leader is killed", "models serve on; another replica acts on what changes"
    with results.row("fault", title, outcome) as row:
        holder = leader(cluster)
        pod = cluster.get("pod", holder, "--namespace=inferno-system")
        with Traffic(place) as traffic:
            harmed.signal(sandbox, "KILL", pod, "main")
            moment = time.monotonic()
            place.model("later", SOURCE, replicas=0)
            until("somebody to act", lambda: place.get("deployment", "later"), 120)
            row.recovered(time.monotonic() - moment)
            assert failures(traffic.stop()) == []
        place.kubectl("delete", "im/later")


def leader(cluster: NodeCluster) -> str:
    """The pod that holds the operator's Lease."""
    holder: str = cluster.get("lease", "inferno-operator", "--namespace=inferno-system")["spec"]["holderIdentity"]
    pods = cluster.get("pods", "--namespace=inferno-system")["items"]
    (name,) = [pod["metadata"]["name"] for pod in pods if pod["metadata"]["name"] in holder]
    return str(name)


@pytest.mark.usefixtures("model")
def test_the_api_server_is_away(place: Place, sandbox: Sandbox, cluster: NodeCluster, results: Results) -> None:
    title, outcome = (
        "The API server is away for a minute",
        "no failed request, no truncated stream; then the operator acts again",
    )
    with results.row("fault", title, outcome) as row, Traffic(place) as traffic:
        with sandbox.without("kube-apiserver"):
            time.sleep(AWAY_SECONDS)  # this is the fault, and not a wait for something
        until("the API server", lambda: answers(cluster), 120)
        moment = time.monotonic()
        place.model("later", SOURCE, replicas=0)
        until("the operator to act", lambda: place.get("deployment", "later"), 180)
        row.recovered(time.monotonic() - moment)
        requests = traffic.stop()
        assert failures(requests) == []
        row.figures["streams"] = str(len(requests))
    place.kubectl("delete", "im/later")


def test_a_limit_of_memory_that_is_too_small(place: Place, results: Results) -> None:
    with results.row("fault", "A memory limit that is too small", "`Ready` says so, and names the memory to set"):
        resources = {"requests": {"memory": "64Mi"}, "limits": {"memory": "64Mi"}}
        place.model("cramped", SOURCE, resources=resources)
        condition = place.until_condition("Ready", "False", "OOMKilled", "cramped", 300)
        assert re.search(r"spec\.resources\.limits\.memory .* at least [0-9]+Mi", condition["message"])
        place.kubectl("delete", "im/cramped")


def test_a_crowd_of_models_that_come_and_go(place: Place, cluster: NodeCluster, results: Results) -> None:
    title = "200 models are created, changed and deleted in random order, the operator restarted meanwhile"
    with results.row("fault", title, "exactly what is wanted is there in the end") as row:
        choose = random.Random(200)
        wanted: dict[str, int] = {}
        for number in range(200):
            name = f"m{number}"
            place.model(name, SOURCE, replicas=0)
            wanted[name] = 8
            if choose.random() < 0.4:
                changed = choose.choice(list(wanted))
                wanted[changed] = choose.randrange(1, 8)
                place.model(changed, SOURCE, replicas=0, engine={"slots": wanted[changed]})
            if choose.random() < 0.6:
                gone = choose.choice(list(wanted))
                wanted.pop(gone)
                place.kubectl("delete", "im", gone, "--wait=false")
            if choose.random() < 0.03:
                cluster.kubectl(
                    "delete",
                    "pods",
                    "--all",
                    "--namespace=inferno-system",
                    "--wait=false",
                    "--grace-period=0",
                    "--force",
                )
        moment = time.monotonic()
        until("exactly what is wanted", lambda: there_is(place) == wanted, 600)
        row.recovered(time.monotonic() - moment)
        row.figures["models in the end"] = str(len(wanted))
        place.kubectl("delete", "im", *wanted, "--wait=false")
        until("nothing to be left", lambda: not there_is(place), 300)


def there_is(place: Place) -> dict[str, int] | None:
    """The slots of each model of the crowd, by its Deployment and the ConfigMap that goes with it; None if they differ."""
    crowd = {each["metadata"]["name"] for each in place.list_all("deployments") if each["metadata"]["name"][0] == "m"}
    configs = {
        each["metadata"]["name"].removesuffix("-config"): each["data"]["model.yaml"]
        for each in place.list_all("configmaps")
        if each["metadata"]["name"].endswith("-config") and each["metadata"]["name"][0] == "m"
    }
    if crowd != configs.keys():
        return None
    return {name: next((n for n in range(1, 8) if f"slots: {n}\n" in config), 8) for name, config in configs.items()}
