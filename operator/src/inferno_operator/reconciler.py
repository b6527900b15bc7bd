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

from inferno_operator import conditions, manifests, metrics, preparation, profiles
from inferno_operator.api import names
from inferno_operator.api.kinds import CHILDREN, OPTIONAL, POD, Kind
from inferno_operator.api.resource import Identity, Key, Model, parse_spec
from inferno_operator.api.types import InfernoModelSpec
from inferno_operator.autoscaler import Autoscaler
from inferno_operator.cluster import Cluster
from inferno_operator.conditions import Outcome
from inferno_operator.drift import first_difference
from inferno_operator.errors import (
    InvalidSpec,
    KindMissing,
    ObjectConflict,
    ReconcileError,
    TerminalError,
    UnknownProfile,
)
from inferno_operator.evictions import Evictions
from inferno_operator.manifests import event
from inferno_operator.manifests.event import News
from inferno_operator.manifests.source import cache_claim
from inferno_operator.plan import Apply, Conflict, plan, prune
from inferno_operator.pods import Problem, first_problem
from inferno_operator.preparation import Preparation
from inferno_operator.profiles import Choice, Profiles
from inferno_operator.resizer import Resizer, Resizing
from inferno_operator.store import Object
from inferno_runtime.models.facts import ModelFacts
from inferno_runtime.sources import ClaimSource

_log = logging.getLogger(__name__)

# What no watch tells is looked at again meanwhile: a claim that a model waits for, and the log of a fetch.
RECHECK_SECONDS: Final = 10.0
# Of the kinds that a cluster need not know, those without which the model would not be as it asks to be.
_PROMISED: Final = {
    "HTTPRoute": "install the Gateway API, or remove spec.network.httpRoute",
    "ScaledObject": "install KEDA, or change spec.autoscaling.by",
}


@dataclass(frozen=True, slots=True)
class Pass:
    """How a pass ended.

    ``recheck`` is the seconds until the next look, for what no watch will report; None is for no hurry.
    """

    recheck: float | None = None
    error: TerminalError | None = None


def _named(manifest: Mapping[str, Any]) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def _soonest(*times: float | None) -> float | None:
    return min((each for each in times if each is not None), default=None)


def _any_of(kind: Kind, manifests: list[Object]) -> bool:
    return any(manifest["kind"] == kind.name for manifest in manifests)


@dataclass(frozen=True, slots=True)
class Placed:
    """A spec with its hardware profile; ``recheck`` is the seconds until that has had its time."""

    spec: InfernoModelSpec
    choice: Choice | None
    recheck: float | None = None
    news: tuple[News, ...] = ()


