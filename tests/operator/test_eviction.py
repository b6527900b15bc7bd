"""Pods that their nodes evict. There are no nodes, so the test says what a kubelet would."""

import json
from typing import Any

import pytest

from tests.cluster.waiting import until
from tests.operator.conftest import StartOperator
from tests.operator.namespace import Namespace


def evict(namespace: Namespace, pod: Any, **regarding: Any) -> None:
    """Plays the kubelet, which tells of an eviction before it begins."""
    metadata = pod["metadata"]
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": metadata["name"]},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            **{name: metadata[name] for name in ("name", "namespace", "uid")},
            **regarding,
        },
        "reason": "Evicted",
        "message": "The node was low on resource: memory.",
        "type": "Warning",
        "source": {"component": "kubelet", "host": "node"},
    }
    namespace.kubectl("create", "--filename=-", input=json.dumps(event))


def there(namespace: Namespace, pod: Any) -> bool:
    return pod["metadata"]["uid"] in {each["metadata"]["uid"] for each in namespace.pods()}


# Before the others, whose operator lasts to the end.
def test_what_was_told_while_nobody_acted_is_found_out(namespace: Namespace, start_operator: StartOperator) -> None:
    with start_operator() as operator:
        operator.leading()
        namespace.serve()
    [pod] = namespace.pods()
    evict(namespace, pod)
    with start_operator():
        until("the pod to be deleted", lambda: not there(namespace, pod))


@pytest.mark.usefixtures("operator")
def test_no_more_requests_are_sent_to_a_pod_that_its_node_evicts(namespace: Namespace) -> None:
    namespace.serve(replicas=2)
    evicted, other = namespace.pods()
    evict(namespace, evicted)
    [new] = namespace.until_pods(1)
    assert not there(namespace, evicted)
    assert there(namespace, other)
    namespace.run(new)
    namespace.until_condition("Ready", "True", "Serving")


@pytest.mark.usefixtures("operator")
def test_nobody_elses_pod_is_deleted(namespace: Namespace) -> None:
    namespace.serve(replicas=2)
    pod, other = namespace.pods()
    container = {
        "name": "c",
        "image": "i",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "theirs"}, "spec": {"containers": [container]}}
    namespace.kubectl("create", "--filename=-", input=json.dumps(body))
    theirs = namespace.get("pod", "theirs")
    evict(namespace, theirs)
    evict(namespace, pod, uid="another")  # which had its name before
    evict(namespace, other)  # of which it is told after the others
    until("the last one to be deleted", lambda: not there(namespace, other))
    assert there(namespace, pod)
    assert namespace.get("pod", "theirs")["metadata"]["uid"] == theirs["metadata"]["uid"]
