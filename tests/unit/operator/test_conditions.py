from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest

from inferno_operator import conditions, crd
from inferno_operator.api.types import ObservedFetch
from inferno_operator.conditions import Outcome
from inferno_operator.errors import InvalidSpec, ObjectConflict, TerminalError
from inferno_operator.pods import Problem
from inferno_operator.preparation import Preparation
from inferno_runtime.models.facts import ModelFacts
from tests.unit.operator.models import deployment, model

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
LATER = datetime(2026, 5, 4, 3, 2, 9, tzinfo=UTC)
BOUND = {"status": {"phase": "Bound"}}
CRASHED = Problem("tiny-1", "ContainerFailed", "not a GGUF file", by_runtime=True)
NO_NODE = Problem("tiny-1", "Unschedulable", "0/3 nodes")
HUB = {"model": {"source": "hf://org/repo/tiny.gguf"}}
SHARED = {**HUB, "storage": {"claimName": "cache"}}
REVOKED = Problem("tiny-1", "Unauthorized", "401, the token does not do", by_fetch=True)
WRONG = Problem("tiny-1", "DigestMismatch", "tiny.gguf: its SHA-256 digest is 1, not 2", by_fetch=True)
PROGRESS = ObservedFetch(bytes=2**30, total_bytes=2**32, bytes_per_second=2**26, remaining_seconds=48)
# 1 GiB of weights, and 8 slots of 8192 tokens with 16 Ki numbers each: 2 GiB of cache.
KNOWN = {
    "format": "gguf",
    "sizeBytes": 2**30,
    "contextLength": 32768,
    "cacheValuesPerToken": 2**14,
    "sha256": "ab" * 32,
}


@dataclass(frozen=True)
class Case:
    """What was seen, and the status and reason of each condition after it."""

    deployment: dict[str, Any] | None
    expected: dict[str, tuple[str, str]]
    spec: dict[str, Any] = field(default_factory=dict)
    claim: dict[str, Any] | None = field(default_factory=lambda: BOUND)
    problem: Problem | None = None
    error: TerminalError | None = None
    preparation: Preparation = field(default_factory=Preparation)
    known: dict[str, Any] = field(default_factory=dict)

    def outcome(self) -> Outcome:
        spec = None if isinstance(self.error, InvalidSpec) else model(self.spec).spec
        return Outcome(spec, self.deployment, self.claim, self.problem, self.error, self.preparation, self.known)


def conditions_of_deployment(kind: str, status: str, reason: str) -> list[dict[str, str]]:
    return [{"type": kind, "status": status, "reason": reason, "message": f"because of {reason}"}]


