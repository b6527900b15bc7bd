"""A change of the resources of pods that run, and what is to be done next about it.

A Deployment answers any change of its template with new pods. So the pods are given their new resources first. Then the
template gets them while the Deployment is paused, and so does its ReplicaSet's; when the Deployment goes on it finds that
its pods are of that template already, and every new pod has these resources from its birth.

Where the pods cannot take them on, the template alone is changed, and new pods come as for any other change. Each step
follows from what there is, so any of them may be the last one of a process.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inferno_operator.api import names
from inferno_operator.drift import first_difference
from inferno_operator.manifests.deployment import RESIZABLE
from inferno_operator.manifests.digest import with_digest

Manifest = Mapping[str, Any]
Resources = dict[str, dict[str, Any]]

RESIZE_SECONDS: Final = 60.0
"""How long pods are given to take on what they were told to."""
_REVISION: Final = "deployment.kubernetes.io/revision"
_HASH_LABEL: Final = "pod-template-hash"


@dataclass(frozen=True, slots=True)
class Proceed:
    """Apply the Deployment as it is desired; ``refused`` says why pods that were to be resized are replaced."""

    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Resize:
    """Give these pods the resources; the Deployment stays as it is."""

    pods: tuple[Manifest, ...]
    resources: Resources


@dataclass(frozen=True, slots=True)
class Hold:
    """Leave the Deployment as it is: the pods, ``message`` says which, have been told."""

    message: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Apply the Deployment as it is desired, but paused."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """See to it that the ReplicaSet has the template of the Deployment, which is paused, and then proceed."""


Step = Proceed | Resize | Hold | Pause | Adopt


def next_step(desired: Manifest, observed: Manifest | None, pods: Sequence[Manifest], seconds: float) -> Step:
    """What is to be done about a Deployment and its pods; ``seconds`` is how long that has been tried by now."""
    if observed is None or not _holds_pods_of(observed, desired, pods):
        return Proceed()
    if _applied(observed) == _applied(paused(desired)):
        return Adopt()
    old, new = effective(observed["spec"]["template"]), effective(desired["spec"]["template"])
    unlike = tuple(pod for pod in pods if first_difference(new, pod_resources(pod)))
    if first_difference(new, old) is None and first_difference(old, new) is None:
        # Somebody else may size pods as well; only what the operator itself did is put right.
        strays = tuple(pod for pod in unlike if _resized_by_us(pod))
        return Resize(strays, new) if strays else Proceed()
    if not pods or not desired["spec"]["replicas"] or not _settled(observed) or _takes_away(old, new):
        return Proceed()
    if unlike:
        return Resize(unlike, new)
    if refused := next((why for pod in pods if (why := _refusal(pod))), None):
        return Proceed(refused)
    waited_for = [pod["metadata"]["name"] for pod in pods if not _carried_out(pod, new)]
    if not waited_for:
        return Pause()
    if seconds >= RESIZE_SECONDS:
        return Proceed(f"{', '.join(waited_for)} did not take on its new resources within {RESIZE_SECONDS:.0f} s")
    return Hold(f"pods take on {shown(new)} while they run: {', '.join(waited_for)}")


def paused(desired: Manifest) -> dict[str, Any]:
    """The Deployment as it is desired, but paused."""
    metadata = desired["metadata"]
    annotations = {name: text for name, text in metadata["annotations"].items() if name != names.DESIRED_DIGEST}
    spec = desired["spec"] | {"paused": True}
    return with_digest({**desired, "metadata": metadata | {"annotations": annotations}, "spec": spec})


def current_replica_set(deployment: Manifest, replica_sets: Iterable[Manifest]) -> Manifest | None:
    """The ReplicaSet that the Deployment's pods are of."""
    template = _template_digest(deployment["spec"]["template"])
    own = [
        each
        for each in replica_sets
        if any(owner["uid"] == deployment["metadata"]["uid"] for owner in each["metadata"].get("ownerReferences", ()))
        and _template_digest(each["spec"]["template"]) == template
    ]
    return max(own, key=lambda each: int(each["metadata"].get("annotations", {}).get(_REVISION, 0)), default=None)


def has_template(replica_set: Manifest, deployment: Manifest) -> bool:
    """Whether the ReplicaSet has the Deployment's template."""
    template = replica_set["spec"]["template"]
    labels = {name: text for name, text in template["metadata"]["labels"].items() if name != _HASH_LABEL}
    bare = template | {"metadata": template["metadata"] | {"labels": labels}}
    return bool(bare == deployment["spec"]["template"])


def is_seen(replica_set: Manifest) -> bool:
    """Whether the controller manager knows the ReplicaSet as it is: the controllers in it share what they know."""
    generation: int = replica_set["metadata"]["generation"]
    return bool(replica_set.get("status", {}).get("observedGeneration", 0) >= generation)