class Reconciler:
    """Brings models and what belongs to them together.

    Holds no state about any of them, so any number may run at once.
    """

    def __init__(
        self,
        cluster: Cluster,
        runtime_image: str,
        instance: str,
        namespace: str | None = None,
        profiles: Profiles | None = None,
        autoscaler: Autoscaler | None = None,
        evictions: Evictions | None = None,
    ) -> None:
        self._cluster = cluster
        self._runtime_image = runtime_image
        self._instance = instance
        self._namespace = namespace
        self._profiles = profiles or {}
        self._autoscaler = autoscaler or Autoscaler(cluster.store)
        self._evictions = evictions or Evictions()
        self._resizer = Resizer(cluster)

    async def reconcile(self, key: Key) -> Pass:
        """One pass.

        Raises TransientError if the cluster could not answer; every other failure is told in the model's status.
        """
        body = await self._cluster.get(names.KIND, key.namespace, key.name)
        if body is None or body["metadata"].get("deletionTimestamp"):
            self._autoscaler.forget(key)
            return Pass()  # what belongs to it goes with it: Kubernetes follows the owner references
        await self._let_go(key)
        outcome = await self._bring_about(body)
        reported = await self._report(body, outcome)
        source = conditions.condition(reported, conditions.SOURCE_RESOLVED) or {}
        unwatched = source.get("reason") in conditions.UNWATCHED or outcome.preparation.fetching
        return Pass(_soonest(outcome.recheck, RECHECK_SECONDS if unwatched else None), outcome.error)

    async def _let_go(self, key: Key) -> None:
        """Deletes the pods that their nodes evict, so that no more requests are sent to them."""
        for pod in self._evictions.under_way(self._cluster.store.owned(key, POD.name)):
            await self._cluster.delete({"kind": POD.name, **pod})
            _log.info("deleted Pod %s, which its node evicts", pod["metadata"]["name"])

    async def _bring_about(self, body: Object) -> Outcome:
        identity = Identity.of(body)
        try:
            model = Model(identity, parse_spec(body))
        except ValueError as error:
            # The pods of an earlier generation may well serve on.
            deployment = await self._cluster.get("Deployment", identity.namespace, identity.name)
            return Outcome(None, deployment, error=InvalidSpec(str(error)))
        known = conditions.known_model(model.spec, body.get("status", {}))
        try:
            placement = self._place(model, conditions.facts_of(known), body.get("status", {}))
        except UnknownProfile as error:
            return await self._as_it_was(model, known, error)
        spec, news = self._scale(identity.key, placement.spec, body.get("status", {}))
        placed = Model(identity, spec, placement.choice.name if placement.choice else None)
        outcome = await self._bring_about_placed(placed, known, body.get("status", {}))
        return replace(
            outcome,
            profile=placement.choice,
            recheck=_soonest(outcome.recheck, placement.recheck),
            news=placement.news + news + outcome.news,
        )

    async def _as_it_was(self, model: Model, known: dict[str, Any], error: TerminalError) -> Outcome:
        """Nothing can be done for the model; what serves it serves on."""
        deployment = await self._cluster.get("Deployment", model.identity.namespace, model.identity.name)
        return Outcome(model.spec, deployment, await self._claim(model), error=error, model=known)

    def _scale(
        self, key: Key, spec: InfernoModelSpec, status: Mapping[str, Any]
    ) -> tuple[InfernoModelSpec, tuple[News, ...]]:
        """The spec with as many replicas as the autoscaler has decided on."""
        if spec.autoscaling is None or spec.autoscaling.by != "Operator" or spec.suspend:
            self._autoscaler.forget(key)
            return spec, ()
        replicas, news = self._autoscaler.follow(key, spec, status)
        return spec.model_copy(update={"replicas": replicas}), (news,) if news else ()

    async def _bring_about_placed(self, model: Model, known: dict[str, Any], status: Mapping[str, Any]) -> Outcome:
        """Brings the children about; ``known`` is what the status says of the model."""
        facts, fetched = conditions.facts_of(known), "sha256" in known
        try:
            rendered = manifests.render(
                model, self._runtime_image, facts, fetched=fetched, operator_namespace=self._namespace
            )
            desired = await self._possible(rendered)
        except KindMissing as error:
            return await self._as_it_was(model, known, error)
        claim, *observed = await asyncio.gather(self._claim(model), *(self._observe(child) for child in desired))
        children = {_named(child): found for child, found in zip(desired, observed, strict=True)}
        serving = ("Deployment", model.identity.name)
        resizing = await self._resize(model, desired, children[serving], status)
        desired = [resizing.manifest if _named(child) == serving else child for child in desired]
        try:
            await self._apply(model, desired, children)
        except TerminalError as error:
            return Outcome(model.spec, children[serving], claim, error=error, model=known)
        outcome = Outcome(
            model.spec,
            children[serving],
            claim,
            model=known,
            resizing=resizing.message,
            recheck=resizing.recheck,
            news=resizing.news,
        )
        prefetching = any(child["kind"] == "Job" for child in desired)
        if conditions.counts(outcome).complete and facts and not prefetching:
            return outcome
        problem, prepared = await self._look_at_pods(model, desired)
        learnt = conditions.learnt(known, prepared)
        # What the pods have found out changes what is desired, and no watch tells of our own status.
        recheck = _soonest(outcome.recheck, 0.0 if learnt != known else None)
        return replace(outcome, problem=problem, preparation=prepared, model=learnt, recheck=recheck)

    async def _resize(
        self, model: Model, desired: list[Object], observed: Object | None, status: Mapping[str, Any]
    ) -> Resizing:
        """What is made of the Deployment for now, where its pods are to have other resources."""
        [deployment] = [child for child in desired if child["kind"] == "Deployment"]
        since = conditions.resizing_since(status)
        seconds = (datetime.now(UTC) - since).total_seconds() if since else 0.0
        return await self._resizer.step(model.identity, deployment, observed, seconds)

    async def _possible(self, desired: list[Object]) -> list[Object]:
        """``desired`` without what is only for clusters that know of it. Raises KindMissing where that was a promise."""
        missing = {kind.name for kind in OPTIONAL if _any_of(kind, desired) and not await self._cluster.serves(kind)}
        for kind, remedy in _PROMISED.items():
            if kind in missing:
                raise KindMissing(f"the cluster does not know {kind}s: {remedy}")
        return [child for child in desired if child["kind"] not in missing]

    def _place(self, model: Model, facts: ModelFacts | None, status: Mapping[str, Any]) -> Placed:
        """The spec with what its hardware profile adds: the next one where no node takes a pod of the one in use."""
        choice = profiles.current(model.spec, self._profiles, status)
        spec = profiles.placed(model.spec, choice, self._profiles)
        if choice is None or choice.next is None:
            return Placed(spec, choice)
        pods = self._cluster.store.owned(model.identity.key, POD.name)
        template = manifests.pod_template(Model(model.identity, spec, choice.name), self._runtime_image, facts)
        since = profiles.no_node_since(pods, template["metadata"]["annotations"][names.TEMPLATE_DIGEST])
        if since is None:
            return Placed(spec, choice)
        left = profiles.left(spec, since, datetime.now(UTC))
        if left > 0:
            return Placed(spec, choice, recheck=left)
        note = f"no node has taken a pod of the profile {choice.name} since {since:%H:%M:%S} UTC; the next is {choice.next.name}"
        spec = profiles.placed(model.spec, choice.next, self._profiles)
        return Placed(spec, choice.next, news=(News("ProfileFallback", note, healthy=False),))

    async def _observe(self, manifest: Mapping[str, Any]) -> Object | None:
        metadata = manifest["metadata"]
        return await self._cluster.get(manifest["kind"], metadata["namespace"], metadata["name"])

    async def _claim(self, model: Model) -> Object | None:
        """The claim that the model is in, or is to be kept in."""
        source = model.spec.model.parsed_source()
        claim = source.claim if isinstance(source, ClaimSource) else cache_claim(model)
        return await self._cluster.get("PersistentVolumeClaim", model.identity.namespace, claim) if claim else None

    async def _apply(self, model: Model, desired: list[Object], children: dict[tuple[str, str], Object | None]) -> None:
        """Carries out the plan, and puts what comes of it in the place of what was observed, by kind and name.

        What is about to go, or belongs to somebody else, counts as absent. If anything conflicts, nothing is written.
        """
        actions = plan(model.identity, ((child, children[_named(child)]) for child in desired))
        for action in actions:
            if not isinstance(action, Apply):
                children[_named(action.manifest)] = None
        if conflicts := [action.detail for action in actions if isinstance(action, Conflict)]:
            raise ObjectConflict("; ".join(conflicts))
        for action in actions:
            if isinstance(action, Apply):
                children[_named(action.manifest)] = await self._cluster.apply(action.manifest)
                _log.info("applied %s %s: %s: %s", *_named(action.manifest), action.cause, action.detail)
        for unwanted in prune(model.identity, desired, await self._there(model, desired)):
            await self._cluster.delete(unwanted.manifest)
            _log.info("deleted %s %s", *_named(unwanted.manifest))

    async def _there(self, model: Model, desired: list[Object]) -> list[Object]:
        """What there is of the model's."""
        key = model.identity.key
        there = [each for kind in CHILDREN for each in self._cluster.store.owned(key, kind.name)]
        for kind in OPTIONAL:
            if not _any_of(kind, desired) and await self._cluster.serves(kind):
                found = await self._cluster.get(kind.name, key.namespace, key.name)
                there += [found] if found else []
        return there

    async def _look_at_pods(self, model: Model, desired: list[Object]) -> tuple[Problem | None, Preparation]:
        """Why pods do not serve, and what they have found out about the model."""
        pods = self._cluster.store.owned(model.identity.key, POD.name)
        seen = []
        for child in desired:
            if child["kind"] in ("Deployment", "Job"):
                current = child["spec"]["template"]["metadata"]["annotations"][names.TEMPLATE_DIGEST]
                seen.append((first_problem(pods, current), preparation.observe(pods, current)))
        problem = next((problem for problem, _ in reversed(seen) if problem), None)
        prepared = preparation.furthest(each for _, each in seen)
        if prepared.fetching and not prepared.fetched:
            # That a fetch begins and ends the watches tell; how far it is stands in its log alone.
            log = await self._cluster.log_tail(model.identity.namespace, prepared.fetching, names.FETCH_CONTAINER)
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
        metrics.DOWNLOAD_BYTES.inc(conditions.just_fetched(previous, outcome))
        seconds = conditions.became_ready(previous, status, body["metadata"]["creationTimestamp"])
        if seconds is not None:
            metrics.READY_SECONDS.observe(seconds)
        for news in (*outcome.news, *conditions.news(previous, status)):
            await self._tell(identity, news, now)
        return status

    async def _tell(self, identity: Identity, news: News, now: datetime) -> None:
        _log.info("%s: %s", news.reason, news.note)
        try:
            await self._cluster.create_once(event.render(identity, news, now=now, instance=self._instance))
        except ReconcileError as error:
            _log.warning("no Event could be written: %s", error)  # the status says it too