CASES = {
    "nothing yet": Case(
        None,
        {
            "SourceResolved": ("True", "ClaimFound"),
            "ModelVerified": ("Unknown", "NotLoaded"),
            "Available": ("False", "NoPodServes"),
            "Progressing": ("True", "RollingOut"),
            "Ready": ("False", "RollingOut"),
        },
    ),
    "serving": Case(
        deployment(updated=1, total=1, available=1),
        {
            "SourceResolved": ("True", "ClaimFound"),
            "ModelVerified": ("True", "Loaded"),
            "Available": ("True", "Serving"),
            "Progressing": ("False", "RolloutComplete"),
            "Degraded": ("False", "AsExpected"),
            "Ready": ("True", "Serving"),
        },
    ),
    "the counts are those of before the change": Case(
        deployment(updated=1, total=1, available=1, stale=True),
        {
            "ModelVerified": ("Unknown", "NotLoaded"),
            "Available": ("True", "Serving"),
            "Progressing": ("True", "RollingOut"),
            "Ready": ("False", "RollingOut"),
        },
    ),
    "the old pod serves while the new one loads": Case(
        deployment(updated=1, total=2, available=1),
        {
            "ModelVerified": ("Unknown", "NotLoaded"),
            "Available": ("True", "Serving"),
            "Progressing": ("True", "RollingOut"),
            "Ready": ("False", "RollingOut"),
        },
    ),
    "both serve": Case(
        deployment(updated=1, total=2, available=2),
        {"ModelVerified": ("True", "Loaded"), "Ready": ("False", "RollingOut")},
    ),
    "one of three is missing": Case(
        deployment(wanted=3, updated=3, total=3, available=2),
        {"ModelVerified": ("True", "Loaded"), "Available": ("True", "Serving"), "Ready": ("False", "RollingOut")},
        spec={"replicas": 3},
    ),
    "the Deployment still asks for fewer": Case(
        deployment(wanted=1, updated=1, total=1, available=1),
        {"Ready": ("False", "RollingOut")},
        spec={"replicas": 2},
    ),
    "no claim": Case(
        deployment(updated=1, total=1),
        {"SourceResolved": ("False", "ClaimNotFound"), "Ready": ("False", "ClaimNotFound")},
        claim=None,
        problem=NO_NODE,
    ),
    "the claim has lost its volume": Case(
        deployment(updated=1, total=1),
        {"SourceResolved": ("False", "ClaimLost"), "Ready": ("False", "ClaimLost")},
        claim={"status": {"phase": "Lost"}},
    ),
    "the claim waits for its first pod": Case(
        deployment(updated=1, total=1),
        {"SourceResolved": ("True", "ClaimFound"), "Ready": ("False", "RollingOut")},
        claim={"status": {"phase": "Pending"}},
    ),
    "the claim went, the pods stayed": Case(
        deployment(updated=1, total=1, available=1),
        {"SourceResolved": ("False", "ClaimNotFound"), "Ready": ("True", "Serving")},
        claim=None,
    ),
    "a file of the image": Case(
        deployment(updated=1, total=1, available=1),
        {"SourceResolved": ("True", "FileInImage"), "Ready": ("True", "Serving")},
        spec={"model": {"source": "file:///opt/tiny.gguf"}},
        claim=None,
    ),
    "the model does not load": Case(
        deployment(updated=1, total=1),
        {
            "ModelVerified": ("False", "LoadFailed"),
            "Available": ("False", "NoPodServes"),
            "Progressing": ("True", "RollingOut"),
            "Ready": ("False", "ContainerFailed"),
        },
        problem=CRASHED,
    ),
    "the new model does not load, the old one serves": Case(
        deployment(updated=1, total=2, available=1),
        {
            "ModelVerified": ("False", "LoadFailed"),
            "Available": ("True", "Serving"),
            "Degraded": ("True", "ContainerFailed"),
            "Ready": ("False", "ContainerFailed"),
        },
        problem=CRASHED,
    ),
    "no node": Case(
        deployment(updated=1, total=1),
        {"ModelVerified": ("Unknown", "NotLoaded"), "Ready": ("False", "Unschedulable")},
        problem=NO_NODE,
    ),
    "too late": Case(
        deployment(
            updated=1, total=1, conditions=conditions_of_deployment("Progressing", "False", "ProgressDeadlineExceeded")
        ),
        {
            "Progressing": ("False", "ProgressDeadlineExceeded"),
            "Degraded": ("True", "ProgressDeadlineExceeded"),
            "Ready": ("False", "ProgressDeadlineExceeded"),
        },
    ),
    "paused by hand": Case(
        deployment(conditions=conditions_of_deployment("Progressing", "Unknown", "DeploymentPaused")),
        {"Progressing": ("False", "DeploymentPaused"), "Ready": ("False", "DeploymentPaused")},
    ),
    "what was too late before the change does not count": Case(
        deployment(stale=True, conditions=conditions_of_deployment("Progressing", "False", "ProgressDeadlineExceeded")),
        {"Progressing": ("True", "RollingOut")},
    ),
    "over quota": Case(
        deployment(conditions=conditions_of_deployment("ReplicaFailure", "True", "FailedCreate")),
        {"Progressing": ("False", "FailedCreate"), "Ready": ("False", "FailedCreate")},
    ),
    "nothing is wanted": Case(
        deployment(wanted=0),
        {
            "ModelVerified": ("Unknown", "ScaledToZero"),
            "Available": ("False", "ScaledToZero"),
            "Progressing": ("False", "ScaledToZero"),
            "Ready": ("True", "ScaledToZero"),
        },
        spec={"replicas": 0},
    ),
    "suspended": Case(
        deployment(wanted=0),
        {
            "ModelVerified": ("Unknown", "Suspended"),
            "Available": ("False", "Suspended"),
            "Progressing": ("False", "Suspended"),
            "Degraded": ("False", "AsExpected"),
            "Ready": ("False", "Suspended"),
        },
        spec={"suspend": True, "replicas": 3},
    ),
    "suspended, but a pod is left": Case(
        deployment(wanted=0, updated=1, total=1, available=1),
        {"Available": ("True", "Serving"), "Progressing": ("True", "RollingOut"), "Ready": ("False", "RollingOut")},
        spec={"suspend": True},
    ),
    "nothing is wanted, but a pod is left": Case(
        deployment(wanted=0, updated=1, total=1, available=1),
        {"Available": ("True", "Serving"), "Ready": ("False", "RollingOut")},
        spec={"replicas": 0},
    ),
    "somebody else's Service": Case(
        deployment(updated=1, total=1, available=1),
        {
            "ModelVerified": ("Unknown", "NotLoaded"),
            "Available": ("True", "Serving"),
            "Progressing": ("False", "ObjectConflict"),
            "Ready": ("False", "ObjectConflict"),
        },
        error=ObjectConflict("Service tiny exists already"),
    ),
    "nobody has fetched it": Case(
        deployment(total=1, updated=1), {"SourceResolved": ("Unknown", "NotFetched")}, spec=HUB, claim=None
    ),
    "being fetched": Case(
        deployment(
            total=1, updated=1, conditions=conditions_of_deployment("Progressing", "False", "ProgressDeadlineExceeded")
        ),
        {
            "SourceResolved": ("Unknown", "Fetching"),
            "Progressing": ("True", "Fetching"),
            "Ready": ("False", "Fetching"),
        },
        spec=HUB,
        claim=None,
        preparation=Preparation(fetching="tiny-1", progress=PROGRESS),
    ),
    "fetched, and being loaded": Case(
        deployment(total=1, updated=1),
        {"SourceResolved": ("True", "Fetched"), "Ready": ("False", "RollingOut")},
        spec=HUB,
        claim=None,
        preparation=Preparation(fetched="7 of 7 bytes were fetched"),
    ),
    "fetched before": Case(
        deployment(total=1, updated=1, available=1),
        {"SourceResolved": ("True", "Fetched"), "Ready": ("True", "Serving")},
        spec=HUB,
        claim=None,
        known=KNOWN,
    ),
    "a token that was revoked": Case(
        deployment(total=1, updated=1),
        {
            "SourceResolved": ("False", "Unauthorized"),
            "ModelVerified": ("Unknown", "NotLoaded"),
            "Ready": ("False", "Unauthorized"),
        },
        spec=HUB,
        claim=None,
        problem=REVOKED,
    ),
    "another file than was pinned": Case(
        deployment(total=1, updated=1),
        {
            "SourceResolved": ("False", "DigestMismatch"),
            "ModelVerified": ("False", "DigestMismatch"),
            "Ready": ("False", "DigestMismatch"),
        },
        spec=HUB,
        claim=None,
        problem=WRONG,
    ),
    "no claim for the cache": Case(
        None, {"SourceResolved": ("False", "ClaimNotFound")}, spec=SHARED, claim=None, known=KNOWN
    ),
    "an image that the nodes mount": Case(
        None,
        {"SourceResolved": ("True", "ImageVolume")},
        spec={"model": {"source": "oci://registry.example/models/tiny:1/tiny.gguf"}},
        claim=None,
    ),
    "memory follows from the model": Case(None, {"ResourcesFit": ("True", "SetFromModel")}, known=KNOWN),
    "memory that does": Case(
        None,
        {"ResourcesFit": ("True", "Enough")},
        spec={"resources": {"limits": {"memory": "4Gi"}}},
        known=KNOWN,
    ),
    "too little memory": Case(
        None,
        {"ResourcesFit": ("False", "MemoryTooSmall")},
        spec={"resources": {"requests": {"memory": "8Gi"}, "limits": {"memory": "2G"}}},
        known=KNOWN,
    ),
    "not understood": Case(
        None,
        {
            "SourceResolved": ("Unknown", "InvalidSpec"),
            "ModelVerified": ("Unknown", "InvalidSpec"),
            "Available": ("False", "NoPodServes"),
            "Progressing": ("False", "InvalidSpec"),
            "Ready": ("False", "InvalidSpec"),
        },
        error=InvalidSpec("spec.model.source: it is wrong"),
    ),
}


