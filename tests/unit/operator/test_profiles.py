from datetime import UTC, datetime
from typing import Any

import pytest

from inferno_operator import profiles
from inferno_operator.api import names
from inferno_operator.errors import UnknownProfile
from inferno_operator.profiles import Choice
from tests.unit.operator.models import model

KNOWN = profiles.parse(
    {
        "gpu": {
            "resources": {"limits": {"nvidia.com/gpu": 1}},
            "nodeSelector": {"gpu": "l4"},
            "image": "runtime:cuda",
        },
        "cpu": {"resources": {"requests": {"cpu": 8}}},
    }
)
BOTH = ("gpu", "cpu")
SPEC = model({"profiles": list(BOTH)}).spec
DIGEST = "current"


def pod(scheduled: str | None, at: str = "2026-05-04T03:02:01Z", digest: str = DIGEST) -> dict[str, Any]:
    conditions = [] if scheduled is None else [{"type": "PodScheduled", "status": scheduled, "lastTransitionTime": at}]
    metadata = {"annotations": {names.TEMPLATE_DIGEST: digest}}
    return {"metadata": metadata, "status": {"conditions": conditions}}


# name: the profile in the status, and the one in use
STATUS: dict[str, tuple[dict[str, Any], str]] = {
    "none yet": ({}, "gpu"),
    "the first": ({"name": "gpu", "candidates": ["gpu", "cpu"]}, "gpu"),
    "fallen back": ({"name": "cpu", "candidates": ["gpu", "cpu"]}, "cpu"),
    "chosen of others": ({"name": "cpu", "candidates": ["tpu", "cpu"]}, "gpu"),
}


@pytest.mark.parametrize("case", STATUS)
def test_the_profile_in_use(case: str) -> None:
    recorded, name = STATUS[case]
    assert profiles.current(SPEC, KNOWN, {"profile": recorded}) == Choice(name, BOTH)


def test_without_profiles_there_is_none() -> None:
    assert profiles.current(model().spec, KNOWN, {}) is None


def test_an_unknown_one_is_named_with_those_that_are_known() -> None:
    with pytest.raises(UnknownProfile, match=r"no hardware profile tpu; the operator knows: cpu, gpu"):
        profiles.current(model({"profiles": ["tpu", "cpu"]}).spec, KNOWN, {})


def test_what_the_model_gives_itself_wins() -> None:
    spec = model({"profiles": ["gpu"], "nodeSelector": {"mine": "yes"}}).spec
    placed = profiles.placed(spec, Choice("gpu", ("gpu",)), KNOWN)
    assert placed.node_selector == {"mine": "yes"}
    assert placed.image == "runtime:cuda"
    assert placed.resources == KNOWN["gpu"].resources


def test_the_order_ends() -> None:
    assert Choice("gpu", BOTH).next == Choice("cpu", BOTH)
    assert Choice("cpu", BOTH).next is None


# name: pods, and since when no node takes one of the current template
PODS: dict[str, tuple[list[dict[str, Any]], str | None]] = {
    "none": ([], None),
    "nobody has looked": ([pod(None)], None),
    "no node": ([pod("False")], "2026-05-04T03:02:01+00:00"),
    "one found a node": ([pod("False"), pod("True")], None),
    "the last to try": ([pod("False"), pod("False", "2026-05-04T03:05:00Z")], "2026-05-04T03:05:00+00:00"),
    "only those of an older template": ([pod("False", digest="older")], None),
}


@pytest.mark.parametrize("case", PODS)
def test_no_node_since(case: str) -> None:
    pods, since = PODS[case]
    found = profiles.no_node_since(pods, DIGEST)
    assert (found and found.isoformat()) == since


def test_a_profile_has_its_time() -> None:
    since, now = datetime(2026, 5, 4, 3, 2, tzinfo=UTC), datetime(2026, 5, 4, 3, 2, 45, tzinfo=UTC)
    assert profiles.left(SPEC, since, now) == 15
    assert profiles.left(model({"profiles": ["gpu"], "profileTimeoutSeconds": 30}).spec, since, now) < 0


@pytest.mark.parametrize("wrong", [{"gpu": {"replicas": 2}}, {"Not a name": {}}, ["gpu"]], ids=repr)
def test_what_is_no_profile_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"validation error"):
        profiles.parse(wrong)
