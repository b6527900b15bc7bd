"""What people do by hand to a model's objects: what is the operator's is put right, what is not is left alone."""

from typing import Any

import pytest

from tests.cluster.waiting import until
from tests.operator.namespace import CHILDREN, Namespace

pytestmark = pytest.mark.usefixtures("operator")

# name: kind, and a patch
EDITS: dict[str, tuple[str, dict[str, Any]]] = {
    "scaled": ("deployment", {"spec": {"replicas": 3}}),
    "another image": (
        "deployment",
        {"spec": {"template": {"spec": {"containers": [{"name": "runtime", "image": "theirs"}]}}}},
    ),
    "root": ("deployment", {"spec": {"template": {"spec": {"securityContext": {"runAsNonRoot": None}}}}}),
    "another document": ("configmap", {"data": {"model.yaml": "theirs"}}),
    "another selector": ("service", {"spec": {"selector": {"app.kubernetes.io/instance": "theirs"}}}),
    "another port": ("service", {"spec": {"ports": [{"port": 8000, "targetPort": 9}]}}),
    "no label": ("service", {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}),
    "no owner": ("configmap", {"metadata": {"ownerReferences": None}}),
}


def essence(made: Any) -> Any:
    """An object without what changes with every write."""
    metadata = {
        key: value for key, value in made["metadata"].items() if key in ("labels", "ownerReferences", "annotations")
    }
    metadata["annotations"] = {
        k: v for k, v in metadata["annotations"].items() if not k.startswith("deployment.kubernetes.io/")
    }
    return metadata, made.get("spec"), made.get("data")


@pytest.mark.parametrize("case", EDITS)
def test_edited(namespace: Namespace, case: str) -> None:
    kind, patch = EDITS[case]
    namespace.model()
    before = until("the object", lambda: namespace.get(kind, CHILDREN[kind]))
    namespace.patch(kind, CHILDREN[kind], patch, type="strategic")
    until("it to be put right", lambda: essence(namespace.get(kind, CHILDREN[kind])) == essence(before))


@pytest.mark.parametrize("kind", CHILDREN)
def test_deleted(namespace: Namespace, kind: str) -> None:
    namespace.model()
    before = until("the object", lambda: namespace.get(kind, CHILDREN[kind]))
    namespace.kubectl("delete", kind, CHILDREN[kind])

    def returned() -> bool:
        made = namespace.get(kind, CHILDREN[kind])
        return made is not None and made["metadata"]["uid"] != before["metadata"]["uid"]

    until("it to return", returned)


def test_what_is_not_ours_is_left_alone(namespace: Namespace) -> None:
    namespace.model()
    until("the Deployment", lambda: namespace.get("deployment", "tiny"))
    theirs = {
        "metadata": {"annotations": {"theirs": "1"}, "labels": {"theirs": "1"}},
        "spec": {"minReadySeconds": 7},
    }
    namespace.patch("deployment", "tiny", theirs)
    namespace.model(engine={"slots": 2})
    until("the change", lambda: "slots: 2" in namespace.get("configmap", "tiny-config")["data"]["model.yaml"])
    namespace.patch("deployment", "tiny", {"spec": {"replicas": 9}})
    until("the repair", lambda: namespace.get("deployment", "tiny")["spec"]["replicas"] == 1)
    made = namespace.get("deployment", "tiny")
    assert made["metadata"]["annotations"]["theirs"] == made["metadata"]["labels"]["theirs"] == "1"
    assert made["spec"]["minReadySeconds"] == 7


def test_an_object_of_somebody_elses_is_not_taken(namespace: Namespace) -> None:
    namespace.kubectl("create", "service", "clusterip", "tiny", "--tcp=80:80")
    namespace.model()
    found = namespace.until_condition("Ready", "False", "ObjectConflict")
    assert "Service tiny exists already" in found["message"]
    assert namespace.get("service", "tiny")["spec"]["ports"][0]["port"] == 80
    assert namespace.get("deployment", "tiny") is None, "nothing is done by halves"
    namespace.kubectl("delete", "service", "tiny")
    namespace.until_condition("Ready", "False", "RollingOut")
    assert namespace.get("service", "tiny")["spec"]["ports"][0]["port"] == 8000