def status(case: Case, previous: dict[str, Any] | None = None, now: datetime = NOW) -> dict[str, Any]:
    return conditions.status(model(case.spec).identity, case.outcome(), previous or {}, now)


@pytest.mark.parametrize("name", CASES)
def test_conditions(name: str) -> None:
    case = CASES[name]
    found = {each["type"]: (each["status"], each["reason"]) for each in status(case)["conditions"]}
    assert list(found) == [
        "SourceResolved",
        "ModelVerified",
        "ResourcesFit",
        "Available",
        "Progressing",
        "Degraded",
        "Ready",
    ]
    assert {kind: found[kind] for kind in case.expected} == case.expected


@pytest.mark.parametrize("name", CASES)
def test_the_schema_takes_it(name: str) -> None:
    schema = crd.custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    jsonschema.validate(status(CASES[name]), schema["properties"]["status"])


@pytest.mark.parametrize("name", CASES)
def test_every_condition_is_about_this_generation_and_says_why(name: str) -> None:
    for each in status(CASES[name])["conditions"]:
        assert each["observedGeneration"] == 3
        assert each["message"]


def test_a_transition_has_a_time() -> None:
    before = status(CASES["nothing yet"])
    assert status(CASES["nothing yet"], before, LATER) == before
    after = status(CASES["serving"], before, LATER)
    times = {each["type"]: each["lastTransitionTime"] for each in after["conditions"]}
    assert times["SourceResolved"] == "2026-05-04T03:02:01Z", "it is True as before"
    assert times["Ready"] == "2026-05-04T03:02:09Z"


