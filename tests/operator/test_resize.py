"""Pods that are given other resources while they run. There are no nodes, so the test says what a kubelet would."""

from typing import Any

import pytest

from tests.cluster.waiting import until
from tests.operator.conftest import StartOperator
from tests.operator.namespace import Namespace
from tests.operator.process import OperatorProcess
from tests.operator.test_trouble import events

SMALL = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}
LARGE = {"requests": {"cpu": "2", "memory": "2Gi"}, "limits": {"memory": "4Gi"}}


def told(namespace: Namespace, count: int, resources: dict[str, Any]) -> list[Any]:
    """The pods, once so many have been told to take on the resources."""

    def look() -> list[Any] | None:
        pods = [pod for pod in namespace.pods() if pod["spec"]["containers"][0]["resources"] == resources]
        return pods if len(pods) == count else None

    return until("the pods to be told", look)


def take_on(namespace: Namespace, pod: Any, resources: dict[str, Any]) -> None:
    """Plays the kubelet: the container has these resources now."""
    container = pod["status"]["containerStatuses"][0] | {"resources": resources}
    namespace.patch(
        "pod", pod["metadata"]["name"], {"status": {"containerStatuses": [container]}}, "--subresource=status"
    )


def refuse(namespace: Namespace, pod: Any) -> None:
    """Plays the kubelet: the node is not large enough."""
    refusal = {"type": "PodResizePending", "status": "True", "reason": "Infeasible", "message": "Node has 2 CPUs"}
    conditions = [*pod["status"]["conditions"], refusal | {"lastTransitionTime": "2026-01-01T00:00:00Z"}]
    namespace.patch("pod", pod["metadata"]["name"], {"status": {"conditions": conditions}}, "--subresource=status")


def names(pods: list[Any]) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods}


def replica_sets(namespace: Namespace) -> set[str]:
    return names(namespace.list_all("replicasets"))


def quiet(operator: OperatorProcess, namespace: Namespace) -> None:
    """Another pass over the model changes nothing."""
    until("the queue to be empty", lambda: operator.metric("inferno_operator_queue_depth") == 0)
    writes, passes = operator.writes, operator.passes
    namespace.kubectl("annotate", "--overwrite", "im", "tiny", f"touched={passes}")
    until("another pass", lambda: operator.passes > passes)
    assert operator.writes == writes


def test_pods_take_on_more_and_less_without_being_replaced(operator: OperatorProcess, namespace: Namespace) -> None:
    namespace.serve(replicas=2, resources=SMALL)
    before, sets = names(namespace.pods()), replica_sets(namespace)
    for resources in (LARGE, SMALL):
        namespace.model(replicas=2, resources=resources)
        pods = told(namespace, 2, resources)
        found = namespace.until_condition("Ready", "False", "Resizing")
        assert "memory" in found["message"]
        assert namespace.condition("Available")["status"] == "True"
        for pod in pods:
            take_on(namespace, pod, resources)
        namespace.until_condition("Ready", "True", "Serving")
        deployment = namespace.get("deployment", "tiny")
        assert deployment["spec"]["template"]["spec"]["containers"][0]["resources"] == resources
        assert "paused" not in deployment["spec"]
        assert names(namespace.pods()) == before
        assert replica_sets(namespace) == sets, "no other ReplicaSet was made for it"
    until("the Event", lambda: events(namespace, "Resized"))
    quiet(operator, namespace)


def test_a_pod_that_is_made_afterwards_has_them_from_its_birth(operator: OperatorProcess, namespace: Namespace) -> None:
    namespace.serve(resources=SMALL)
    namespace.model(resources=LARGE)
    [pod] = told(namespace, 1, LARGE)
    take_on(namespace, pod, LARGE)
    namespace.until_condition("Ready", "True", "Serving")
    namespace.model(resources=LARGE, replicas=2)
    [added] = namespace.until_pods(1)
    assert added["spec"]["containers"][0]["resources"] == LARGE
    assert len(replica_sets(namespace)) == 1


@pytest.mark.usefixtures("operator")
def test_what_the_node_cannot_give_new_pods_ask_for(namespace: Namespace) -> None:
    namespace.serve(resources=SMALL)
    namespace.model(resources=LARGE)
    [pod] = told(namespace, 1, LARGE)
    refuse(namespace, pod)
    [new] = namespace.until_pods(1)
    assert new["spec"]["containers"][0]["resources"] == LARGE
    [event] = until("the Event", lambda: events(namespace, "ResizeRefused"))
    assert "Node has 2 CPUs" in event["note"]
    assert namespace.condition("Available")["status"] == "True"
    namespace.run(new)
    namespace.until_condition("Ready", "True", "Serving")
    until("the old pod to go", lambda: names(namespace.pods()) == names([new]))


@pytest.mark.usefixtures("operator")
def test_what_the_api_server_does_not_let_a_pod_take_on_new_pods_have(namespace: Namespace) -> None:
    same = {"cpu": "1", "memory": "1Gi"}
    namespace.serve(resources={"requests": same, "limits": same})
    namespace.model(resources={"requests": same, "limits": same | {"memory": "2Gi"}})  # of another QoS class
    [new] = namespace.until_pods(1)
    [event] = until("the Event", lambda: events(namespace, "ResizeRefused"))
    assert "QOS" in event["note"].upper()
    namespace.run(new)
    namespace.until_condition("Ready", "True", "Serving")


@pytest.mark.usefixtures("operator")
def test_a_node_that_knows_nothing_of_it(namespace: Namespace) -> None:
    namespace.serve(resources=SMALL)
    [old] = namespace.pods()
    container = {name: value for name, value in old["status"]["containerStatuses"][0].items() if name != "resources"}
    status = {"status": {"containerStatuses": [container]}}
    namespace.patch("pod", old["metadata"]["name"], status, "--subresource=status")
    namespace.model(resources=LARGE)
    [new] = namespace.until_pods(1)
    namespace.run(new)
    namespace.until_condition("Ready", "True", "Serving")


@pytest.mark.usefixtures("operator")
def test_what_is_taken_back_before_it_is_done_the_pods_give_back(namespace: Namespace) -> None:
    namespace.serve(resources=SMALL)
    before = names(namespace.pods())
    namespace.model(resources=LARGE)
    told(namespace, 1, LARGE)
    namespace.model(resources=SMALL)
    [pod] = told(namespace, 1, SMALL)
    take_on(namespace, pod, SMALL)
    namespace.until_condition("Ready", "True", "Serving")
    assert names(namespace.pods()) == before


def test_another_operator_ends_what_one_has_begun(start_operator: StartOperator, namespace: Namespace) -> None:
    alone = ("--no-leader-election", f"--namespace={namespace.name}")
    with start_operator(*alone) as first:
        first.leading()
        namespace.serve(resources=SMALL)
        namespace.model(resources=LARGE)
        [pod] = told(namespace, 1, LARGE)
        assert first.terminate() == 0
    take_on(namespace, pod, LARGE)
    with start_operator(*alone) as second:
        second.leading()
        namespace.until_condition("Ready", "True", "Serving")
        assert names(namespace.pods()) == names([pod])
        quiet(second, namespace)
