import copy
from collections.abc import Callable
from typing import Any

import pytest

from inferno_operator import manifests
from inferno_operator.api import names
from inferno_operator.plan import Apply, Cause, Conflict, Delete, Wait, plan, prune
from tests.unit.operator.models import IMAGE, model

MODEL = model({"replicas": 2})
[_, SERVICE, DEPLOYMENT, BUDGET] = manifests.render(MODEL, IMAGE)

Edit = Callable[[dict[str, Any]], object]


def live(desired: dict[str, Any], edit: Edit = lambda _: None) -> dict[str, Any]:
    """What the API server makes of ``desired``, and then somebody else of that."""
    made = copy.deepcopy(desired)
    made["metadata"] |= {"uid": "1", "resourceVersion": "7", "managedFields": [{"manager": names.FIELD_MANAGER}]}
    made["status"] = {"replicas": 2}
    edit(made)
    return made


def owned_by(kind: str, name: str, uid: str) -> Edit:
    owner = {"apiVersion": "v1", "kind": kind, "name": name, "uid": uid, "controller": True}
    return lambda made: made["metadata"].update(ownerReferences=[owner])


def unowned(made: dict[str, Any]) -> None:
    del made["metadata"]["ownerReferences"]


def by_hand(made: dict[str, Any]) -> None:
    del made["metadata"]["ownerReferences"]
    made["metadata"]["managedFields"] = [{"manager": "kubectl"}]


# name: what somebody did to the Deployment, and what is to be done about it
CASES: dict[str, tuple[Edit, object]] = {
    "nothing": (lambda made: None, None),
    "a foreign annotation": (lambda made: made["metadata"]["annotations"].update(theirs="1"), None),
    "a foreign sidecar": (lambda made: made["spec"]["template"]["spec"]["containers"].insert(0, {"name": "s"}), None),
    "scaled": (lambda made: made["spec"].update(replicas=5), (Cause.DRIFTED, "spec.replicas: 5 -> 2")),
    "a label taken": (
        lambda made: made["metadata"]["labels"].pop(names.MANAGED_BY),
        (Cause.DRIFTED, f"metadata.labels.{names.MANAGED_BY}: nothing -> 'inferno-operator'"),
    ),
    "an older version applied": (
        lambda made: made["metadata"]["annotations"].update({names.DESIRED_DIGEST: "older"}),
        (Cause.CHANGED, "something is no longer wanted"),
    ),
    "its owner taken": (unowned, Cause.DRIFTED),
    "being deleted": (lambda made: made["metadata"].update(deletionTimestamp="now"), Wait),
    "of a deleted namesake": (owned_by("InfernoModel", "tiny", "another"), Wait),
    "of another model": (owned_by("InfernoModel", "other", "another"), "belongs to InfernoModel other"),
    "of something else": (owned_by("Rollout", "tiny", "another"), "belongs to Rollout tiny"),
    "made by hand": (by_hand, "was not made by this operator"),
}


@pytest.mark.parametrize("case", CASES)
def test_plan(case: str) -> None:
    edit, expected = CASES[case]
    actions = plan(MODEL.identity, [(DEPLOYMENT, live(DEPLOYMENT, edit))])
    match expected:
        case None:
            assert actions == []
        case (Cause() as cause, str(detail)):
            assert actions == [Apply(DEPLOYMENT, cause, detail)]
        case Cause():
            [action] = actions
            assert isinstance(action, Apply)
            assert action.cause is expected
        case str():
            [action] = actions
            assert isinstance(action, Conflict)
            assert expected in action.detail
        case _:
            assert actions == [Wait(DEPLOYMENT)]


def test_what_is_missing_is_made_in_order() -> None:
    actions = plan(MODEL.identity, [(SERVICE, None), (DEPLOYMENT, None)])
    assert actions == [
        Apply(SERVICE, Cause.MISSING, "there is none"),
        Apply(DEPLOYMENT, Cause.MISSING, "there is none"),
    ]


# name: what there is beside what is wanted, and whether it is deleted
LEFT_OVER: dict[str, tuple[Edit, bool]] = {
    "ours": (lambda made: None, True),
    "on its way out": (lambda made: made["metadata"].update(deletionTimestamp="now"), False),
    "of a deleted namesake": (owned_by("InfernoModel", "tiny", "another"), False),
    "of nobody": (unowned, False),
}


@pytest.mark.parametrize("case", LEFT_OVER)
def test_prune(case: str) -> None:
    edit, deleted = LEFT_OVER[case]
    budget = live(BUDGET, edit)
    assert prune(MODEL.identity, [SERVICE, DEPLOYMENT], [live(SERVICE), budget]) == (
        [Delete(budget)] if deleted else []
    )
    assert prune(MODEL.identity, [BUDGET], [budget]) == []