def test_another_reason_is_no_transition() -> None:
    before = status(CASES["nothing yet"])
    after = conditions.condition(status(CASES["no node"], before, LATER), "Ready")
    assert after is not None
    assert (after["reason"], after["lastTransitionTime"]) == ("Unschedulable", "2026-05-04T03:02:01Z")


def test_a_rollout_that_does_not_go_on_says_why() -> None:
    found = conditions.condition(status(CASES["the new model does not load, the old one serves"]), "Progressing")
    assert found is not None
    assert found["message"].endswith("; not a GGUF file (pod tiny-1)")


def test_what_else_there_is() -> None:
    found = status(CASES["one of three is missing"])
    del found["conditions"]
    assert found == {
        "observedGeneration": 3,
        "replicas": 3,
        "readyReplicas": 2,
        "updatedReplicas": 3,
        "availableReplicas": 2,
        "selector": "app.kubernetes.io/instance=tiny,app.kubernetes.io/name=inferno-runtime",
        "url": "http://tiny.demo.svc:8000/v1",
        "model": {"source": "pvc://models/tiny.gguf"},
    }


def test_a_fetch_shows_how_far_it_is() -> None:
    found = status(CASES["being fetched"])
    ready = conditions.condition(found, "Ready")
    assert ready is not None
    assert ready["message"] == "the model is being fetched: 1.0 GiB of 4.0 GiB, 64.0 MiB/s, 48 s left (pod tiny-1)"
    assert found["fetch"] == {"bytes": 2**30, "totalBytes": 2**32, "bytesPerSecond": 2**26, "remainingSeconds": 48}
    assert "fetch" not in status(CASES["fetched before"])


