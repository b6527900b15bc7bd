"""An upgrade of the operator: what an older version made is taken over, and serves until what replaces it does."""

import json
from pathlib import Path
from typing import Any

import yaml

from inferno_operator.api import names
from tests.cluster.waiting import until
from tests.operator.conftest import StartOperator
from tests.operator.namespace import Namespace

OLDER = Path(__file__).parents[1] / "data" / "operator" / "made-by-0.1.0.yaml"


def made_before(namespace: Namespace) -> list[Any]:
    """A model, and its children as the older version applied them; their pods serve."""
    namespace.model()
    uid = namespace.get("im", "tiny")["metadata"]["uid"]
    items = list(yaml.safe_load_all(OLDER.read_text()))
    for item in items:
        item["metadata"]["namespace"] = namespace.name
        item["metadata"]["ownerReferences"][0]["uid"] = uid
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    manager = f"--field-manager={names.FIELD_MANAGER}"
    namespace.kubectl("apply", "--server-side", manager, "--filename=-", input=document)
    [pod] = namespace.until_pods(1)
    namespace.run(pod)
    until("it to serve", lambda: serving(namespace))
    return [pod, *(namespace.get(item["kind"], item["metadata"]["name"]) for item in items)]


def serving(namespace: Namespace) -> bool:
    return bool(namespace.get("deployment", "tiny")["status"].get("availableReplicas"))


def test_a_model_serves_all_the_while(namespace: Namespace, start_operator: StartOperator) -> None:
    old, *children = made_before(namespace)
    with start_operator() as operator:
        operator.leading()
        [new] = namespace.until_pods(1)
        assert [each["name"] for each in new["spec"]["initContainers"]] == ["inspect"], "of this version"
        until("the status", lambda: namespace.condition("Available").get("status") == "True")
        assert serving(namespace)
        assert old["metadata"]["name"] in {pod["metadata"]["name"] for pod in namespace.pods()}
        namespace.run(new)
        namespace.until_condition("Ready", "True", "Serving")
        until("the old pod to go", lambda: len(namespace.pods()) == 1)
        assert serving(namespace)
        for before in children:
            after = namespace.get(before["kind"], before["metadata"]["name"])
            assert after["metadata"]["uid"] == before["metadata"]["uid"], "it was changed, and not made anew"
        address = namespace.get("service", "tiny")["spec"]["clusterIP"]
        assert address == next(each for each in children if each["kind"] == "Service")["spec"]["clusterIP"]


def test_a_new_version_that_cannot_serve_leaves_the_old_pods_alone(
    namespace: Namespace, start_operator: StartOperator
) -> None:
    old, *_ = made_before(namespace)
    with start_operator() as operator:
        operator.leading()
        [new] = namespace.until_pods(1)
        namespace.crash(new, "this version cannot read the model")
        namespace.until_condition("Degraded", "True", "ContainerFailed")
        assert namespace.condition("Available")["status"] == "True"
        assert serving(namespace)
        assert old["metadata"]["name"] in {pod["metadata"]["name"] for pod in namespace.pods()}
