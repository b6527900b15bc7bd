"""One pass over one model: observe, render, plan, apply, status.

A pass is level-triggered. It asks what there is and not what has happened, and a second pass right after the first
finds nothing to do.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from inferno_operator import conditions, manifests, preparation
from inferno_operator.api import names
from inferno_operator.api.resource import Identity, Model, parse_spec
from inferno_operator.cluster import Cluster, Object
from inferno_operator.conditions import Outcome
from inferno_operator.drift import first_difference
from inferno_operator.errors import InvalidSpec, ObjectConflict, ReconcileError, TerminalError
from inferno_operator.manifests import event
from inferno_operator.manifests.source import cache_claim
from inferno_operator.plan import Apply, Conflict, plan
from inferno_operator.pods import Problem, first_problem
from inferno_operator.preparation import Preparation
from inferno_runtime.sources import ClaimSource

_log = logging.getLogger(__name__)

# What is not watched, claims and pods, is looked at again while a model waits for it.
RECHECK_SECONDS: Final = 10.0
# A header is soon read, and the sooner the pods are given the memory that follows from it, the less is fetched twice.
_INSPECTION_SECONDS: Final = 2.0
_PODS_LOOKED_AT: Final = 20
# What a rollout passes through is no news; these are.
_UNEVENTFUL: Final = frozenset({"RollingOut", conditions.SCALED_TO_ZERO})


@dataclass(frozen=True, slots=True)
class Key:
    """Names an InfernoModel in the queue."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Pass:
    """How a pass ended.

    ``recheck`` is the seconds until the next look, for what no watch will report; None is for no hurry.
    """

    recheck: float | None = None
    error: TerminalError | None = None


