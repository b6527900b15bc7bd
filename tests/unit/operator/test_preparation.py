import json
from typing import Any

import pytest

from inferno_operator import preparation
from inferno_operator.api.types import ObservedFetch
from inferno_operator.pods import Problem, first_problem
from inferno_operator.preparation import Preparation
from inferno_runtime.models.facts import ModelFacts
from tests.unit.operator.test_pods import CURRENT, container, ended, pod

FACTS = ModelFacts(format="gguf", architecture="llama", size_bytes=7)
INSPECTED = ended(0, "Completed", message=json.dumps({"model": FACTS.wire()}))
FETCHED = ended(
    0, "Completed", message=json.dumps({"sha256": "ab", "bytes": 7, "fetchedBytes": 7, "model": FACTS.wire()})
)
FAILED = ended(message=json.dumps({"reason": "Unauthorized", "message": "401"}))
WAITING = {"waiting": {"reason": "PodInitializing"}}
BACKOFF = {"waiting": {"reason": "CrashLoopBackOff"}}


def preparing(inspect: Any, fetch: Any = None, **more: Any) -> dict[str, Any]:
    """A pod whose init containers are in these states; a pair is the state now and the last one."""
    statuses = []
    for name, state in (("inspect", inspect), ("fetch", fetch)):
        if state is not None:
            now, last = state if isinstance(state, tuple) else (state, None)
            done = now.get("terminated", {}).get("exitCode") == 0
            statuses.append(container(name=name, ready=done, state=now, last=last))
    return pod(initContainerStatuses=statuses, **more)


CASES: dict[str, tuple[list[dict[str, Any]], Preparation]] = {
    "no pods": ([], Preparation()),
    "a pod that waits for a node": ([pod()], Preparation()),
    "the header is read": ([preparing({"running": {}}, WAITING)], Preparation()),
    "it was read, and the model is fetched": (
        [preparing(INSPECTED, {"running": {}})],
        Preparation(facts=FACTS, fetching="tiny-1"),
    ),
    "all is there": (
        [preparing(INSPECTED, FETCHED)],
        Preparation(facts=FACTS, sha256="ab", fetched="7 of 7 bytes were fetched, digest ab", fetched_bytes=7),
    ),
    "what is beside the model only its inspection has seen": (
        [preparing(ended(0, "Completed", message=json.dumps({"model": {"adapterBytes": 3}})), FETCHED)],
        Preparation(
            facts=FACTS.model_copy(update={"adapter_bytes": 3}),
            sha256="ab",
            fetched="7 of 7 bytes were fetched, digest ab",
            fetched_bytes=7,
        ),
    ),
    "the furthest counts": (
        [preparing({"running": {}}, WAITING), preparing(INSPECTED, {"running": {}}, name="tiny-2")],
        Preparation(facts=FACTS, fetching="tiny-2"),
    ),
    "a pod that only fetches": (
        [pod(containerStatuses=[container(name="fetch", state=FETCHED)])],
        Preparation(facts=FACTS, sha256="ab", fetched="7 of 7 bytes were fetched, digest ab", fetched_bytes=7),
    ),
    "of an older template": ([preparing(INSPECTED, FETCHED, digest="older")], Preparation()),
    "a message that nobody understands": (
        [preparing(ended(0, "Completed", message="{..."), {"running": {}})],
        Preparation(fetching="tiny-1"),
    ),
}


@pytest.mark.parametrize(("pods", "expected"), CASES.values(), ids=CASES)
def test_preparation(pods: list[dict[str, Any]], expected: Preparation) -> None:
    assert preparation.observe(pods, CURRENT) == expected


PROBLEMS: dict[str, tuple[dict[str, Any], tuple[str, str] | None]] = {
    "in progress": (preparing({"running": {}}), None),
    "done": (preparing(INSPECTED, FETCHED), None),
    "only fetched": (pod(containerStatuses=[container(name="fetch", state=FETCHED, last=FAILED)]), None),
    "refused": (preparing(FAILED, WAITING), ("Unauthorized", "401")),
    "between two attempts": (preparing((BACKOFF, FAILED), WAITING), ("Unauthorized", "401")),
    "without a word": (preparing(ended(3), WAITING), ("FetchFailed", "the fetch ended with exit code 3")),
    "in its own words": (preparing(ended(message="Traceback\n boom")), ("FetchFailed", "Traceback boom")),
    "out of memory": (
        preparing(ended(137, "OOMKilled")),
        ("OOMKilled", "the fetch used more memory than its limit allows"),
    ),
}


@pytest.mark.parametrize(("pod", "expected"), PROBLEMS.values(), ids=PROBLEMS)
def test_why_a_model_is_not_there(pod: dict[str, Any], expected: tuple[str, str] | None) -> None:
    assert first_problem([pod], CURRENT) == (Problem("tiny-1", *expected, by_fetch=True) if expected else None)


LOGS: dict[str, tuple[str, ObservedFetch | None]] = {
    "nothing": ("", None),
    "text": ("Traceback", None),
    "progress": (
        'x\n{"message": "m", "fetch": {"bytes": 5, "bytesPerSecond": 2}}\n',
        ObservedFetch(bytes=5, bytes_per_second=2),
    ),
    "progress, and a line that was cut off": ('{"fetch": {"bytes": 5}}\n{"fet', ObservedFetch(bytes=5)),
    "progress, and another line": ('{"fetch": {"bytes": 5}}\n{"message": "again"}', ObservedFetch(bytes=5)),
    "nonsense": ('{"fetch": {"bytes": "many"}}', None),
}


@pytest.mark.parametrize(("log", "expected"), LOGS.values(), ids=LOGS)
def test_progress(log: str, expected: ObservedFetch | None) -> None:
    assert preparation.parse_progress(log) == expected
