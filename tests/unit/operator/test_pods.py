from typing import Any

import pytest

from inferno_operator.api import names
from inferno_operator.pods import Problem, first_problem

CURRENT = "current"


def pod(name: str = "tiny-1", *, digest: str = CURRENT, deleted: bool = False, **status: Any) -> dict[str, Any]:
    metadata = {"name": name, "annotations": {names.TEMPLATE_DIGEST: digest}}
    return {"metadata": metadata | ({"deletionTimestamp": "now"} if deleted else {}), "status": status}


def container(
    *, name: str = names.CONTAINER, ready: bool = False, state: Any = None, last: Any = None
) -> dict[str, Any]:
    return {"name": name, "ready": ready, "state": state or {"running": {}}, "lastState": last or {}}


def ended(code: int = 1, reason: str = "Error", **more: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason} | more}


CRASHED = ended(message="models/tiny.gguf:\n not a GGUF file\n")
# name: pods, and the reason, the message and whether the runtime said it
CASES: dict[str, tuple[list[dict[str, Any]], tuple[str, str, bool] | None]] = {
    "no pods": ([], None),
    "on its way up": ([pod(containerStatuses=[container(state={"waiting": {"reason": "ContainerCreating"}})])], None),
    "loading": ([pod(containerStatuses=[container()])], None),
    "serving after a crash": ([pod(containerStatuses=[container(ready=True, last=CRASHED)])], None),
    "crashed": (
        [pod(containerStatuses=[container(state=CRASHED)])],
        ("ContainerFailed", "models/tiny.gguf: not a GGUF file", True),
    ),
    "between two attempts": (
        [pod(containerStatuses=[container(state={"waiting": {"reason": "CrashLoopBackOff"}}, last=CRASHED)])],
        ("ContainerFailed", "models/tiny.gguf: not a GGUF file", True),
    ),
    "another attempt": (
        [pod(containerStatuses=[container(last=CRASHED)])],
        ("ContainerFailed", "models/tiny.gguf: not a GGUF file", True),
    ),
    "without a word": (
        [pod(containerStatuses=[container(state=ended(139))])],
        ("ContainerFailed", "the container ended with exit code 139", True),
    ),
    "out of memory": (
        [pod(containerStatuses=[container(last=ended(137, "OOMKilled"))])],
        ("OOMKilled", "the container used more memory than spec.resources.limits.memory allows", True),
    ),
    "a foreign sidecar crashed": (
        [pod(containerStatuses=[container(name="proxy", state=CRASHED)])],
        ("ContainerFailed", "models/tiny.gguf: not a GGUF file", False),
    ),
    "no image": (
        [pod(containerStatuses=[container(state={"waiting": {"reason": "ErrImagePull", "message": "not found"}})])],
        ("ErrImagePull", "not found", False),
    ),
    "no node": (
        [
            pod(
                conditions=[
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"},
                    {"type": "Ready", "status": "False"},
                ]
            )
        ],
        ("Unschedulable", "0/3 nodes", False),
    ),
    "evicted": (
        [pod(phase="Failed", reason="Evicted", message="the node had no memory")],
        ("Evicted", "the node had no memory", False),
    ),
    "of an older template": ([pod(digest="older", containerStatuses=[container(state=CRASHED)])], None),
    "on its way down": ([pod(deleted=True, containerStatuses=[container(state=CRASHED)])], None),
    "the runtime's word counts most": (
        [
            pod("tiny-1", phase="Failed", reason="Evicted"),
            pod("tiny-2", containerStatuses=[container(state=CRASHED)]),
        ],
        ("ContainerFailed", "models/tiny.gguf: not a GGUF file", True),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_first_problem(case: str) -> None:
    pods, expected = CASES[case]
    problem = first_problem(pods, CURRENT)
    assert (problem and (problem.reason, problem.message, problem.by_runtime)) == expected


def test_names_the_pod() -> None:
    found = first_problem([pod("tiny-7", containerStatuses=[container(state=CRASHED)])], CURRENT)
    assert isinstance(found, Problem)
    assert found.pod == "tiny-7"
