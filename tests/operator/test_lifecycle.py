"""From an InfernoModel to pods, and back: made, changed, scaled, deleted. A real controller manager makes the pods; the tests play their kubelet."""

import json
from typing import Any

import pytest
import yaml

from tests.cluster.waiting import until
from tests.operator.namespace import CHILDREN, SOURCE, Namespace
from tests.operator.process import IMAGE

pytestmark = pytest.mark.usefixtures("operator")


def template(namespace: Namespace) -> dict[str, Any]:
    found: dict[str, Any] = namespace.get("deployment", "tiny")["spec"]["template"]
    return found


def served(namespace: Namespace) -> dict[str, Any]:
    """The document that the pods are started with."""
    document: dict[str, Any] = yaml.safe_load(namespace.get("configmap", "tiny-config")["data"]["model.yaml"])
    return document


def test_a_model_becomes_pods_that_serve(namespace: Namespace) -> None:
    namespace.model(engine={"slots": 2})
    [pod] = namespace.until_pods(1)
    assert namespace.condition("Ready")["status"] == "False"
    assert pod["spec"]["containers"][0]["image"] == IMAGE
    assert served(namespace)["spec"] == {"model": {"source": SOURCE}, "engine": {"slots": 2}}
    namespace.run(pod)
    namespace.kubectl("wait", "im/tiny", "--for=condition=Ready", "--timeout=60s")
    status = namespace.get("im", "tiny")["status"]
    assert status["url"] == f"http://tiny.{namespace.name}.svc:8000/v1"
    assert (status["replicas"], status["readyReplicas"], status["availableReplicas"]) == (1, 1, 1)
    assert {each["type"]: each["status"] for each in status["conditions"]} == {
        "SourceResolved": "True",
        "ModelVerified": "True",
        "ResourcesFit": "Unknown",
        "Available": "True",
        "Progressing": "False",
        "Degraded": "False",
        "Ready": "True",
    }
    assert "True" in namespace.kubectl("get", "im", "tiny")


def test_the_service_selects_the_pods(namespace: Namespace) -> None:
    namespace.model()
    [pod] = namespace.until_pods(1)
    service = until("the Service", lambda: namespace.get("service", "tiny"))
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert service["spec"]["ports"][0]["port"] == 8000


def test_nothing_of_kopf_lands_on_a_resource(namespace: Namespace) -> None:
    namespace.serve()
    for kind, name in {"infernomodel": "tiny", **CHILDREN}.items():
        made = namespace.get(kind, name)
        assert "kopf" not in json.dumps(made)
        assert "finalizers" not in made["metadata"]


def test_a_change_rolls_the_pods_and_ready_waits_for_the_new_ones(namespace: Namespace) -> None:
    namespace.serve()
    [old] = namespace.pods()
    namespace.model(engine={"slots": 3})
    [new] = namespace.until_pods(1)
    namespace.until_condition("Ready", "False", "RollingOut")
    assert namespace.condition("Available")["status"] == "True", "the old pod serves"
    assert namespace.condition("ModelVerified")["status"] == "Unknown", "the new one has not loaded it yet"
    assert served(namespace)["spec"]["engine"] == {"slots": 3}
    namespace.run(new)
    namespace.until_condition("Ready", "True", "Serving")
    left = [pod["metadata"]["name"] for pod in namespace.pods()]
    assert left == [new["metadata"]["name"]] != [old["metadata"]["name"]]


def test_what_is_no_longer_asked_for_goes(namespace: Namespace) -> None:
    namespace.model(nodeSelector={"disk": "fast"}, replicas=0)
    until(
        "the node selector",
        lambda: (namespace.get("deployment", "tiny") or {}) and template(namespace)["spec"]["nodeSelector"],
    )
    namespace.model(replicas=0)
    until("it to be gone", lambda: "nodeSelector" not in template(namespace)["spec"])


def test_a_change_that_is_none_for_the_pods_does_not_roll_them(namespace: Namespace) -> None:
    namespace.serve()
    [before] = namespace.pods()
    namespace.kubectl("annotate", "im", "tiny", "note=changed")
    namespace.model(replicas=2)
    [added] = namespace.until_pods(1)
    namespace.run(added)
    namespace.until_condition("Ready", "True", "Serving")
    assert before["metadata"]["name"] in {pod["metadata"]["name"] for pod in namespace.pods()}


def test_what_pods_take_on_while_they_serve_does_not_roll_them(namespace: Namespace) -> None:
    namespace.serve()
    [before] = namespace.pods()
    namespace.model(server={"requestsPerMinute": 7, "logLevel": "debug"})
    until("the change", lambda: served(namespace)["spec"].get("server", {}).get("requestsPerMinute") == 7)
    namespace.until_condition("Ready", "True", "Serving")
    assert [pod["metadata"]["name"] for pod in namespace.pods()] == [before["metadata"]["name"]]


def test_scaled_to_zero_and_back(namespace: Namespace) -> None:
    namespace.serve()
    namespace.kubectl("scale", "im/tiny", "--replicas=0")
    namespace.until_condition("Ready", "True", "ScaledToZero")
    assert namespace.condition("Available")["status"] == "False"
    assert namespace.pods() == []
    namespace.kubectl("scale", "im/tiny", "--replicas=1")
    [pod] = namespace.until_pods(1)
    namespace.run(pod)
    namespace.until_condition("Ready", "True", "Serving")


def test_deleted_with_all_that_belongs_to_it(namespace: Namespace) -> None:
    namespace.serve()
    namespace.kubectl("delete", "im", "tiny", "--timeout=60s")
    for kind, name in CHILDREN.items():
        until(f"the {kind} to be gone", lambda kind=kind, name=name: namespace.get(kind, name) is None)  # type: ignore[misc]
    until("the pods to be gone", lambda: not namespace.pods())


def test_made_again_under_the_same_name(namespace: Namespace) -> None:
    namespace.serve()
    namespace.kubectl("delete", "im", "tiny", "--wait=false")
    namespace.model(engine={"slots": 5})
    uid = namespace.get("im", "tiny")["metadata"]["uid"]

    def owned_anew() -> bool:
        children = [namespace.get(kind, name) for kind, name in CHILDREN.items()]
        return all(child and child["metadata"]["ownerReferences"][0]["uid"] == uid for child in children)

    until("the new model to have its own", owned_anew)
    assert served(namespace)["spec"]["engine"] == {"slots": 5}


def test_children_that_were_kept_are_taken_up_again(namespace: Namespace) -> None:
    namespace.serve()
    [pod] = namespace.pods()
    namespace.kubectl("delete", "im", "tiny", "--cascade=orphan")
    namespace.model()
    namespace.until_condition("Ready", "True", "Serving")
    assert [each["metadata"]["name"] for each in namespace.pods()] == [pod["metadata"]["name"]]