def with_template(replica_set: Manifest, deployment: Manifest) -> dict[str, Any]:
    """The ReplicaSet with the containers of the Deployment's template."""
    spec = replica_set["spec"]
    pod = spec["template"]["spec"] | {
        kind: containers
        for kind in ("containers", "initContainers")
        if (containers := deployment["spec"]["template"]["spec"].get(kind))
    }
    return {**replica_set, "spec": spec | {"template": spec["template"] | {"spec": pod}}}


def effective(template: Manifest) -> Resources:
    """What pods of a template are given of what can change while they run."""
    containers = template.get("spec", {}).get("containers", ())
    runtime: Manifest = next((each for each in containers if each.get("name") == names.CONTAINER), {})
    return _resizable(runtime.get("resources", {}))


def pod_resources(pod: Manifest) -> Resources:
    """What a pod was told to take."""
    return effective(pod)


def shown(resources: Resources) -> str:
    """For people: ``requests cpu 1, memory 2Gi; limits memory 4Gi``."""
    parts = (
        f"{kind} {', '.join(f'{name} {amount}' for name, amount in amounts.items())}"
        for kind, amounts in resources.items()
        if amounts
    )
    return "; ".join(parts)


def _resizable(given: Mapping[str, Any]) -> Resources:
    limits = given.get("limits") or {}
    # As the API server has it: a limit without a request is one.
    amounts = {"requests": limits | (given.get("requests") or {}), "limits": limits}
    return {kind: {name: of[name] for name in RESIZABLE if name in of} for kind, of in amounts.items()}


def _holds_pods_of(observed: Manifest, desired: Manifest, pods: Sequence[Manifest]) -> bool:
    """Whether nothing but resources parts the pods from the desired template."""
    digest = _template_digest(desired["spec"]["template"])
    of_pods = (pod["metadata"].get("annotations", {}).get(names.TEMPLATE_DIGEST) for pod in pods)
    return _template_digest(observed["spec"]["template"]) == digest and all(each == digest for each in of_pods)


def _settled(observed: Manifest) -> bool:
    """Whether the Deployment's pods are all there, and serve."""
    status, wanted = observed.get("status", {}), observed["spec"].get("replicas", 1)
    if status.get("observedGeneration", 0) < observed["metadata"].get("generation", 0):
        return False
    return all(status.get(count, 0) == wanted for count in ("replicas", "updatedReplicas", "availableReplicas"))


def _takes_away(old: Resources, new: Resources) -> bool:
    """Whether something is no longer asked for or limited, which is not to be had without new pods."""
    return any(name not in new[kind] for kind, amounts in old.items() for name in amounts)


def _refusal(pod: Manifest) -> str | None:
    """Why the pod's node will not do it."""
    pending = _condition(pod, "PodResizePending")
    if pending and pending.get("reason") == "Infeasible":
        return f"{pod['metadata']['name']}: {pending.get('message') or 'its node cannot'}"
    doing = _condition(pod, "PodResizeInProgress")
    if doing and doing.get("reason") == "Error":
        return f"{pod['metadata']['name']}: {doing.get('message') or 'its node has failed to'}"
    return None


def _carried_out(pod: Manifest, resources: Resources) -> bool:
    if _condition(pod, "PodResizePending") or _condition(pod, "PodResizeInProgress"):
        return False
    statuses = pod.get("status", {}).get("containerStatuses", ())
    runtime: Manifest = next((each for each in statuses if each["name"] == names.CONTAINER), {})
    return first_difference(resources, _resizable(runtime.get("resources", {}))) is None


def _condition(pod: Manifest, kind: str) -> Manifest | None:
    """A condition that is true of the pod as it is now, and not as it was told to be before."""
    generation = pod["metadata"].get("generation", 0)
    for each in pod.get("status", {}).get("conditions", ()):
        if (
            each["type"] == kind
            and each["status"] == "True"
            and each.get("observedGeneration", generation) >= generation
        ):
            return dict(each)
    return None


def _resized_by_us(pod: Manifest) -> bool:
    # Nothing else of a pod is ever written by the operator.
    return any(entry.get("manager") == names.FIELD_MANAGER for entry in pod["metadata"].get("managedFields", ()))


def _template_digest(template: Manifest) -> str | None:
    annotations: Mapping[str, str] = template["metadata"].get("annotations") or {}
    return annotations.get(names.TEMPLATE_DIGEST)


def _applied(manifest: Manifest) -> str | None:
    annotations: Mapping[str, str] = manifest["metadata"].get("annotations") or {}
    return annotations.get(names.DESIRED_DIGEST)
