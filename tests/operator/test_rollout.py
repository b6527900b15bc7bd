"""How one version follows another, and how pods go and come back."""

import pytest

from tests.cluster.waiting import until
from tests.operator.namespace import Namespace

pytestmark = pytest.mark.usefixtures("operator")


def test_a_bad_version_does_not_replace_a_good_one(namespace: Namespace) -> None:
    namespace.serve()
    [old] = namespace.pods()
    namespace.model(source="file:///opt/models/broken.gguf")
    [new] = namespace.until_pods(1)
    namespace.crash(new, "not a GGUF file")
    degraded = namespace.until_condition("Degraded", "True", "ContainerFailed")
    assert "not a GGUF file" in degraded["message"]
    assert "not a GGUF file" in namespace.condition("Progressing")["message"]
    assert namespace.condition("Available")["status"] == "True"
    assert old["metadata"]["name"] in {pod["metadata"]["name"] for pod in namespace.pods()}
    namespace.model()
    namespace.until_condition("Degraded", "False", "AsExpected")
    namespace.until_condition("Ready", "True", "Serving")
    assert [pod["metadata"]["name"] for pod in namespace.pods()] == [old["metadata"]["name"]], "it has served all along"


def test_suspended_and_resumed(namespace: Namespace) -> None:
    namespace.serve()
    namespace.patch("im", "tiny", {"spec": {"suspend": True}})
    namespace.until_condition("Ready", "False", "Suspended")
    assert namespace.pods() == []
    assert namespace.get("service", "tiny"), "its address stays"
    namespace.patch("im", "tiny", {"spec": {"suspend": False}})
    [pod] = namespace.until_pods(1)
    namespace.run(pod)
    namespace.until_condition("Ready", "True", "Serving")


def test_a_budget_comes_and_goes_with_the_second_pod(namespace: Namespace) -> None:
    namespace.model(replicas=2)
    budget = until("the budget", lambda: namespace.get("poddisruptionbudget", "tiny"))
    assert budget["spec"]["maxUnavailable"] == 1
    namespace.model(replicas=1)
    until("it to go", lambda: namespace.get("poddisruptionbudget", "tiny") is None)
