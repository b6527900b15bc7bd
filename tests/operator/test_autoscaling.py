"""As many pods as there is to do. There are no nodes, so the test answers for the pods, each at a loopback address."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.cluster.waiting import until
from tests.operator.conftest import StartOperator
from tests.operator.namespace import Namespace
from tests.operator.process import OperatorProcess

AT_ONCE = {"windowSeconds": 0, "podsPerMinute": 10}
SCALING = {"maxReplicas": 3, "targetRequests": 10, "scaleUp": AT_ONCE, "scaleDown": AT_ONCE}


class Load:
    """What every pod reports: so many sequences, as the runtime's /metrics has it."""

    def __init__(self) -> None:
        self.requests = 0
        self.servers: dict[str, ThreadingHTTPServer] = {}

    def listen(self, address: str) -> None:
        """Answers at the address of a pod."""
        load = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = f'inferno_num_requests_running{{model_name="tiny"}} {load.requests}\n'
                text += 'inferno_num_requests_waiting{model_name="tiny"} 0\n'
                self.send_response(200)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer((address, 8000), Handler)
        self.servers[address] = server
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Nobody answers any more."""
        for server in self.servers.values():
            server.shutdown()
            server.server_close()


@pytest.fixture
def load() -> Iterator[Load]:
    """What the pods of the test have to do."""
    made = Load()
    yield made
    made.close()


@pytest.fixture(scope="module")
def operator(start_operator: StartOperator) -> Iterator[OperatorProcess]:
    """An operator that looks at the pods each second."""
    with start_operator("--autoscale-seconds=1") as process:
        yield process.leading()
        assert process.terminate() == 0
    assert "a bug" not in process.log.read_text()


def run(namespace: Namespace, load: Load, pods: list[Any]) -> None:
    """Plays the kubelet: the pods run, each at an address of its own."""
    for pod in pods:
        address = f"127.0.77.{len(load.servers) + 1}"
        load.listen(address)
        namespace.patch("pod", pod["metadata"]["name"], {"status": {"podIP": address}}, "--subresource=status")
        namespace.run(pod)


def events(namespace: Namespace, reason: str) -> list[str]:
    return [each["note"] for each in namespace.list_all("events.events.k8s.io") if each["reason"] == reason]


def test_more_pods_for_more_to_do_and_fewer_for_less(
    operator: OperatorProcess, namespace: Namespace, load: Load
) -> None:
    namespace.model(autoscaling=SCALING)
    run(namespace, load, namespace.until_pods(1))
    namespace.until_condition("Ready", "True", "Serving")
    load.requests = 30
    pods = namespace.until_pods(2)
    assert namespace.get("im", "tiny")["status"]["autoscaling"] == {"replicas": 3}
    [told] = until("the Event", lambda: events(namespace, "ScaledUp"))
    assert told == "1 -> 3 pods: 30 sequences run or wait, 10 a pod is the target"
    run(namespace, load, pods)
    namespace.until_condition("Ready", "True", "Serving")
    assert operator.metric("inferno_operator_scalings_total", direction="up") >= 1
    load.requests = 1
    until("one pod to be left", lambda: len(namespace.pods()) == 1)
    namespace.until_condition("Ready", "True", "Serving")
    assert namespace.get("deployment", "tiny")["spec"]["replicas"] == 1
    assert namespace.get("im", "tiny")["spec"]["replicas"] == 1, "the resource is left to whoever wrote it"


def test_another_operator_goes_on_from_what_was_decided(
    start_operator: StartOperator, namespace: Namespace, load: Load
) -> None:
    flags = ("--no-leader-election", f"--namespace={namespace.name}", "--autoscale-seconds=1")
    with start_operator(*flags) as first:
        first.leading()
        namespace.model(autoscaling=SCALING)
        run(namespace, load, namespace.until_pods(1))
        load.requests = 20
        namespace.until_pods(1)
        assert first.terminate() == 0
    with start_operator(*flags) as second:
        second.leading()
        until("a pass", lambda: second.passes >= 1)
        until("the queue to be empty", lambda: second.metric("inferno_operator_queue_depth") == 0)
        assert namespace.get("deployment", "tiny")["spec"]["replicas"] == 2


def test_a_horizontal_pod_autoscaler_on_request(operator: OperatorProcess, namespace: Namespace) -> None:
    namespace.model(autoscaling={"maxReplicas": 4, "by": "HorizontalPodAutoscaler"})
    made = until("it to come", lambda: namespace.get("hpa", "tiny"))
    assert made["spec"]["scaleTargetRef"]["kind"] == "InfernoModel"
    # What it would do: it scales the resource.
    namespace.kubectl("scale", "im/tiny", "--replicas=2")
    until("two pods", lambda: len(namespace.pods()) == 2)
    namespace.model()
    until("it to go", lambda: namespace.get("hpa", "tiny") is None)
