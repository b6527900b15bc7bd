"""An API server that is restarted, overloaded, slow, forgetful or silent: the operator goes on where it was."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from inferno_operator.api.kinds import WATCHED
from tests.cluster.waiting import until
from tests.operator.conftest import StartOperator
from tests.operator.namespace import Namespace
from tests.operator.process import OperatorProcess
from tests.operator.proxy import Fault, FaultyProxy

FAULTS = {
    "overloaded": Fault(429, retry_after=1),
    "broken": Fault(500),
    "unavailable": Fault(503),
    "a token that has expired": Fault(401),
    "no rights for a moment": Fault(403),
    "cut off": Fault(cut=True),
    "every other request fails": Fault(500, share=0.5),
    "slow": Fault(delay=0.5),
}
HITS = 5
LISTS = len(WATCHED)


@pytest.fixture
def proxy(kubeconfig: Path) -> Iterator[FaultyProxy]:
    """The way to the API server, which may be disturbed."""
    with FaultyProxy(kubeconfig) as proxy:
        yield proxy


@pytest.fixture
def operator(start_operator: StartOperator, namespace: Namespace, proxy: FaultyProxy) -> Iterator[OperatorProcess]:
    """An operator of this namespace alone, behind the proxy."""
    flags = ("--no-leader-election", f"--namespace={namespace.name}", "--resync-seconds=2")
    with start_operator(*flags, kubeconfig=proxy.kubeconfig) as process:
        yield process.leading()
        assert process.running
        assert process.get("/healthz")[0] == 200
        assert process.terminate() == 0
    assert "a bug" not in process.log.read_text()


def slots(namespace: Namespace, count: int) -> bool:
    """Whether the pods are told of so many slots."""
    config = namespace.get("configmap", "tiny-config")
    return config is not None and f"slots: {count}" in config["data"]["model.yaml"]


@pytest.mark.parametrize("case", FAULTS)
def test_survives(operator: OperatorProcess, namespace: Namespace, proxy: FaultyProxy, case: str) -> None:
    namespace.serve()
    proxy.fault = FAULTS[case]
    proxy.cut_streams()
    namespace.model(engine={"slots": 5})
    namespace.kubectl("delete", "service", "tiny")
    until("the fault to be felt", lambda: proxy.hit >= HITS)
    assert operator.running
    proxy.fault = None
    until("the change", lambda: slots(namespace, 5))
    until("the Service to return", lambda: namespace.get("service", "tiny"))


def test_what_ended_while_the_watch_was_lost_returns(
    operator: OperatorProcess, namespace: Namespace, proxy: FaultyProxy
) -> None:
    """A watch whose place in history is too old begins anew with a list, which does not tell of what has gone."""
    namespace.serve()
    proxy.fault = Fault(503)
    proxy.cut_streams()
    namespace.kubectl("delete", "service", "tiny")
    proxy.gone = LISTS  # a watch of each kind
    proxy.fault = None
    until("the Service to return", lambda: namespace.get("service", "tiny"))


def test_a_silent_watch_is_noticed(operator: OperatorProcess, namespace: Namespace, proxy: FaultyProxy) -> None:
    namespace.serve()
    proxy.freeze_streams()
    namespace.model(engine={"slots": 6})
    until("the change", lambda: slots(namespace, 6), timeout=120)
    assert operator.metric("inferno_operator_watch_stalls_total") >= 1


def test_a_leader_that_is_cut_off_ends_and_the_other_acts(
    start_operator: StartOperator, namespace: Namespace, proxy: FaultyProxy
) -> None:
    with start_operator(kubeconfig=proxy.kubeconfig) as leader:
        leader.leading()
        with start_operator() as follower:
            follower.ready()
            proxy.fault = Fault(cut=True)
            proxy.cut_streams()
            assert leader.wait() == 1
            follower.leading()
            namespace.model()
            until("the model's pods", lambda: namespace.get("deployment", "tiny"))


def test_two_hundred_models_at_rest_cost_nothing_but_lists(
    start_operator: StartOperator, namespace: Namespace, proxy: FaultyProxy
) -> None:
    flags = ("--no-leader-election", f"--namespace={namespace.name}", "--resync-seconds=1")
    with start_operator(*flags, kubeconfig=proxy.kubeconfig) as operator:
        operator.leading()
        namespace.models(200, replicas=0)
        until("all of them", lambda: all_ready(namespace, 200), timeout=240)
        until("the queue to be empty", lambda: operator.metric("inferno_operator_queue_depth") == 0)
        writes, passes, reads = operator.writes, operator.passes, proxy.seen["GET"]
        changes = sum(proxy.seen[method] for method in ("POST", "PUT", "PATCH", "DELETE"))
        until("five looks at everything", lambda: proxy.seen["GET"] >= reads + 5 * LISTS)
        assert (operator.writes, operator.passes) == (writes, passes)
        assert sum(proxy.seen[method] for method in ("POST", "PUT", "PATCH", "DELETE")) == changes


def all_ready(namespace: Namespace, count: int) -> bool:
    """Whether so many models say that they are Ready."""
    conditions = [model.get("status", {}).get("conditions", ()) for model in namespace.list_all("im")]
    ready = [{"type": "Ready", "status": "True"}.items() <= each.items() for some in conditions for each in some]
    return ready.count(True) == count
