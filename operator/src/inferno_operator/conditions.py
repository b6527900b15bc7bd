"""The status of a model, from what was seen and what was done about it.

``Ready`` says that the resource is as its current generation asks; ``Available`` that somebody answers, be it a pod of
an older generation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal

from inferno_operator import resources
from inferno_operator.api import names
from inferno_operator.api.resource import Identity
from inferno_operator.api.types import InfernoModelSpec
from inferno_operator.errors import TerminalError
from inferno_operator.manifests.event import News
from inferno_operator.pods import Problem
from inferno_operator.preparation import Preparation
from inferno_operator.profiles import Choice
from inferno_runtime.models.facts import ModelFacts
from inferno_runtime.models.need import explain
from inferno_runtime.sources import ClaimSource, FileSource, ImageSource, Source
from inferno_runtime.units import shown

Status = Literal["True", "False", "Unknown"]

SOURCE_RESOLVED: Final = "SourceResolved"
MODEL_VERIFIED: Final = "ModelVerified"
RESOURCES_FIT: Final = "ResourcesFit"
AVAILABLE: Final = "Available"
PROGRESSING: Final = "Progressing"
DEGRADED: Final = "Degraded"
RESIZING: Final = "Resizing"
"""A reason of Progressing and Ready."""
READY: Final = "Ready"

SCALED_TO_ZERO: Final = "ScaledToZero"
SUSPENDED: Final = "Suspended"
_CLAIM_NOT_FOUND, _CLAIM_LOST = "ClaimNotFound", "ClaimLost"
UNWATCHED: Final = frozenset({_CLAIM_NOT_FOUND, _CLAIM_LOST})
"""Reasons of SourceResolved that may go without any watch telling: others' claims are not watched."""
FETCHING: Final = "Fetching"
_FETCHED, _SERVING = "Fetched", "Serving"
_UNEVENTFUL: Final = frozenset({"RollingOut", RESIZING, SCALED_TO_ZERO, SUSPENDED})
_NOT_UNDERSTOOD: Final = "the spec was not understood, so nothing was looked at"
_MESSAGE_LENGTH: Final = 4096
# Why a fetch failed, where the files were had and are not what they should be.
_NOT_THE_MODEL: Final = frozenset({"DigestMismatch", "SizeMismatch", "NoModel"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """A condition without what only history knows."""

    type: str
    status: Status
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Replicas:
    """A Deployment's counts of pods. ``wanted`` is what the model asks for."""

    wanted: int
    total: int = 0
    updated: int = 0
    ready: int = 0
    available: int = 0

    @property
    def complete(self) -> bool:
        """Whether all pods that are wanted serve, are of the current template, and no others are left."""
        return self.wanted == self.updated == self.available == self.total

    @property
    def current_available(self) -> bool:
        """Whether some pod of the current template serves for certain: the older ones alone cannot account for all that
        do.
        """
        return self.available > self.total - self.updated


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one pass over a model saw and did.

    ``deployment`` is as it was *after* the pass applied it; None where there is none. ``claim`` is the claim of a
    ``pvc://`` source, or of the cache; None where it is missing or not needed. ``model`` is what is known of the model. ``spec`` is None where it was not understood, and
    ``error`` says why then.
    """

    spec: InfernoModelSpec | None
    deployment: Mapping[str, Any] | None = None
    claim: Mapping[str, Any] | None = None
    problem: Problem | None = None
    error: TerminalError | None = None
    preparation: Preparation = field(default_factory=Preparation)
    model: Mapping[str, Any] = field(default_factory=dict)
    profile: Choice | None = None
    resizing: str | None = None  # how far pods are that are given other resources while they run
    news: tuple[News, ...] = ()
    recheck: float | None = None  # seconds until the next look, for what no watch will report


def counts(outcome: Outcome) -> Replicas:
    """The counts of the model's pods.

    Those from before the Deployment's latest change are not taken for those after it.
    """
    wanted = outcome.spec.replicas if outcome.spec and not outcome.spec.suspend else 0
    deployment = outcome.deployment
    if deployment is None:
        return Replicas(wanted)
    status = deployment.get("status", {})
    current = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    total = status.get("replicas", 0)
    # While pods are being resized their Deployment does not take them for its own for a moment.
    updated = total if outcome.resizing else status.get("updatedReplicas", 0) if current else 0
    return Replicas(
        wanted,
        total=total,
        updated=updated,
        ready=status.get("readyReplicas", 0),
        available=status.get("availableReplicas", 0),
    )


def status(identity: Identity, outcome: Outcome, previous: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The whole status.

    ``previous`` is the one that the resource has, and lends the times of conditions that have not changed.
    """
    replicas, spec = counts(outcome), outcome.spec
    return {
        "observedGeneration": identity.generation,
        "conditions": _with_history(_verdicts(outcome, replicas), identity.generation, previous, now),
        "replicas": replicas.total,
        "readyReplicas": replicas.ready,
        "updatedReplicas": replicas.updated,
        "availableReplicas": replicas.available,
        "selector": names.label_selector(identity.name),
        "url": names.service_url(identity.name, identity.namespace),
        **({"autoscaling": {"replicas": spec.replicas}} if spec and _autoscaled(spec) else {}),
        **({"profile": outcome.profile.status()} if outcome.profile else {}),
        **_observed(outcome),
    }


def known_model(spec: InfernoModelSpec, previous: Mapping[str, Any]) -> dict[str, Any]:
    """What the status says of the model of this spec: nothing of a model from another source."""
    before = previous.get("model") or {}
    return dict(before) if before.get("source") == spec.model.source else {}


def learnt(known: Mapping[str, Any], now: Preparation) -> dict[str, Any]:
    """What is known of a model, with what its pods say now."""
    facts = now.facts.wire() if now.facts else {}
    return {**known, **facts} | ({"sha256": now.sha256} if now.sha256 else {})


def facts_of(known: Mapping[str, Any]) -> ModelFacts | None:
    """The facts among what is known of a model, if it has been inspected."""
    return ModelFacts.model_validate(known) if known.get("format") else None


def _observed(outcome: Outcome) -> dict[str, Any]:
    """``status.model`` and, while the model is fetched, ``status.fetch``."""
    if outcome.spec is None:
        return {}
    need = resources.needed(outcome.spec, facts_of(outcome.model))
    memory = {"memoryBytes": need.total} if need else {}
    model = {**outcome.model, "source": outcome.spec.model.source, **memory}
    progress = outcome.preparation.progress
    return {"model": model} | ({"fetch": progress.wire()} if progress else {})


def resizing_since(status: Mapping[str, Any]) -> datetime | None:
    """Since when pods are being resized, as of a status; None if they are not."""
    progressing = condition(status, PROGRESSING) or {}
    return datetime.fromisoformat(progressing["lastTransitionTime"]) if progressing.get("reason") == RESIZING else None


def became_ready(previous: Mapping[str, Any], status: Mapping[str, Any], made: str) -> float | None:
    """Seconds that a model that is ready as of this status was not; ``made``: when it was created. None: no such change."""
    before, after = condition(previous, READY) or {}, condition(status, READY) or {}
    if after.get("reason") != _SERVING or before.get("status") == "True":
        return None
    since, now = before.get("lastTransitionTime", made), after["lastTransitionTime"]
    return max((datetime.fromisoformat(now) - datetime.fromisoformat(since)).total_seconds(), 0.0)


def just_fetched(previous: Mapping[str, Any], outcome: Outcome) -> int:
    """Bytes of a fetch that the previous status did not yet know to be done."""
    known = (condition(previous, SOURCE_RESOLVED) or {}).get("reason") == _FETCHED
    return 0 if known else outcome.preparation.fetched_bytes


def condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """The condition of that type in a status."""
    return next((each for each in status.get("conditions", ()) if each.get("type") == kind), None)


def news(previous: Mapping[str, Any], current: Mapping[str, Any]) -> list[News]:
    """What a change of the status is worth telling: that of readiness, but for what a rollout passes through."""
    before, after = condition(previous, READY) or {}, condition(current, READY) or {}
    same = (before.get("status"), before.get("reason")) == (after["status"], after["reason"])
    if same or after["reason"] in _UNEVENTFUL:
        return []
    return [News(after["reason"], after["message"], healthy=after["status"] == "True")]


def _with_history(
    verdicts: Sequence[Verdict], generation: int, previous: Mapping[str, Any], now: datetime
) -> list[dict[str, Any]]:
    conditions = []
    for verdict in verdicts:
        before = condition(previous, verdict.type)
        unchanged = before is not None and before.get("status") == verdict.status and "lastTransitionTime" in before
        conditions.append(
            {
                "type": verdict.type,
                "status": verdict.status,
                "observedGeneration": generation,
                "lastTransitionTime": before["lastTransitionTime"]
                if before and unchanged
                else now.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "reason": verdict.reason,
                "message": verdict.message[:_MESSAGE_LENGTH],
            }
        )
    return conditions


def _verdicts(outcome: Outcome, replicas: Replicas) -> list[Verdict]:
    outcome = replace(outcome, problem=_with_remedy(outcome))
    resolved = _source_resolved(outcome)
    progressing = _progressing(outcome, replicas)
    return [
        resolved,
        _model_verified(outcome, replicas),
        _resources_fit(outcome),
        _available(outcome, replicas),
        progressing,
        _degraded(outcome, replicas, progressing),
        _ready(outcome, replicas, resolved, progressing),
    ]


def _with_remedy(outcome: Outcome) -> Problem | None:
    """The problem; of one that more memory puts right, with how much."""
    problem = outcome.problem
    if problem is None or problem.reason != "OOMKilled" or outcome.spec is None:
        return problem
    need = resources.needed(outcome.spec, facts_of(outcome.model))
    if need is None:
        return problem
    return replace(problem, message=f"{problem.message}; set it to at least {resources.quantity_of(need)}")


def _source_resolved(outcome: Outcome) -> Verdict:
    if outcome.spec is None:
        return Verdict(SOURCE_RESOLVED, "Unknown", "InvalidSpec", _NOT_UNDERSTOOD)
    source: Source = outcome.spec.model.parsed_source()
    if isinstance(source, ClaimSource):
        return _claim_resolved(outcome, source.claim, "create it or change spec.model.source") or _unresolved(
            outcome, Verdict(SOURCE_RESOLVED, "True", "ClaimFound", f"PersistentVolumeClaim {source.claim} exists")
        )
    if isinstance(source, FileSource):
        found = Verdict(SOURCE_RESOLVED, "True", "FileInImage", f"the image is to carry {source.path}")
        return _unresolved(outcome, found)
    if isinstance(source, ImageSource):
        found = Verdict(SOURCE_RESOLVED, "True", "ImageVolume", f"the nodes are to mount the image {source.image}")
        return _unresolved(outcome, found)
    storage = outcome.spec.storage
    if storage and storage.claim_name and (lost := _claim_resolved(outcome, storage.claim_name, "create it")):
        return lost
    return _fetched(outcome)


def _claim_resolved(outcome: Outcome, claim: str, remedy: str) -> Verdict | None:
    """What is wrong with a claim that the model needs."""
    if outcome.claim is None:
        message = f"there is no PersistentVolumeClaim {claim} in this namespace; {remedy}"
        return Verdict(SOURCE_RESOLVED, "False", _CLAIM_NOT_FOUND, message)
    if outcome.claim.get("status", {}).get("phase") == "Lost":
        return Verdict(SOURCE_RESOLVED, "False", _CLAIM_LOST, f"PersistentVolumeClaim {claim} has lost its volume")
    return None


def _unresolved(outcome: Outcome, otherwise: Verdict) -> Verdict:
    """What the containers say that look at the model first, if something is wrong."""
    problem = outcome.problem
    if problem and problem.by_fetch:
        return Verdict(SOURCE_RESOLVED, "False", problem.reason, f"{problem.message} (pod {problem.pod})")
    return otherwise


def _fetched(outcome: Outcome) -> Verdict:
    preparation = outcome.preparation
    if preparation.fetched:
        return Verdict(SOURCE_RESOLVED, "True", _FETCHED, preparation.fetched)
    if preparation.fetching:
        return Verdict(SOURCE_RESOLVED, "Unknown", FETCHING, _progress(outcome))
    if outcome.model.get("sha256"):
        otherwise = Verdict(SOURCE_RESOLVED, "True", _FETCHED, f"fetched before, digest {outcome.model['sha256']}")
    else:
        otherwise = Verdict(SOURCE_RESOLVED, "Unknown", "NotFetched", "no pod has begun to fetch the model yet")
    return _unresolved(outcome, otherwise)


def _progress(outcome: Outcome) -> str:
    progress, pod = outcome.preparation.progress, outcome.preparation.fetching
    if progress is None:
        return f"the model is being fetched (pod {pod})"
    parts = [shown(progress.bytes) + (f" of {shown(progress.total_bytes)}" if progress.total_bytes else "")]
    if progress.bytes_per_second:
        parts.append(f"{shown(progress.bytes_per_second)}/s")
    if progress.remaining_seconds is not None:
        parts.append(f"{progress.remaining_seconds} s left")
    return f"the model is being fetched: {', '.join(parts)} (pod {pod})"


def _resources_fit(outcome: Outcome) -> Verdict:
    if outcome.spec is None:
        return Verdict(RESOURCES_FIT, "Unknown", "InvalidSpec", _NOT_UNDERSTOOD)
    need = resources.needed(outcome.spec, facts_of(outcome.model))
    if need is None:
        return Verdict(RESOURCES_FIT, "Unknown", "NotInspected", "no pod has read the model's header yet")
    given = resources.given_memory(outcome.spec)
    if given is None:
        message = f"each pod asks for the memory that the model needs or more, {explain(need)}"
        return Verdict(RESOURCES_FIT, "True", "SetFromModel", message)
    if given < need.total:
        message = (
            f"spec.resources gives each pod {shown(float(given))} of memory, and the model needs about {explain(need)}"
        )
        return Verdict(RESOURCES_FIT, "False", "MemoryTooSmall", message)
    message = f"spec.resources gives each pod {shown(float(given))} of memory, and the model needs {explain(need)}"
    return Verdict(RESOURCES_FIT, "True", "Enough", message)


def _model_verified(outcome: Outcome, replicas: Replicas) -> Verdict:
    """A pod becomes ready only after the runtime has checked the file, its digest too where one is given, and made a
    token with it.
    """
    if outcome.spec is None:
        return Verdict(MODEL_VERIFIED, "Unknown", "InvalidSpec", _NOT_UNDERSTOOD)
    if outcome.error is None and replicas.current_available:
        return Verdict(MODEL_VERIFIED, "True", "Loaded", "a pod has loaded the model and answers")
    problem = outcome.problem
    if problem and problem.by_runtime:
        return Verdict(MODEL_VERIFIED, "False", "LoadFailed", f"{problem.message} (pod {problem.pod})")
    if problem and problem.by_fetch and problem.reason in _NOT_THE_MODEL:
        return Verdict(MODEL_VERIFIED, "False", problem.reason, f"{problem.message} (pod {problem.pod})")
    if replicas.wanted == 0:
        return Verdict(MODEL_VERIFIED, "Unknown", _why_none(outcome), "no pod is wanted, so none has loaded the model")
    return Verdict(MODEL_VERIFIED, "Unknown", "NotLoaded", "no pod of this generation has loaded the model yet")


def _available(outcome: Outcome, replicas: Replicas) -> Verdict:
    if replicas.available:
        return Verdict(AVAILABLE, "True", _SERVING, f"pods that serve requests: {replicas.available}")
    if outcome.spec and replicas.wanted == 0:
        return Verdict(AVAILABLE, "False", _why_none(outcome), "no pod is wanted")
    return Verdict(AVAILABLE, "False", "NoPodServes", "no pod serves requests")


def _progressing(outcome: Outcome, replicas: Replicas) -> Verdict:
    if outcome.error is not None:
        return Verdict(PROGRESSING, "False", outcome.error.reason, str(outcome.error))
    if outcome.resizing:
        return Verdict(PROGRESSING, "True", RESIZING, outcome.resizing)
    if replicas.complete:
        if replicas.wanted == 0:
            return Verdict(PROGRESSING, "False", _why_none(outcome), "no pod is wanted, and none is left")
        return Verdict(PROGRESSING, "False", "RolloutComplete", f"all {replicas.wanted} pods are of this generation")
    if outcome.preparation.fetching:
        # It may take longer than a Deployment gives a pod to become ready, and is no failure for that.
        return Verdict(PROGRESSING, "True", FETCHING, _progress(outcome))
    deployment = outcome.deployment or {}
    current = deployment.get("status", {}).get("observedGeneration", 0) >= deployment.get("metadata", {}).get(
        "generation", 0
    )
    reported = {each["type"]: each for each in deployment.get("status", {}).get("conditions", ())} if current else {}
    if (failure := reported.get("ReplicaFailure")) and failure["status"] == "True":
        return Verdict(
            PROGRESSING,
            "False",
            failure.get("reason", "ReplicaFailure"),
            failure.get("message", "pods cannot be created"),
        )
    if (progress := reported.get("Progressing")) and progress["status"] != "True":  # too late, or paused by hand
        return Verdict(
            PROGRESSING, "False", progress.get("reason", "Stalled"), progress.get("message", "the rollout has stalled")
        )
    message = (
        f"{replicas.updated} of {replicas.wanted} pods are of this generation, {replicas.available} serve requests"
    )
    if replicas.total > replicas.updated:
        message += f", {replicas.total - replicas.updated} of an older one are left"
    if problem := outcome.problem:
        message += f"; {problem.message} (pod {problem.pod})"
    return Verdict(PROGRESSING, "True", "RollingOut", message)


def _degraded(outcome: Outcome, replicas: Replicas, progressing: Verdict) -> Verdict:
    """Whether something keeps the model from being as it should, in words: a pod that fails, or the resource itself. Pods
    of an older version that serve on do not hide it.
    """
    if outcome.error is not None:
        return Verdict(DEGRADED, "True", outcome.error.reason, str(outcome.error))
    if problem := outcome.problem:
        return Verdict(DEGRADED, "True", problem.reason, f"{problem.message} (pod {problem.pod})")
    if progressing.status == "False" and not replicas.complete:
        return Verdict(DEGRADED, "True", progressing.reason, progressing.message)
    return Verdict(DEGRADED, "False", "AsExpected", "nothing is known to be wrong")


def _autoscaled(spec: InfernoModelSpec) -> bool:
    return spec.autoscaling is not None and spec.autoscaling.by == "Operator" and not spec.suspend


def _why_none(outcome: Outcome) -> str:
    return SUSPENDED if outcome.spec and outcome.spec.suspend else SCALED_TO_ZERO


def _ready(outcome: Outcome, replicas: Replicas, resolved: Verdict, progressing: Verdict) -> Verdict:
    """The most telling reason first: what somebody has to do something about, then what only takes time."""
    if outcome.error is None and replicas.complete and not outcome.resizing:
        if outcome.spec and outcome.spec.suspend:
            return Verdict(READY, "False", SUSPENDED, "spec.suspend is true; the model is not served")
        if replicas.wanted == 0:
            # As asked for; that nobody answers is what Available says.
            return Verdict(READY, "True", SCALED_TO_ZERO, "spec.replicas is 0; the model is not served")
        return Verdict(READY, "True", _SERVING, f"all {replicas.wanted} pods serve requests")
    if outcome.error is not None:
        return Verdict(READY, "False", outcome.error.reason, str(outcome.error))
    if resolved.status == "False":
        return Verdict(READY, "False", resolved.reason, resolved.message)
    if resolved.reason == FETCHING:
        return Verdict(READY, "False", FETCHING, resolved.message)
    if problem := outcome.problem:
        return Verdict(READY, "False", problem.reason, f"{problem.message} (pod {problem.pod})")
    return Verdict(READY, "False", progressing.reason, progressing.message)