class Reconciler:
    """Brings models and what belongs to them together.

    Holds no state about any of them, so any number may run at once.
    """

    def __init__(self, cluster: Cluster, runtime_image: str, instance: str) -> None:
        self._cluster = cluster
        self._runtime_image = runtime_image
        self._instance = instance

    async def reconcile(self, key: Key) -> Pass:
        """One pass.

        Raises TransientError if the cluster could not answer; every other failure is told in the model's status.
        """
        body = await self._cluster.get(names.KIND, key.namespace, key.name)
        if body is None or body["metadata"].get("deletionTimestamp"):
            return Pass()  # what belongs to it goes with it: Kubernetes follows the owner references
        outcome = await self._bring_about(body)
        reported = await self._report(body, outcome)
        ready = conditions.condition(reported, conditions.READY) or {}
        soon = _INSPECTION_SECONDS if outcome.preparation.inspecting else RECHECK_SECONDS
        waits = ready.get("status") != "True" or outcome.preparation.fetching is not None
        return Pass(soon if waits else None, outcome.error)

    async def _bring_about(self, body: Object) -> Outcome:
        identity = Identity.of(body)
        try:
            model = Model(identity, parse_spec(body))
        except ValueError as error:
            # The pods of an earlier generation may well serve on.
            deployment = await self._cluster.get("Deployment", identity.namespace, identity.name)
            return Outcome(None, deployment, error=InvalidSpec(str(error)))
        known = conditions.known_model(model.spec, body.get("status", {}))
        facts, fetched = conditions.facts_of(known), "sha256" in known
        desired = manifests.render(model, self._runtime_image, facts, fetched=fetched)
        prefetching = any(child["kind"] == "Job" for child in desired)
        claim, *observed = await asyncio.gather(self._claim(model), *(self._observe(child) for child in desired))
        children = {child["kind"]: found for child, found in zip(desired, observed, strict=True)}
        try:
            await self._apply(model, desired, children)
        except TerminalError as error:
            return Outcome(model.spec, children["Deployment"], claim, error=error, model=known)
        outcome = Outcome(model.spec, children["Deployment"], claim, model=known)
        if conditions.counts(outcome).complete and facts and not prefetching:
            return outcome
        problem, prepared = await self._look_at_pods(model, desired)
        known = conditions.known_model(model.spec, body.get("status", {}), prepared)
        return replace(outcome, problem=problem, preparation=prepared, model=known)

    async def _observe(self, manifest: Mapping[str, Any]) -> Object | None:
        metadata = manifest["metadata"]
        return await self._cluster.get(manifest["kind"], metadata["namespace"], metadata["name"])

    async def _claim(self, model: Model) -> Object | None:
        """The claim that the model is in, or is to be kept in."""
        source = model.spec.model.parsed_source()
        claim = source.claim if isinstance(source, ClaimSource) else cache_claim(model)
        return await self._cluster.get("PersistentVolumeClaim", model.identity.namespace, claim) if claim else None

    async def _apply(self, model: Model, desired: list[Object], children: dict[str, Object | None]) -> None:
        """Carries out the plan, and puts what comes of it in the place of what was observed, by kind.

        What is about to go, or belongs to somebody else, counts as absent. If anything conflicts, nothing is written.
        """
        actions = plan(model.identity, ((child, children[child["kind"]]) for child in desired))
        for action in actions:
            if not isinstance(action, Apply):
                children[action.manifest["kind"]] = None
        if conflicts := [action.detail for action in actions if isinstance(action, Conflict)]:
            raise ObjectConflict("; ".join(conflicts))
        for action in actions:
            if isinstance(action, Apply):
                kind, name = action.manifest["kind"], action.manifest["metadata"]["name"]
                children[kind] = await self._cluster.apply(action.manifest)
                _log.info("applied %s %s: %s: %s", kind, name, action.cause, action.detail)

    async def _look_at_pods(self, model: Model, desired: list[Object]) -> tuple[Problem | None, Preparation]:
        """Why pods do not serve, and what they have found out about the model.

        Asked of them only where that is not known: nobody watches every pod of a cluster for this.
        """
        identity = model.identity
        selectors = {
            "Deployment": names.label_selector(identity.name),
            "Job": names.prefetch_selector(identity.name),
        }
        seen = []
        for child in desired:
            if selector := selectors.get(child["kind"]):
                current = child["spec"]["template"]["metadata"]["annotations"][names.TEMPLATE_DIGEST]
                pods = await self._cluster.pods(identity.namespace, selector, _PODS_LOOKED_AT)
                seen.append((first_problem(pods, current), preparation.observe(pods, current)))
        problem = next((problem for problem, _ in reversed(seen) if problem), None)
        prepared = preparation.furthest(each for _, each in seen)
        if prepared.fetching and not prepared.fetched:
            log = await self._cluster.log_tail(identity.namespace, prepared.fetching, names.FETCH_CONTAINER)
            prepared = replace(prepared, progress=preparation.parse_progress(log))
            if problem and problem.by_fetch and prepared.progress is None:
                prepared = replace(prepared, fetching=None)  # it tries again, and has not yet come further than before
            elif problem and problem.by_fetch:
                problem = None
        return problem, prepared

    async def _report(self, body: Object, outcome: Outcome) -> dict[str, Any]:
        """Writes the status if it has changed, and tells of a change of readiness; returns the status."""
        identity, previous, now = Identity.of(body), body.get("status", {}), datetime.now(UTC)
        status = conditions.status(identity, outcome, previous, now)
        if first_difference(status, previous) is None:
            return status
        manifest = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            # With the uid a namesake that was made meanwhile is not taken for this one.
            "metadata": {"name": identity.name, "namespace": identity.namespace, "uid": identity.uid},
            "status": status,
        }
        await self._cluster.apply_status(manifest)
        await self._tell(identity, previous, status, now)
        return status

    async def _tell(
        self, identity: Identity, previous: Mapping[str, Any], status: Mapping[str, Any], now: datetime
    ) -> None:
        before, after = (
            conditions.condition(previous, conditions.READY) or {},
            conditions.condition(status, conditions.READY),
        )
        assert after is not None
        if after["reason"] in _UNEVENTFUL or (before.get("status"), before.get("reason")) == (
            after["status"],
            after["reason"],
        ):
            return
        _log.info("Ready is %s: %s: %s", after["status"], after["reason"], after["message"])
        healthy = after["status"] == "True"
        news = event.render(
            identity, healthy=healthy, reason=after["reason"], note=after["message"], now=now, instance=self._instance
        )
        try:
            await self._cluster.create_once(news)
        except ReconcileError as error:
            _log.warning("no Event could be written: %s", error)  # the condition says it too
