"""What is done next about pods that are to have other resources."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from inferno_operator import manifests
from inferno_operator.api import names
from inferno_operator.manifests.digest import with_digest
from inferno_operator.resizing import (
    RESIZE_SECONDS,
    Adopt,
    Hold,
    Pause,
    Proceed,
    Resize,
    Step,
    current_replica_set,
    has_template,
    next_step,
    paused,
    shown,
    with_template,
)
from tests.unit.operator.models import IMAGE, model

Object = dict[str, Any]
Edit = Callable[[Object], object]

SMALL = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}
LARGE = {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"memory": "4Gi"}}
LARGE_IN_FULL = {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"memory": "4Gi"}}


def desired(resources: Object | None = LARGE, **spec: Any) -> Object:
    given = {"resources": resources} if resources else {}
    [found] = [each for each in manifests.render(model(given | spec), IMAGE) if each["kind"] == "Deployment"]
    return found


def live(manifest: Object, **status: Any) -> Object:
    """As it is when all its pods serve."""
    made = copy.deepcopy(manifest)
    made["metadata"] |= {"uid": "deployment", "generation": 2}
    replicas = made["spec"]["replicas"]
    counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), replicas)
    made["status"] = {"observedGeneration": 2} | counts | status
    return made


def pod(
    told: Object = LARGE, has: Object | None = None, *conditions: Object, by: str = "kubelet", **metadata: Any
) -> Object:
    """A pod of the Deployment; ``told`` and ``has`` are the resources that it was told to have and those that it has."""
    digest = desired()["spec"]["template"]["metadata"]["annotations"][names.TEMPLATE_DIGEST]
    return {
        "metadata": {
            "name": "tiny-1",
            "annotations": {names.TEMPLATE_DIGEST: digest},
            "managedFields": [{"manager": by}],
            "generation": 2,
        }
        | metadata,
        "spec": {"containers": [{"name": "runtime", "resources": told}]},
        "status": {
            "conditions": list(conditions),
            "containerStatuses": [{"name": "runtime", "resources": has or told}],
        },
    }


def condition(kind: str, reason: str = "", **more: Any) -> Object:
    return {"type": kind, "status": "True", "reason": reason, "message": "says the node"} | more


OLD = live(desired(SMALL))
INFEASIBLE = condition("PodResizePending", "Infeasible")
OTHER_POD = {names.TEMPLATE_DIGEST: "older"}

# name: what is desired, what there is, the pods, and what is done next
CASES: dict[str, tuple[Object, Object | None, list[Object], type[Step]]] = {
    "there is no Deployment": (desired(), None, [], Proceed),
    "nothing changed": (desired(), live(desired()), [pod()], Proceed),
    "something else changed": (desired(nodeSelector={"a": "b"}), OLD, [pod(SMALL)], Proceed),
    "more of both": (desired(), OLD, [pod(SMALL)], Resize),
    "less of both": (desired(SMALL), live(desired(LARGE)), [pod(LARGE)], Resize),
    "more of a device": (
        desired(SMALL | {"limits": {"memory": "2Gi", "nvidia.com/gpu": 1}}),
        OLD,
        [pod(SMALL)],
        Proceed,
    ),
    "a limit is taken away": (desired({"requests": {"cpu": "1", "memory": "1Gi"}}), OLD, [pod(SMALL)], Proceed),
    "a limit is added": (
        desired(SMALL | {"limits": {"memory": "2Gi", "cpu": "4"}}),
        OLD,
        [pod(SMALL)],
        Resize,
    ),
    "nothing was given before": (desired(), live(desired(None)), [pod({})], Resize),
    "the same in other words": (
        desired(SMALL | {"limits": {"memory": "2048Mi"}}),
        OLD,
        [pod(SMALL)],
        Proceed,
    ),
    "without pods": (desired(replicas=1), live(desired(SMALL), replicas=0), [], Proceed),
    "no pod is wanted": (desired(suspend=True), OLD, [pod(SMALL)], Proceed),
    "a pod does not serve": (desired(), live(desired(SMALL), availableReplicas=0), [pod(SMALL)], Proceed),
    "a change is under way": (desired(), live(desired(SMALL), updatedReplicas=0), [pod(SMALL)], Proceed),
    "a change has not been seen": (desired(), live(desired(SMALL), observedGeneration=1), [pod(SMALL)], Proceed),
    "a pod is of an older version": (desired(), OLD, [pod(SMALL), pod(SMALL, annotations=OTHER_POD)], Proceed),
    "one of two was told": (desired(), OLD, [pod(), pod(SMALL)], Resize),
    "they were told": (desired(), OLD, [pod(LARGE, SMALL)], Hold),
    "there is no room yet": (desired(), OLD, [pod(LARGE, SMALL, condition("PodResizePending", "Deferred"))], Hold),
    "it is being done": (desired(), OLD, [pod(LARGE, LARGE, condition("PodResizeInProgress"))], Hold),
    "the node cannot": (desired(), OLD, [pod(LARGE, SMALL, INFEASIBLE)], Proceed),
    "the node could not before": (
        desired(),
        OLD,
        [pod(LARGE, SMALL, INFEASIBLE | {"observedGeneration": 1})],
        Hold,
    ),
    "the node has failed": (desired(), OLD, [pod(LARGE, SMALL, condition("PodResizeInProgress", "Error"))], Proceed),
    "they have it": (desired(), OLD, [pod()], Pause),
    "they have it in other words": (desired(), OLD, [pod(LARGE, LARGE | {"limits": {"memory": "4096Mi"}})], Pause),
    "the template has it": (desired(), live(paused(desired())), [pod()], Adopt),
    "the template has something else meanwhile": (
        desired(SMALL),
        live(paused(desired()), updatedReplicas=0),
        [pod()],
        Proceed,
    ),
    "taken back": (desired(SMALL), OLD, [pod(LARGE, by=names.FIELD_MANAGER)], Resize),
    "somebody else sizes pods": (desired(SMALL), OLD, [pod(LARGE, by="vpa")], Proceed),
}


@pytest.mark.parametrize("case", CASES)
def test_next_step(case: str) -> None:
    wanted, observed, pods, step = CASES[case]
    assert type(next_step(wanted, observed, pods, 0.0)) is step


def test_only_the_pods_that_lack_it_are_told() -> None:
    found = next_step(desired(), OLD, [pod(name="has"), pod(SMALL, name="lacks")], 0.0)
    assert isinstance(found, Resize)
    assert [each["metadata"]["name"] for each in found.pods] == ["lacks"]
    assert found.resources == LARGE_IN_FULL


def test_a_limit_alone_is_a_request_too() -> None:
    found = next_step(desired({"limits": {"cpu": "2", "memory": "4Gi"}}), OLD, [pod(SMALL)], 0.0)
    assert isinstance(found, Resize)
    assert found.resources == {kind: {"cpu": "2", "memory": "4Gi"} for kind in ("requests", "limits")}


@pytest.mark.parametrize("condition", [INFEASIBLE, condition("PodResizeInProgress", "Error")])
def test_a_refusal_is_told_in_the_nodes_words(condition: Object) -> None:
    found = next_step(desired(), OLD, [pod(LARGE, SMALL, condition)], 0.0)
    assert found == Proceed("tiny-1: says the node")


def test_what_takes_too_long_is_given_up() -> None:
    assert isinstance(next_step(desired(), OLD, [pod(LARGE, SMALL)], RESIZE_SECONDS - 1), Hold)
    found = next_step(desired(), OLD, [pod(LARGE, SMALL)], RESIZE_SECONDS)
    assert found == Proceed("tiny-1 did not take on its new resources within 60 s")


def test_a_sidecar_is_not_resized() -> None:
    def beside(cpu: str) -> Object:
        sidecar = {"name": "sidecar", "image": "i", "resources": {"requests": {"cpu": cpu}}}
        return desired(SMALL, podTemplate={"spec": {"containers": [sidecar]}})

    assert next_step(beside("2"), live(beside("1")), [], 0.0) == Proceed()


def replica_set(deployment: Object, revision: int = 1, owner: str = "deployment") -> Object:
    template = copy.deepcopy(deployment["spec"]["template"])
    template["metadata"]["labels"]["pod-template-hash"] = "abc"
    annotations = {"deployment.kubernetes.io/revision": str(revision)}
    metadata = {"name": f"tiny-{revision}", "annotations": annotations, "ownerReferences": [{"uid": owner}]}
    return {"metadata": metadata, "spec": {"template": template}}


def test_a_replica_set_gets_the_template() -> None:
    deployment = live(paused(desired()))
    before = replica_set(live(desired(SMALL)))
    assert not has_template(before, deployment)
    after = with_template(before, deployment)
    assert has_template(after, deployment)
    assert after["spec"]["template"]["metadata"]["labels"]["pod-template-hash"] == "abc", "its pods are found by it"


def test_which_replica_set() -> None:
    deployment = live(desired())
    sets = [
        replica_set(OLD, 9),
        replica_set(OLD, 10),
        replica_set(OLD, 11, owner="somebody"),
        replica_set(desired(nodeSelector={"a": "b"}), 12),
    ]
    assert current_replica_set(deployment, sets) is sets[1]
    assert current_replica_set(deployment, []) is None


def test_paused_is_another_manifest_with_a_digest_of_its_own() -> None:
    wanted = desired()
    held = paused(wanted)
    assert held["spec"] == wanted["spec"] | {"paused": True}
    assert held["metadata"]["annotations"] != wanted["metadata"]["annotations"]
    assert with_digest(wanted)["metadata"]["annotations"][names.DESIRED_DIGEST]
    assert paused(wanted) == held


def test_in_words() -> None:
    assert shown({"requests": {"cpu": "1"}, "limits": {}}) == "requests cpu 1"
    assert shown({"requests": {"cpu": "1"}, "limits": {"memory": "4Gi"}}) == "requests cpu 1; limits memory 4Gi"
