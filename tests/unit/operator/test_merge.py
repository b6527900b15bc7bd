from typing import Any

import pytest

from inferno_operator.manifests.merge import strategic_merge

POD: dict[str, Any] = {
    "metadata": {"labels": {"app": "a"}},
    "spec": {
        "containers": [{"name": "runtime", "image": "a", "env": [{"name": "A", "value": "1"}], "args": ["x", "y"]}],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "tolerations": [{"key": "a"}],
        "finalizers": ["one"],
    },
}


def spec(**changed: Any) -> dict[str, Any]:
    return {**POD, "spec": {**POD["spec"], **changed}}


def runtime(**changed: Any) -> dict[str, Any]:
    return spec(containers=[{**POD["spec"]["containers"][0], **changed}])


# name: a patch, and what it makes of the pod
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, POD),
    "a new field": ({"spec": {"hostNetwork": True}}, spec(hostNetwork=True)),
    "a label beside ours": (
        {"metadata": {"labels": {"b": "c"}}},
        POD | {"metadata": {"labels": {"app": "a", "b": "c"}}},
    ),
    "null takes a field away": (
        {"spec": {"tolerations": None}},
        {**POD, "spec": {name: value for name, value in POD["spec"].items() if name != "tolerations"}},
    ),
    "a container is merged by its name": (
        {"spec": {"containers": [{"name": "runtime", "image": "b"}]}},
        runtime(image="b"),
    ),
    "a list in it too": (
        {"spec": {"containers": [{"name": "runtime", "env": [{"name": "B", "value": "2"}]}]}},
        runtime(env=[{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]),
    ),
    "a list without names is replaced": (
        {"spec": {"containers": [{"name": "runtime", "args": ["z"]}], "tolerations": [{"key": "b"}]}},
        {**runtime(args=["z"]), "spec": {**runtime(args=["z"])["spec"], "tolerations": [{"key": "b"}]}},
    ),
    "a sidecar comes last": (
        {"spec": {"containers": [{"name": "sidecar"}]}},
        spec(containers=[*POD["spec"]["containers"], {"name": "sidecar"}]),
    ),
    "an item is taken away": (
        {"spec": {"volumes": [{"name": "tmp", "$patch": "delete"}, {"name": "gone", "$patch": "delete"}]}},
        spec(volumes=[]),
    ),
    "an item is replaced": (
        {"spec": {"volumes": [{"name": "tmp", "$patch": "replace", "hostPath": {"path": "/a"}}]}},
        spec(volumes=[{"name": "tmp", "hostPath": {"path": "/a"}}]),
    ),
    "a list is replaced": (
        {"spec": {"volumes": [{"$patch": "replace"}, {"name": "other"}]}},
        spec(volumes=[{"name": "other"}]),
    ),
    "an object is replaced": (
        {"metadata": {"labels": {"$patch": "replace", "b": "c"}}},
        POD | {"metadata": {"labels": {"b": "c"}}},
    ),
    "only some keys stay": (
        {"spec": {"volumes": [{"name": "tmp", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/a"}}]}},
        spec(volumes=[{"name": "tmp", "hostPath": {"path": "/a"}}]),
    ),
    "a value is taken from a list": (
        {"spec": {"$deleteFromPrimitiveList/finalizers": ["one"], "finalizers": ["two"]}},
        spec(finalizers=["two"]),
    ),
    "the order is nobody's business": ({"spec": {"$setElementOrder/volumes": [{"name": "tmp"}]}}, POD),
    "an object where there was a list": ({"spec": {"tolerations": {"a": 1}}}, spec(tolerations={"a": 1})),
}


@pytest.mark.parametrize("case", CASES)
def test_strategic_merge(case: str) -> None:
    patch, expected = CASES[case]
    before = repr((POD, patch))
    assert strategic_merge(POD, patch) == expected
    assert repr((POD, patch)) == before, "neither is changed"


def test_directives_in_what_is_new_do_not_stay() -> None:
    patch = {"spec": {"containers": [{"name": "new", "env": [{"name": "A", "$patch": "delete"}, {"name": "B"}]}]}}
    assert strategic_merge({}, patch) == {"spec": {"containers": [{"name": "new", "env": [{"name": "B"}]}]}}