def test_too_little_memory_has_both_numbers() -> None:
    found = status(CASES["too little memory"])
    fit = conditions.condition(found, "ResourcesFit")
    assert fit is not None
    assert fit["message"].startswith(
        "spec.resources gives each pod 1.9 GiB of memory, and the model needs about 3.2 GiB: "
    )
    assert "weights 1.0 GiB, cache 2.0 GiB" in fit["message"]
    assert found["model"]["memoryBytes"] == 3_489_660_928


def test_what_is_known_is_known_of_one_source() -> None:
    spec = model(HUB).spec
    previous = {"model": KNOWN | {"source": "hf://org/repo/tiny.gguf", "memoryBytes": 1}}
    assert conditions.known_model(spec, previous)["format"] == "gguf"
    assert conditions.known_model(model().spec, previous) == {}
    now = Preparation(facts=ModelFacts(format="onnx"), sha256="cd" * 32)
    found = conditions.learnt(conditions.known_model(spec, previous), now)
    assert (found["format"], found["sha256"]) == ("onnx", "cd" * 32)


def test_a_pod_that_ran_out_of_memory_is_told_with_how_much_it_needs() -> None:
    killed = Problem("tiny-1", "OOMKilled", "it used more than it may", by_runtime=True)
    outcome = Case(deployment(wanted=1), {}, problem=killed, known=KNOWN).outcome()
    told = {each["type"]: each for each in conditions.status(model().identity, outcome, {}, NOW)["conditions"]}
    for kind in ("Ready", "Degraded", "ModelVerified"):
        assert "; set it to at least 3328Mi (pod tiny-1)" in told[kind]["message"]


def ready(status: str, reason: str, at: str) -> dict[str, Any]:
    return {"conditions": [{"type": "Ready", "status": status, "reason": reason, "lastTransitionTime": at}]}


MADE = "2026-01-01T00:00:00Z"
SERVES = ready("True", "Serving", "2026-01-01T00:01:30Z")
WAITS: dict[str, tuple[dict[str, Any], dict[str, Any], float | None]] = {
    "a new model": ({}, SERVES, 90.0),
    "one that had failed": (ready("False", "LoadFailed", "2026-01-01T00:01:00Z"), SERVES, 30.0),
    "one that serves on": (SERVES, SERVES, None),
    "one that is scaled to zero": ({}, ready("True", "ScaledToZero", "2026-01-01T00:01:00Z"), None),
    "one that is not ready yet": ({}, ready("False", "RollingOut", "2026-01-01T00:01:00Z"), None),
    "clocks that differ": (ready("False", "LoadFailed", "2026-01-01T00:02:00Z"), SERVES, 0.0),
}


@pytest.mark.parametrize(("before", "after", "seconds"), WAITS.values(), ids=WAITS)
def test_how_long_a_model_was_not_ready(before: dict[str, Any], after: dict[str, Any], seconds: float | None) -> None:
    assert conditions.became_ready(before, after, MADE) == seconds


def test_a_fetch_is_counted_once() -> None:
    outcome = Outcome(model().spec, None, preparation=Preparation(fetched="done", fetched_bytes=77))
    fetching = {"conditions": [{"type": "SourceResolved", "status": "Unknown", "reason": "Fetching"}]}
    fetched = {"conditions": [{"type": "SourceResolved", "status": "True", "reason": "Fetched"}]}
    assert conditions.just_fetched({}, outcome) == conditions.just_fetched(fetching, outcome) == 77
    assert conditions.just_fetched(fetched, outcome) == 0
